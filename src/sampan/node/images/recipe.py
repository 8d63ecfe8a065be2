"""Build images from Debian packages: for hosts that reach no registry.

A recipe is a directory with a `recipe.toml` (see images/README.md). The result is a docker archive below a cache
directory, named by a hash of all that went into it, so that building again costs nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sampan.node.images.types import ImageError

CACHE = Path("/var/cache/sampan/images")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_KEYS = {"names", "base", "packages", "result", "config"}
_EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made from. `base` is the name of a sibling directory, "" for none; `alone` is whether only what
    the build leaves in /out is the image."""

    directory: Path
    names: tuple[str, ...]
    base: str
    packages: tuple[str, ...]
    alone: bool
    config: Mapping[str, Any]

    @classmethod
    def load(cls, directory: Path) -> Recipe:
        """Raises ImageError with what is wrong with the recipe."""
        path = directory / "recipe.toml"
        try:
            raw = tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise ImageError(f"{directory} is no recipe: it has no recipe.toml") from None
        except (OSError, tomllib.TOMLDecodeError) as e:
            raise ImageError(f"{path}: {e}") from e
        unknown = sorted(set(raw) - _KEYS)
        if unknown:
            raise ImageError(f"{path}: unknown {', '.join(unknown)}; allowed are {', '.join(sorted(_KEYS))}")
        if not raw.get("names"):
            raise ImageError(f"{path}: names is missing")
        if raw.get("result", "tree") not in ("tree", "out"):
            raise ImageError(f"{path}: result is {raw['result']!r}; allowed are 'tree' and 'out'")
        return cls(
            directory,
            tuple(raw["names"]),
            str(raw.get("base", "")),
            tuple(raw.get("packages", ())),
            raw.get("result") == "out",
            dict(raw.get("config", {})),
        )

    def base_recipe(self) -> Recipe | None:
        return Recipe.load(self.directory.parent / self.base) if self.base else None

    def key(self) -> str:
        """A hash of all that goes into the image: the recipe's files, its base, the distribution."""
        digest = hashlib.sha256(f"{platform.machine()} {_codename()}".encode())
        for path in sorted(p for p in self.directory.rglob("*") if p.is_file()):
            digest.update(f"\0{path.relative_to(self.directory)}\0".encode() + path.read_bytes())
        base = self.base_recipe()
        if base is not None:
            digest.update(base.key().encode())
        return digest.hexdigest()[:16]


def build(recipe: Recipe, say: Callable[[str], None] = lambda text: None, cache: Path = CACHE) -> Path:
    """The archive of a recipe's image, built if it is not there yet. Blocks; takes seconds to a minute. Raises
    ImageError."""
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    final = cache / f"{recipe.directory.name}-{recipe.key()}.tar"
    if final.exists():
        return final
    base = recipe.base_recipe()
    below = build(base, say, cache) if base is not None else None
    with open(cache / f".{recipe.directory.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.exists():
            return final
        say(f"building image {recipe.names[0]} from packages")
        work = Path(tempfile.mkdtemp(prefix=".build-", dir=cache))
        try:
            layers = _bootstrap(work) if below is None else _layers_of(below, work)
            if below is not None or recipe.packages or (recipe.directory / "build").exists():
                layer = _build_layer(recipe, layers, work)
                layers = [layer] if recipe.alone else [*layers, layer]
            _write_archive(work / "image.tar", layers, recipe)
            (work / "image.tar").rename(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        for old in cache.glob(f"{recipe.directory.name}-{'?' * 16}.tar"):
            if old != final:
                old.unlink()
    return final


def _codename() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")


def _bootstrap(work: Path) -> list[Path]:
    tar = work / "base.tar"
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    _run(["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", *excluded, _codename(), str(tar)])
    return [tar]


def _layers_of(archive: Path, work: Path) -> list[Path]:
    """The layers' tars of an archive of ours, lowest first."""
    with tarfile.open(archive) as tar:
        manifest = json.load(_member(tar, "manifest.json"))
        names = manifest[0]["Layers"]
        for name in names:
            with open(work / name, "wb") as f:
                shutil.copyfileobj(_member(tar, name), f, 1 << 20)
    return [work / name for name in names]


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    f = tar.extractfile(name)
    if f is None:
        raise ImageError(f"{name} is missing in {tar.name!s}")
    return f


def _build_layer(recipe: Recipe, layers: list[Path], work: Path) -> Path:
    lowers: list[str] = []
    for number, layer in enumerate(layers):
        tree = work / f"lower{number}"
        tree.mkdir()
        _run(["tar", "--numeric-owner", "--xattrs", "-xpf", str(layer), "-C", str(tree)])
        lowers.insert(0, str(tree))
    upper = work / "upper"
    script = Path(__file__).with_name("build.sh")
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", str(script), ":".join(lowers)]
    _run(
        [
            *command,
            *map(str, (upper, work / "work", work / "root", recipe.directory.absolute())),
            " ".join(recipe.packages),
        ]
    )
    result = work / "layer.tar"
    _pack(upper / "out" if recipe.alone else upper, result)
    return result


def _pack(tree: Path, result: Path) -> None:
    """A tree, or an overlay's upper directory, as a layer: removals as the image format writes them."""
    with tarfile.open(result, "w", format=tarfile.PAX_FORMAT) as tar:
        for path, directories, files in os.walk(tree):
            here = Path(path)
            inside = here.relative_to(tree)
            if str(inside) != ".":
                tar.add(here, str(inside), recursive=False)
                if _is_opaque(here):
                    tar.addfile(tarfile.TarInfo(str(inside / ".wh..wh..opq")))
            for name in sorted(files + [d for d in directories if (here / d).is_symlink()]):
                found = (here / name).lstat()
                if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                    tar.addfile(tarfile.TarInfo(str(inside / f".wh.{name}")))
                else:
                    tar.add(here / name, str(inside / name), recursive=False)


def _is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False


def _write_archive(path: Path, layers: list[Path], recipe: Recipe) -> None:
    digests = []
    for layer in layers:
        with open(layer, "rb") as f:
            digests.append(hashlib.file_digest(f, "sha256").hexdigest())
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], **recipe.config}
    document = {
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in digests]},
    }
    work = path.parent
    (work / "config.json").write_text(json.dumps(document))
    manifest = [
        {"Config": "config.json", "RepoTags": list(recipe.names), "Layers": [f"{d}.tar" for d in digests]}
    ]
    (work / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(path, "w") as tar:
        tar.add(work / "config.json", "config.json")
        tar.add(work / "manifest.json", "manifest.json")
        for layer, digest in zip(layers, digests, strict=True):
            tar.add(layer, f"{digest}.tar")


def _run(command: list[str]) -> None:
    """Run a program to its end. Raises ImageError with the command and its last words."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        raise ImageError(f"the program {command[0]} is missing: apt-get install {command[0]}") from None
    if done.returncode:
        words = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ImageError(f"{' '.join(command[:4])} ... failed with {done.returncode}:\n{words}")
