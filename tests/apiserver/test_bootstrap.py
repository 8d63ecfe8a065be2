from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sampan.api import errors, resources
from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import Resource
from sampan.apiserver import bootstrap
from sampan.apiserver.authorization import bootstrap_policy
from sampan.client.types import ObjectList

from .fakes import FakeCache, config


class FakeClient:
    """The four verbs that bootstrapping uses, on a dict; counts its writes."""

    def __init__(self) -> None:
        self.cache = FakeCache()
        self.writes: list[str] = []
        self.refuse: Sequence[str] = ()

    async def get(self, resource: Resource, namespace: str, name: str, **options: Any) -> Object:
        found = self.cache.get(resource, namespace, name)
        if found is None:
            raise errors.not_found(resource.plural, name)
        return found

    async def list(self, resource: Resource, namespace: str = "", **options: Any) -> ObjectList:
        return ObjectList(list(self.cache.list(resource, namespace)), "1")

    async def create(self, resource: Resource, obj: Object, **options: Any) -> Object:
        if resource.plural in self.refuse:
            raise errors.unavailable("the disk is full")
        return self._write("create", resource, obj)

    async def update(self, resource: Resource, obj: Object, **options: Any) -> Object:
        return self._write("update", resource, obj)

    async def delete(self, resource: Resource, namespace: str, name: str, **options: Any) -> Object:
        found = await self.get(resource, namespace, name)
        self.cache.remove(found)
        self.writes.append(f"delete {resource.plural} {name}")
        return found

    def _write(self, verb: str, resource: Resource, obj: Object) -> Object:
        self.writes.append(f"{verb} {resource.plural} {obj['metadata']['name']}")
        return self.cache.put(deep_copy(obj))


async def ensured(client: FakeClient, **settings: object) -> list[str]:
    """What `ensure` wrote."""
    client.writes.clear()
    given = config(**settings)
    await bootstrap.ensure(client, given, [given.advertise_address])  # type: ignore[arg-type]
    return list(client.writes)


async def test_a_new_cluster_and_a_second_start() -> None:
    client = FakeClient()
    writes = await ensured(client)
    assert {n["metadata"]["name"] for n in client.cache.list(resources.NAMESPACES)} == set(
        bootstrap.NAMESPACES
    )
    service = await client.get(resources.SERVICES, "default", "kubernetes")
    assert service["spec"]["clusterIP"] == "10.96.0.1"
    (piece,) = client.cache.list(resources.ENDPOINTSLICES)
    assert piece["metadata"]["labels"] == {"kubernetes.io/service-name": "kubernetes"}
    assert piece["endpoints"] == [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}]
    assert "create clusterroles cluster-admin" in writes
    known = await client.get(resources.CONFIGMAPS, "kube-system", "extension-apiserver-authentication")
    assert set(known["data"]) == {"client-ca-file"}
    assert await ensured(client) == []


async def test_damage_is_mended_and_additions_stay() -> None:
    client = FakeClient()
    await ensured(client)
    client.cache.remove(await client.get(resources.NAMESPACES, "", "kube-system"))
    role = deep_copy(await client.get(resources.CLUSTERROLES, "", "system:kube-dns"))
    own = {"apiGroups": ["example.org"], "resources": ["things"], "verbs": ["get"]}
    role["rules"] = [own]
    del role["metadata"]["annotations"]
    client.cache.put(role)
    view = deep_copy(await client.get(resources.CLUSTERROLES, "", "view"))
    del view["aggregationRule"]
    client.cache.put(view)
    leader = deep_copy(
        await client.get(resources.ROLES, "kube-system", "system::leader-locking-kube-scheduler")
    )
    leader["rules"] = []
    client.cache.put(leader)
    binding = deep_copy(await client.get(resources.CLUSTERROLEBINDINGS, "", "cluster-admin"))
    extra = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}
    binding["subjects"] = [extra]
    client.cache.put(binding)
    assert sorted(await ensured(client)) == [
        "create namespaces kube-system",
        "update clusterrolebindings cluster-admin",
        "update clusterroles system:kube-dns",
        "update clusterroles view",
        "update roles system::leader-locking-kube-scheduler",
    ]
    found = await client.get(resources.CLUSTERROLES, "", "system:kube-dns")
    assert found["rules"] == [
        own,
        {"apiGroups": [""], "resources": ["endpoints", "services"], "verbs": ["list", "watch"]},
    ]
    assert found["metadata"]["annotations"] == {"rbac.authorization.kubernetes.io/autoupdate": "true"}
    mended = (await client.get(resources.CLUSTERROLEBINDINGS, "", "cluster-admin"))["subjects"]
    assert [s["name"] for s in mended] == ["eve", "system:masters"]
    assert await ensured(client) == []


