"""Images on disk: unpacked layers, and a record for each image; shared by the nodes of a cluster and the command line.

    layers/CHAIN/fs     a layer's tree, ready to be a lower directory of an overlay; CHAIN names it and all below it
    records/ID.json     an image: names, digests, layers, configuration
    work/               what is being unpacked

A record is written whole or not at all, under a lock between processes; a layer appears by a rename once complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sampan.linux.mounts import remove_tree
from sampan.node.images import unpack
from sampan.node.images.types import Image, ImageConfig, ImageError

MAXIMUM_LAYER = 64 << 30
"""Most bytes a layer may unpack to."""


class ImageStore:
    """The images below `directory`. Reads are cached until a record changes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._layers = directory / "layers"
        self._records = directory / "records"
        self._work = directory / "work"
        for path in (self._layers, self._records, self._work):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stamp = -1
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}

    @property
    def work(self) -> Path:
        """A place on the same file system for what is under way."""
        return self._work

    def images(self) -> list[Image]:
        self._refresh()
        return list(self._images.values())

    def find(self, name: str) -> Image | None:
        """By full name (with tag or digest) or id."""
        self._refresh()
        return self._images.get(self._names.get(name, name))

    def put(
        self, config: Mapping[str, Any], image_id: str, layers: Sequence[str], *, tags: Sequence[str],
        digests: Sequence[str] = (), size: int, pinned: bool = False,
    ) -> Image:  # fmt: skip
        """Record an image; its tags leave the images that had them. `layers` are chain ids, lowest first. Raises
        ImageError where one of them is not there any more."""
        with self._locked():
            self._refresh()
            # Whoever removed an image meanwhile took layers along that no record named yet.
            for chain in layers:
                if not self.layer_path(chain).is_dir():
                    raise ImageError(f"layer {chain} was removed while the image was fetched")
            before = self._images.get(image_id)
            image = Image(
                id=image_id,
                tags=before.tags if before else (),
                digests=_merged(before.digests if before else (), digests),
                size=size,
                pinned=pinned or bool(before and before.pinned),
                layers=tuple(str(self._layers / _hex(chain) / "fs") for chain in layers),
                config=_image_config(config),
            )
            self._write(image)
            self._refresh()
            return self._name(image_id, tags)

    def name(self, image: Image, tags: Sequence[str]) -> Image:
        """Give an image further tags; they leave the images that had them."""
        with self._locked():
            self._refresh()
            return self._name(image.id, tags)

    def _name(self, image_id: str, tags: Sequence[str]) -> Image:
        for other in list(self._images.values()):
            if other.id != image_id and set(tags) & set(other.tags):
                self._write(dataclasses.replace(other, tags=tuple(t for t in other.tags if t not in tags)))
        image = self._images[image_id]
        self._write(dataclasses.replace(image, tags=_merged(image.tags, tags)))
        self._refresh()
        return self._images[image_id]

    def remove(self, name: str) -> bool:
        """Take a name away, or the image with all its names where `name` is an id; layers nothing uses any more go
        too. False where there is none."""
        with self._locked():
            self._refresh()
            image = self.find(name)
            if image is None:
                return False
            tags = () if name == image.id else tuple(t for t in image.tags if t != name)
            digests = () if name == image.id else tuple(d for d in image.digests if d != name)
            if tags:
                self._write(dataclasses.replace(image, tags=tags, digests=digests))
            else:
                self._record(image.id).unlink()
            self._refresh()
            used = {layer for i in self._images.values() for layer in i.layers}
            for directory in self._layers.iterdir():
                if str(directory / "fs") not in used:
                    remove_tree(directory)
            return True

    async def add_layer(self, below: Sequence[str], diff_id: str, tar: Path) -> str:
        """Unpack a layer (an uncompressed tar with digest `diff_id`) over the layers `below`; returns its chain id.
        One that is there already costs nothing. Raises ImageError."""
        chain = chain_id(below, diff_id)
        final = self._layers / _hex(chain)
        if final.is_dir():
            return chain
        found = await asyncio.to_thread(_digest_of, tar)
        if found != diff_id:
            raise ImageError(f"layer {diff_id} is damaged: its content has digest {found}")
        work = Path(tempfile.mkdtemp(dir=self._work))
        try:
            upper, scratch = work / "layer" / "fs", work / "overlay"
            upper.mkdir(parents=True, mode=0o755)
            scratch.mkdir()
            lowers = [str(self._layers / _hex(c) / "fs") for c in reversed(below)]
            await _unpack(lowers, upper, scratch, tar)
            with contextlib.suppress(OSError):  # ENOTEMPTY: another process was first
                (work / "layer").rename(final)
        finally:
            await asyncio.to_thread(remove_tree, work)
        return chain

    def layer_path(self, chain: str) -> Path:
        return self._layers / _hex(chain) / "fs"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self._directory / ".lock", "w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield

    def _record(self, image_id: str) -> Path:
        return self._records / f"{_hex(image_id)}.json"

    def _write(self, image: Image) -> None:
        path = self._record(image.id)
        temporary = path.with_suffix(".new")
        with open(temporary, "w") as f:
            json.dump(dataclasses.asdict(image), f)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)

    def _refresh(self) -> None:
        stamp = self._records.stat().st_mtime_ns
        if stamp == self._stamp:
            return
        images, names = {}, {}
        for path in self._records.glob("*.json"):
            image = _image(json.loads(path.read_text()))
            images[image.id] = image
            for name in (*image.tags, *image.digests):
                names[name] = image.id
        self._images, self._names, self._stamp = images, names, stamp


