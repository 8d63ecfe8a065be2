"""How objects are shown: as themselves, as a Table or as their metadata alone, in JSON or YAML.

JSON of the object itself is the form that costs nothing: the bytes at rest. The rest is made from the decoded object,
which is not kept. Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/response.go`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from sampan.api import conversion
from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.apiserver.records import Record, to_json
from sampan.apiserver.turns import Turns

Form = Literal["object", "table", "metadata"]
Include = Literal["None", "Metadata", "Object"]
"""What each row of a table carries of its object."""
Syntax = Literal["json", "pretty", "yaml"]

JSON = "application/json"
YAML = "application/yaml"
_META_V1 = "meta.k8s.io/v1"


class Rendering:
    """How the objects of one resource are shown to one kind of client.

    There is one instance for each distinct choice (`rendering()` keeps them), so that identity stands for equality
    and watchers who want the same bytes can be recognized.
    """

    __slots__ = (
        "_bytes",
        "_step",
        "content_type",
        "form",
        "headers",
        "include",
        "plain",
        "resource",
        "syntax",
    )

    def __init__(
        self, resource: Resource, form: Form, include: Include, syntax: Syntax, headers: bool
    ) -> None:
        self.resource = resource
        self.form = form
        self.include = include
        self.syntax = syntax
        self.headers = headers
        """Whether a Table says what its columns are; of a watch only the first event does."""
        self.plain = form == "object" and syntax == "json" and not resource.storage
        """Whether the bytes at rest are what is shown."""
        self.content_type = YAML if syntax == "yaml" else JSON
        self._step = 4000 if self.plain else 1 if syntax == "yaml" else 20
        """Objects that are rendered in well under a millisecond, unless they are very large."""
        self._bytes = 16 * 1024 if syntax == "yaml" else 256 * 1024
        """Of as many bytes at most, where they have to be read."""

    def is_quick(self, records: Sequence[Record]) -> bool:
        """Whether the records can be rendered without others having to wait: by `one` or `list`, else by `one` in a
        thread or `list_in_turns`."""
        if self.plain:
            return len(records) <= 4 * self._step
        return len(records) <= 4 * self._step and sum([len(r.data) for r in records]) <= self._bytes

    @property
    def following(self) -> Rendering:
        """That of a watch's later events."""
        if self.form != "table":
            return self
        return rendering(self.resource, self.form, self.include, self.syntax, headers=False)

    def one(self, record: Record) -> bytes:
        """An object as the whole answer."""
        if self.plain:
            return record.data + b"\n"
        if self.syntax == "pretty" and self.form == "object" and not self.resource.storage:
            return msgspec.json.format(record.data, indent=2)
        return write(self.value(record), self.syntax)

    def value(self, record: Record) -> Any:
        """An object in this form, as a value."""
        if self.form == "table":
            table = self._table([record])
            table["metadata"] = {"resourceVersion": str(record.revision)}
            return table
        return self._item(record)

    def view(self, seen: Object) -> bytes:
        """What is seen of an object in another kind's shape, `resource` being that kind, as the whole answer."""
        if self.form == "object":
            return write(seen, self.syntax)
        if self.form == "metadata":
            return write(_metadata_alone(seen), self.syntax)
        table = self._table_of([seen])
        table["metadata"] = {"resourceVersion": seen["metadata"]["resourceVersion"]}
        return write(table, self.syntax)

    def item(self, record: Record) -> bytes:
        """An object as the JSON of a watch event's `object`."""
        return record.data if self.plain else to_json(self.value(record))

    def list(
        self, records: Sequence[Record], revision: int, continue_: str = "", remaining: int | None = None
    ) -> Sequence[bytes]:
        """A list of objects as the whole answer, in parts."""
        records = self._ordered(records)
        start, end = self._frame(revision, continue_, remaining, bool(records))
        return [start, *self._parts(records), end] if records else [start, end]

    async def list_in_turns(
        self,
        turns: Turns,
        records: Sequence[Record],
        revision: int,
        continue_: str = "",
        remaining: int | None = None,
    ) -> tuple[Sequence[bytes], int]:
        """The same without holding the loop, and how many bytes it is."""
        records = self._ordered(records)
        start, end = self._frame(revision, continue_, remaining, bool(records))
        parts = [start]
        size = len(start) + len(end)
        separator = self._separator

        def add(some: Sequence[Record]) -> None:
            nonlocal size
            if len(parts) > 1:
                parts.append(separator)
                size += len(separator)
            made = self._parts(some)
            parts.extend(made)
            size += sum(map(len, made))

        await turns.each(records, self._step, add, None if self.plain else lambda r: len(r.data))
        parts.append(end)
        return parts, size

    def _ordered(self, records: Sequence[Record]) -> Sequence[Record]:
        """The rows of some Tables are sorted by more than names."""
        if self.form != "table":
            return records
        from sampan.api import tables

        key = tables.order(self.resource)
        return records if key is None else sorted(records, key=lambda r: key(r.glimpse()))

    @property
    def _separator(self) -> bytes:
        return b",\n    " if self.syntax == "pretty" else b"," if self.syntax == "json" else b""

    def _parts(self, records: Sequence[Record]) -> Sequence[bytes]:
        """The items of a list, with what stands between them."""
        if self.plain:
            parts = [b","] * (2 * len(records) - 1)
            parts[::2] = [r.data for r in records]
            return parts
        table = self.form == "table"
        values = self._table(records)["rows"] if table else [self._item(r) for r in records]
        if self.syntax == "json":
            return [to_json(values)[1:-1]]
        if self.syntax == "pretty":
            # A line break never stands within a JSON string: it is written as an escape there.
            return [self._separator.join([_pretty(v).replace(b"\n", b"\n    ") for v in values])]
        return [write(values, "yaml")]

    def _frame(
        self, revision: int, continue_: str, remaining: int | None, filled: bool
    ) -> tuple[bytes, bytes]:
        """What stands before and behind the items."""
        metadata: Object = {"resourceVersion": str(revision)}
        if continue_:
            metadata["continue"] = continue_
            if remaining is not None:
                metadata["remainingItemCount"] = remaining
        if self.form == "table":
            head, name = self._table([]), "rows"
            del head["rows"]
        elif self.form == "metadata":
            head, name = {"kind": "PartialObjectMetadataList", "apiVersion": _META_V1}, "items"
        else:
            head, name = {"kind": self.resource.list_kind, "apiVersion": self.resource.api_version}, "items"
        head["metadata"] = metadata
        if self.syntax == "json":
            return to_json(head)[:-1] + b',"%b":[' % name.encode(), b"]}\n"
        if self.syntax == "pretty":
            start = _pretty(head)[:-2] + b',\n  "%b": [' % name.encode()
            return (start + b"\n    ", b"\n  ]\n}") if filled else (start, b"]\n}")
        return write(head, "yaml") + b"%b:%b\n" % (name.encode(), b"" if filled else b" []"), b""

    def _item(self, record: Record) -> Object:
        obj = conversion.shown(self.resource, record.glimpse())
        if self.form == "metadata":
            return _metadata_alone(obj)
        return obj

    def _table(self, records: Sequence[Record]) -> Object:
        return self._table_of([conversion.shown(self.resource, r.glimpse()) for r in records])

    def _table_of(self, shown: Sequence[Object]) -> Object:
        from sampan.api import tables

        table = tables.render(self.resource, shown, now=time.time(), include=self.include)
        if not self.headers:
            table["columnDefinitions"] = None
        return table


