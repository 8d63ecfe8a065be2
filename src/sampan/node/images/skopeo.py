"""skopeo: fetches images from registries and archives into a plain directory, with mirrors and credentials.

skopeo verifies digests, picks the platform and knows every archive and compression format; what it leaves is a
manifest, the configuration, and uncompressed layers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.node.images.reference import Reference
from sampan.node.images.types import Credentials, ImageError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DROP = re.compile(r'^time="[^"]*" level=\w+ msg="?(.*?)"?$')


@dataclass(frozen=True, slots=True)
class Registries:
    """`registries.yaml`: where images are fetched instead (`mirrors`: registry -> endpoints) and with which
    credentials and checks (`configs`: registry -> auth, tls). The format is the one k3s reads."""

    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Registries:
        """Read the file; none is no mirrors. Raises ImageError where it is not of the form."""
        if not path.exists():
            return cls()
        import yaml

        try:
            raw = yaml.safe_load(path.read_text()) or {}
            mirrors = {
                str(k): tuple(str(e) for e in v["endpoint"]) for k, v in (raw.get("mirrors") or {}).items()
            }
            return cls(mirrors, {str(k): dict(v) for k, v in (raw.get("configs") or {}).items()})
        except (yaml.YAMLError, AttributeError, TypeError, KeyError) as e:
            raise ImageError(
                f"{path} is not of the form mirrors: {{REGISTRY: {{endpoint: [URL]}}}}, configs: {{REGISTRY: {{auth, tls}}}}: {e}"
            ) from e

    def toml(self) -> str:
        """The same as containers-registries.conf(5)."""
        out = []
        for registry, endpoints in self.mirrors.items():
            out.append(f"[[registry]]\nprefix = {json.dumps(registry)}\nlocation = {json.dumps(registry)}\n")
            for endpoint in endpoints:
                insecure = endpoint.startswith("http://") or self._skips_verification(_host(endpoint))
                out.append(
                    f"[[registry.mirror]]\nlocation = {json.dumps(_host(endpoint))}\ninsecure = {str(insecure).lower()}\n"
                )
        for registry in self.configs:
            if registry not in self.mirrors and self._skips_verification(registry):
                out.append(f"[[registry]]\nlocation = {json.dumps(registry)}\ninsecure = true\n")
        return "".join(out)

    def _skips_verification(self, registry: str) -> bool:
        return bool(((self.configs.get(registry) or {}).get("tls") or {}).get("insecure_skip_verify"))

    def credentials(self) -> list[Credentials]:
        found = []
        for registry, config in self.configs.items():
            auth = config.get("auth") or {}
            if auth.get("username"):
                found.append(Credentials(registry, str(auth["username"]), str(auth.get("password", ""))))
        return found


def _host(endpoint: str) -> str:
    return endpoint.partition("://")[2].rstrip("/") or endpoint


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image in a directory: its configuration document, the layers' tars with their digests, lowest first."""

    id: str
    config: Mapping[str, Any]
    layers: tuple[tuple[str, Path], ...]
    size: int


async def digest(reference: Reference, settings: Path) -> str:
    """The digest of what a registry has under a name now. Raises ImageError."""
    raw = await _run(settings, "inspect", "--raw", f"docker://{reference}")
    return "sha256:" + hashlib.sha256(raw).hexdigest()


async def copy(source: str, directory: Path, settings: Path) -> Fetched:
    """Fetch `source` (in skopeo's form, `docker://...`, `oci-archive:...`) into an empty directory."""
    await _run(settings, "copy", "--quiet", "--dest-decompress", source, f"dir:{directory}")
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
        config_digest = manifest["config"]["digest"]
        config = json.loads((directory / config_digest.partition(":")[2]).read_text())
        diff_ids = config["rootfs"]["diff_ids"]
        files = [directory / entry["digest"].partition(":")[2] for entry in manifest["layers"]]
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as e:
        raise ImageError(f"{source} is no container image: {e}") from e
    # They become file names in the store, and nobody before us has looked at what the configuration calls them.
    for digest in (config_digest, *diff_ids):
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ImageError(f"{source} is no container image: {digest!r} is no sha256 digest")
    if len(diff_ids) != len(files):
        raise ImageError(f"{source}: {len(files)} layers, but its configuration names {len(diff_ids)}")
    size = sum(f.stat().st_size for f in files)
    return Fetched(config_digest, config, tuple(zip(diff_ids, files, strict=True)), size)


def write_settings(directory: Path, registries: Registries, credentials: Sequence[Credentials]) -> Path:
    """Write the files that skopeo reads into a directory, which is then given to the calls above."""
    (directory / "registries.conf").write_text(registries.toml())
    auths = {
        c.registry: {"auth": base64.b64encode(f"{c.username}:{c.password}".encode()).decode()}
        for c in [*registries.credentials(), *credentials]
    }
    # Made anew: the mode of a file that was there would stay.
    (directory / "auth.json").unlink(missing_ok=True)
    fd = os.open(directory / "auth.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as f:
        json.dump({"auths": auths}, f)
    return directory


async def _run(settings: Path, command: str, *arguments: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "skopeo", "--insecure-policy", "--tmpdir", str(settings), "--registries-conf", str(settings / "registries.conf"), command,
        *(("--authfile", str(settings / "auth.json")) if command == "inspect" else ("--src-authfile", str(settings / "auth.json"))),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself just now
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise ImageError(_words(err.decode(errors="replace")))
    return out


def _words(said: str) -> str:
    """What skopeo said, without its log prefix."""
    lines = [m.group(1) if (m := _DROP.match(line)) else line for line in said.strip().splitlines()]
    return " ".join(line.replace('\\"', '"') for line in lines if line) or "skopeo failed without a word"
