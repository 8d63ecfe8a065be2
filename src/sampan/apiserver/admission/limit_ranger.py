"""LimitRanger: what a namespace's LimitRanges give to containers that ask for nothing, and what they forbid.

Upstream: `plugin/pkg/admission/limitranger`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sampan.api import pod_resources
from sampan.api.errors import Object
from sampan.api.quantity import compare, parse
from sampan.api.quantity import format as show
from sampan.api.resources import LIMITRANGES, PERSISTENTVOLUMECLAIMS, PODS
from sampan.apiserver.admission.by_namespace import ByNamespace
from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.types import Attributes, ReadCache

ANNOTATION = "kubernetes.io/limit-ranger"
Amounts = Mapping[str, str]


class LimitRanger(Plugin):
    resources = frozenset((PODS.key_stem, PERSISTENTVOLUMECLAIMS.key_stem))
    operations = WRITES

    def __init__(self, cache: ReadCache) -> None:
        self._limit_ranges = ByNamespace(cache, LIMITRANGES)

    async def mutate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.namespace not in self._limit_ranges:
            return
        if attributes.resource is not PODS or pod is None or not _concerned(attributes):
            return
        for limit_range in self._limit_ranges.of(attributes.namespace).values():
            _give_defaults(pod, _limits(limit_range))

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if attributes.namespace not in self._limit_ranges:
            return
        if obj is None or not _concerned(attributes):
            return
        for limit_range in self._limit_ranges.of(attributes.namespace).values():
            limits = _limits(limit_range)
            found = _of_pod(obj, limits) if attributes.resource is PODS else _of_claim(obj, limits)
            problems = list(dict.fromkeys(found))
            if problems:
                raise refuse(attributes, problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")


def _concerned(attributes: Attributes) -> bool:
    """A pod's containers change only by a resize; whatever is on its way out is left alone."""
    if attributes.operation == "UPDATE":
        if attributes.resource is PODS and attributes.subresource != "resize":
            return False
        if ((attributes.old or {}).get("metadata") or {}).get("deletionTimestamp"):
            return False
    return not attributes.subresource or attributes.subresource == "resize"


def _limits(limit_range: Object) -> list[Object]:
    return (limit_range.get("spec") or {}).get("limits") or []


def _give_defaults(pod: Object, limits: list[Object]) -> None:
    requests: dict[str, str] = {}
    most: dict[str, str] = {}
    for limit in limits:
        if limit.get("type") == "Container":
            requests |= limit.get("defaultRequest") or {}
            most |= limit.get("default") or {}
    if not requests and not most:
        return
    said = []
    for field, what in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(field) or ():
            resources = container.get("resources") or {}
            # Copied: what the caller gave may be shared with the object's last state.
            resources = container["resources"] = dict(resources)
            for part, word, defaults in (("requests", "request", requests), ("limits", "limit", most)):
                given = resources.get(part) or {}
                missing = sorted(defaults.keys() - given.keys())
                if missing:
                    resources[part] = {**given, **{name: defaults[name] for name in missing}}
                    said.append(f"{', '.join(missing)} {word} for {what} {container['name']}")
            if not resources:
                del container["resources"]
    if said:
        metadata = pod["metadata"]
        text = f"LimitRanger plugin set: {'; '.join(said)}"
        metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION: text}


def _of_pod(pod: Object, limits: list[Object]) -> Iterator[str]:
    spec = pod["spec"]
    for limit in limits:
        kind = limit.get("type") or ""
        if kind == "Container":
            for container in (*spec["containers"], *(spec.get("initContainers") or ())):
                requests = pod_resources.of(container, "requests")
                yield from _held(kind, limit, requests, pod_resources.of(container, "limits"))
        elif kind == "Pod":
            requests = pod_resources.pod_requests(spec, overhead=False)
            yield from _held(kind, limit, requests, pod_resources.pod_limits(spec, overhead=False))


def _held(kind: str, limit: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, enforced in _sorted(limit, "min"):
        yield from _least(kind, name, enforced, requests, limits)
    for name, enforced in _sorted(limit, "max"):
        yield from _most(kind, name, enforced, requests, limits)
    for name, enforced in _sorted(limit, "maxLimitRequestRatio"):
        yield from _ratio(kind, name, enforced, requests, limits)


def _sorted(limit: Object, part: str) -> Iterator[tuple[str, str]]:
    yield from sorted((limit.get(part) or {}).items())


def _least(kind: str, name: str, enforced: str, requests: Amounts, limits: Amounts) -> Iterator[str]:
    told = f"minimum {name} usage per {kind} is {show(enforced)}"
    request, limit = requests.get(name), limits.get(name)
    if request is None:
        yield f"{told}.  No request is specified"
    elif compare(request, enforced) < 0:
        yield f"{told}, but request is {show(request)}"
    elif limit is not None and compare(limit, enforced) < 0:
        yield f"{told}, but limit is {show(limit)}"


def _most(kind: str, name: str, enforced: str, requests: Amounts, limits: Amounts) -> Iterator[str]:
    told = f"maximum {name} usage per {kind} is {show(enforced)}"
    request, limit = requests.get(name), limits.get(name)
    if limit is None:
        yield f"{told}.  No limit is specified"
    elif compare(limit, enforced) > 0:
        yield f"{told}, but limit is {show(limit)}"
    elif request is not None and compare(request, enforced) > 0:
        yield f"{told}, but request is {show(request)}"


def _ratio(kind: str, name: str, enforced: str, requests: Amounts, limits: Amounts) -> Iterator[str]:
    told = f"{name} max limit to request ratio per {kind} is {show(enforced)}"
    request, limit = parse(requests.get(name, 0)), parse(limits.get(name, 0))
    if not request:
        yield f"{told}, but no request is specified or request is 0"
    elif not limit:
        yield f"{told}, but no limit is specified or limit is 0"
    elif limit / request > parse(enforced):
        yield f"{told}, but provided ratio is {limit / request:.6f}"


def _of_claim(claim: Object, limits: list[Object]) -> Iterator[str]:
    """A claim asks; it has no limits."""
    requests = pod_resources.of(claim.get("spec") or {}, "requests")
    for limit in limits:
        kind = limit.get("type") or ""
        if kind != PERSISTENTVOLUMECLAIMS.kind:
            continue
        for name, enforced in _sorted(limit, "min"):
            yield from _least(kind, name, enforced, requests, {})
        for name, enforced in _sorted(limit, "max"):
            told = f"maximum {name} usage per {kind} is {show(enforced)}"
            request = requests.get(name)
            if request is None:
                yield f"{told}.  No request is specified"
            elif compare(request, enforced) > 0:
                yield f"{told}, but request is {show(request)}"
