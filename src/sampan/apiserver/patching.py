"""The patch verb: a JSON, merge or strategic merge patch of what is there, or server-side apply.

Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api import apply, errors, schema
from sampan.api import patch as patches
from sampan.api.errors import Object, StatusError, bad_request
from sampan.api.objects import deep_copy, now
from sampan.api.resources import Resource, hub
from sampan.apiserver import preparation
from sampan.apiserver.preparation import Writing
from sampan.apiserver.records import Record
from sampan.apiserver.registry import Conflict, Registry, check_namespace
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
    ) -> tuple[Record, bool]:
        """Change an object by one of the four kinds of patch; the second value says whether it was created."""
        apply_patch = _applier(view, patch, content_type)
        row = hub(resource)
        while True:
            record = self._registry.cache.record(row, namespace, name)
            if record is None:
                if content_type != APPLY_PATCH or view.name:
                    raise errors.not_found(row.plural, name, row.group)
                return await self._apply_missing(resource, namespace, name, patch, writing), True
            mark = len(writing.warnings)
            try:
                if content_type == APPLY_PATCH:
                    return await self._apply(resource, record, view, patch, writing), False
                face = deep_copy(apply_patch(view.read(record.obj)))
                return await self._patched(resource, record, view, face, writing), False
            except Conflict:
                # Tried again on the newer object; a patch that names a version is found out by its preconditions.
                del writing.warnings[mark:]

    async def _patched(
        self, resource: Resource, record: Record, view: View, face: Object, writing: Writing
    ) -> Record:
        row = hub(resource)
        preparation.check_type(view.definition, view.api_version, view.kind, face, writing)
        metadata = face["metadata"]
        if metadata.get("name") != record.name:
            raise bad_request(
                f"the name of the object ({metadata.get('name', '')}) does not match the name on the URL ({record.name})"
            )
        check_namespace(resource, record.namespace, metadata)
        self._registry.check_preconditions(row, record, metadata, metadata.get("resourceVersion") or "")
        return await self._registry.replace(
            resource, record, view.write(record.obj, face), view.name, writing
        )

    async def _apply(
        self, resource: Resource, record: Record, view: View, config: Object, writing: Writing
    ) -> Record:
        row = hub(resource)
        if view.kind != resource.kind:
            what = f"server-side apply of {resource.plural}/{view.name} is not supported by sampan"
            raise StatusError(501, "NotImplemented", what)
        self._check_applied(resource, record.namespace, record.name, view, config, writing)
        asked = config["metadata"].get("resourceVersion") or ""
        self._registry.check_preconditions(row, record, config["metadata"], asked)
        live = view.read(record.obj)
        face = apply.apply(
            schema.node(view.definition),
            live,
            config,
            manager=writing.manager,
            api_version=view.api_version,
            time=now(),
            force=writing.force,
            subresource=view.name,
        )
        new = view.write(record.obj, deep_copy(face))
        preparation.begin_update(row, new, record.obj, view.name)
        return await self._registry.finish_update(resource, record, new, view.name, writing)

    async def _apply_missing(
        self, resource: Resource, namespace: str, name: str, config: Object, writing: Writing
    ) -> Record:
        view = ObjectView(resource)
        self._check_applied(resource, namespace, name, view, config, writing)
        if config["metadata"].get("uid"):
            why = f"uid mismatch: the provided object specified uid {config['metadata']['uid']}, and no existing object was found"
            raise errors.conflict(resource.plural, name, why, resource.group)
        made = apply.apply(
            schema.node(resource.definition),
            None,
            config,
            manager=writing.manager,
            api_version=resource.api_version,
            time=now(),
            force=writing.force,
        )
        obj = deep_copy(made)
        return await self._registry.create(resource, namespace, obj, writing, applied=True)

    def _check_applied(
        self, resource: Resource, namespace: str, name: str, view: View, config: Any, writing: Writing
    ) -> None:
        if not isinstance(config, dict):
            raise bad_request("an applied configuration is an object")
        for needed in ("apiVersion", "kind"):
            if not config.get(needed):
                raise bad_request(f"invalid object type: {needed} must be set in an applied configuration")
        preparation.check_type(view.definition, view.api_version, view.kind, config, writing)
        metadata = config["metadata"]
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        check_namespace(resource, namespace, metadata)
        if metadata.setdefault("name", name) != name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )


def _applier(view: View, patch: Any, content_type: str) -> Callable[[Object], Object]:
    if content_type == JSON_PATCH:
        return lambda doc: patches.json_patch(deep_copy(doc), patch)
    if content_type == MERGE_PATCH:
        return lambda doc: patches.merge_patch(doc, patch)
    if content_type == STRATEGIC_MERGE_PATCH:
        node = schema.node(view.definition)
        return lambda doc: patches.strategic_merge(node, doc, patch)
    if content_type == APPLY_PATCH:
        return lambda doc: doc
    raise errors.unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: "
        f"{JSON_PATCH}, {MERGE_PATCH}, {APPLY_PATCH}"
    )
