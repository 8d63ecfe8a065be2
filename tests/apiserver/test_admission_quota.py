"""ResourceQuota: admission and its controller together, through the API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.resources import CONFIGMAPS, RESOURCEQUOTAS
from sampan.apiserver.admission.resource_quota import ResourceQuota
from sampan.controllers.manager import Manager
from tests.controllers.conftest import Cluster, running

from .conftest import Api, Reply

HOME = "/api/v1/namespaces/default"
PODS, CONFIG_MAPS, SERVICES = f"{HOME}/pods", f"{HOME}/configmaps", f"{HOME}/services"
CLAIMS, QUOTAS = f"{HOME}/persistentvolumeclaims", f"{HOME}/resourcequotas"


@pytest.fixture
async def controlled(api: Api) -> AsyncIterator[Api]:
    """The API with all controllers."""
    async with controllers(api):
        await Cluster(api.app.client()).until(CONFIGMAPS, lambda all_: all_)
        yield api


@contextlib.asynccontextmanager
async def controllers(api: Api) -> AsyncIterator[None]:
    async with running(Manager(api.app.client(manager="kube-controller-manager"), cluster_ca="CA").run()):
        yield


async def until(api: Api, holds: Callable[[Object], Any], name: str = "q") -> Object:
    """Wait for a state of a quota."""
    client = api.app.client()
    found = await client.list(RESOURCEQUOTAS, "default")
    present = {q["metadata"]["name"]: q for q in found.items}
    if name in present and holds(present[name].get("status") or {}):
        return present[name]
    try:
        async with asyncio.timeout(10):
            async for event in client.watch(
                RESOURCEQUOTAS, "default", resource_version=found.resource_version
            ):
                obj = event.object
                present[obj["metadata"].get("name", "")] = obj
                if name == obj["metadata"].get("name") and holds(obj.get("status") or {}):
                    return obj
    except TimeoutError:
        pass
    raise AssertionError(f"stayed: {present.get(name)}")


async def until_used(api: Api, name: str = "q", **used: str) -> Object:
    return await until(
        api, lambda status: used.items() <= {**(status.get("used") or {})}.items(), name
    )  # fmt: skip


async def limit(api: Api, hard: dict[str, str], name: str = "q", **spec: Any) -> Object:
    """Make a quota and wait until it counts."""
    body = {"metadata": {"name": name}, "spec": {"hard": hard, **spec}}
    await api.ok("POST", QUOTAS, body)
    return await until(api, lambda status: set(status.get("hard") or ()) == set(hard), name)


def config_map(name: str) -> Object:
    return {"metadata": {"name": name}, "data": {"a": "b"}}


def pod(name: str = "web", requests: Object | None = None, limits: Object | None = None, **spec: Any) -> Object:  # fmt: skip
    resources = {k: v for k, v in (("requests", requests), ("limits", limits)) if v}
    containers = [{"name": "c", "image": "nginx", "resources": resources}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def service(name: str, type_: str = "ClusterIP", ports: int = 1, **spec: Any) -> Object:
    listed = [{"name": f"p{n}", "port": 80 + n} for n in range(ports)]
    return {"metadata": {"name": name}, "spec": {"type": type_, "ports": listed, **spec}}


def claim(name: str, storage: str, class_: str | None = None, **spec: Any) -> Object:
    spec |= {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
    if class_ is not None:
        spec["storageClassName"] = class_
    return {"metadata": {"name": name}, "spec": spec}


def why(reply: Reply) -> str:
    assert reply.status == 403, reply.body
    message: str = reply.json["message"]
    return message.partition(" is forbidden: ")[2]


async def account(api: Api) -> None:
    body = {"metadata": {"name": "default"}}
    await api.ok_or_exists("POST", f"{HOME}/serviceaccounts", body)


# ---- as many as there is room for


async def test_of_fifty_creates_at_once_exactly_as_many_succeed_as_fit(controlled: Api) -> None:
    await limit(controlled, {"count/configmaps": "20"}, "few")
    await limit(controlled, {"configmaps": "23", "secrets": "5"}, "more")
    before = len((await controlled.ok("GET", CONFIG_MAPS))["items"])
    replies = await asyncio.gather(
        *(controlled("POST", CONFIG_MAPS, config_map(f"c-{n}")) for n in range(50))
    )
    made = [r for r in replies if r.status == 201]
    assert len(made) == 20 - before
    assert {r.status for r in replies} == {201, 403}
    assert {why(r) for r in replies if r.status == 403} == {
        "exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=20, limited: count/configmaps=20"
    }
    assert len((await controlled.ok("GET", CONFIG_MAPS))["items"]) == 20
    await until_used(controlled, "few", **{"count/configmaps": "20"})
    await until_used(controlled, "more", configmaps="20", secrets="0")


async def test_creates_and_deletes_at_once_never_go_over(controlled: Api) -> None:
    await limit(controlled, {"count/secrets": "5"})
    most = 0

    async def live(n: int) -> None:
        nonlocal most
        for round_ in range(4):
            name = f"s-{n}-{round_}"
            reply = await controlled("POST", f"{HOME}/secrets", {"metadata": {"name": name}})
            assert reply.status in (201, 403), reply.body
            listed = await controlled.ok("GET", f"{HOME}/secrets")
            most = max(most, len(listed["items"]))
            if reply.status == 201:
                await controlled.ok("DELETE", f"{HOME}/secrets/{name}")

    await asyncio.gather(*(live(n) for n in range(25)))
    assert 1 <= most <= 5
    await until_used(controlled, **{"count/secrets": "0"})


async def test_what_is_not_stored_is_not_charged(controlled: Api) -> None:
    await limit(controlled, {"count/secrets": "3"})
    secret = {"metadata": {"name": "a"}}
    await controlled.ok("POST", f"{HOME}/secrets?dryRun=All", secret)
    assert (await controlled.ok("GET", f"{QUOTAS}/q"))["status"]["used"] == {"count/secrets": "0"}
    await controlled.ok("POST", f"{HOME}/secrets", secret)
    assert (await controlled.ok("GET", f"{QUOTAS}/q"))["status"]["used"] == {"count/secrets": "1"}
    assert (await controlled("POST", f"{HOME}/secrets", secret)).status == 409
    assert (await controlled.ok("GET", f"{QUOTAS}/q"))["status"]["used"] == {"count/secrets": "1"}
    replies = await asyncio.gather(
        *(controlled("POST", f"{HOME}/secrets", {"metadata": {"name": "b"}}) for _ in range(10))
    )
    assert sorted(r.status for r in replies).count(201) == 1
    assert (await controlled.ok("GET", f"{QUOTAS}/q"))["status"]["used"] == {"count/secrets": "2"}


async def test_of_several_quotas_each_must_have_room_and_none_keeps_a_charge_in_vain(
    controlled: Api,
) -> None:
    await limit(controlled, {"count/secrets": "10"}, "a")
    await limit(controlled, {"secrets": "0"}, "b")
    reply = await controlled("POST", f"{HOME}/secrets", {"metadata": {"name": "a"}})
    assert why(reply) == "exceeded quota: b, requested: secrets=1, used: secrets=0, limited: secrets=0"
    assert (await controlled.ok("GET", f"{QUOTAS}/a"))["status"]["used"] == {"count/secrets": "0"}


async def test_one_who_breaks_off_halfway_charges_nobody_twice(
    controlled: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(controlled, {"count/secrets": "10"}, "a")
    await limit(controlled, {"secrets": "10"}, "b")
    (plugin,) = (p for p in controlled.app._registry.admission.plugins if isinstance(p, ResourceQuota))  # type: ignore[attr-defined]
    put, failed = plugin._put, False

    async def once_full(quota: Object, used: dict[str, Any]) -> None:
        nonlocal failed
        # Both are in the first charge of b, so that the other one has been charged to a alone.
        if quota["metadata"]["name"] == "b" and used["secrets"] == "2" and not failed:
            failed = True
            raise StatusError(500, "InternalError", "the disk is full")
        await put(quota, used)

    monkeypatch.setattr(plugin, "_put", once_full)
    lock = plugin._locks["default"] = asyncio.Lock()
    await lock.acquire()
    makes = [
        asyncio.ensure_future(controlled("POST", f"{HOME}/secrets", {"metadata": {"name": name}}))
        for name in ("x", "y")
    ]
    while len(plugin._waiting.get("default", ())) < 2:
        await asyncio.sleep(0)
    lock.release()
    assert sorted(r.status for r in await asyncio.gather(*makes)) == [201, 500]
    assert failed
    assert not plugin._under_way
    assert (await controlled.ok("GET", f"{QUOTAS}/a"))["status"]["used"] == {"count/secrets": "1"}
    assert (await controlled.ok("GET", f"{QUOTAS}/b"))["status"]["used"] == {"secrets": "1"}


async def test_after_a_crash_it_is_counted_anew(api: Api) -> None:
    async with controllers(api):
        await limit(api, {"count/secrets": "3", "count/leases.coordination.k8s.io": "1"})
        for n in range(3):
            await api.ok("POST", f"{HOME}/secrets", {"metadata": {"name": f"s-{n}"}})
    # Charged by a server that died before it stored anything, while nobody controlled.
    quota = await api.ok("GET", f"{QUOTAS}/q")
    quota["status"]["used"]["count/leases.coordination.k8s.io"] = "1"
    await api.ok("PUT", f"{QUOTAS}/q/status", quota)
    await api.ok("DELETE", f"{HOME}/secrets/s-0")
    assert (await api("POST", f"{HOME}/secrets", {"metadata": {"name": "s-4"}})).status == 403
    async with controllers(api):
        await until_used(api, **{"count/secrets": "2", "count/leases.coordination.k8s.io": "0"})
        await api.ok("POST", f"{HOME}/secrets", {"metadata": {"name": "s-4"}})


async def test_a_quota_can_be_changed(controlled: Api) -> None:
    await controlled.ok("POST", f"{HOME}/secrets", {"metadata": {"name": "a"}})
    quota = await limit(controlled, {"count/secrets": "1"})
    assert quota["status"] == {"hard": {"count/secrets": "1"}, "used": {"count/secrets": "1"}}
    patch = {"spec": {"hard": {"count/secrets": "2", "count/configmaps": "1k"}}}
    await controlled.ok("PATCH", f"{QUOTAS}/q", patch, content_type="application/merge-patch+json")
    await until(controlled, lambda s: s["hard"] == {"count/secrets": "2", "count/configmaps": "1k"})
    await controlled.ok("POST", f"{HOME}/secrets", {"metadata": {"name": "b"}})


# ---- pods


async def test_compute_resources_of_pods(controlled: Api) -> None:
    await account(controlled)
    await limit(
        controlled,
        {
            "pods": "3",
            "requests.cpu": "1",
            "limits.memory": "1Gi",
            "requests.example.com/gpu": "2",
            "count/pods": "9",
        },
    )
    small = {"cpu": "400m", "memory": "256Mi", "example.com/gpu": "1"}
    await controlled.ok("POST", PODS, pod("a", small, small))
    quota = await controlled.ok("GET", f"{QUOTAS}/q")
    assert quota["status"]["used"] == {
        "pods": "1",
        "count/pods": "1",
        "requests.cpu": "400m",
        "limits.memory": "256Mi",
        "requests.example.com/gpu": "1",
    }
    big = {"cpu": "700m", "memory": "900Mi"}
    assert why(await controlled("POST", PODS, pod("b", big, big))) == (
        "exceeded quota: q, requested: limits.memory=900Mi,requests.cpu=700m, "
        "used: limits.memory=256Mi,requests.cpu=400m, limited: limits.memory=1Gi,requests.cpu=1"
    )
    assert why(await controlled("POST", PODS, pod("b"))) == (
        "failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    )
    done = await controlled.ok("GET", f"{PODS}/a")
    done["status"]["phase"] = "Succeeded"
    await controlled.ok("PUT", f"{PODS}/a/status", done)
    await until_used(controlled, pods="0", **{"count/pods": "1", "requests.cpu": "0", "limits.memory": "0"})
    await controlled.ok("POST", PODS, pod("b", big, big))
    await controlled.ok("DELETE", f"{PODS}/b")
    await until_used(controlled, pods="0", **{"count/pods": "1"})


async def test_defaults_of_a_limit_range_count(controlled: Api) -> None:
    await account(controlled)
    await limit(controlled, {"limits.cpu": "1"})
    limits = [{"type": "Container", "default": {"cpu": "600m"}}]
    body = {"metadata": {"name": "l"}, "spec": {"limits": limits}}
    await controlled.ok("POST", f"{HOME}/limitranges", body)
    await controlled.ok("POST", PODS, pod("a"))
    assert why(await controlled("POST", PODS, pod("b"))) == (
        "exceeded quota: q, requested: limits.cpu=600m, used: limits.cpu=600m, limited: limits.cpu=1"
    )


@pytest.mark.parametrize(
    ("spec", "inside", "outside"),
    [
        ({"scopes": ["BestEffort"]}, pod("a"), pod("b", {"cpu": "1"})),
        ({"scopes": ["NotBestEffort"]}, pod("a", {"cpu": "1"}), pod("b")),
        ({"scopes": ["Terminating"]}, pod("a", activeDeadlineSeconds=60), pod("b")),
        ({"scopes": ["NotTerminating"]}, pod("a"), pod("b", activeDeadlineSeconds=60)),
        (
            {"scopes": ["CrossNamespacePodAffinity"]},
            pod(
                "a",
                affinity={
                    "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {"topologyKey": "x", "namespaceSelector": {}}
                        ]
                    }
                },
            ),
            pod("b"),
        ),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [
                        {
                            "scopeName": "PriorityClass",
                            "operator": "In",
                            "values": ["system-node-critical"],
                        }
                    ]
                }
            },
            pod("a", priorityClassName="system-node-critical"),
            pod("b", priorityClassName="system-cluster-critical"),
        ),
        (
            {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}},
            pod("a", priorityClassName="system-node-critical"),
            pod("b"),
        ),
        (
            {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}},
            pod("a"),
            pod("b", priorityClassName="system-node-critical"),
        ),
    ],
)  # fmt: skip
async def test_a_scope_says_which_pods_count(
    controlled: Api, spec: Object, inside: Object, outside: Object
) -> None:
    await account(controlled)
    await limit(controlled, {"pods": "1"}, **spec)
    await controlled.ok("POST", PODS, outside)
    quota = await controlled.ok("GET", f"{QUOTAS}/q")
    assert quota["status"]["used"] == {"pods": "0"}
    await controlled.ok("POST", PODS, inside)
    again = {**inside, "metadata": {"name": "c"}}
    assert (
        why(await controlled("POST", PODS, again))
        == "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    )
    await controlled.ok("DELETE", f"{PODS}/a")
    await until_used(controlled, pods="0")
    # And the controller counts by the same scopes.
    await controlled.ok("DELETE", f"{QUOTAS}/q")
    await controlled.ok("POST", PODS, again)
    assert (await limit(controlled, {"pods": "1"}, **spec))["status"]["used"] == {"pods": "1"}


async def test_a_resize_is_charged_its_difference(controlled: Api) -> None:
    await account(controlled)
    await limit(controlled, {"requests.cpu": "1"})
    made = await controlled.ok("POST", PODS, pod("a", {"cpu": "600m"}, {"cpu": "2"}))
    made["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "900m"
    made = await controlled.ok("PUT", f"{PODS}/a/resize", made)
    assert (await controlled.ok("GET", f"{QUOTAS}/q"))["status"]["used"] == {"requests.cpu": "900m"}
    made["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1100m"
    assert why(await controlled("PUT", f"{PODS}/a/resize", made)) == (
        "exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=900m, limited: requests.cpu=1"
    )
    made["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "100m"
    await controlled.ok("PUT", f"{PODS}/a/resize", made)
    await until_used(controlled, **{"requests.cpu": "100m"})


async def test_while_it_is_resized_a_pod_counts_with_what_it_still_has(controlled: Api) -> None:
    await account(controlled)
    await limit(controlled, {"requests.cpu": "1"})
    made = await controlled.ok("POST", PODS, pod("a", {"cpu": "600m"}, {"cpu": "2"}))

    async def has(cpu: str) -> Object:
        running = await controlled.ok("GET", f"{PODS}/a")
        state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        container = {
            "name": "c",
            "ready": True,
            "restartCount": 0,
            "image": "nginx",
            "imageID": "",
            "state": state,
        }
        running["status"]["containerStatuses"] = [{**container, "allocatedResources": {"cpu": cpu}}]
        patched: Object = await controlled.ok("PUT", f"{PODS}/a/status", running)
        return patched

    made = await has("600m")
    made["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "200m"
    await controlled.ok("PUT", f"{PODS}/a/resize", made)
    assert why(await controlled("POST", PODS, pod("b", {"cpu": "500m"}))) == (
        "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    )
    await has("200m")
    await until_used(controlled, **{"requests.cpu": "200m"})
    await controlled.ok("POST", PODS, pod("b", {"cpu": "500m"}))


# ---- Services and claims


async def test_node_ports_and_load_balancers(controlled: Api) -> None:
    await limit(controlled, {"services": "5", "services.nodeports": "3", "services.loadbalancers": "1"})
    before = int((await controlled.ok("GET", f"{QUOTAS}/q"))["status"]["used"]["services"])
    await controlled.ok("POST", SERVICES, service("a", "NodePort", 2))
    assert why(await controlled("POST", SERVICES, service("b", "LoadBalancer", 2))) == (
        "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=2, limited: services.nodeports=3"
    )
    await controlled.ok(
        "POST", SERVICES, service("b", "LoadBalancer", 2, allocateLoadBalancerNodePorts=False)
    )
    reply = await controlled("POST", SERVICES, service("c", "LoadBalancer", 1))
    assert "requested: services.loadbalancers=1, used: services.loadbalancers=1" in why(reply)
    await until_used(controlled, services=str(before + 2))
    patch = {"spec": {"type": "ClusterIP"}}
    await controlled.ok("PATCH", f"{SERVICES}/a", patch, content_type="application/merge-patch+json")
    await until_used(controlled, **{"services.nodeports": "0"})
    patch = {"spec": {"type": "NodePort"}}
    await controlled.ok("PATCH", f"{SERVICES}/a", patch, content_type="application/merge-patch+json")
    await until_used(controlled, **{"services.nodeports": "2"})


async def test_storage_altogether_and_by_class(controlled: Api) -> None:
    gold = "gold.storageclass.storage.k8s.io/"
    await limit(
        controlled,
        {
            "persistentvolumeclaims": "3",
            "requests.storage": "10Gi",
            f"{gold}requests.storage": "2Gi",
            f"{gold}persistentvolumeclaims": "1",
        },
    )
    await controlled.ok("POST", CLAIMS, claim("a", "1Gi", "gold"))
    assert why(await controlled("POST", CLAIMS, claim("b", "2Gi", "gold"))) == (
        f"exceeded quota: q, requested: {gold}persistentvolumeclaims=1,{gold}requests.storage=2Gi, "
        f"used: {gold}persistentvolumeclaims=1,{gold}requests.storage=1Gi, "
        f"limited: {gold}persistentvolumeclaims=1,{gold}requests.storage=2Gi"
    )
    await controlled.ok("POST", CLAIMS, claim("b", "9Gi", ""))
    assert "requests.storage=10Gi" in why(await controlled("POST", CLAIMS, claim("c", "1Ki", "")))


async def test_claims_by_their_attributes_class(controlled: Api) -> None:
    rule = {"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["fast"]}
    scope: dict[str, Any] = {"scopeSelector": {"matchExpressions": [rule]}}
    await limit(controlled, {"persistentvolumeclaims": "1"}, **scope)
    await controlled.ok("POST", CLAIMS, claim("a", "1Gi", "gold"))
    await controlled.ok("POST", CLAIMS, claim("b", "1Gi", "gold", volumeAttributesClassName="fast"))
    assert "exceeded quota: q" in why(
        await controlled("POST", CLAIMS, claim("c", "1Gi", "gold", volumeAttributesClassName="fast"))
    )


async def test_without_a_controller_a_quota_that_is_not_filled_holds_nobody_up(api: Api) -> None:
    body = {"metadata": {"name": "q"}, "spec": {"hard": {"count/secrets": "0"}}}
    await api.ok("POST", QUOTAS, body)
    await api.ok("POST", f"{HOME}/secrets", {"metadata": {"name": "a"}})
    quota = await api.ok("GET", f"{QUOTAS}/q")
    quota["status"] = {"hard": {"count/secrets": "1"}}
    await api.ok("PUT", f"{QUOTAS}/q/status", quota)
    assert why(await api("POST", f"{HOME}/secrets", {"metadata": {"name": "b"}})) == (
        "status unknown for quota: q, resources: count/secrets"
    )