async def test_a_role_that_the_administrator_keeps_is_left_alone() -> None:
    client = FakeClient()
    await ensured(client)
    role = deep_copy(await client.get(resources.CLUSTERROLES, "", "view"))
    role["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false"
    role["rules"] = []
    client.cache.put(role)
    assert await ensured(client) == []


async def test_a_binding_to_another_role_is_made_anew() -> None:
    client = FakeClient()
    await ensured(client)
    binding = deep_copy(await client.get(resources.CLUSTERROLEBINDINGS, "", "cluster-admin"))
    binding["roleRef"]["name"] = "view"
    client.cache.put(binding)
    assert await ensured(client) == [
        "delete clusterrolebindings cluster-admin",
        "create clusterrolebindings cluster-admin",
    ]


async def test_the_server_has_moved() -> None:
    client = FakeClient()
    await ensured(client)
    assert sorted(await ensured(client, advertise_port=7443)) == [
        "update endpoints kubernetes",
        "update endpointslices kubernetes",
        "update services kubernetes",
    ]
    port = (await client.get(resources.SERVICES, "default", "kubernetes"))["spec"]["ports"][0]
    assert (port["port"], port["targetPort"]) == (443, 7443)


async def test_a_failure_is_told_as_it_is() -> None:
    client = FakeClient()
    client.refuse = ("services",)
    with pytest.raises(StatusError, match="the disk is full"):
        await ensured(client)


GATEWAY = [f"gateway.networking.k8s.io:aggregate-to-{to}" for to in ("edit", "view")]
PEOPLE = "admin cluster-admin edit view"
SYSTEM = """
aggregate-to-admin aggregate-to-edit aggregate-to-view auth-delegator basic-user
certificates.k8s.io:certificatesigningrequests:nodeclient certificates.k8s.io:certificatesigningrequests:selfnodeclient
certificates.k8s.io:kube-apiserver-client-approver certificates.k8s.io:kube-apiserver-client-kubelet-approver
certificates.k8s.io:kubelet-serving-approver certificates.k8s.io:legacy-unknown-approver discovery heapster
kube-aggregator kube-controller-manager kube-dns kube-scheduler kubelet-api-admin monitoring node node-bootstrapper
node-problem-detector node-proxier persistent-volume-provisioner public-info-viewer service-account-issuer-discovery
volume-scheduler
"""
CONTROLLERS = """
attachdetach-controller certificate-controller clusterrole-aggregation-controller cronjob-controller
daemon-set-controller deployment-controller device-taint-eviction-controller disruption-controller
endpoint-controller endpointslice-controller endpointslicemirroring-controller ephemeral-volume-controller
expand-controller generic-garbage-collector horizontal-pod-autoscaler job-controller
legacy-service-account-token-cleaner namespace-controller node-controller persistent-volume-binder
pod-garbage-collector pv-protection-controller pvc-protection-controller replicaset-controller
replication-controller resource-claim-controller resourcequota-controller root-ca-cert-publisher route-controller
selinux-warning-controller service-account-controller service-cidrs-controller service-controller
statefulset-controller ttl-after-finished-controller ttl-controller validatingadmissionpolicy-status-controller
volumeattributesclass-protection-controller
"""


def test_the_default_policy_is_whole() -> None:
    names = [r["metadata"]["name"] for r in bootstrap_policy.cluster_roles()]
    expected = PEOPLE.split() + [f"system:{n}" for n in SYSTEM.split()]
    expected += [f"system:controller:{n}" for n in CONTROLLERS.split()]
    assert sorted(names) == sorted(
        [*expected, *GATEWAY, "sampan:network-policy", "sampan:node-dns", "sampan:node-ingress"]
    )
    bound = {b["metadata"]["name"]: b for b in bootstrap_policy.cluster_role_bindings()}
    for controller in CONTROLLERS.split():
        binding = bound[f"system:controller:{controller}"]
        assert binding["roleRef"]["name"] == f"system:controller:{controller}"
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": controller, "namespace": "kube-system"}
        ]
    assert "subjects" not in bound["system:node"]
    local = {(r["metadata"]["namespace"], r["metadata"]["name"]) for r in bootstrap_policy.roles()}
    for binding in bootstrap_policy.role_bindings():
        assert (binding["metadata"]["namespace"], binding["roleRef"]["name"]) in local


def test_default_rules_are_about_what_is_served_or_known_to_come() -> None:
    """A misspelt resource would give nobody anything: whatever is named here is served, or named below."""
    elsewhere = {
        "extensions": None,
        "metrics.k8s.io": None,
        "custom.metrics.k8s.io": None,
        "external.metrics.k8s.io": None,
        "admissionregistration.k8s.io": None,
        "": {"nodes/configz", "nodes/healthz", "nodes/log", "nodes/metrics", "nodes/pods", "nodes/stats", "endpoints/restricted"},
        "apps": {"deployments/rollback"},
        "certificates.k8s.io": {"signers", "certificatesigningrequests/nodeclient", "certificatesigningrequests/selfnodeclient"},
    }  # fmt: skip
    served = {(r.group, r.plural) for r in resources.RESOURCES}
    served |= {(r.group, f"{r.plural}/{s.name}") for r in resources.RESOURCES for s in r.subresources}
    unknown = set()
    for role in (*bootstrap_policy.cluster_roles(), *bootstrap_policy.roles()):
        for rule in role["rules"]:
            for group in rule.get("apiGroups") or ():
                for name in rule.get("resources") or ():
                    known = group == "*" or "*" in name or name.endswith("/finalizers")
                    if group in elsewhere:
                        named = elsewhere[group]
                        known = known or named is None or name in named
                    if not known and (group, name) not in served:
                        unknown.add((group, name))
    assert unknown == set()
