"""The image service: names to images, pulls (one at a time a name), archives loaded by hand."""

from __future__ import annotations

import asyncio
import json
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sampan.node.images import skopeo
from sampan.node.images.reference import Reference, parse
from sampan.node.images.store import ImageStore
from sampan.node.images.types import Credentials, Image, ImageError


class LocalImages:
    """An `ImageService` over a store on disk. `registries` is the path of a `registries.yaml` that may be missing;
    it is read at each pull."""

    def __init__(self, store: ImageStore, registries: Path) -> None:
        self._store = store
        self._registries = registries
        self._pulls: dict[str, asyncio.Task[Image]] = {}

    async def image_status(self, name: str) -> Image | None:
        if name.startswith("sha256:"):
            return self._store.find(name)
        return self._store.find(str(parse(name)))

    async def pull_image(self, name: str, credentials: Sequence[Credentials] = ()) -> Image:
        reference = parse(name)
        key = str(reference)
        pull = self._pulls.get(key)
        if pull is None:
            pull = asyncio.create_task(self._pull(reference, credentials), name=f"pull {key}")
            self._pulls[key] = pull
            pull.add_done_callback(lambda _: self._pulls.pop(key, None))
        # Whoever stops waiting does not end the pull for the others.
        return await asyncio.shield(pull)

    async def list_images(self) -> list[Image]:
        return self._store.images()

    async def remove_image(self, name: str) -> None:
        await asyncio.to_thread(self._store.remove, name if name.startswith("sha256:") else str(parse(name)))

    async def load(self, archive: Path, names: Sequence[str] = ()) -> list[Image]:
        """Load an OCI or docker archive; its images are pinned. `names` are given to an image that has none (or to
        the only one there is). Raises ImageError."""
        sources = await asyncio.to_thread(_sources, archive)
        loaded = []
        for kind, image, tags in sources:
            given = [str(parse(n)) for n in (names if names and len(sources) == 1 else tags)]
            if not given:
                raise ImageError(f"{archive} does not name its image: give a name")
            work = Path(tempfile.mkdtemp(dir=self._store.work))
            try:
                settings = self._settings(work, ())
                (work / "image").mkdir()
                # The file by a name without a colon, after which skopeo reads a reference.
                (work / "archive").symlink_to(archive.absolute())
                fetched = await skopeo.copy(f"{kind}:{work}/archive{image}", work / "image", settings)
                loaded.append(await self._keep(fetched, tags=given, pinned=True))
            finally:
                await asyncio.to_thread(shutil.rmtree, work, True)
        return loaded

    async def _pull(self, reference: Reference, credentials: Sequence[Credentials]) -> Image:
        work = Path(tempfile.mkdtemp(dir=self._store.work))
        try:
            settings = self._settings(work, credentials)
            digest = reference.digest or await skopeo.digest(reference, settings)
            exact = Reference(reference.registry, reference.repository, digest=digest)
            tags = [] if reference.digest else [str(reference)]
            present = self._store.find(str(exact))
            if present is not None:
                if not set(tags) <= set(present.tags):
                    present = self._store.name(present, tags)
                return present
            (work / "image").mkdir()
            fetched = await skopeo.copy(f"docker://{exact}", work / "image", settings)
            return await self._keep(fetched, tags=tags, digests=[str(exact)])
        except ImageError as e:
            raise ImageError(f'failed to pull image "{reference}": {e}', e.reason) from e
        finally:
            await asyncio.to_thread(shutil.rmtree, work, True)

    async def _keep(
        self,
        fetched: skopeo.Fetched,
        *,
        tags: Sequence[str],
        digests: Sequence[str] = (),
        pinned: bool = False,
    ) -> Image:
        chain: list[str] = []
        for diff_id, tar in fetched.layers:
            chain.append(await self._store.add_layer(chain, diff_id, tar))
        return self._store.put(
            fetched.config.get("config") or {},
            fetched.id,
            chain,
            tags=tags,
            digests=digests,
            size=fetched.size,
            pinned=pinned,
        )

    def _settings(self, work: Path, credentials: Sequence[Credentials]) -> Path:
        return skopeo.write_settings(work, skopeo.Registries.load(self._registries), credentials)


def _sources(archive: Path) -> list[tuple[str, str, list[str]]]:
    """The images in an archive, each with the kind of archive and its place in it as skopeo names them, and its tags.
    Raises ImageError."""
    try:
        with tarfile.open(archive) as tar:
            names = {m.name.removeprefix("./"): m for m in tar}
            if "index.json" in names and "oci-layout" in names:
                index = json.loads(_member(tar, names["index.json"]))
                found = []
                for manifest in index["manifests"]:
                    notes = manifest.get("annotations") or {}
                    ref = notes.get("org.opencontainers.image.ref.name", "")
                    tag = notes.get("io.containerd.image.name") or (ref if "/" in ref or ":" in ref else "")
                    found.append(("oci-archive", f":{ref}" if ref else "", [tag] if tag else []))
                return found
            if "manifest.json" in names:
                entries = json.loads(_member(tar, names["manifest.json"]))
                return [
                    ("docker-archive", f":@{i}", list(entry.get("RepoTags") or []))
                    for i, entry in enumerate(entries)
                ]
    except FileNotFoundError as e:
        raise ImageError(f"there is no file {archive}") from e
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ImageError(f"{archive} is no image archive: {e}") from e
    raise ImageError(f"{archive} is no image archive: neither index.json nor manifest.json is in it")


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    f = tar.extractfile(member)
    return f.read(16 << 20) if f is not None else b""
