"""`sampan node`: nodes of a running cluster, and this machine as a node of a cluster elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Nodes: join a cluster elsewhere with this machine; add and remove nodes of one that is here.",
    invoke_without_command=True,
)
Cluster = Annotated[str, typer.Option("--name", help="Which cluster.")]


@app.callback()
def node(
    context: typer.Context,
    join: Annotated[str, typer.Option(help="URL of the API of the cluster to join: https://HOST:PORT.")] = "",
    token: Annotated[str, typer.Option(help="A token from `sampan token create`.")] = "",
    ca_hash: Annotated[str, typer.Option(help="The hash of the cluster's authority, printed with it.")] = "",
    name: Annotated[str, typer.Option(help="Name of the node; that of the machine unless given.")] = "",
    address: Annotated[
        list[str] | None,
        typer.Option(help="Address of the node, one a family; by which it reaches the API unless given."),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Label of the node: KEY=VALUE.")] = None,
    taint: Annotated[list[str] | None, typer.Option(help="Taint of the node: KEY[=VALUE]:EFFECT.")] = None,
    ingress: Annotated[
        bool | None,
        typer.Option(
            "--ingress/--no-ingress",
            help="Whether Ingresses are reached at this machine, by an HAProxy on its ports 80 and 443; not unless given. The"
            " token must allow it: `sampan token create --ingress`.",
        ),
    ] = None,
    host: Annotated[
        bool, typer.Option("--host", help="The node is this machine itself; so it is with --join always.")
    ] = False,
) -> None:
    """Without a command: be a node of the cluster that was joined, in the foreground. Ctrl-C ends the node's own processes;
    its containers go on, and the same command without a token takes it up again."""
    if context.invoked_subcommand is not None:
        return
    from sampan.cluster import join_command

    join_command.run(
        join_command.Arguments(
            join, token, ca_hash, name, tuple(address or ()), tuple(label or ()), tuple(taint or ()), ingress
        ),
        _say,
    )


@app.command()
def add(cluster: Cluster = "default") -> None:
    """Start one more node on this machine; returns when it is Ready."""
    from sampan.cluster import config as configuration
    from sampan.cluster import node_changes

    with configuration.locked(_say):
        made = node_changes.add(configuration.existing(cluster), _say)
    print(f"{made} is Ready")


@app.command()
def remove(
    node: Annotated[str, typer.Argument(help="Its name, as `kubectl get nodes` shows it.")],
    cluster: Cluster = "default",
    force: Annotated[bool, typer.Option(help="Also where pods go that no controller makes anew.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that its pods may take to leave.")] = 120.0,
) -> None:
    """Drain a node, then delete it with all that it has on this machine."""
    from sampan.cluster import config as configuration
    from sampan.cluster import node_changes

    config = configuration.existing(cluster)
    ours = node_changes.remove(config, node, force=force, timeout=timeout, say=_say)
    print(f"{node} is removed{'' if ours else '; run `sampan node reset` on its machine'}")


@app.command()
def rules(
    service: Annotated[
        str, typer.Argument(help="NAME or NAMESPACE/NAME of a Service; all unless given.")
    ] = "",
    node: Annotated[str, typer.Option(help="On which node; the first unless given.")] = "",
    cluster: Cluster = "default",
) -> None:
    """Say in words what the proxy of a node has in the kernel for a Service: who is behind each of its addresses, and how
    many connections each got."""
    from sampan.cli import node_rules

    print(node_rules.show(cluster, service, node))


@app.command()
def reset() -> None:
    """Remove every trace of a node that joined from this machine, its containers included."""
    from sampan.cluster import join_command

    print(join_command.reset(_say))


def _say(text: str) -> None:
    print(text, flush=True)
