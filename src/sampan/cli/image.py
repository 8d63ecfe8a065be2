"""`sampan image`: the images of the nodes' shared store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sampan.node.images.service import LocalImages

app = typer.Typer(help="Images of the nodes' shared store.", no_args_is_help=True)
Cluster = Annotated[str, typer.Option("--name", help="Which cluster.")]


def _images(cluster: str) -> LocalImages:
    from sampan.cluster import config as configuration
    from sampan.cluster import joined
    from sampan.node.images.service import LocalImages
    from sampan.node.images.store import ImageStore

    if cluster == "default" and configuration.load(cluster) is None and joined.load() is not None:
        # A machine that is a node of a cluster elsewhere has a store of its own.
        return LocalImages(ImageStore(joined.IMAGES), joined.registries_file())
    config = configuration.existing(cluster)
    return LocalImages(ImageStore(config.images_directory), config.registries_file)


@app.command()
def build(
    recipes: Annotated[list[Path], typer.Argument(help="Directories with a recipe.toml.")],
    cluster: Cluster = "default",
) -> None:
    """Build images from Debian packages and load them."""
    import asyncio

    from sampan.node.images import recipe

    images = _images(cluster)
    for directory in recipes:
        archive = recipe.build(recipe.Recipe.load(directory), say=lambda text: print(text, flush=True))
        for image in asyncio.run(images.load(archive)):
            print(f"loaded {', '.join(image.tags)}")


@app.command()
def load(
    archives: Annotated[list[Path], typer.Argument(help="OCI or docker archives.")],
    cluster: Cluster = "default",
    tag: Annotated[
        list[str] | None, typer.Option(help="Name for an image that the archive does not name.")
    ] = None,
) -> None:
    """Load image archives; what is loaded is pinned: kept, and started without asking a registry."""
    import asyncio

    images = _images(cluster)
    for archive in archives:
        for image in asyncio.run(images.load(archive, tag or ())):
            print(f"loaded {', '.join(image.tags)}")


@app.command()
def pull(names: list[str], cluster: Cluster = "default") -> None:
    """Fetch images from their registries, or the mirrors of registries.yaml, ahead of the pods that need them."""
    import asyncio

    images = _images(cluster)
    for name in names:
        image = asyncio.run(images.pull_image(name))
        print(f"pulled {', '.join(image.tags)}")


@app.command("ls")
def list_(cluster: Cluster = "default") -> None:
    """List the images."""
    import asyncio

    found = asyncio.run(_images(cluster).list_images())
    rows = [
        (
            name,
            image.id.removeprefix("sha256:")[:12],
            f"{image.size / 1e6:.1f} MB",
            "pinned" if image.pinned else "",
        )
        for image in found
        for name in image.tags or ("<none>",)
    ]
    for name, short, size, pinned in sorted(rows):
        print(f"{name:<56} {short}  {size:>10}  {pinned}".rstrip())


@app.command()
def rm(names: list[str], cluster: Cluster = "default") -> None:
    """Remove images by name or id."""
    import asyncio

    from sampan.node.images.types import ImageError

    images = _images(cluster)
    for name in names:
        if asyncio.run(images.image_status(name)) is None:
            raise ImageError(f"there is no image {name}; see `sampan image ls`")
        asyncio.run(images.remove_image(name))
