"""The EncryptionConfiguration file: for each kind of object, the providers that may have sealed it, the first one sealing.

apiserver.config.k8s.io/v1. Upstream: `k8s.io/apiserver/pkg/apis/apiserver` (types and `validation/validation_encryption.go`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sampan.api.resources import RESOURCES
from sampan.apiserver.configuration_file import Reader, document

Cipher = Literal["identity", "aesgcm", "aescbc"]
_CIPHERS = ("aesgcm", "aescbc", "identity")
_REFUSED = {
    "secretbox": "is not supported here; use aesgcm",
    "kms": "is not supported here: keys can come only from this file",
}
_KEY_SIZES = (16, 24, 32)


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the name under which what it sealed is stored."""

    name: str
    secret: bytes


@dataclass(frozen=True, slots=True)
class Provider:
    """A cipher with its keys; the first key seals."""

    cipher: Cipher
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Resources (`secrets`, `*.apps`, `*.`, `*.*`) and what seals them."""

    resources: tuple[str, ...]
    providers: tuple[Provider, ...]


def load(path: Path) -> tuple[Rule, ...]:
    """Read a configuration file. Raises OSError, ConfigurationError."""
    reader = _Reader()
    found = reader.configuration(document(path, reader))
    reader.finish(path)
    return found


class _Reader(Reader):
    def configuration(self, found: Any) -> tuple[Rule, ...]:
        top = self.object("", found, ("apiVersion", "kind", "resources"))
        self.identity(top, "EncryptionConfiguration", ("apiserver.config.k8s.io/v1",))
        rules = [
            self._rule(f"resources[{i}]", r)
            for i, r in enumerate(self.list("resources", top.get("resources")))
        ]
        if not rules:
            self.wrong("resources", "Required value: resources: at least one is needed")
        named: set[str] = set()
        for i, rule in enumerate(rules):
            for name in rule.resources:
                if name in named:
                    self.wrong(f"resources[{i}].resources", f'Invalid value: "{name}": is named before')
                named.add(name)
        return tuple(rules)

    def _rule(self, path: str, value: Any) -> Rule:
        given = self.object(path, value, ("resources", "providers"))
        names = self.texts(f"{path}.resources", given.get("resources"))
        if not names:
            self.wrong(f"{path}.resources", "Required value: at least one is needed")
        for i, name in enumerate(names):
            if not _is_known(name):
                self.wrong(
                    f"{path}.resources[{i}]", f'Invalid value: "{name}": no such resource is stored here'
                )
        providers = [
            self._provider(f"{path}.providers[{i}]", p)
            for i, p in enumerate(self.list(f"{path}.providers", given.get("providers")))
        ]
        if not providers:
            self.wrong(f"{path}.providers", "Required value: at least one is needed")
        return Rule(names, tuple(p for p in providers if p is not None))

    def _provider(self, path: str, value: Any) -> Provider | None:
        given = self.object(path, value, (*_CIPHERS, *_REFUSED))
        if len(given) != 1:
            self.wrong(path, "must have exactly one provider: aesgcm, aescbc or identity")
            return None
        (name,) = given
        if name in _REFUSED:
            self.wrong(f"{path}.{name}", _REFUSED[name])
            return None
        if name == "identity":
            return Provider("identity")
        at = f"{path}.{name}"
        keys = self.list(f"{at}.keys", self.object(at, given[name], ("keys",)).get("keys"))
        if not keys:
            self.wrong(f"{at}.keys", "Required value: at least one is needed")
        read = [self._key(f"{at}.keys[{i}]", key) for i, key in enumerate(keys)]
        for i, key in enumerate(read):
            if key.name in [other.name for other in read[:i]]:
                self.wrong(f"{at}.keys[{i}].name", f'Invalid value: "{key.name}": is named before')
        return Provider("aesgcm" if name == "aesgcm" else "aescbc", tuple(read))

    def _key(self, path: str, value: Any) -> Key:
        given: Mapping[str, Any] = self.object(path, value, ("name", "secret"))
        name = self.text(f"{path}.name", given.get("name"))
        if not name:
            self.wrong(f"{path}.name", "Required value: a key needs a name")
        elif ":" in name:
            self.wrong(f"{path}.name", f'Invalid value: "{name}": must not contain ":"')
        try:
            secret = base64.b64decode(self.text(f"{path}.secret", given.get("secret")), validate=True)
        except (binascii.Error, ValueError):
            # What was given is not repeated: it is a secret.
            self.wrong(f"{path}.secret", "Invalid value: must be base64 encoded")
            return Key(name, b"")
        if len(secret) not in _KEY_SIZES:
            self.wrong(f"{path}.secret", f"Invalid value: must be 16, 24 or 32 bytes, found {len(secret)}")
        return Key(name, secret)


def _is_known(name: str) -> bool:
    plural, _, group = name.partition(".")
    if plural == "*":
        return group in ("", "*") or any(r.group == group for r in RESOURCES)
    return any(r.key_stem == name for r in RESOURCES)
