"""Reading a kubeconfig: which server a context names, and as whom to talk to it.

As client-go: several files in `$KUBECONFIG` are merged, the first to set a value wins, and paths inside a file are
relative to it. Ways to authenticate that are not served here (exec plugins, auth providers, passwords) are refused by
name.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sampan.client.access import Access, Pem

_UNSUPPORTED_USER = (
    "exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra",
)  # fmt: skip
_UNSUPPORTED_CLUSTER = ("proxy-url",)


class KubeconfigError(Exception):
    """A kubeconfig that cannot be used; the message names the file, the entry and the field."""


def default_paths() -> list[Path]:
    """The files that `kubectl` would read."""
    named = [Path(p) for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return named or [Path.home() / ".kube" / "config"]


def load(paths: Path | Sequence[Path] | None = None, context: str = "") -> Access:
    """The access that `context` (default: the current one) of the kubeconfig gives. Raises KubeconfigError."""
    files = [paths] if isinstance(paths, Path) else list(paths or default_paths())
    config = _merge(files)
    name = context or config.current
    if not name:
        raise KubeconfigError(f"{config.where}: no context was named and there is no current-context")
    chosen = config.entry("context", name)
    cluster_name = _text(chosen, "cluster", config.where, f"context {name!r}")
    if not cluster_name:
        raise KubeconfigError(f"{config.where}: context {name!r} names no cluster")
    cluster = config.entry("cluster", cluster_name)
    user_name = _text(chosen, "user", config.where, f"context {name!r}")
    user = config.entry("user", user_name) if user_name else _Entry({}, Path())
    where = config.where
    _refuse(cluster, _UNSUPPORTED_CLUSTER, where, f"cluster {cluster_name!r}")
    _refuse(user, _UNSUPPORTED_USER, where, f"user {user_name!r}")
    server = _text(cluster, "server", where, f"cluster {cluster_name!r}")
    if not server.startswith(("https://", "http://")):
        raise KubeconfigError(f"{where}: cluster {cluster_name!r}: server: {server!r} is not an http(s) URL")
    certificate = _pem(user, "client-certificate", where, f"user {user_name!r}")
    key = _pem(user, "client-key", where, f"user {user_name!r}")
    if (certificate is None) != (key is None):
        missing = "client-certificate" if certificate is None else "client-key"
        raise KubeconfigError(f"{where}: user {user_name!r}: {missing} is missing")
    # client-go prefers the file, which may be renewed, to the token beside it.
    token_file = _text(user, "tokenFile", where, f"user {user_name!r}")
    return Access(
        server=server.rstrip("/"),
        namespace=_text(chosen, "namespace", where, f"context {name!r}") or "default",
        ca=_pem(cluster, "certificate-authority", where, f"cluster {cluster_name!r}"),
        certificate=certificate,
        key=key,
        token=user.base / token_file
        if token_file
        else _text(user, "token", where, f"user {user_name!r}").strip(),
        insecure_skip_tls_verify=bool(cluster.fields.get("insecure-skip-tls-verify")),
        tls_server_name=_text(cluster, "tls-server-name", where, f"cluster {cluster_name!r}"),
    )


class _Entry:
    """A context, cluster or user, with the directory that its paths are relative to."""

    def __init__(self, fields: dict[str, Any], base: Path) -> None:
        self.fields = fields
        self.base = base


class _Config:
    def __init__(self, files: Sequence[Path]) -> None:
        self.where = os.pathsep.join(str(f) for f in files)
        self.current = ""
        self.entries: dict[tuple[str, str], _Entry] = {}

    def entry(self, kind: str, name: str) -> _Entry:
        try:
            return self.entries[kind, name]
        except KeyError:
            present = ", ".join(sorted(n for k, n in self.entries if k == kind)) or "none"
            raise KubeconfigError(
                f"{self.where}: there is no {kind} {name!r} (there is: {present})"
            ) from None


def _merge(files: Sequence[Path]) -> _Config:
    import yaml  # heavy, and not every client has a kubeconfig

    config, found = _Config(files), False
    for file in files:
        try:
            document = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
            raise KubeconfigError(f"{file}: {e}") from e
        found = True
        if document is None:
            continue
        if not isinstance(document, dict) or document.get("kind", "Config") != "Config":
            raise KubeconfigError(f"{file}: this is no kubeconfig (kind Config)")
        config.current = config.current or str(document.get("current-context") or "")
        for kind in ("context", "cluster", "user"):
            for item in document.get(f"{kind}s") or ():
                if not isinstance(item, dict) or not isinstance(item.get(kind) or {}, dict):
                    raise KubeconfigError(f"{file}: {kind}s: an entry is not a name with a {kind}")
                entry = _Entry(item.get(kind) or {}, file.absolute().parent)
                config.entries.setdefault((kind, str(item.get("name") or "")), entry)
    if not found:
        raise KubeconfigError(f"{config.where}: no such file")
    return config


def _text(entry: _Entry, field: str, where: str, whose: str) -> str:
    value = entry.fields.get(field) or ""
    if not isinstance(value, str):
        raise KubeconfigError(f"{where}: {whose}: {field} is not a text")
    return value


def _pem(entry: _Entry, field: str, where: str, whose: str) -> Pem | None:
    """A certificate or key from `FIELD-data`, which wins as in client-go, or the file that `FIELD` names."""
    if data := _text(entry, f"{field}-data", where, whose):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as e:
            raise KubeconfigError(f"{where}: {whose}: {field}-data is not base64: {e}") from e
    file = _text(entry, field, where, whose)
    return entry.base / file if file else None


def _refuse(entry: _Entry, fields: Sequence[str], where: str, whose: str) -> None:
    for field in fields:
        if entry.fields.get(field):
            raise KubeconfigError(f"{where}: {whose}: {field} is not supported")
