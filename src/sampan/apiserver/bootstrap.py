"""What every cluster has from its first second: namespaces, default roles, and the Service of the API itself.

`ensure` runs at each start. It makes what is missing and mends what was damaged; what an administrator added stays.

Upstream: `pkg/controlplane/{controller,reconcilers}` and `pkg/registry/rbac/{rest,reconciliation}`.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Sequence

from sampan.api import (
    flow_control,
    priority_classes,
    resources,
)
from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import Resource
from sampan.api.strategy import same
from sampan.apiserver.authorization import bootstrap_policy
from sampan.apiserver.authorization.rbac import Rule, uncovered
from sampan.apiserver.config import Config
from sampan.client.types import Client

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
SERVICE = "kubernetes"
_HOME = "default"
_PORT = "https"
_ATTEMPTS = 6
_PAUSE = 0.1
"""Seconds before the first look at what another server is about to make, doubled for each further one."""


async def ensure(client: Client, config: Config, addresses: Sequence[str]) -> None:
    """Bring the cluster's own objects to what they must be; `addresses` are those of its API servers. Idempotent. Raises
    StatusError, ConnectionLost."""
    try:
        await _ensure(client, config, addresses)
    except ExceptionGroup as group:
        # Several requests run at a time; the first that failed tells what there is to tell.
        first: Exception = group
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from group


async def ensure_endpoints(client: Client, config: Config, addresses: Sequence[str]) -> None:
    """Have the API's Service lead to these addresses. Raises StatusError, ConnectionLost."""
    await _ensure_one(client, resources.ENDPOINTS, _endpoints(config, addresses), _mend_endpoints)
    await _ensure_one(client, resources.ENDPOINTSLICES, _slice(config, addresses), _mend_slice)


async def _ensure(client: Client, config: Config, addresses: Sequence[str]) -> None:
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES
    ]
    await _ensure_all(client, resources.NAMESPACES, namespaces, _mend_nothing)
    async with asyncio.TaskGroup() as group:
        for resource, wanted, mend in (
            (resources.CLUSTERROLES, bootstrap_policy.cluster_roles(), _mend_role),
            (resources.CLUSTERROLEBINDINGS, bootstrap_policy.cluster_role_bindings(), _mend_binding),
            (resources.ROLES, bootstrap_policy.roles(), _mend_role),
            (resources.ROLEBINDINGS, bootstrap_policy.role_bindings(), _mend_binding),
        ):
            group.create_task(_ensure_all(client, resource, wanted, mend))
        group.create_task(_ensure_one(client, resources.SERVICES, _service(config), _mend_service))
        group.create_task(ensure_endpoints(client, config, addresses))
        authorities = _client_authorities(config)
        group.create_task(_ensure_one(client, resources.CONFIGMAPS, authorities, _mend_data))
        classes = priority_classes.system()
        group.create_task(_ensure_all(client, resources.PRIORITYCLASSES, classes, _mend_nothing))
        for kind, mandatory, suggested in (
            (
                resources.PRIORITYLEVELCONFIGURATIONS,
                flow_control.MANDATORY_LEVELS,
                flow_control.SUGGESTED_LEVELS,
            ),
            (resources.FLOWSCHEMAS, flow_control.MANDATORY_SCHEMAS, flow_control.SUGGESTED_SCHEMAS),
        ):
            group.create_task(_ensure_all(client, kind, list(mandatory.values()), _mend_mandatory))
            group.create_task(_ensure_all(client, kind, list(suggested.values()), _mend_suggested))


# ---- making and mending


Mend = Callable[[Object, Object], Object | None]
"""Brings a stored object back to what it must be: from (present, wanted) the object to store, None where nothing is
amiss; raises `_Replace` where only a new one will do."""


class _Replace(Exception):
    pass


async def _ensure_all(client: Client, resource: Resource, wanted: Sequence[Object], mend: Mend) -> None:
    present = {_key(o): o for o in (await client.list(resource)).items}
    async with asyncio.TaskGroup() as group:
        for obj in wanted:
            group.create_task(_settle(client, resource, obj, present.get(_key(obj)), mend))


def _key(obj: Object) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


async def _ensure_one(client: Client, resource: Resource, wanted: Object, mend: Mend) -> None:
    await _settle(client, resource, wanted, await _get(client, resource, wanted), mend)


