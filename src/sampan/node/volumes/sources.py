"""What configMap, secret, downwardAPI and token sources contribute, as volumes of their own or projected together."""

from __future__ import annotations

import time
from typing import Any

from sampan.api.objects import parse_time
from sampan.api.resources import CONFIGMAPS, Resource
from sampan.client.references import CacheTimeout
from sampan.node import pods
from sampan.node.fieldref import FieldRefError, field_value, resource_value
from sampan.node.references import data_of
from sampan.node.volumes.atomic_writer import FileContent
from sampan.node.volumes.types import VolumeContext, VolumeFailure

DEFAULT_MODE = 0o644
TOKEN_SECONDS = 3607
"""What upstream asks for where the pod does not say: an hour, told apart from an explicit one."""


async def object_files(
    context: VolumeContext, resource: Resource, name: str, source: dict[str, Any], default_mode: int
) -> dict[str, FileContent]:
    """The files of a ConfigMap or Secret: all keys, or the `items` asked for. Raises VolumeFailure."""
    optional = bool(source.get("optional"))
    try:
        obj = await context.lookup(resource, name)
    except CacheTimeout as e:
        raise VolumeFailure(str(e)) from None
    if obj is None:
        if optional:
            return {}
        raise VolumeFailure(f'{resource.singular} "{name}" not found')
    data = data_of(obj, resource)
    items = source.get("items")
    if not items:
        return {key: FileContent(value, default_mode) for key, value in data.items()}
    out: dict[str, FileContent] = {}
    for item in items:
        if item["key"] not in data:
            if optional:
                continue
            what = "configmap" if resource is CONFIGMAPS else "secret"
            raise VolumeFailure(f"{what} references non-existent {what[:6]} key: {item['key']}")
        out[item["path"]] = FileContent(data[item["key"]], item.get("mode", default_mode))
    return out


def downward_files(
    context: VolumeContext, items: list[dict[str, Any]], default_mode: int
) -> dict[str, FileContent]:
    """The files of a downward API source. Raises VolumeFailure."""
    out: dict[str, FileContent] = {}
    for item in items:
        try:
            if item.get("fieldRef"):
                text = field_value(
                    context.pod,
                    item["fieldRef"]["fieldPath"],
                    node_name=context.node_name,
                    host_ips=context.host_ips,
                    pod_ips=context.pod_ips,
                )
            else:
                text = resource_value(
                    context.pod,
                    item["resourceFieldRef"],
                    default_container="",
                    machine_cpus=context.machine_cpus,
                    machine_memory=context.machine_memory,
                )
        except (FieldRefError, ValueError) as e:
            raise VolumeFailure(str(e)) from None
        out[item["path"]] = FileContent(text.encode(), item.get("mode", default_mode))
    return out


class TokenSource:
    """A service account token, asked for anew when a fifth of its time (or a day) is left."""

    def __init__(self, context: VolumeContext, source: dict[str, Any]) -> None:
        self.refresh_at = 0.0
        self._context = context
        self._source = source
        self._token = ""

    async def files(self, default_mode: int) -> dict[str, FileContent]:
        if not self._token or time.time() >= self.refresh_at:
            await self._request()
        owner, mode = None, default_mode
        if self._context.fs_user is not None:
            owner, mode = self._context.fs_user, 0o600
        elif self._context.fs_group is not None:
            mode = 0o600
        return {self._source["path"]: FileContent(self._token.encode(), mode, owner)}

    async def _request(self) -> None:
        pod = self._context.pod
        audience = self._source.get("audience")
        spec: dict[str, Any] = {
            "audiences": [audience] if audience else [],
            "expirationSeconds": self._source.get("expirationSeconds") or TOKEN_SECONDS,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod["metadata"]["name"],
                "uid": pods.uid(pod),
            },
        }
        asked = time.time()
        status = await self._context.request_token(
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec}
        )
        self._token = status["token"]
        expires = parse_time(status["expirationTimestamp"])
        lifetime = max(0.0, expires - asked)
        self.refresh_at = min(expires - lifetime * 0.2, asked + 24 * 3600)
