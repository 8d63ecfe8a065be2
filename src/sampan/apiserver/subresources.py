"""What lies below an object: its scale, and the actions binding, eviction and token.

`status`, `finalize`, `ephemeralcontainers` and `resize` are the object itself under another strategy (`ObjectView`). Those that connect
to a node (log, exec, proxy, ...) belong to the connector.
"""

from __future__ import annotations

from sampan.api import errors, selectors
from sampan.api.errors import Object, bad_request
from sampan.api.objects import condition, deep_copy, now
from sampan.api.resources import PODS, REPLICATIONCONTROLLERS, SERVICEACCOUNTS, Resource, Subresource
from sampan.api.validation import pods
from sampan.apiserver.config import Config
from sampan.apiserver.deletion import Deletion
from sampan.apiserver.eviction import Evictions
from sampan.apiserver.preparation import Writing, check_type
from sampan.apiserver.registry import Registry
from sampan.apiserver.types import Attributes, Authorizer
from sampan.apiserver.views import ObjectView, View

SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
CONNECT = frozenset({"log", "exec", "attach", "portforward", "proxy"})
"""Subresources that are answered by the connector."""
_SAME_OBJECT = frozenset({"status", "finalize", "ephemeralcontainers", "resize", "approval"})
_BINDING = "io.k8s.api.core.v1.Binding"
_TOKEN_REQUEST = "io.k8s.api.authentication.v1.TokenRequest"


SCALES = Resource("autoscaling", "v1", "scales", "Scale", "io.k8s.api.autoscaling.v1.Scale", verbs=())
"""Only ever seen below what is scaled."""


class ScaleView:
    """autoscaling/v1 Scale of whatever has `spec.replicas`. A ReplicationController's selector is a plain map."""

    name = "scale"
    definition = SCALES.definition
    api_version = SCALES.api_version
    kind = SCALES.kind

    def read(self, obj: Object) -> Object:
        metadata = obj["metadata"]
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        given = obj["spec"].get("selector")
        plain = obj["kind"] == REPLICATIONCONTROLLERS.kind
        selector = str(selectors.from_map(given) if plain else selectors.from_object(given))
        status: Object = {"replicas": (obj.get("status") or {}).get("replicas", 0)}
        if selector:
            status["selector"] = selector
        return {
            "kind": self.kind,
            "apiVersion": self.api_version,
            "metadata": {k: metadata[k] for k in kept if k in metadata},
            "spec": {"replicas": obj["spec"].get("replicas", 0)},
            "status": status,
        }

    def write(self, obj: Object, face: Object) -> Object:
        replicas = (face.get("spec") or {}).get("replicas", 0)
        if replicas < 0:
            problem = errors.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
            raise errors.invalid("Scale", face["metadata"].get("name", ""), [problem], "autoscaling")
        new = deep_copy(obj)
        new["spec"]["replicas"] = replicas
        return new


_SCALE = ScaleView()


def view_of(resource: Resource, subresource: Subresource | None) -> View:
    """The view that get, update and patch work on. Raises StatusError 405 for an action."""
    if subresource is None or subresource.name in _SAME_OBJECT:
        return ObjectView(resource, subresource.name if subresource else "")
    if subresource.name == "scale":
        return _SCALE
    raise errors.method_not_supported(f"{resource.plural}/{subresource.name}", "this verb", resource.group)


class Actions:
    """The subresources that are created: each an action on its object."""

    def __init__(self, registry: Registry, deletion: Deletion, config: Config) -> None:
        self._registry = registry
        self._evictions = Evictions(registry, deletion)
        self._config = config
        self.authorizer: Authorizer | None = None
        """Says which audiences a node may ask tokens for; the server sets it."""

    async def create(
        self, resource: Resource, namespace: str, name: str, subresource: str, body: Object, writing: Writing
    ) -> Object:
        """Do it, and return what answers the request."""
        if resource is PODS and subresource == "binding":
            return await self.bind(namespace, name, body, writing)
        if resource is PODS and subresource == "eviction":
            await self._evictions.evict(namespace, name, body, writing)
            return SUCCESS
        if resource is SERVICEACCOUNTS and subresource == "token":
            return await self._token(namespace, name, body, writing)
        raise errors.method_not_supported(f"{resource.plural}/{subresource}", "create", resource.group)

    async def bind(self, namespace: str, name: str, binding: Object, writing: Writing) -> Object:
        """Give a pod its node. `name` is the one in the URL, "" where the URL has none."""
        check_type(_BINDING, "v1", "Binding", binding, writing)
        given = binding["metadata"].get("name") or name
        if name and given != name:
            raise bad_request("name in URL does not match name in Binding object")
        name = given
        target = binding.get("target") or {}
        if problems := pods.binding(binding):
            raise errors.invalid("Binding", name, problems)
        attributes = Attributes(
            writing.user, "CREATE", PODS, namespace, name, "binding", binding, None, writing.dry_run
        )
        await self._registry.admission.mutate(attributes)
        await self._registry.admission.validate(attributes)
        annotations = binding["metadata"].get("annotations") or {}
        labels = binding["metadata"].get("labels") or {}
        uid = binding["metadata"].get("uid")

        def assign(pod: Object) -> Object:
            metadata, spec = pod["metadata"], pod["spec"]
            if uid and uid != metadata["uid"]:
                why = (
                    f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
                )
                raise errors.conflict("pods/binding", name, why)
            if metadata.get("deletionTimestamp"):
                raise errors.conflict(
                    "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host"
                )
            if spec.get("nodeName"):
                raise errors.conflict(
                    "pods/binding", name, f'pod {name} is already assigned to node "{spec["nodeName"]}"'
                )
            if spec.get("schedulingGates"):
                raise errors.conflict("pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
            spec["nodeName"] = target["name"]
            # A promise that is kept or overtaken (ClearingNominatedNodeNameAfterBinding, on by default since v1.35).
            (pod.get("status") or {}).pop("nominatedNodeName", None)
            if annotations:
                metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
            if labels:
                # The pod's own stay (PodTopologyLabels, on by default since v1.35).
                metadata["labels"] = {**labels, **(metadata.get("labels") or {})}
            _set_scheduled(pod)
            return pod

        await self._registry.modify(PODS, namespace, name, assign, writing)
        return SUCCESS

    async def _token(self, namespace: str, name: str, request: Object, writing: Writing) -> Object:
        from sampan.apiserver.tokens.requests import create_token_request

        check_type(_TOKEN_REQUEST, "authentication.k8s.io/v1", "TokenRequest", request, writing)
        account = self._registry.cache.get(SERVICEACCOUNTS, namespace, name)
        if account is None:
            raise errors.not_found("serviceaccounts", name)
        return create_token_request(
            self._registry.cache, self._config, writing.user, account, request, authorizer=self.authorizer
        )


def _set_scheduled(pod: Object) -> None:
    status = pod.setdefault("status", {})
    present = condition(pod, "PodScheduled")
    made = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
    if present is not None and present.get("status") == "True":
        return
    kept = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
    status["conditions"] = [*kept, made]
