"""`sampan token`: with which other machines join a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from sampan.client.https import HttpsClient
    from sampan.cluster.config import ClusterConfig

app = typer.Typer(help="Tokens with which other machines join the cluster.", no_args_is_help=True)
Cluster = Annotated[str, typer.Option("--name", help="Which cluster.")]
T = TypeVar("T")


@app.command()
def create(
    cluster: Cluster = "default",
    ttl: Annotated[
        str, typer.Option(help="How long it may be used, such as 1h30m; 0 for without an end.")
    ] = "24h",
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    ingress: Annotated[
        bool,
        typer.Option(
            "--ingress",
            help="Machines that join by it may be front doors, which read all TLS Secrets of the cluster, keys included.",
        ),
    ] = False,
) -> None:
    """Make a token and print the command for another machine."""
    from sampan.cluster import config as configuration
    from sampan.cluster import ingress_nodes, join_objects, join_tokens

    config = configuration.existing(cluster)
    seconds = join_tokens.parse_ttl(ttl)
    server, warning = join_objects.server_for_machines(config)

    async def work(client: HttpsClient) -> str:
        await join_objects.ensure(client, config, server, front_doors=ingress)
        return await join_tokens.create(client, seconds, description, front_door=ingress)

    token = _asked(config, work)
    forwards = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    doors = ingress_nodes.warning_for_machines(config) if ingress else ""
    for said in filter(None, (warning, join_objects.way_to_local_pods(config, forwards), doors)):
        typer.echo(f"warning: {said}", err=True)
    authority = join_tokens.ca_hash(config.directory / "pki" / "ca.crt")
    print(
        f"sampan node --join {server} --token {token} --ca-hash {authority}{' --ingress' if ingress else ''}"
    )


@app.command("list")
def list_(cluster: Cluster = "default") -> None:
    """The tokens there are."""
    from sampan.cluster import config as configuration
    from sampan.cluster import join_tokens

    found = _asked(configuration.existing(cluster), join_tokens.listed)
    rows = [("TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS")]
    for t in found:
        row = (t.token, _left(t.seconds), t.expires, ",".join(t.usages), t.description, ",".join(t.groups))
        rows.append(tuple(cell or "<none>" for cell in row))  # type: ignore[arg-type]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def delete(
    tokens: Annotated[list[str], typer.Argument(help="Tokens, or their ids (the part before the dot).")],
    cluster: Cluster = "default",
) -> None:
    """Delete tokens; nobody joins by them any more. Machines that have joined stay."""
    from sampan.cluster import config as configuration
    from sampan.cluster import join_tokens

    config = configuration.existing(cluster)
    for token in tokens:

        async def work(client: HttpsClient, token: str = token) -> str:
            return await join_tokens.delete(client, token)

        print(f'bootstrap token "{_asked(config, work)}" deleted')


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "<forever>"
    if seconds <= 0:
        return "<invalid>"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _asked(config: ClusterConfig, work: Callable[[HttpsClient], Awaitable[T]]) -> T:
    from sampan.cluster import asking

    return asking.ask(config, work)
