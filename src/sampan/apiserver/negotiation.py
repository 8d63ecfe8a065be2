"""Which form of an answer a client accepts, and how an object is put into that form.

Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`. JSON of the object itself is the form that costs
nothing: the bytes at rest. Tables, metadata alone, YAML and the second name of Events are made from the decoded
object. We read protobuf but never write it.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sampan.api import conversion
from sampan.api.errors import Object, StatusError
from sampan.api.resources import Resource
from sampan.apiserver.records import Record, to_json

Form = Literal["object", "table", "metadata"]
Include = Literal["None", "Metadata", "Object"]
"""What each row of a table carries of its object."""
_JSON_TYPES = {"application/json", "application/*", "*/*", ""}
_YAML_TYPE = "application/yaml"


def not_acceptable() -> StatusError:
    return StatusError(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/yaml",
    )


class Rendering:
    """How the objects of one resource are shown to one kind of client.

    There is one instance for each distinct choice (`rendering()` keeps them), so that identity stands for equality
    and watchers who want the same bytes can be recognized.
    """

    __slots__ = ("content_type", "form", "include", "plain", "resource", "yaml")

    def __init__(self, resource: Resource, form: Form, include: Include, yaml: bool) -> None:
        self.resource = resource
        self.form = form
        self.include = include
        self.yaml = yaml
        self.plain = form == "object" and not resource.storage
        """Whether the bytes at rest are what is shown."""
        self.content_type = _YAML_TYPE if yaml else "application/json"

    def one(self, record: Record) -> bytes:
        """An object as the whole answer."""
        if self.plain and not self.yaml:
            return record.data + b"\n"
        return self.write(self.value(record))

    def value(self, record: Record) -> Any:
        """An object in this form, as a value."""
        return self._value([record.obj], str(record.revision), single=True)

    def item(self, record: Record) -> bytes:
        """An object as the JSON of a watch event's `object`."""
        return record.data if self.plain else to_json(self.value(record))

    def list(
        self, records: Sequence[Record], revision: int, continue_: str = "", remaining: int | None = None
    ) -> bytes | Sequence[bytes]:
        """A list of objects as the whole answer; in parts where it is made of the stored bytes."""
        metadata: Object = {"resourceVersion": str(revision)}
        if continue_:
            metadata["continue"] = continue_
            if remaining is not None:
                metadata["remainingItemCount"] = remaining
        if self.plain and not self.yaml:
            head = to_json(
                {
                    "kind": self.resource.list_kind,
                    "apiVersion": self.resource.api_version,
                    "metadata": metadata,
                }
            )
            start, end = head[:-1] + b',"items":[', b"]}\n"
            if not records:
                return start + end
            parts = [b","] * (2 * len(records) + 1)
            parts[1::2] = [r.data for r in records]
            parts[0], parts[-1] = start, end
            return parts
        out = self._value([r.obj for r in records], str(revision), single=False)
        out["metadata"] = metadata
        return self.write(out)

    def write(self, value: Any) -> bytes:
        """Any value in the accepted syntax."""
        if self.yaml:
            import yaml

            text = yaml.dump(value, Dumper=_yaml_dumper(), default_flow_style=False, allow_unicode=True)
            return text.encode()
        return to_json(value) + b"\n"

    def _value(self, objects: Sequence[Object], revision: str, *, single: bool) -> Any:
        resource = self.resource
        shown = [conversion.shown(resource, o) for o in objects] if resource.storage else objects
        if self.form == "table":
            from sampan.api import tables

            table = tables.render(resource, shown, now=time.time(), include=self.include)
            table["metadata"] = {"resourceVersion": revision}
            return table
        if self.form == "metadata":
            metas = [
                {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": o["metadata"],
                }
                for o in shown
            ]
            if single:
                return metas[0]
            return {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {},
                "items": metas,
            }
        if single:
            return shown[0]
        return {
            "kind": resource.list_kind,
            "apiVersion": resource.api_version,
            "metadata": {},
            "items": list(shown),
        }


@functools.lru_cache(1)
def _yaml_dumper() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Dumper


_renderings: dict[tuple[int, Form, Include, bool], Rendering] = {}


def rendering(
    resource: Resource, form: Form = "object", include: Include = "Metadata", yaml: bool = False
) -> Rendering:
    key = (id(resource), form, include, yaml)
    found = _renderings.get(key)
    if found is None:
        found = _renderings[key] = Rendering(resource, form, include, yaml)
    return found


def accepts(header: str) -> Iterable[tuple[str, dict[str, str]]]:
    """The media ranges of an Accept header with their parameters, best first."""
    ranges: list[tuple[float, int, str, dict[str, str]]] = []
    for i, part in enumerate(header.split(",")):
        media, *rest = (p.strip() for p in part.split(";"))
        params = {k.strip().lower(): v.strip().strip('"') for k, _, v in (p.partition("=") for p in rest)}
        try:
            quality = float(params.pop("q", "1"))
        except ValueError:
            quality = 1.0
        if quality > 0:
            ranges.append((-quality, i, media.lower(), params))
    return [(media, params) for _, _, media, params in sorted(ranges, key=lambda r: r[:2])]


@functools.lru_cache(256)
def _choose(header: str, reading: bool) -> tuple[Form, bool]:
    """The form and whether YAML, of the first range that can be served. `reading`: whether other forms than the
    object itself are offered."""
    for media, params in accepts(header):
        yaml = media == _YAML_TYPE
        if not yaml and media not in _JSON_TYPES:
            continue
        as_ = params.get("as", "")
        if not as_:
            return "object", yaml
        if params.get("g") != "meta.k8s.io" or params.get("v") != "v1":
            continue
        if reading and as_ == "Table":
            return "table", yaml
        if as_ in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return "metadata", yaml
    raise not_acceptable()


def negotiate(resource: Resource, accept: str, include: str = "", *, reading: bool = True) -> Rendering:
    """The rendering for an Accept header. Raises StatusError 406 where nothing in it can be served."""
    if not accept or accept == "application/json":
        return rendering(resource)
    form, yaml = _choose(accept, reading)
    if form != "table":
        return rendering(resource, form, yaml=yaml)
    match include:
        case "None" | "Object" | "Metadata":
            return rendering(resource, form, include, yaml)
        case "":
            return rendering(resource, form, "Metadata", yaml)
    raise StatusError(400, "BadRequest", f'unrecognized includeObject value: "{include}"')


def wants_yaml(accept: str) -> bool:
    """Whether a plain value (a Status, a Scale) is to be answered as YAML. Never refuses: an error must get out."""
    try:
        return bool(accept) and _choose(accept, True)[1]
    except StatusError:
        return False


def plain(value: Any, accept: str) -> tuple[bytes, str]:
    """A value that is no stored object, as (body, content type)."""
    if wants_yaml(accept):
        import yaml

        return yaml.dump(value, Dumper=_yaml_dumper(), default_flow_style=False).encode(), _YAML_TYPE
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n", "application/json"
