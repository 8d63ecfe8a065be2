"""Objects at rest: JSON bytes plus a small decoded head.

What the store keeps is the object's JSON without its resourceVersion, laid out so that `kind`, `apiVersion` and
`metadata` come first. The store's revision is spliced in behind the opening of `metadata`, at a place that is known
without looking for it, when a value is read into the watch cache; from then on a GET writes these bytes as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import msgspec

from sampan.api.errors import Object
from sampan.api.resources import Resource

ROOT = "/registry/"

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_NOTHING: Mapping[str, str] = {}


class _HeadMetadata(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Head(msgspec.Struct):
    metadata: _HeadMetadata


_head_decoder = msgspec.json.Decoder(_Head)


class _OwnersMetadata(msgspec.Struct):
    managed: msgspec.Raw = msgspec.field(name="managedFields", default=msgspec.Raw())


class _Owners(msgspec.Struct):
    metadata: _OwnersMetadata


class _Entry(TypedDict, total=False):
    """One of the managedFields. Its set of fields stays text: it is the larger part of many objects, and only who writes
    needs it (see `sampan.api.managed_fields`)."""

    manager: str
    operation: str
    apiVersion: str
    time: str | None
    fieldsType: str
    fieldsV1: msgspec.Raw
    subresource: str


_owners_decoder = msgspec.json.Decoder(_Owners)
_entries_decoder = msgspec.json.Decoder(list[_Entry])


def decode(data: bytes) -> Object:
    """The object in JSON that we wrote ourselves, with its sets of fields left as JSON."""
    managed = bytes(_owners_decoder.decode(data).metadata.managed)
    if b'"fieldsV1"' not in managed:
        return _decoder.decode(data)  # type: ignore[no-any-return]
    start = data.index(managed)
    obj: Object = _decoder.decode(b"%bnull%b" % (data[:start], data[start + len(managed) :]))
    obj["metadata"]["managedFields"] = _entries_decoder.decode(managed)
    return obj


def to_json(value: Any) -> bytes:
    """The value as compact JSON."""
    return _encoder.encode(value)


def from_json(data: bytes) -> Any:
    """The value of JSON that we wrote ourselves. Client input goes through `sampan.api.decoding` instead."""
    return _decoder.decode(data)


def key_of(path: str, namespace: str, name: str) -> str:
    """The store key of an object below its resource's `storage_path` (`/registry/pods/default/web`,
    `/registry/minions/n1`)."""
    return f"{ROOT}{path}/{namespace}/{name}" if namespace else f"{ROOT}{path}/{name}"


def prefix_of(path: str, namespace: str = "") -> str:
    """What the keys of a resource, or of its objects in one namespace, begin with."""
    return f"{ROOT}{path}/{namespace}/" if namespace else f"{ROOT}{path}/"


def opening(resource: Resource) -> bytes:
    """The bytes with which every stored object of a resource begins, up to and including `"metadata":{`."""
    head = _encoder.encode({"kind": resource.kind, "apiVersion": resource.api_version})
    return head[:-1] + b',"metadata":{'


def encode(resource: Resource, obj: Object) -> bytes:
    """The value to store for `obj`, without its resourceVersion. `obj` itself keeps its fields."""
    metadata = obj["metadata"]
    if "resourceVersion" in metadata:
        metadata = {k: v for k, v in metadata.items() if k != "resourceVersion"}
    body = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": None, **obj}
    body["kind"], body["apiVersion"], body["metadata"] = resource.kind, resource.api_version, metadata
    return _encoder.encode(body)


def splice(value: bytes, start: bytes, revision: int) -> bytes:
    """A stored value with its resourceVersion put in; `start` is the resource's `opening`."""
    if not value.startswith(start):
        raise ValueError(f"a stored value does not begin with {start!r}: {value[:80]!r}")
    return b'%b"resourceVersion":"%d",%b' % (start, revision, value[len(start) :])


class Record:
    """One object at one revision: as bytes, with what selectors need; decoded when somebody first asks.

    `obj` is shared by all who read it and must not be changed.
    """

    __slots__ = ("_fields", "_labels", "_obj", "data", "key", "name", "namespace", "revision", "start")

    def __init__(
        self,
        key: str,
        namespace: str,
        name: str,
        revision: int,
        data: bytes,
        start: int,
        *,
        labels: Mapping[str, str] | None = None,
        obj: Object | None = None,
    ) -> None:
        self.key = key
        self.namespace = namespace
        self.name = name
        self.revision = revision
        self.data = data
        """The JSON as served, resourceVersion included."""
        self.start = start
        """Length of the opening, after which the resourceVersion stands."""
        self._labels = labels
        self._obj = obj
        self._fields: Mapping[str, str] | None = None

    @property
    def obj(self) -> Object:
        if self._obj is None:
            self._obj = decode(self.data)
        return self._obj

    @property
    def decoded(self) -> bool:
        return self._obj is not None

    def glimpse(self) -> Object:
        """`obj`, without keeping what has to be decoded for it: for who looks once at many objects."""
        return self._obj if self._obj is not None else decode(self.data)

    @property
    def labels(self) -> Mapping[str, str]:
        if self._labels is None:
            self._labels = _head_decoder.decode(self.data).metadata.labels or _NOTHING
        return self._labels

    def fields(self, resource: Resource) -> Mapping[str, str]:
        """The values that field selectors may ask for."""
        if self._fields is None:
            from sampan.api.selectors import fields_of

            self._fields = fields_of(resource, self.glimpse())
        return self._fields

    def at(self, revision: int) -> Record:
        """The same content under another resourceVersion (how a watcher sees an object leave its selection)."""
        tail = self.data[self.start + len(b'"resourceVersion":"",') + len(str(self.revision)) :]
        data = b'%b"resourceVersion":"%d",%b' % (self.data[: self.start], revision, tail)
        return Record(
            self.key, self.namespace, self.name, revision, data, self.start, labels=self._labels
        )  # fmt: skip


def split_key(key: str, namespaced: bool) -> tuple[str, str]:
    """Namespace and name of a store key."""
    parts = key.rsplit("/", 2)
    return (parts[1], parts[2]) if namespaced else ("", parts[2])