def _metadata_alone(obj: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": _META_V1, "metadata": obj["metadata"]}


def write(value: Any, syntax: Syntax) -> bytes:
    """A value as a whole answer."""
    if syntax == "json":
        return to_json(value) + b"\n"
    if syntax == "pretty":
        return _pretty(value)
    import yaml

    text: str = yaml.dump(value, Dumper=_yaml_dumper(), default_flow_style=False, allow_unicode=True)
    return text.encode()


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(to_json(value), indent=2)


@functools.lru_cache(1)
def _yaml_dumper() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    # Parts of an object may have been left as JSON.
    Dumper.add_representer(msgspec.Raw, lambda d, raw: d.represent_data(msgspec.json.decode(raw)))
    # Sets of fields are kept as JSON.
    Dumper.add_representer(msgspec.Raw, lambda dumper, raw: dumper.represent_data(msgspec.json.decode(raw)))
    return Dumper


_renderings: dict[tuple[int, Form, Include, Syntax, bool], Rendering] = {}


def rendering(
    resource: Resource,
    form: Form = "object",
    include: Include = "Metadata",
    syntax: Syntax = "json",
    *,
    headers: bool = True,
) -> Rendering:
    """The one rendering of its kind."""
    key = (id(resource), form, include, syntax, headers)
    found = _renderings.get(key)
    if found is None:
        found = _renderings[key] = Rendering(resource, form, include, syntax, headers)
    return found
