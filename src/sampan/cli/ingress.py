"""`sampan ingress`: what the front door does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The front door: what Ingresses lead to.", no_args_is_help=True)
Cluster = Annotated[str, typer.Option("--name", help="Which cluster.")]
_COLUMNS = ("HOST", "PATH", "MATCH", "BACKEND", "ENDPOINTS", "FROM")


@app.callback()
def ingress() -> None:
    """The front door: what Ingresses lead to."""


@app.command()
def routes(
    cluster: Cluster = "default",
    node: Annotated[str, typer.Option(help="Whose proxy to ask; the first that has one unless given.")] = "",
) -> None:
    """Print the routes in force, as the node's running proxy has them, and where each one came from."""
    import asyncio

    from sampan.cluster.errors import ClusterError
    from sampan.ingress.haproxy import in_force
    from sampan.ingress.haproxy.files import Files
    from sampan.ingress.haproxy.runtime import NoAnswer

    asked, directory = _front_door(cluster, node)
    try:
        found = asyncio.run(in_force.rows(Files(directory, ())))
    except NoAnswer as e:
        raise ClusterError(f"the front door of {asked} does not answer: {e}") from e
    lines = [
        _COLUMNS,
        *((r.host, r.path or "-", r.match, r.target, r.endpoints, r.source) for r in found),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    for line in lines:
        print("   ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _front_door(cluster: str, node: str) -> tuple[str, Path]:
    """Whose front door is asked, and where its files are: a node's of a cluster here, or that of this machine, which joined one.
    Raises ClusterError."""
    from sampan.cluster import config as configuration
    from sampan.cluster import ingress_nodes, joined
    from sampan.cluster.errors import ClusterError

    if configuration.load(cluster) is None and (machine := joined.load()) is not None:
        having = {machine.name: joined.RUN_DIRECTORY / "node"} if machine.ingress else {}
        why = "this machine has no front door: it joined without --ingress"
    else:
        config = configuration.existing(cluster)
        nodes = config.run_directory / "nodes"
        having = {n: nodes / n for n in config.nodes if ingress_nodes.on(config, n)}
        why = f"cluster {cluster} has no front door on this machine (--no-ingress, --ingress-nodes)"
    if node and node not in having:
        allowed = ", ".join(having) or "none"
        raise ClusterError(
            f"--node {node!r} has no front door here; allowed are {allowed}, and a machine that joined is asked on itself"
        )
    if not having:
        raise ClusterError(why)
    asked = node or next(iter(having))
    return asked, having[asked] / "ingress"
