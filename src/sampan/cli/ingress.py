"""`sampan ingress`: what the front door does."""

from __future__ import annotations

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

    from sampan.cluster import config as configuration
    from sampan.cluster import ingress_nodes
    from sampan.cluster.errors import ClusterError
    from sampan.ingress.haproxy import in_force
    from sampan.ingress.haproxy.files import Files
    from sampan.ingress.haproxy.runtime import NoAnswer

    config = configuration.existing(cluster)
    having = [n for n in config.nodes if ingress_nodes.on(config, n)]
    if node and node not in having:
        raise ClusterError(f"--node {node!r} has no front door; allowed are {', '.join(having) or 'none'}")
    if not having:
        raise ClusterError(f"cluster {cluster} has no front door: it was started with --no-ingress")
    files = Files(config.run_directory / "nodes" / (node or having[0]) / "ingress", ())
    try:
        found = asyncio.run(in_force.rows(files))
    except NoAnswer as e:
        raise ClusterError(f"the front door of {node or having[0]} does not answer: {e}") from e
    lines = [
        _COLUMNS,
        *((r.host, r.path or "-", r.match, r.target, r.endpoints, r.source) for r in found),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    for line in lines:
        print("   ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