async def _get(client: Client, resource: Resource, wanted: Object) -> Object | None:
    meta = wanted["metadata"]
    try:
        return await client.get(resource, meta.get("namespace", ""), meta["name"])
    except StatusError as e:
        if e.code == 404:
            return None
        raise


async def _settle(
    client: Client, resource: Resource, wanted: Object, present: Object | None, mend: Mend
) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            if present is None:
                await client.create(resource, wanted)
                return
            try:
                mended = mend(present, wanted)
            except _Replace:
                meta = present["metadata"]
                await client.delete(resource, meta.get("namespace", ""), meta["name"], uid=meta["uid"])
                present = None
                continue
            if mended is not None:
                await client.update(resource, mended)
            return
        except StatusError as e:
            # Another server, or a person, was quicker: look again. One that has taken the Service's address is only
            # about to make the Service.
            taken = e.reason == "Invalid" and present is None
            reasons = ("AlreadyExists", "Conflict", "NotFound")
            if (e.reason not in reasons and not taken) or attempt == _ATTEMPTS - 1:
                raise
            if taken:
                await asyncio.sleep(_PAUSE * 2**attempt)
            present = await _get(client, resource, wanted)


def _mend_nothing(present: Object, wanted: Object) -> Object | None:
    return None


def _mend_mandatory(present: Object, wanted: Object) -> Object | None:
    """A mandatory object of flow control has its specification, but for what may be changed of the exempt level."""
    spec = dict(wanted["spec"])
    if spec.get("type") == "Exempt" and present["spec"].get("exempt") is not None:
        spec["exempt"] = present["spec"]["exempt"]
    return _respecified(present, spec, True)


def _mend_suggested(present: Object, wanted: Object) -> Object | None:
    """A suggested object of flow control follows if its annotation says so, or says nothing and nobody changed it."""
    said = (present["metadata"].get("annotations") or {}).get(flow_control.AUTOUPDATE)
    follows = said == "true" or (said is None and present["metadata"].get("generation", 1) == 1)
    return _respecified(present, wanted["spec"] if follows else present["spec"], follows)


def _respecified(present: Object, spec: Object, follows: bool) -> Object | None:
    said = (present["metadata"].get("annotations") or {}).get(flow_control.AUTOUPDATE)
    word = "true" if follows else "false"
    if same(present["spec"], spec) and said == word:
        return None
    mended = deep_copy(present)
    mended["spec"] = spec
    mended["metadata"].setdefault("annotations", {})[flow_control.AUTOUPDATE] = word
    return mended


def _mend_role(present: Object, wanted: Object) -> Object | None:
    """Adds the rules that the role no longer covers and the labels that it lost; more rules than the default stay. The
    rules of an aggregated role are left to its controller."""
    if _kept_by_administrator(present):
        return None
    mended = deep_copy(present)
    if aggregation := wanted.get("aggregationRule"):
        selectors = (present.get("aggregationRule") or {}).get("clusterRoleSelectors") or []
        lost = [s for s in aggregation["clusterRoleSelectors"] if s not in selectors]
        mended["aggregationRule"] = {"clusterRoleSelectors": [*selectors, *lost]}
    else:
        held = [Rule.compile(r) for r in present.get("rules") or ()]
        lost = [r for r in wanted["rules"] if uncovered(held, [Rule.compile(r)])]
        mended["rules"] = [*(present.get("rules") or ()), *lost]
    return mended if _remind(mended, wanted) or lost else None


def _mend_binding(present: Object, wanted: Object) -> Object | None:
    """Adds the subjects that are missing; a binding to another role is made anew."""
    if _kept_by_administrator(present):
        return None
    if present["roleRef"] != wanted["roleRef"]:
        raise _Replace
    subjects = list(present.get("subjects") or ())
    missing = [s for s in wanted.get("subjects") or () if s not in subjects]
    mended = deep_copy(present)
    mended["subjects"] = [*subjects, *missing]
    return mended if _remind(mended, wanted) or missing else None


def _mend_data(present: Object, wanted: Object) -> Object | None:
    """A ConfigMap has these keys; others stay."""
    if wanted["data"].items() <= (present.get("data") or {}).items():
        return None
    mended = deep_copy(present)
    mended["data"] = {**(present.get("data") or {}), **wanted["data"]}
    return mended


