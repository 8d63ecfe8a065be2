"""What belongs to which node: the pods bound to it, and whatever these refer to.

    node <- pod <- secret, configmap, serviceaccount, persistentvolumeclaim, resourceclaim
            pod <- persistentvolumeclaim <- persistentvolume <- secret
    node <- volumeattachment, resourceslice

Kept up to date by the cache's changes; a question costs a few look-ups, however many pods a node has.

Upstream: `plugin/pkg/auth/authorizer/node/graph.go`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sampan.api import resources
from sampan.api.errors import Object
from sampan.apiserver.types import ReadCache

Reference = tuple[str, str]
"""A resource's plural and an object's name; the namespace is the pod's."""
MIRROR = "kubernetes.io/config.mirror"
_SECRET_REFS = ("secretRef", "nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef")
"""Where a source of volumes names the Secrets that a node needs for it."""


def references(pod: Object) -> frozenset[Reference]:
    """Everything in its namespace that a pod needs a node to read for it."""
    return frozenset(r for r in _references(pod) if r[1])


def _references(pod: Object) -> Iterator[Reference]:
    spec = pod["spec"]
    yield "serviceaccounts", spec.get("serviceAccountName", "")
    for pull in spec.get("imagePullSecrets") or ():
        yield "secrets", pull.get("name", "")
    for volume in spec.get("volumes") or ():
        yield from _volume_references(volume, pod["metadata"]["name"])
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            yield from _container_references(container)
    yield from _claims(pod)


def _volume_references(volume: Object, pod_name: str) -> Iterator[Reference]:
    for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
        if config_map := source.get("configMap"):
            yield "configmaps", config_map.get("name", "")
        if secret := source.get("secret"):
            yield "secrets", secret.get("secretName") or secret.get("name", "")
    if claim := volume.get("persistentVolumeClaim"):
        yield "persistentvolumeclaims", claim.get("claimName", "")
    if volume.get("ephemeral"):
        yield "persistentvolumeclaims", f"{pod_name}-{volume['name']}"
    for _, name in _source_secrets(volume, ""):
        yield "secrets", name


def _source_secrets(holder: Object, namespace: str) -> Iterator[tuple[str, str]]:
    """Namespace and name of the Secrets that the sources of a volume name; `namespace` unless they say another."""
    for kind, source in holder.items():
        if not isinstance(source, dict):
            continue
        for field in _SECRET_REFS:
            if ref := source.get(field):
                yield ref.get("namespace") or namespace, ref.get("name", "")
        if kind == "azureFile":
            yield source.get("secretNamespace") or namespace, source.get("secretName", "")


def _container_references(container: Object) -> Iterator[Reference]:
    for env in container.get("env") or ():
        source = env.get("valueFrom") or {}
        yield from _environment(source.get("configMapKeyRef"), source.get("secretKeyRef"))
    for source in container.get("envFrom") or ():
        yield from _environment(source.get("configMapRef"), source.get("secretRef"))


def _environment(config_map: Object | None, secret: Object | None) -> Iterator[Reference]:
    if config_map:
        yield "configmaps", config_map.get("name", "")
    if secret:
        yield "secrets", secret.get("name", "")


def _claims(pod: Object) -> Iterator[Reference]:
    """Claims of devices: named by the pod, or made for it from a template, which its status tells."""
    status = pod.get("status") or {}
    for claim in (*(pod["spec"].get("resourceClaims") or ()), *(status.get("resourceClaimStatuses") or ())):
        yield "resourceclaims", claim.get("resourceClaimName") or ""
    if extended := status.get("extendedResourceClaimStatus"):
        yield "resourceclaims", extended.get("resourceClaimName", "")


