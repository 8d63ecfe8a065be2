"""The user's way in: a kubeconfig of the cluster's own (0600), merged into the user's as context `sampan`."""

from __future__ import annotations

import base64
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from sampan.cluster.config import ClusterConfig
from sampan.cluster.errors import ClusterError


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
    return Path(first) if first else Path.home() / ".kube" / "config"


def merge(config: ClusterConfig) -> Path:
    """Put the cluster's context into the user's kubeconfig and make it the current one; everything else in the file
    stays. Raises ClusterError, with the file untouched, if it is no kubeconfig."""
    path = user_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        present = _load(path)
        ours = render(config)
        for part in ("clusters", "users", "contexts"):
            others = [e for e in present.get(part) or [] if e.get("name") != config.context]
            present[part] = others + ours[part]
        present["current-context"] = config.context
        _save(path, present)
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    return path


def unmerge(config: ClusterConfig) -> None:
    """Take the cluster's entries out of the user's kubeconfig again."""
    path = user_file()
    if not path.exists():
        return
    present = _load(path)
    found = False
    for part in ("clusters", "users", "contexts"):
        entries = present.get(part) or []
        kept = [e for e in entries if e.get("name") != config.context]
        found = found or len(kept) != len(entries)
        present[part] = kept
    if not found:
        return
    if present.get("current-context") == config.context:
        present["current-context"] = ""
    if not any(present.get(part) for part in ("clusters", "users", "contexts")):
        path.unlink()
        return
    _save(path, present)


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_text()
    except FileNotFoundError:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if raw.startswith("{"):
        try:
            return dict(json.loads(raw))
        except ValueError:
            pass
    import yaml

    try:
        loaded = yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as e:
        raise ClusterError(f"{path} is not YAML, so the context is not merged into it: {e}") from e
    if loaded is None:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if not isinstance(loaded, dict) or loaded.get("kind", "Config") != "Config":
        raise ClusterError(f"{path} is no kubeconfig, so the context is not merged into it")
    return loaded


def _save(path: Path, content: dict[str, Any]) -> None:
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    _replace(path, yaml.dump(content, Dumper=dumper, sort_keys=False))


def _replace(path: Path, content: str) -> None:
    target = path.resolve()
    temporary = target.with_name(target.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as f:
        os.fchmod(f.fileno(), 0o600)
        f.write(content)
    temporary.replace(target)