def chain_id(below: Sequence[str], diff_id: str) -> str:
    """The OCI chain id of a layer over others: it names the tree they make together."""
    if not below:
        return diff_id
    return "sha256:" + hashlib.sha256(f"{below[-1]} {diff_id}".encode()).hexdigest()


async def _unpack(lowers: Sequence[str], upper: Path, work: Path, tar: Path) -> None:
    with open(tar, "rb") as source:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", unpack.__file__, ":".join(lowers), str(upper), str(work), str(MAXIMUM_LAYER),
            stdin=source, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
    if process.returncode:
        raise ImageError(f"cannot unpack a layer: {said.decode(errors='replace').strip()}")


def _digest_of(path: Path) -> str:
    with open(path, "rb") as f:
        return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _merged(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*old, *new)))


def _image_config(raw: Mapping[str, Any]) -> ImageConfig:
    """The part of an OCI image configuration's `config` that matters here."""
    return ImageConfig(
        entrypoint=tuple(raw.get("Entrypoint") or ()),
        cmd=tuple(raw.get("Cmd") or ()),
        env=tuple((k, v) for k, _, v in (e.partition("=") for e in raw.get("Env") or ())),
        working_dir=raw.get("WorkingDir") or "",
        user=raw.get("User") or "",
        stop_signal=raw.get("StopSignal") or "",
        exposed_ports=tuple(raw.get("ExposedPorts") or ()),
        volumes=tuple(raw.get("Volumes") or ()),
        labels=dict(raw.get("Labels") or {}),
    )


def _image(raw: Mapping[str, Any]) -> Image:
    config = raw["config"]
    return Image(
        id=raw["id"],
        tags=tuple(raw["tags"]),
        digests=tuple(raw["digests"]),
        size=raw["size"],
        pinned=raw["pinned"],
        layers=tuple(raw["layers"]),
        config=ImageConfig(
            entrypoint=tuple(config["entrypoint"]),
            cmd=tuple(config["cmd"]),
            env=tuple((k, v) for k, v in config["env"]),
            working_dir=config["working_dir"],
            user=config["user"],
            stop_signal=config["stop_signal"],
            exposed_ports=tuple(config["exposed_ports"]),
            volumes=tuple(config["volumes"]),
            labels=config["labels"],
        ),
    )
