"""Every pod runs as a ServiceAccount and finds its token, the cluster's CA and its namespace in a mounted directory."""

from __future__ import annotations

import asyncio

from sampan.api import resources
from sampan.api.errors import Object
from sampan.api.objects import random_suffix
from sampan.apiserver.admission.plugin import CREATE, Plugin, refuse
from sampan.apiserver.types import Attributes, ReadCache

DEFAULT = "default"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
MIRROR = "kubernetes.io/config.mirror"
_VOLUME_PREFIX = "kube-api-access-"
_TOKEN_SECONDS = 3607
_ROOT_CA = "kube-root-ca.crt"
_PATIENCE = 1.5
"""Seconds to wait for a new namespace's `default` account, which a controller makes; about what upstream's ten looks
come to."""


class ServiceAccount(Plugin):
    resources = frozenset(("pods",))
    operations = CREATE

    def __init__(self, cache: ReadCache, patience: float = _PATIENCE) -> None:
        self._cache = cache
        self._patience = patience
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        cache.on_change(resources.SERVICEACCOUNTS, self._changed)

    async def mutate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.operation != "CREATE" or attributes.subresource or pod is None:
            return
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            return
        spec = pod.setdefault("spec", {})
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT
        # The second is the old name of the first; whoever reads one finds the same as whoever reads the other.
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(attributes.namespace, name)
        if account is None:
            why = (
                f"error looking up service account {attributes.namespace}/{name}: "
                f'serviceaccount "{name}" not found'
            )
            raise refuse(attributes, why)
        if _mounts_token(account, spec):
            _mount_token(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(s) for s in account["imagePullSecrets"]]

    async def validate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.operation != "CREATE" or attributes.subresource or pod is None:
            return
        if MIRROR not in (pod["metadata"].get("annotations") or {}):
            return
        spec = pod["spec"]
        if spec.get("serviceAccountName"):
            raise refuse(attributes, "a mirror pod may not reference service accounts")
        for volume in spec.get("volumes") or ():
            if "secret" in volume:
                raise refuse(attributes, "a mirror pod may not reference secrets")
            projected = (volume.get("projected") or {}).get("sources") or ()
            if any("serviceAccountToken" in source for source in projected):
                why = "a mirror pod may not use ServiceAccountToken volume projections"
                raise refuse(attributes, why)

    async def _account(self, namespace: str, name: str) -> Object | None:
        found = self._cache.get(resources.SERVICEACCOUNTS, namespace, name)
        if found is not None or name != DEFAULT:
            return found
        key = (namespace, name)
        created = asyncio.Event()
        self._waiting.setdefault(key, set()).add(created)
        try:
            async with asyncio.timeout(self._patience):
                await created.wait()
        except TimeoutError:
            return None
        finally:
            waiting = self._waiting[key]
            waiting.discard(created)
            if not waiting:
                del self._waiting[key]
        return self._cache.get(resources.SERVICEACCOUNTS, namespace, name)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and self._waiting:
            meta = new["metadata"]
            for event in self._waiting.get((meta.get("namespace", ""), meta["name"]), ()):
                event.set()


def _mounts_token(account: Object, spec: Object) -> bool:
    for holder in (spec, account):
        wanted = holder.get("automountServiceAccountToken")
        if wanted is not None:
            return bool(wanted)
    return True


def _mount_token(spec: Object) -> None:
    """Add the mount to each container that has nothing at its path, and the volume if one now needs it."""
    volumes = list(spec.get("volumes") or ())
    names = {v.get("name", "") for v in volumes}
    present = next((n for n in sorted(names) if n.startswith(_VOLUME_PREFIX)), "")
    name = present
    while not name:
        name = _VOLUME_PREFIX + random_suffix()
        name = "" if name in names else name
    needed = False
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind) or ():
            mounts = list(container.get("volumeMounts") or ())
            if any(m.get("mountPath") == MOUNT_PATH for m in mounts):
                continue
            container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
            needed = True
    if needed and not present:
        spec["volumes"] = [*volumes, _token_volume(name)]


def _token_volume(name: str) -> Object:
    sources = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": _ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [
                    {
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }
                ]
            }
        },
    ]
    return {"name": name, "projected": {"defaultMode": 0o644, "sources": sources}}
