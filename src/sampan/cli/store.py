"""`sampan store`: the objects of a cluster, as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sampan.cluster.config import ClusterConfig

app = typer.Typer(help="The objects of a cluster, as a whole.", no_args_is_help=True)
Cluster = Annotated[str, typer.Option("--name", help="Which cluster.")]


def _say(text: str) -> None:
    print(text, flush=True)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write.")], cluster: Cluster = "default"
) -> None:
    """Write all objects at one revision to a file; the cluster may run."""
    from sampan.cluster import store_care

    revision, count = store_care.backup(_existing(cluster), file)
    print(f"{count} objects at revision {revision} are in {file}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A backup's file.")], cluster: Cluster = "default"
) -> None:
    """Put a backup in the place of all objects of a stopped cluster."""
    from sampan.cluster import config as configuration
    from sampan.cluster import store_care

    with configuration.locked():
        revision, count = store_care.restore(_existing(cluster), file, _say)
    print(
        f"{count} objects are restored, at revision {revision}; `sampan up --name {cluster}` goes on from there"
    )


@app.command()
def migrate(
    to: Annotated[str, typer.Argument(help="sqlite, etcd or etcd://HOST:PORT,...")],
    cluster: Cluster = "default",
    etcd_cafile: Annotated[str, typer.Option(help="Who signs the certificates of the etcd.")] = "",
    etcd_certfile: Annotated[str, typer.Option(help="The certificate to show to it.")] = "",
    etcd_keyfile: Annotated[str, typer.Option(help="Its key.")] = "",
) -> None:
    """Move all objects of a stopped cluster to another, empty store."""
    from sampan.cluster import config as configuration
    from sampan.cluster import store_care
    from sampan.cluster.wishes import Wishes

    wishes = Wishes(
        name=cluster,
        store=to,
        etcd_cafile=etcd_cafile,
        etcd_certfile=etcd_certfile,
        etcd_keyfile=etcd_keyfile,
    )
    with configuration.locked():
        config = store_care.migrate(_existing(cluster), wishes, _say)
    print(f"cluster {cluster} is on {config.store}; `sampan up --name {cluster}` goes on from there")


@app.command()
def check(cluster: Cluster = "default") -> None:
    """Say what is damaged; exit code 1 if anything is."""
    from sampan.cluster import store_care

    problems = store_care.check(_existing(cluster))
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print(f"the store of cluster {cluster} is sound")


def _existing(name: str) -> ClusterConfig:
    from sampan.cluster import config as configuration

    return configuration.existing(name)
