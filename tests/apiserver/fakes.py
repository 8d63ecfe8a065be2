"""A read cache that is a dict, and the objects and settings that the tests here share."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

from sampan.api import resources
from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.apiserver.config import Config
from sampan.apiserver.types import Attributes, ChangeCallback, RequestInfo, User

_uids = itertools.count(1)


class FakeCache:
    """`ReadCache` over a dict; `put` and `remove` announce the change as the real one does."""

    def __init__(self, *objects: Object) -> None:
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._callbacks: dict[str, list[ChangeCallback]] = {}
        for obj in objects:
            self.put(obj)

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self._objects.get((resource.key_stem, namespace, name))

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        return [
            o
            for (stem, ns, _), o in self._objects.items()
            if stem == resource.key_stem and namespace in ("", ns)
        ]

    def on_change(self, resource: Resource, callback: ChangeCallback) -> None:
        self._callbacks.setdefault(resource.key_stem, []).append(callback)

    def put(self, obj: Object) -> Object:
        key = self._key(obj)
        obj["metadata"].setdefault("uid", f"uid-{next(_uids)}")
        old = self._objects.get(key)
        self._objects[key] = obj
        for callback in self._callbacks.get(key[0], ()):
            callback(old, obj)
        return obj

    def remove(self, obj: Object) -> None:
        key = self._key(obj)
        old = self._objects.pop(key)
        for callback in self._callbacks.get(key[0], ()):
            callback(old, None)

    @staticmethod
    def _key(obj: Object) -> tuple[str, str, str]:
        resource = resources.by_kind(obj["apiVersion"], obj["kind"])
        assert resource is not None
        meta = obj["metadata"]
        return resource.key_stem, meta.get("namespace", ""), meta["name"]


def make(kind: str, name: str, namespace: str = "", **rest: object) -> Object:
    """An object; `rest` are its top-level fields, of which `metadata` is merged."""
    resource = next(r for r in resources.RESOURCES if r.kind == kind)
    meta: Object = {"name": name}
    if resource.namespaced:
        meta["namespace"] = namespace or "default"
    meta.update(rest.pop("metadata", {}))  # type: ignore[call-overload]
    return {"apiVersion": resource.api_version, "kind": kind, "metadata": meta, **rest}


def pod(name: str = "web", node: str = "", account: str = "default", namespace: str = "", **spec: object) -> Object:  # fmt: skip
    spec.setdefault("containers", [{"name": "c", "image": "nginx"}])
    if node:
        spec["nodeName"] = node
    return make("Pod", name, namespace, spec={"serviceAccountName": account, **spec})


@functools.cache
def ec_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec

    return _pem(ec.generate_private_key(ec.SECP256R1()))


@functools.cache
def rsa_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return _pem(rsa.generate_private_key(65537, 2048))


def _pem(key: object) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())  # type: ignore[attr-defined, no-any-return]


def config(key: bytes | None = None, **rest: object) -> Config:
    return Config(
        service_account_key=key or ec_key(),
        cluster_ca=b"",
        advertise_address="10.0.0.1",
        **rest,  # type: ignore[arg-type]
    )


def asks(verb: str, plural: str, namespace: str = "", name: str = "", group: str = "", sub: str = "", fields: str = "") -> RequestInfo:  # fmt: skip
    """A request for a resource."""
    return RequestInfo(
        verb,
        "",
        True,
        group,
        "v1",
        plural,
        namespace,
        name,
        sub,
        "",
        resources.lookup(group, "v1", plural),
        "",
        fields,
    )


def writes(
    user: User, obj: Object | None, operation: str = "CREATE", old: Object | None = None, sub: str = ""
) -> Attributes:
    """A write of `obj` (on DELETE of `old`)."""
    given = obj or old
    assert given is not None
    resource = resources.by_kind(given["apiVersion"], given["kind"])
    assert resource is not None
    meta = given["metadata"]
    return Attributes(
        user,
        operation,  # type: ignore[arg-type]
        resource,
        meta.get("namespace", ""),
        meta.get("name", ""),
        sub,
        obj,
        old,
    )


def node_user(name: str) -> User:
    return User(f"system:node:{name}", "", ("system:nodes", "system:authenticated"))
