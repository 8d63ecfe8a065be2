"""The user's way in: a kubeconfig of the cluster's own (0600), merged into the user's as context `sampan`."""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan.cluster.config import ClusterConfig
from sampan.cluster.errors import ClusterError

_PARTS = ("clusters", "users", "contexts")


def render(config: ClusterConfig) -> dict[str, Any]:
    """The kubeconfig of a cluster, certificates included."""
    pki = config.directory / "pki"

    def data(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    name = config.context
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": config.server, "certificate-authority-data": data("ca.crt")}}
        ],
        "users": [
            {
                "name": name,
                "user": {"client-certificate-data": data("admin.crt"), "client-key-data": data("admin.key")},
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def text(config: ClusterConfig) -> str:
    """The same as YAML."""
    import yaml

    return yaml.safe_dump(render(config), sort_keys=False)


def write(config: ClusterConfig) -> Path:
    """Write the cluster's own file, `kubeconfig` in its directory. JSON, which is YAML too and needs no library."""
    path = config.directory / "kubeconfig"
    _replace(path, json.dumps(render(config), indent=1) + "\n")
    return path


def user_file() -> Path:
    """The file that `kubectl` would write to: the first of $KUBECONFIG, else ~/.kube/config."""
    first = next((p for p in os.environ.get("KUBECONFIG", "").split(":") if p), "")
    return Path(first).absolute() if first else Path.home() / ".kube" / "config"


def merge(config: ClusterConfig, path: Path) -> None:
    """Put the cluster's context into a user's kubeconfig and make it the current one; everything else in the file
    stays. Raises ClusterError, with the file untouched, if it is no kubeconfig, and OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path):
        present = _load(path)
        ours = render(config)
        for part in _PARTS:
            others = [e for e in present.get(part) or [] if e.get("name") != config.context]
            present[part] = others + ours[part]
        present["current-context"] = config.context
        _save(path, present)


def renew(config: ClusterConfig, path: Path) -> None:
    """Give the cluster's entries in a user's kubeconfig their new certificates, where they still are in it; which context
    is the current one stays. Raises as `merge` does."""
    if not path.exists():
        return
    with _locked(path):
        present = _load(path)
        ours = {part: entries[0] for part, entries in render(config).items() if part in _PARTS}
        if not any(e.get("name") == config.context for e in present.get("users") or []):
            return
        for part, own in ours.items():
            present[part] = [own if e.get("name") == config.context else e for e in present.get(part) or []]
        _save(path, present)


def unmerge(context: str, path: Path) -> None:
    """Take a cluster's entries out of a user's kubeconfig again; a file that then has none goes. Raises ClusterError,
    with the file untouched, if it is no kubeconfig, and OSError."""
    if not path.exists():
        return
    with _locked(path):
        present = _load(path)
        kept = {p: [e for e in present.get(p) or [] if e.get("name") != context] for p in _PARTS}
        if all(len(kept[p]) == len(present.get(p) or []) for p in _PARTS):
            return
        present.update(kept)
        if present.get("current-context") == context:
            present["current-context"] = ""
        if any(kept.values()):
            _save(path, present)
        else:
            path.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer of ours at a time."""
    lock_file = path.with_name(path.name + ".lock")
    with open(lock_file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock_file.unlink(missing_ok=True)


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_text()
    except FileNotFoundError:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    except UnicodeDecodeError as e:
        raise ClusterError(f"{path} is not UTF-8") from e
    import yaml

    try:
        loaded = yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as e:
        where = getattr(e, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise ClusterError(f"{path} is not YAML{line}") from e
    if loaded is None:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if not isinstance(loaded, dict) or loaded.get("kind", "Config") != "Config" or not _well_formed(loaded):
        raise ClusterError(f"{path} is no kubeconfig")
    return loaded


def _well_formed(content: dict[str, Any]) -> bool:
    lists = (content.get(part) or [] for part in _PARTS)
    return all(isinstance(entries, list) and all(isinstance(e, dict) for e in entries) for entries in lists)


def _save(path: Path, content: dict[str, Any]) -> None:
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    _replace(path, yaml.dump(content, Dumper=dumper, sort_keys=False))


def _replace(path: Path, content: str) -> None:
    """Put a file in its place, readable for its owner alone: who owned it before (root may act for somebody)."""
    target = path.resolve()
    temporary = target.with_name(target.name + ".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as f:
        try:
            owner = target.stat()
        except FileNotFoundError:
            pass
        else:
            os.fchown(f.fileno(), owner.st_uid, owner.st_gid)
        f.write(content)
    temporary.replace(target)
