"""The patch verb: a JSON, merge or strategic merge patch of what is there, or server-side apply.

Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sampan.api import (
    apply,
    configuration,
    decoding,
    errors,
    go_text,
    managed_fields,
    scale_fields,
    schema,
    strategic_merge,
    type_check,
)
from sampan.api import patch as patches
from sampan.api.errors import Object, bad_request
from sampan.api.objects import deep_copy, now
from sampan.api.resources import Resource, hub
from sampan.apiserver import preparation
from sampan.apiserver.preparation import Writing
from sampan.apiserver.records import Record
from sampan.apiserver.registry import Conflict, Registry, check_name, check_namespace
from sampan.apiserver.views import ObjectView, View
from sampan.client.types import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH


class Patching:
    """The patch verb of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        view: View,
        patch: Any,
        content_type: str,
        writing: Writing,
        duplicates: Sequence[str] = (),
    ) -> tuple[Record, bool]:
        """Change an object by one of the four kinds of patch; the second value says whether it was created.
        `duplicates` are the fields that the patch names twice."""
        row = hub(resource)
        wanted: Object = {}
        if content_type == APPLY_PATCH:
            wanted = self._configuration(resource, namespace, name, view, patch, writing, duplicates)
        apply_patch = _applier(view, patch, content_type)
        while True:
            record = self._registry.cache.record(row, namespace, name)
            if record is None:
                if content_type != APPLY_PATCH or view.name:
                    raise errors.not_found(row.plural, name, row.group)
                return await self._apply_missing(resource, namespace, wanted, writing), True
            mark = len(writing.warnings)
            try:
                if content_type == APPLY_PATCH:
                    return await self._apply(resource, record, view, wanted, writing), False
                face = deep_copy(apply_patch(view.read(record.obj)))
                return await self._patched(resource, record, view, patch, face, writing, duplicates), False
            except Conflict:
                # Tried again on the newer object; a patch that names a version is found out by its preconditions.
                del writing.warnings[mark:]

    async def _patched(
        self,
        resource: Resource,
        record: Record,
        view: View,
        patch: Any,
        face: Object,
        writing: Writing,
        duplicates: Sequence[str],
    ) -> Record:
        row = hub(resource)
        _check_patched(view, patch, face, writing, duplicates)
        metadata = face["metadata"]
        check_name(metadata, record.name)
        check_namespace(resource, record.namespace, metadata)
        self._registry.check_preconditions(row, record, metadata, metadata.get("resourceVersion") or "")
        return await self._registry.replace(
            resource, record, view.write(record.obj, face), view.name, writing
        )

    # -- server-side apply

    def _configuration(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        view: View,
        given: Any,
        writing: Writing,
        duplicates: Sequence[str],
    ) -> Object:
        """An applied configuration, held against its type. Raises StatusError."""
        if not isinstance(given, dict):
            raise bad_request("error decoding YAML: an applied configuration is one object")
        version, kind = given.get("apiVersion"), given.get("kind")
        if not version or not kind or not isinstance(version, str) or not isinstance(kind, str):
            missing = "apiVersion" if not version or not isinstance(version, str) else "kind"
            raise bad_request(f"invalid object type: {missing} must be set in an applied configuration")
        if (version, kind) != (view.api_version, view.kind):
            raise bad_request(f"invalid object type: {version}, Kind={kind}")
        if duplicates and writing.field_validation == "Strict":
            raise bad_request(
                f"error strict decoding YAML: error converting YAML to JSON: {decoding.listed(duplicates)}"
            )
        if duplicates and writing.field_validation == "Warn":
            writing.warnings += duplicates
        metadata = given.get("metadata")
        if isinstance(metadata, dict) and metadata.get("managedFields") is not None:
            raise bad_request("metadata.managedFields must be nil")
        node = schema.node(view.definition)
        shown = metadata if isinstance(metadata, dict) else {}
        configuration.refuse(
            node, given, str(shown.get("namespace") or namespace), str(shown.get("name") or name)
        )
        # The patch is ours; only nulls are looked up again.
        config = given if type_check.is_normal(node, given) else deep_copy(given)
        preparation.check_type(view.definition, view.api_version, view.kind, config, writing)
        metadata = config["metadata"]
        check_namespace(resource, namespace, metadata)
        metadata.setdefault("name", name)
        check_name(metadata, name)
        if config is not given:
            # A null has a meaning here: it is owned, and takes the value away.
            _put_back_nulls(config, given)
        return config

    async def _apply(
        self, resource: Resource, record: Record, view: View, config: Object, writing: Writing
    ) -> Record:
        asked = config["metadata"].get("resourceVersion") or ""
        self._registry.check_preconditions(hub(resource), record, config["metadata"], asked)
        live = view.read(record.obj)
        entries = record.obj["metadata"].get("managedFields") or []
        scale = view.kind != resource.kind
        if scale:
            # A scale shows no managers, but has them.
            theirs = scale_fields.to_scale(entries, view.api_version)
            live = {**live, "metadata": {**live["metadata"], "managedFields": theirs}}
        face = _applied(view, live, config, writing)
        new = view.write(record.obj, deep_copy(face))
        if scale:
            theirs = face["metadata"].get("managedFields") or []
            managed_fields.store_entries(new, scale_fields.to_parent(entries, theirs, resource.api_version))
        preparation.begin_update(hub(resource), new, record.obj, view.name, writing)
        return await self._registry.finish_update(resource, record, new, view.name, writing)

    async def _apply_missing(
        self, resource: Resource, namespace: str, config: Object, writing: Writing
    ) -> Record:
        metadata = config["metadata"]
        if metadata.get("uid"):
            why = f"uid mismatch: the provided object specified uid {metadata['uid']}, and no existing object was found"
            raise errors.conflict(resource.plural, metadata["name"], why, resource.group)
        writing.authorize_create()
        obj = deep_copy(_applied(ObjectView(resource), None, config, writing))
        obj["metadata"].pop("resourceVersion", None)
        return await self._registry.create(resource, namespace, obj, writing, applied=True)