class NodeGraph:
    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache
        self._filled = False
        self._pods: dict[tuple[str, str], tuple[str, frozenset[Reference]]] = {}
        """Of each bound pod, by namespace and name: its node and its references."""
        self._counts: dict[str, Counter[tuple[str, str, str]]] = {}
        """By node: how many of its pods refer to (plural, namespace, name)."""
        self._volumes: dict[str, tuple[tuple[str, str], ...]] = {}
        """The Secrets, as namespace and name, that each PersistentVolume names."""
        self._secrets: dict[tuple[str, str], set[str]] = {}
        """The PersistentVolumes that name a Secret."""
        cache.on_change(resources.PODS, self._pod_changed)
        cache.on_change(resources.PERSISTENTVOLUMES, self._volume_changed)

    # -- questions

    def has_pod(self, node: str, namespace: str, name: str) -> bool:
        self._fill()
        pod = self._pods.get((namespace, name))
        return pod is not None and pod[0] == node

    def refers(self, node: str, plural: str, namespace: str, name: str) -> bool:
        """Whether a pod on the node needs an object of its namespace, or, of Secrets, a volume that it needs does."""
        self._fill()
        counts = self._counts.get(node)
        if counts is None:
            return False
        if (plural, namespace, name) in counts:
            return True
        if plural != "secrets":
            return False
        return any(self.needs_volume(node, volume) for volume in self._secrets.get((namespace, name), ()))

    def needs_volume(self, node: str, name: str) -> bool:
        """Whether the PersistentVolume is that of a claim which a pod on the node uses."""
        volume = self._cache.get(resources.PERSISTENTVOLUMES, "", name)
        claim = ((volume or {}).get("spec") or {}).get("claimRef")
        if not claim:
            return False
        return self.refers(node, "persistentvolumeclaims", claim.get("namespace", ""), claim.get("name", ""))

    def names_node(self, node: str, resource: resources.Resource, name: str) -> bool:
        """Whether an object's `spec.nodeName` is the node: a VolumeAttachment's, a ResourceSlice's."""
        found = self._cache.get(resource, "", name)
        return found is not None and (found.get("spec") or {}).get("nodeName") == node

    # -- changes

    def _fill(self) -> None:
        # At the first question, so that it does not matter whether the cache was full when we were made.
        if not self._filled:
            self._filled = True
            for pod in self._cache.list(resources.PODS):
                self._pod_changed(None, pod)
            for volume in self._cache.list(resources.PERSISTENTVOLUMES):
                self._volume_changed(None, volume)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new if new is not None else old
        if not self._filled or pod is None:
            return
        meta = pod["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        node = new["spec"].get("nodeName") if new is not None else None
        present = self._pods.get(key)
        if node and present is not None and old is not None and present[0] == node and _same(old, pod):
            return
        if present is not None:
            self._count(present[0], key[0], present[1], -1)
            del self._pods[key]
        if node:
            # A node must not give itself rights by a pod that it made up.
            mirror = MIRROR in (meta.get("annotations") or {})
            referred = frozenset[Reference]() if mirror else references(pod)
            self._pods[key] = (node, referred)
            self._count(node, key[0], referred, 1)

    def _count(self, node: str, namespace: str, referred: frozenset[Reference], step: int) -> None:
        counts = self._counts.setdefault(node, Counter())
        for plural, name in referred:
            key = (plural, namespace, name)
            counts[key] += step
            if not counts[key]:
                del counts[key]
        if not counts:
            del self._counts[node]

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        volume = new if new is not None else old
        if not self._filled or volume is None:
            return
        name = volume["metadata"]["name"]
        for secret in self._volumes.pop(name, ()):
            self._secrets[secret].discard(name)
            if not self._secrets[secret]:
                del self._secrets[secret]
        spec = (new or {}).get("spec") or {}
        if claim := spec.get("claimRef"):
            named = tuple(s for s in _source_secrets(spec, claim.get("namespace", "")) if s[1])
            if named:
                self._volumes[name] = named
            for secret in named:
                self._secrets.setdefault(secret, set()).add(name)


def _same(old: Object, new: Object) -> bool:
    """Whether two states of a pod refer to the same."""
    then, now = old.get("status") or {}, new.get("status") or {}
    fields = ("resourceClaimStatuses", "extendedResourceClaimStatus")
    return bool(old["spec"] == new["spec"]) and all(then.get(f) == now.get(f) for f in fields)
