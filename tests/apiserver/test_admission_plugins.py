"""The order of the plugins, which of them run, and those that are off unless asked for."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sampan.api.errors import Object
from sampan.api.resources import CONFIGMAPS, LEASES, Resource
from sampan.apiserver import admission, authorization
from sampan.apiserver.admission.plugin import Plugin
from sampan.apiserver.app import App
from sampan.apiserver.types import LOOPBACK, Attributes
from sampan.store.memory import MemoryStore

from .conftest import Api, config
from .fakes import FakeCache

HOME = "/api/v1/namespaces/default"
PODS = f"{HOME}/pods"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
MERGE = "application/merge-patch+json"

UPSTREAM = (
    "AlwaysAdmit",
    "NamespaceAutoProvision",
    "NamespaceLifecycle",
    "NamespaceExists",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "AlwaysPullImages",
    "ImagePolicyWebhook",
    "PodSecurity",
    "PodNodeSelector",
    "Priority",
    "DefaultTolerationSeconds",
    "PodTolerationRestriction",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "PodGroupProtection",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DenyServiceExternalIPs",
    "PodTopologyLabels",
    "PodGroupWorkloadExists",
    "NodeDeclaredFeatureValidator",
    "JobValidation",
    "PodResizeValidator",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
    "AlwaysDeny",
)


def test_the_order_is_upstreams() -> None:
    assert list(admission.PLUGINS) == [name for name in UPSTREAM if name in admission.PLUGINS]
    assert set(UPSTREAM) == admission.NOT_HERE | set(admission.PLUGINS)


def test_what_is_on_by_default() -> None:
    on = admission.enabled()
    assert "OwnerReferencesPermissionEnforcement" not in on
    assert admission.enabled(["AlwaysPullImages"], ["Priority", "AlwaysPullImages"]) == [
        name for name in admission.PLUGINS if (name in on and name != "Priority") or name == "AlwaysPullImages"
    ]  # fmt: skip


def test_names_are_checked() -> None:
    assert admission.problems(["LimitRanger", "NodeRestriction"]) == []
    wrong = admission.problems(["LimitRangr", "EventRateLimit", "Xyzzy"])
    assert wrong[:2] == [
        'there is no admission plugin "LimitRangr", did you mean "LimitRanger"?',
        'the admission plugin "EventRateLimit" is not implemented',
    ]
    assert wrong[2].startswith('there is no admission plugin "Xyzzy"; there are: ')


async def test_plugins_are_asked_only_about_what_they_care_for() -> None:
    asked: list[str] = []

    class Nothing(Plugin):
        """Overrides nothing: it is never asked."""

    class Secrets(Plugin):
        resources = frozenset(("secrets",))

        async def mutate(self, attributes: Attributes) -> None:
            asked.append("secrets")

    class Deletions(Plugin):
        operations = frozenset(("DELETE",))

        async def validate(self, attributes: Attributes) -> None:
            asked.append("deletions")

    class All(Plugin):
        async def validate(self, attributes: Attributes) -> None:
            asked.append("all")

    chain = admission.Chain((Nothing(), Secrets(), Deletions(), All()))
    attributes = Attributes(LOOPBACK, "CREATE", CONFIGMAPS, "default", "c", "", {}, None)
    await chain.mutate(attributes)
    await chain.validate(attributes)
    assert asked == ["all"]


@pytest.mark.parametrize(
    ("operation", "resource", "asked"),
    [
        ("CREATE", CONFIGMAPS, ["NamespaceLifecycle", "ResourceQuota"]),
        ("UPDATE", CONFIGMAPS, ["NamespaceLifecycle"]),
        ("DELETE", CONFIGMAPS, ["NamespaceLifecycle"]),
        ("UPDATE", LEASES, ["NamespaceLifecycle", "NodeRestriction"]),
    ],
)
def test_little_is_asked_about_most_writes(operation: Any, resource: Resource, asked: list[str]) -> None:
    made = config()
    chain = admission.build(made, FakeCache(), None, authorization.build(made, FakeCache()))  # type: ignore[arg-type]
    attributes = Attributes(LOOPBACK, operation, resource, "default", "c", "", {}, None)
    found = [
        type(p).__name__
        for known, step in ((chain._mutating, "mutate"), (chain._validating, "validate"))
        for p in chain._find(known, attributes, step)
    ]
    assert found == asked


@pytest.fixture
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """A server with the plugins that the test names."""
    app = App(MemoryStore(), config(enable_admission_plugins=getattr(request, "param", ())))
    await app.start()
    made = Api(app, None, None)  # type: ignore[arg-type]
    body = {"metadata": {"name": "default"}}
    await made.ok_or_exists("POST", f"{HOME}/serviceaccounts", body)
    yield made
    await app.close()


def plugins(*names: str) -> pytest.MarkDecorator:
    """Have a test's server run these as well."""
    return pytest.mark.parametrize("api", [names], indirect=True)


