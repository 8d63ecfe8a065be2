"""The Pod Security Standards by version, through the API and as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.apiserver.admission.pod_security_standards import LATEST, Level, violations
from sampan.apiserver.app import App
from sampan.store.sqlite import open_store

from .conftest import Api, config

NAMESPACE = "/api/v1/namespaces/dev"
PODS = f"{NAMESPACE}/pods"
PREFIX = "pod-security.kubernetes.io/"


def sysctl(name: str) -> Object:
    return {"securityContext": {"sysctls": [{"name": name, "value": "1"}]}}


def probe(**handler: Any) -> Object:
    return {"containers": [{"name": "c", "livenessProbe": handler}]}


def security(**context: Any) -> Object:
    return {"containers": [{"name": "c", "securityContext": context}]}


SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
ROOT = {**SAFE, "runAsUser": 0}
NON_ROOT = {**SAFE, "runAsNonRoot": True}

CASES: list[tuple[Level, str, Object, range]] = [
    ("baseline", "hostProbesAndHostLifecycle", probe(httpGet={"host": "a", "port": 1}), range(34, LATEST)),
    ("baseline", "hostProbesAndHostLifecycle", probe(tcpSocket={"host": "a", "port": 1}), range(34, LATEST)),
    ("baseline", "sysctls", sysctl("net.ipv4.ip_local_reserved_ports"), range(27)),
    ("baseline", "sysctls", sysctl("net.ipv4.tcp_keepalive_time"), range(29)),
    ("baseline", "sysctls", sysctl("net.ipv4.tcp_fin_timeout"), range(29)),
    ("baseline", "sysctls", sysctl("net.ipv4.tcp_rmem"), range(32)),
    ("baseline", "sysctls", sysctl("net.ipv4.tcp_syncookies"), range(0)),
    ("baseline", "sysctls", sysctl("kernel.msgmax"), range(LATEST)),
    ("baseline", "seLinuxOptions", security(seLinuxOptions={"type": "container_engine_t"}), range(31)),
    ("baseline", "seccompProfile", security(seccompProfile={"type": "Unconfined"}), range(19, LATEST)),
    ("baseline", "procMount", security(procMount="Unmasked"), range(LATEST)),
    ("baseline", "procMount", {**security(procMount="Unmasked"), "hostUsers": False}, range(35)),
    ("restricted", "procMount", {**security(**NON_ROOT, procMount="Unmasked"), "hostUsers": False}, range(LATEST)),
    ("restricted", "allowPrivilegeEscalation", security(**{**NON_ROOT, "allowPrivilegeEscalation": True}), range(8, LATEST)),
    ("restricted", "capabilities", security(**{**NON_ROOT, "capabilities": {}}), range(22, LATEST)),
    ("restricted", "seccompProfile", security(**{**NON_ROOT, "seccompProfile": {}}), range(19, LATEST)),
    ("restricted", "runAsNonRoot", security(**SAFE), range(LATEST)),
    ("restricted", "runAsUser", security(**ROOT, runAsNonRoot=True), range(23, LATEST)),
    ("restricted", "runAsUser", {**security(**ROOT), "hostUsers": False}, range(35)),
    ("restricted", "image", {**security(**NON_ROOT), "volumes": [{"name": "v", "image": {}}]}, range(0)),
    ("restricted", "windows", {**security(runAsNonRoot=True), "os": {"name": "windows"}}, range(8, 25)),
]  # fmt: skip


@pytest.mark.parametrize(("level", "what", "spec", "forbidden"), CASES, ids=[f"{c[0]}-{c[1]}-{i}" for i, c in enumerate(CASES)])  # fmt: skip
def test_each_control_holds_in_its_versions(level: Level, what: str, spec: Object, forbidden: range) -> None:
    given = {"containers": [{"name": "c"}], **spec}
    held = [minor for minor in (*range(50), LATEST - 1) if violations(level, {}, given, minor)]
    assert held == [minor for minor in (*range(50), LATEST - 1) if minor in forbidden]


def test_before_fields_there_were_annotations() -> None:
    spec = {"containers": [{"name": "c"}]}
    annotations = {"container.seccomp.security.alpha.kubernetes.io/c": "unconfined"}
    assert [str(f) for f in violations("baseline", annotations, spec, 18)] == [
        'seccompProfile (forbidden annotation container.seccomp.security.alpha.kubernetes.io/c="unconfined")'
    ]
    assert violations("baseline", annotations, spec, 19) == []


# ---- through the API


def pod(name: str = "web", **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}], "serviceAccountName": "default", **spec},
    }


async def namespace(api: Api, **labels: str) -> None:
    named = {f"{PREFIX}{k.replace('_', '-')}": v for k, v in labels.items()}
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "dev", "labels": named}})
    await api.ok("POST", f"{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})


async def test_a_pinned_version_is_what_counts(api: Api) -> None:
    await namespace(api, enforce="baseline", enforce_version="v1.31", warn="baseline", warn_version="v1.32")
    reply = await api("POST", PODS, pod(**sysctl("net.ipv4.tcp_rmem")))
    assert reply.status == 403
    assert reply.json["message"] == (
        'pods "web" is forbidden: violates PodSecurity "baseline:v1.31": forbidden sysctls (net.ipv4.tcp_rmem)'
    )
    reply = await api("POST", PODS, pod(**sysctl("net.ipv4.ip_local_reserved_ports")))
    assert (reply.status, reply.warnings) == (201, [])


async def test_what_makes_pods_warns_of_what_is_enforced(api: Api) -> None:
    await namespace(api, enforce="baseline")
    template = {**pod(hostNetwork=True), "metadata": {"labels": {"a": "b"}}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    body = {"metadata": {"name": "web"}, "spec": spec}
    reply = await api("POST", "/apis/apps/v1/namespaces/dev/deployments", body)
    assert reply.status == 201
    assert (
        reply.warnings[0]
        .split('"', 1)[1]
        .startswith('would violate PodSecurity \\"baseline:latest\\": host namespaces (hostNetwork=true)')
    )


async def test_only_what_the_standards_look_at_is_held_against_an_update(api: Api) -> None:
    await namespace(api)
    made = await api.ok("POST", PODS, pod(hostNetwork=True))
    patch = {"metadata": {"labels": {f"{PREFIX}enforce": "baseline"}}}
    reply = await api("PATCH", NAMESPACE, patch, content_type="application/merge-patch+json")
    assert [w.split('"', 1)[1][:-1] for w in reply.warnings] == [
        'existing pods in namespace \\"dev\\" violate the new PodSecurity enforce level \\"baseline:latest\\"',
        "web: host namespaces",
    ]
    made["metadata"]["annotations"] = {"a": "b"}
    made = await api.ok("PUT", f"{PODS}/web", made)
    made["spec"]["containers"][0]["image"] = "other"
    reply = await api("PUT", f"{PODS}/web", made)
    assert reply.status == 403


async def test_the_audit_log_says_what_was_found(tmp_path: Path) -> None:
    policy, log = tmp_path / "policy.yaml", tmp_path / "audit.log"
    policy.write_text(
        json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]})
    )
    store = await open_store(tmp_path / "db")
    app = App(store, config(audit_policy_file=policy, audit_log_path=log))
    await app.start()
    try:
        api = Api(app, store, tmp_path)
        await namespace(api, enforce="privileged", audit="restricted", audit_version="v1.7")
        reply = await api("POST", PODS, pod(hostPID=True))
        assert (reply.status, reply.warnings) == (201, [])
    finally:
        await app.close()
        await store.close()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (event,) = (
        e for e in events if e["requestURI"] == PODS and e["stage"] == "ResponseComplete"
    )  # fmt: skip
    assert event["annotations"][f"{PREFIX}audit-violations"] == (
        'would violate PodSecurity "restricted:v1.7": host namespaces (hostPID=true), '
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)'
    )
