"""`sampan node`: nodes of a running cluster, and this machine as a node of a cluster elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Nodes: join a cluster elsewhere with this machine, add and remove nodes.")
Cluster = Annotated[str, typer.Option("--name", help="Which cluster.")]


@app.command()
def add(cluster: Cluster = "default") -> None:
    """Start one more node on this machine; returns when it is Ready."""
    from sampan.cluster import config as configuration
    from sampan.cluster import node_changes

    with configuration.locked(_say):
        node = node_changes.add(configuration.existing(cluster), _say)
    print(f"{node} is Ready")


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

    with configuration.locked(_say):
        config = configuration.existing(cluster)
        ours = node_changes.remove(config, node, force=force, timeout=timeout, say=_say)
    print(f"{node} is removed{'' if ours else '; run `sampan node reset` on its machine'}")


def _say(text: str) -> None:
    print(text, flush=True)
