"""Every pod runs as a ServiceAccount and finds its token, the cluster's CA and its namespace in a mounted directory.

A ServiceAccount may say that its pods use no Secrets but those that it lists.
Upstream: `plugin/pkg/admission/serviceaccount`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from sampan.api import resources
from sampan.api.errors import Object
from sampan.api.objects import random_suffix
from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.authorization.node_graph import references
from sampan.apiserver.types import Attributes, ReadCache

DEFAULT = "default"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
MIRROR = "kubernetes.io/config.mirror"
_VOLUME_PREFIX = "kube-api-access-"
_TOKEN_SECONDS = 3607
_ROOT_CA = "kube-root-ca.crt"
_ENFORCE = "kubernetes.io/enforce-mountable-secrets"
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_PATIENCE = 1.5
"""Seconds to wait for a new namespace's `default` account, which a controller makes; about what upstream's ten looks
come to."""


class ServiceAccount(Plugin):
    resources = frozenset(("pods",))
    operations = WRITES

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
        if pod is None:
            return
        if attributes.operation == "UPDATE":
            if attributes.subresource == "ephemeralcontainers":
                self._check_secrets(attributes, pod, ("ephemeralContainers",))
            return
        if attributes.subresource:
            return
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            self._check_mirror(attributes, pod)
        else:
            self._check_secrets(attributes, pod, ("initContainers", "containers"))

    def _check_mirror(self, attributes: Attributes, pod: Object) -> None:
        spec = pod["spec"]
        if spec.get("serviceAccountName"):
            raise refuse(attributes, "a mirror pod may not reference service accounts")
        if any(plural == "secrets" for plural, _ in references(pod)):
            raise refuse(attributes, "a mirror pod may not reference secrets")
        for volume in spec.get("volumes") or ():
            projected = (volume.get("projected") or {}).get("sources") or ()
            if any("serviceAccountToken" in source for source in projected):
                why = "a mirror pod may not use ServiceAccountToken volume projections"
                raise refuse(attributes, why)

    def _check_secrets(self, attributes: Attributes, pod: Object, kinds: tuple[str, ...]) -> None:
        """Hold a pod to the Secrets of its ServiceAccount, where that one wants it."""
        name = pod["spec"].get("serviceAccountName") or DEFAULT
        account = self._cache.get(resources.SERVICEACCOUNTS, attributes.namespace, name)
        wanted = ((account or {}).get("metadata") or {}).get("annotations") or {}
        if account is None or wanted.get(_ENFORCE, "") not in _TRUE:
            return
        for problem in _foreign_secrets(account, pod, kinds):
            raise refuse(attributes, problem)

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


_KIND = {
    "initContainers": "init container",
    "containers": "container",
    "ephemeralContainers": "ephemeral container",
}


def _foreign_secrets(account: Object, pod: Object, kinds: tuple[str, ...]) -> Iterator[str]:
    """What a pod wants of Secrets that its account does not list."""
    spec, name = pod["spec"], account["metadata"]["name"]
    listed = {s.get("name") for s in account.get("secrets") or ()}
    missing = f"is not allowed because service account {name} does not reference that secret"
    whole = kinds != ("ephemeralContainers",)
    for volume in spec.get("volumes") or () if whole else ():
        secret = (volume.get("secret") or {}).get("secretName")
        if secret and secret not in listed:
            yield f'volume with secret.secretName="{secret}" {missing}'
    for kind in kinds:
        for container in spec.get(kind) or ():
            told = f"{_KIND[kind]} {container['name']} with"
            for env in container.get("env") or ():
                secret = ((env.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
                if secret and secret not in listed:
                    yield f'{told} envVar {env["name"]} referencing secret.secretName="{secret}" {missing}'
            for source in container.get("envFrom") or ():
                secret = (source.get("secretRef") or {}).get("name")
                if secret and secret not in listed:
                    yield f'{told} envFrom referencing secret.secretName="{secret}" {missing}'
    pulling = {s.get("name") for s in account.get("imagePullSecrets") or ()}
    for i, pull in enumerate(spec.get("imagePullSecrets") or () if whole else ()):
        if pull.get("name") not in pulling:
            yield (
                f'imagePullSecrets[{i}].name="{pull.get("name")}" is not allowed because service account {name} does '
                "not reference that imagePullSecret"
            )


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