def _mend_service(present: Object, wanted: Object) -> Object | None:
    """The API's Service has its port and its address, the first of the range; elsewhere it is made anew."""
    if present["spec"].get("clusterIP") != wanted["spec"]["clusterIP"]:
        raise _Replace
    kept = {k: v for k, v in (present["spec"].get("ports") or [{}])[0].items() if k != "nodePort"}
    ports = wanted["spec"]["ports"]
    plain = present["spec"].get("type") == wanted["spec"]["type"]
    if plain and [kept] == ports and len(present["spec"]["ports"]) == 1:
        return None
    mended = deep_copy(present)
    mended["spec"].update(type=wanted["spec"]["type"], ports=ports)
    return mended


def _mend_endpoints(present: Object, wanted: Object) -> Object | None:
    if present.get("subsets") == wanted["subsets"] and not _lost_labels(present, wanted):
        return None
    mended = deep_copy(present)
    mended["subsets"] = wanted["subsets"]
    mended["metadata"].setdefault("labels", {}).update(wanted["metadata"]["labels"])
    return mended


def _mend_slice(present: Object, wanted: Object) -> Object | None:
    if present["addressType"] != wanted["addressType"]:
        raise _Replace
    same = all(present.get(k) == wanted[k] for k in ("endpoints", "ports"))
    if same and not _lost_labels(present, wanted):
        return None
    mended = deep_copy(present)
    mended.update(endpoints=wanted["endpoints"], ports=wanted["ports"])
    mended["metadata"].setdefault("labels", {}).update(wanted["metadata"]["labels"])
    return mended


def _kept_by_administrator(present: Object) -> bool:
    """Whether a default role or binding is to be left as it is."""
    annotations = present["metadata"].get("annotations") or {}
    return bool(annotations.get(bootstrap_policy.AUTOUPDATE) == "false")


def _remind(mended: Object, wanted: Object) -> bool:
    """Put back lost labels and annotations; whether there were any."""
    changed = False
    for name in ("labels", "annotations"):
        held = mended["metadata"].setdefault(name, {})
        lost = {k: v for k, v in (wanted["metadata"].get(name) or {}).items() if held.get(k) != v}
        held.update(lost)
        changed = changed or bool(lost)
    return changed


def _lost_labels(present: Object, wanted: Object) -> dict[str, str]:
    labels = present["metadata"].get("labels") or {}
    return {k: v for k, v in (wanted["metadata"].get("labels") or {}).items() if labels.get(k) != v}


# ---- the Service of the API


def _metadata(labels: Iterable[tuple[str, str]]) -> Object:
    return {"name": SERVICE, "namespace": _HOME, "labels": dict(labels)}


def _service(config: Config) -> Object:
    first = str(next(ipaddress.ip_network(config.service_cidrs[0]).hosts()))
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata((("component", "apiserver"), ("provider", "kubernetes"))),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": first,
            "clusterIPs": [first],
            "sessionAffinity": "None",
            "ports": [{"name": _PORT, "protocol": "TCP", "port": 443, "targetPort": config.advertise_port}],
        },
    }


def _endpoints(config: Config, addresses: Sequence[str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        # Its slice is made below; the mirroring controller must not make a second.
        "metadata": _metadata((("endpointslice.kubernetes.io/skip-mirror", "true"),)),
        "subsets": [
            {
                "addresses": [{"ip": address} for address in addresses],
                "ports": [{"name": _PORT, "port": config.advertise_port, "protocol": "TCP"}],
            }
        ],
    }


def _slice(config: Config, addresses: Sequence[str]) -> Object:
    version = ipaddress.ip_address(config.advertise_address).version
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _metadata((("kubernetes.io/service-name", SERVICE),)),
        "addressType": f"IPv{version}",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
        "ports": [{"name": _PORT, "port": config.advertise_port, "protocol": "TCP"}],
    }


# ---- for API servers beside this one


def _client_authorities(config: Config) -> Object:
    """Who signs the certificates of our clients: what a server that is asked by the same clients needs to know.
    Upstream: `pkg/controlplane/controller/clusterauthenticationtrust`."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {"client-ca-file": config.cluster_ca.decode()},
    }