def pod(name: str = "web", **spec: Any) -> Object:
    containers = [{"name": "c", "image": "nginx", "imagePullPolicy": "IfNotPresent"}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}


async def refusal(api: Api, method: str, target: str, body: Object, **more: Any) -> str:
    reply = await api(method, target, body, **more)
    assert reply.status == 403, reply.body
    message: str = reply.json["message"]
    return message.partition(" is forbidden: ")[2]


async def annotate(api: Api, **annotations: str) -> None:
    named = {f"scheduler.alpha.kubernetes.io/{k.replace('_', '-')}": v for k, v in annotations.items()}
    await api.ok("PATCH", HOME, {"metadata": {"annotations": named}}, content_type=MERGE)


@plugins("AlwaysPullImages")
async def test_images_are_always_pulled(api: Api) -> None:
    made = await api.ok("POST", PODS, pod())
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"


@plugins("PodNodeSelector")
async def test_a_namespace_has_its_nodes(api: Api) -> None:
    await annotate(api, node_selector="zone=a, disk=ssd")
    made = await api.ok("POST", PODS, pod(nodeSelector={"x": "y"}))
    assert made["spec"]["nodeSelector"] == {"zone": "a", "disk": "ssd", "x": "y"}
    assert await refusal(api, "POST", PODS, pod("b", nodeSelector={"zone": "b"})) == (
        "pod node label selector conflicts with its namespace node label selector"
    )


@plugins("PodTolerationRestriction")
async def test_a_namespace_says_what_its_pods_tolerate(api: Api) -> None:
    await annotate(
        api,
        defaultTolerations='[{"key": "a", "operator": "Exists"}]',
        tolerationsWhitelist='[{"key": "a", "operator": "Exists"}, {"key": "b"}, {"operator": "Exists", "effect": "NoExecute"}]',
    )
    made = await api.ok("POST", PODS, pod())
    assert {"key": "a", "operator": "Exists"} in made["spec"]["tolerations"]
    assert await refusal(api, "POST", PODS, pod("b", tolerations=[{"key": "c", "operator": "Exists"}])) == (
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"
    )
    assert await refusal(api, "POST", PODS, pod("b", tolerations=[{"key": "a", "value": "x"}])) == (
        "namespace tolerations and pod tolerations conflict"
    )


@plugins("DenyServiceExternalIPs")
async def test_no_external_addresses(api: Api) -> None:
    body = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["198.51.100.1"]}}
    assert await refusal(api, "POST", f"{HOME}/services", body) == (
        "Use of external IPs is denied by admission control."
    )


@plugins("ExtendedResourceToleration")
async def test_who_asks_for_a_device_tolerates_its_taint(api: Api) -> None:
    body = pod()
    body["spec"]["containers"][0]["resources"] = {
        "requests": {"example.com/gpu": "1"},
        "limits": {"example.com/gpu": "1"},
    }
    made = await api.ok("POST", PODS, body)
    assert {"key": "example.com/gpu", "operator": "Exists"} in made["spec"]["tolerations"]


@plugins("LimitPodHardAntiAffinityTopology")
async def test_others_are_kept_off_a_node_at_most(api: Api) -> None:
    def keeping_off(key: str) -> Object:
        term = {"topologyKey": key, "labelSelector": {"matchLabels": {"a": "b"}}}
        rules = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        return pod(affinity={"podAntiAffinity": rules})

    assert await refusal(api, "POST", PODS, keeping_off("topology.kubernetes.io/zone")) == (
        "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey topology.kubernetes.io/zone "
        "but only key kubernetes.io/hostname is allowed"
    )
    await api.ok("POST", PODS, keeping_off("kubernetes.io/hostname"))


@plugins("NamespaceAutoProvision")
async def test_a_namespace_is_made_when_it_is_needed(api: Api) -> None:
    await api.ok("POST", "/api/v1/namespaces/new/configmaps", {"metadata": {"name": "c"}})
    await api.ok("GET", "/api/v1/namespaces/new")


async def grant(api: Api, name: str, *rules: Object) -> None:
    """Give user `other` some rights."""
    await api.ok("POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": list(rules)})
    body = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "other"}],
    }
    await api.ok("POST", f"{RBAC}/clusterrolebindings", body)


def rule(verbs: str, group: str, resources: str, *names: str) -> Object:
    made: Object = {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split()}
    return {**made, "resourceNames": list(names)} if names else made


