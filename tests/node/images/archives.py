"""Image archives made in the tests, entry by entry, also such as no honest builder makes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def layer(entries: Sequence[tuple[str, str | bytes | tarfile.TarInfo]]) -> bytes:
    """A tar: (name, content) is a file, (name, "-> target") a symlink, (name, "=> target") a hard link, ("name/", "")
    a directory, and a TarInfo is taken as it is."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(content, str) and content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:]
                tar.addfile(info)
            elif isinstance(content, str) and content.startswith("=> "):
                info.type, info.linkname = tarfile.LNKTYPE, content[3:]
                tar.addfile(info)
            elif name.endswith("/"):
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                data = content.encode() if isinstance(content, str) else content
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def docker_archive(
    path: Path,
    layers: Sequence[bytes],
    tags: Sequence[str],
    config: Mapping[str, Any] | None = None,
    diff_ids: Sequence[str] = (),
) -> Path:
    """A docker archive as `docker save` writes it; its configuration may lie about its layers (`diff_ids`)."""
    digests = [hashlib.sha256(data).hexdigest() for data in layers]
    document = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids) or [f"sha256:{d}" for d in digests]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": list(tags), "Layers": [f"{d}.tar" for d in digests]}]
    with tarfile.open(path, "w") as tar:
        files = {"config.json": document, "manifest.json": json.dumps(manifest).encode()}
        files.update({f"{d}.tar": data for d, data in zip(digests, layers, strict=True)})
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
