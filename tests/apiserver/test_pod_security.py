from __future__ import annotations

from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.apiserver.admission.default_ingress_class import DefaultIngressClass
from sampan.apiserver.admission.pod_security import PodSecurity
from sampan.apiserver.admission.pod_security_standards import Level, violations
from sampan.apiserver.types import LOOPBACK, User

from .fakes import FakeCache, make, pod, writes

GOOD: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(security: Object | None = None, pod_security: Object | None = None, **rest: Any) -> Object:
    container: Object = {"name": "c", "image": "i", **rest.pop("container", {})}
    if security is not None:
        container["securityContext"] = security
    return {"containers": [container], **({"securityContext": pod_security} if pod_security else {}), **rest}


def found(level: Level, given: Object, **annotations: str) -> list[str]:
    return [str(f) for f in violations(level, annotations, given)]


def test_a_plain_pod_is_baseline_and_not_restricted() -> None:
    assert found("privileged", spec({"privileged": True})) == []
    assert found("baseline", spec()) == []
    assert found("restricted", spec()) == [
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)',
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"])',
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")',
    ]
    assert found("restricted", spec(GOOD)) == []
    shared = {k: GOOD[k] for k in ("runAsNonRoot", "seccompProfile")}
    own = {k: v for k, v in GOOD.items() if k not in shared}
    assert found("restricted", spec(own, shared)) == []


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        (
            spec({"privileged": True}),
            'privileged (container "c" must not set securityContext.privileged=true)',
        ),
        (
            spec({"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}),
            'non-default capabilities (container "c" must not include "SYS_ADMIN" in securityContext.capabilities.add)',
        ),
        (spec(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
        (spec(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "v")'),
        (
            spec(container={"ports": [{"containerPort": 80, "hostPort": 80}]}),
            'hostPort (container "c" uses hostPort 80)',
        ),
        (
            spec(container={"livenessProbe": {"httpGet": {"host": "1.2.3.4"}}}),
            'probe or lifecycle host (container "c" uses host "1.2.3.4")',
        ),
        (
            spec({"procMount": "Unmasked"}),
            'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            spec({"seccompProfile": {"type": "Unconfined"}}, {"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (pod and container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (
            spec(pod_security={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            spec({"seLinuxOptions": {"type": "spc_t", "user": "u"}}),
            'seLinuxOptions (container "c" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set)',
        ),
        (
            spec({"appArmorProfile": {"type": "Unconfined"}}),
            'forbidden AppArmor profile (container "c" must not set AppArmor profile type to "Unconfined")',
        ),
        (
            spec({"windowsOptions": {"hostProcess": True}}),
            'hostProcess (container "c" must not set securityContext.windowsOptions.hostProcess=true)',
        ),
    ],
)
def test_baseline(given: Object, finding: str) -> None:
    assert found("baseline", given) == [finding]
    restricted = found("restricted", given)
    assert (
        finding.partition(" ")[0] in " ".join(restricted)
        or "capabilities" in finding
        or "hostPath" in finding
    )


def test_restricted_replaces_what_it_tightens() -> None:
    volumes = [{"name": "v", "hostPath": {"path": "/"}}, {"name": "ok", "emptyDir": {}}]
    assert found("restricted", spec(GOOD, volumes=volumes)) == [
        'restricted volume types (volume "v" uses restricted volume type "hostPath")'
    ]
    assert found("restricted", spec({**GOOD, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}})) == [
        'unrestricted capabilities (container "c" must not include "CHOWN" in securityContext.capabilities.add)'
    ]
    assert found("restricted", spec({**GOOD, "runAsNonRoot": False})) == [
        'runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false)'
    ]
    assert found("restricted", spec({**GOOD, "runAsUser": 0})) == [
        'runAsUser=0 (container "c" must not set runAsUser=0)'
    ]


def test_every_container_counts() -> None:
    given = spec(GOOD)
    given["initContainers"] = [{"name": "i"}]
    given["ephemeralContainers"] = [{"name": "e"}]
    assert (
        'allowPrivilegeEscalation != false (containers "i", "e" must set '
        "securityContext.allowPrivilegeEscalation=false)" in found("restricted", given)
    )


def labelled(**labels: str) -> Object:
    named = {f"pod-security.kubernetes.io/{k.replace('_', '-')}": v for k, v in labels.items()}
    return make("Namespace", "default", metadata={"labels": named})


async def test_enforce_refuses() -> None:
    plugin = PodSecurity(FakeCache(labelled(enforce="baseline", enforce_version="v1.30")))
    await plugin.validate(writes(LOOPBACK, pod()))
    with pytest.raises(StatusError) as e:
        await plugin.validate(writes(LOOPBACK, pod(hostNetwork=True)))
    assert e.value.message == (
        'pods "web" is forbidden: violates PodSecurity "baseline:v1.30": host namespaces (hostNetwork=true)'
    )
    running = pod(hostNetwork=True)
    await plugin.validate(writes(LOOPBACK, running, "UPDATE", running))
    await plugin.validate(writes(LOOPBACK, running, "UPDATE", running, "status"))
    await plugin.validate(writes(LOOPBACK, None, "DELETE", running))


async def test_warn_warns_of_pods_and_of_templates() -> None:
    plugin = PodSecurity(FakeCache(labelled(warn="baseline")))
    attributes = writes(User("alice"), pod(hostPID=True))
    await plugin.validate(attributes)
    said = ['would violate PodSecurity "baseline:latest": host namespaces (hostPID=true)']
    assert attributes.warnings == said
    template = {"template": {"spec": spec(hostPID=True)}}
    for kind, more in (
        ("Deployment", {"spec": template}),
        ("StatefulSet", {"spec": template}),
        ("Job", {"spec": template}),
        ("CronJob", {"spec": {"jobTemplate": {"spec": template}}}),
        ("PodTemplate", template),
    ):
        attributes = writes(User("alice"), make(kind, "d", **more))
        await plugin.validate(attributes)
        assert attributes.warnings == said, kind


async def test_the_labels_are_checked_and_pods_that_are_there_are_told_of() -> None:
    cache = FakeCache(pod("a", hostPID=True), pod("b", hostPID=True), pod("good"))
    plugin = PodSecurity(cache)
    with pytest.raises(StatusError) as e:
        await plugin.validate(writes(LOOPBACK, labelled(enforce="strict", warn_version="1.2")))
    assert e.value.details is not None
    assert [c["field"] for c in e.value.details["causes"]] == [
        "metadata.labels[pod-security.kubernetes.io/enforce]",
        "metadata.labels[pod-security.kubernetes.io/warn-version]",
    ]
    attributes = writes(LOOPBACK, labelled(enforce="baseline"), "UPDATE", labelled())
    await plugin.validate(attributes)
    assert attributes.warnings == [
        'existing pods in namespace "default" violate the new PodSecurity enforce level "baseline:latest"',
        "a (and 1 other pod): host namespaces",
    ]


async def test_the_default_ingress_class() -> None:
    cache = FakeCache()
    plugin = DefaultIngressClass(cache)

    async def chosen(**given: object) -> object:
        ingress = make("Ingress", "i", spec=given)
        await plugin.mutate(writes(LOOPBACK, ingress))
        return ingress["spec"].get("ingressClassName")

    assert await chosen() is None
    for name, default, when in (("old", "true", "2026-01-01T00:00:00Z"), ("new", "true", "2026-01-02T00:00:00Z"), ("no", "false", "2026-01-03T00:00:00Z")):  # fmt: skip
        annotations = {"ingressclass.kubernetes.io/is-default-class": default}
        cache.put(make("IngressClass", name, metadata={"annotations": annotations, "creationTimestamp": when}))  # fmt: skip
    assert await chosen() == "new"
    assert await chosen(ingressClassName="mine") == "mine"