@plugins("OwnerReferencesPermissionEnforcement")
async def test_owners_are_named_by_those_who_may(api: Api) -> None:
    owner = await api.ok("POST", f"{HOME}/secrets", {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "Secret", "name": "owner", "uid": owner["metadata"]["uid"]}
    await grant(api, "create", rule("create", "", "configmaps"))
    free = {"metadata": {"name": "free"}}
    await api.ok("POST", f"{HOME}/configmaps", free, token="other")
    body = {"metadata": {"name": "c", "ownerReferences": [reference]}}
    assert (await refusal(api, "POST", f"{HOME}/configmaps", body, token="other")).startswith(
        "cannot set an ownerRef on a resource you can't delete: "
    )
    await grant(api, "delete", rule("delete", "", "configmaps"))
    await api.ok("POST", f"{HOME}/configmaps", body, token="other")
    blocking = {"metadata": {"name": "d", "ownerReferences": [{**reference, "blockOwnerDeletion": True}]}}
    assert (await refusal(api, "POST", f"{HOME}/configmaps", blocking, token="other")).startswith(
        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: "
    )
    await grant(api, "finalize", rule("update", "", "secrets/finalizers"))
    await api.ok("POST", f"{HOME}/configmaps", blocking, token="other")


# ---- certificates


def csr(signer: str, organization: str = "", name: str = "c") -> Object:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, "me")]
    if organization:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts)).sign(key, hashes.SHA256())
    pem = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
    usages = ["digital signature", "client auth"]
    return {"metadata": {"name": name}, "spec": {"request": pem, "signerName": signer, "usages": usages}}


async def test_nobody_asks_to_be_everybody(api: Api) -> None:
    signer = "kubernetes.io/kube-apiserver-client"
    assert await refusal(api, "POST", REQUESTS, csr(signer, "system:masters")) == (
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    )
    await api.ok("POST", REQUESTS, csr(signer, "devs"))
    await api.ok("POST", REQUESTS, csr("example.com/own", "system:masters", "other"))


@pytest.mark.parametrize(
    ("sub", "verb", "status"),
    [
        ("approval", "approve", {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]}),
        ("status", "sign", {"conditions": [{"type": "Failed", "status": "True", "reason": "r"}]}),
    ],
)
async def test_who_decides_and_who_signs_may_do_so_for_the_signer(
    api: Api, sub: str, verb: str, status: Object
) -> None:
    for name in ("a", "b"):
        await api.ok("POST", REQUESTS, csr("example.com/own", name=name))
    await grant(api, "write", rule("get update", "certificates.k8s.io", f"certificatesigningrequests/{sub}"))

    async def decide(name: str) -> Any:
        made = await api.ok("GET", f"{REQUESTS}/{name}")
        made["status"] = status
        return await api("PUT", f"{REQUESTS}/{name}/{sub}", made, token="other")

    what = {"approve": "approve", "sign": "sign"}[verb]
    reply = await decide("a")
    assert (reply.status, reply.json["message"].partition(" is forbidden: ")[2]) == (
        403,
        f'user not permitted to {what} requests with signerName "example.com/own"',
    )
    await grant(api, "domain", rule(verb, "certificates.k8s.io", "signers", "example.com/*"))
    reply = await decide("a")
    assert reply.status == 200, reply.body
    await api.ok("DELETE", f"{RBAC}/clusterrolebindings/domain")
    await grant(api, "one", rule(verb, "certificates.k8s.io", "signers", "example.com/own"))
    assert (await decide("b")).status == 200


# ---- PodTopologyLabels


async def test_a_pod_gets_the_zone_of_its_node(api: Api) -> None:
    labels = {"topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1", "other": "x"}
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n", "labels": labels}})
    body = pod()
    body["metadata"]["labels"] = {"topology.kubernetes.io/region": "mine"}
    await api.ok("POST", PODS, body)
    binding = {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n"}}
    await api.ok("POST", f"{PODS}/web/binding", binding)
    made = await api.ok("GET", f"{PODS}/web")
    assert made["metadata"]["labels"] == {
        "topology.kubernetes.io/zone": "z1",
        "topology.kubernetes.io/region": "mine",
    }


def test_the_fake_cache_is_enough_for_every_plugin() -> None:
    cache = FakeCache()
    made = config(enable_admission_plugins=tuple(admission.PLUGINS))
    chain = admission.build(made, cache, None, authorization.build(made, cache))  # type: ignore[arg-type]
    names = [type(p).__name__ for p in chain.plugins]
    assert names[:-3] == [n for n in admission.PLUGINS if n != "ResourceQuota"]
    assert names[-1] == "ResourceQuota"