def _applied(view: View, live: Object | None, config: Object, writing: Writing) -> Object:
    return apply.apply(
        schema.node(view.definition),
        live,
        config,
        manager=writing.manager,
        api_version=view.api_version,
        time=now(),
        force=writing.force,
        subresource=view.name,
    )


def _put_back_nulls(checked: Any, given: Any) -> None:
    """Give a configuration, whose type check took the nulls out of its structs, back those that it had."""
    if isinstance(given, dict) and isinstance(checked, dict):
        for name, value in given.items():
            if value is None:
                checked.setdefault(name, None)
            elif isinstance(value, dict | list):
                _put_back_nulls(checked.get(name), value)
    elif isinstance(given, list) and isinstance(checked, list):
        for part, value in zip(checked, given, strict=False):
            _put_back_nulls(part, value)


def _check_patched(view: View, patch: Any, face: Object, writing: Writing, duplicates: Sequence[str]) -> None:
    """Hold a patched object against its type; what does not fit is told of the patch. Raises StatusError 422."""
    try:
        preparation.check_type(view.definition, view.api_version, view.kind, face, writing, duplicates)
    except decoding.Undecodable as e:
        problem = errors.invalid_value("patch", go_text.show(patch, 1000), e.problem)
        raise errors.invalid("", "", [problem]) from None


def _applier(view: View, patch: Any, content_type: str) -> Callable[[Object], Object]:
    if content_type == JSON_PATCH:
        # Its operations may look into the managed fields.
        return lambda doc: patches.json_patch(managed_fields.plain(doc), patch)
    if content_type == MERGE_PATCH:
        return lambda doc: patches.merge_patch(doc, patch)
    if content_type == STRATEGIC_MERGE_PATCH:
        node = schema.node(view.definition)
        return lambda doc: strategic_merge.strategic_merge(node, doc, patch)
    if content_type == APPLY_PATCH:
        return lambda doc: doc
    raise errors.unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: "
        f"{JSON_PATCH}, {MERGE_PATCH}, {STRATEGIC_MERGE_PATCH}, {APPLY_PATCH}"
    )
