"""Quotas, classes, volumes, flow control and certificates through the API: their faces, what users may not write, what
every cluster begins with."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.objects import deep_copy
from tests.api.test_certificates import csr

from .conftest import Api

FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
STORAGE = "/apis/storage.k8s.io/v1"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
MERGE = "application/merge-patch+json"
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
CONDITION = {"type": "Mine", "status": "True", "reason": "Test", "message": "m"}
WITH_STATUS: list[tuple[str, Any, Any]] = [
    ("/api/v1/namespaces/default/resourcequotas", {"hard": {"pods": "1"}}, {"used": {"pods": "0"}}),
    ("/api/v1/persistentvolumes", {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}, {"message": "m", "reason": "Test"}),
    ("/api/v1/namespaces/default/persistentvolumeclaims", CLAIM, {"conditions": [CONDITION], "phase": "Bound"}),
    (f"{STORAGE}/volumeattachments", {"attacher": "d.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}, {"attached": True}),
    (f"{FLOW}/flowschemas", {"priorityLevelConfiguration": {"name": "system"}, "matchingPrecedence": 7}, {"conditions": [CONDITION]}),
    (f"{FLOW}/prioritylevelconfigurations", {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}, {"conditions": [CONDITION]}),
    (CSRS, csr("example.com/mine")["spec"], {"conditions": [CONDITION]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "spec", "status"), WITH_STATUS, ids=lambda v: str(v).rpartition("/")[2][:20]
)
async def test_status_and_spec_are_written_apart(api: Api, path: str, spec: Any, status: Any) -> None:
    made = await api.ok("POST", path, {"metadata": {"name": "x"}, "spec": spec, "status": status})
    first = made["status"]
    assert not any(first.get(k) == v for k, v in status.items())
    body = {"metadata": {"annotations": {"a": "b"}}, "status": status, "spec": {"nonsense": True}}
    del body["spec"]
    patched = await api.ok("PATCH", f"{path}/x/status", body, content_type=MERGE)
    assert {k: v for k, v in patched["status"].items() if k in status and k != "conditions"} == {
        k: v for k, v in status.items() if k != "conditions"
    }
    assert patched["metadata"]["annotations"] == {"a": "b"}
    assert patched["spec"] == made["spec"]
    assert patched["metadata"].get("generation") == made["metadata"].get("generation")
    face = await api.ok("GET", f"{path}/x/status")
    assert face == patched
    changed = deep_copy(patched)
    changed["status"] = first
    changed["metadata"]["labels"] = {"c": "d"}
    kept = await api.ok("PUT", f"{path}/x", changed)
    assert (kept["status"], kept["metadata"]["labels"]) == (patched["status"], {"c": "d"})
    gone = await api.ok("DELETE", f"{path}?labelSelector=c%3Dd")
    assert [o["metadata"]["name"] for o in gone["items"]] == ["x"]


WITHOUT_STATUS: list[tuple[str, Any]] = [
    ("/api/v1/namespaces/default/limitranges", {"spec": {"limits": []}}),
    (f"{STORAGE}/storageclasses", {"provisioner": "example.com/p"}),
    (f"{STORAGE}/csidrivers", {"spec": {}}),
    (f"{STORAGE}/csinodes", {"spec": {"drivers": []}}),
    (f"{STORAGE}/namespaces/default/csistoragecapacities", {"storageClassName": "x"}),
    (f"{STORAGE}/volumeattributesclasses", {"driverName": "d.example.com", "parameters": {"a": "b"}}),
    (CLASSES, {"value": 1}),
    ("/apis/node.k8s.io/v1/runtimeclasses", {"handler": "h"}),
]


@pytest.mark.parametrize(("path", "body"), WITHOUT_STATUS, ids=lambda v: str(v).rpartition("/")[2][:20])
async def test_every_verb(api: Api, path: str, body: Any) -> None:
    labels = {"metadata": {"name": "x", "labels": {"of": "test"}}}
    made = await api.ok("POST", path, {**body, **labels})
    stream = api.watch(f"{path}?watch=1&resourceVersion={made['metadata']['resourceVersion']}")
    for media in (MERGE, "application/strategic-merge-patch+json"):
        patch = {"metadata": {"annotations": {media.split("/")[1].split("-")[0]: "yes"}}}
        await api.ok("PATCH", f"{path}/x", patch, content_type=media)
        assert (await stream.next())["type"] == "MODIFIED"
    applied = {
        "apiVersion": made["apiVersion"],
        "kind": made["kind"],
        **body,
        "metadata": {"name": "x", "labels": {"by": "me"}},
    }
    done = await api.ok(
        "PATCH", f"{path}/x?fieldManager=me", applied, content_type="application/apply-patch+yaml"
    )
    assert done["metadata"]["labels"] == {"of": "test", "by": "me"}
    assert await api.ok("PUT", f"{path}/x", done) == done
    assert "status" not in done
    assert (await api("GET", f"{path}/x/status")).status == 404
    await api.ok("DELETE", f"{path}?labelSelector=by%3Dme")
    if made["metadata"].get("finalizers"):
        # Some kinds are protected while they are in use; no controller runs here that would find out that they are not.
        await api.ok("PATCH", f"{path}/x", {"metadata": {"finalizers": None}}, content_type=MERGE)
    assert (await api("GET", f"{path}/x")).status == 404


async def test_a_request_for_a_certificate_says_who_made_it(api: Api) -> None:
    forged = csr(username="root", groups=["system:masters"], uid="1", extra={"a": ["b"]})
    rule = {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["*"]}
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    await api.ok("POST", f"{rbac}/clusterroles", {"metadata": {"name": "r"}, "rules": [rule]})
    await api.ok("POST", f"{rbac}/clusterrolebindings", {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "User", "name": "nobody"}],
    })  # fmt: skip
    api.token = "nobody"
    made = await api.ok("POST", CSRS, forged)
    spec = made["spec"]
    assert spec["username"] == "nobody"
    assert "system:masters" not in spec.get("groups", [])
    assert not spec.keys() & {"uid", "extra"}
    changed = deep_copy(made)
    changed["spec"]["usages"] = ["any"]
    assert (await api.ok("PUT", f"{CSRS}/jane", changed))["spec"] == spec
    owned = {next(iter(m["fieldsV1"])) for m in made["metadata"]["managedFields"]}
    assert owned == {"f:spec"}


async def test_approval_has_a_path_of_its_own(api: Api) -> None:
    await api.ok("POST", CSRS, csr("example.com/mine"))
    approved = {**CONDITION, "type": "Approved"}
    reply = await api(
        "PATCH", f"{CSRS}/jane/status", {"status": {"conditions": [approved]}}, content_type=MERGE
    )
    assert reply.status == 422
    assert 'updates may not add a condition of type \\"Approved\\"' in reply.body.decode()
    done = await api.ok(
        "PATCH", f"{CSRS}/jane/approval", {"status": {"conditions": [approved]}}, content_type=MERGE
    )
    [found] = done["status"]["conditions"]
    assert found["lastUpdateTime"] == found["lastTransitionTime"]
    managers = {m.get("subresource", "") for m in done["metadata"]["managedFields"]}
    assert managers == {"", "approval"}
    assert (await api.ok("GET", f"{CSRS}/jane/approval"))["status"] == done["status"]
    chosen = await api.ok("GET", f"{CSRS}?fieldSelector=spec.signerName%3Dexample.com%2Fmine")
    assert len(chosen["items"]) == 1


async def test_the_classes_of_the_system(api: Api) -> None:
    found = {o["metadata"]["name"]: o["value"] for o in (await api.ok("GET", CLASSES))["items"]}
    assert found == {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}
    reply = await api("DELETE", f"{CLASSES}/system-node-critical")
    assert (reply.status, reply.json["message"]) == (
        403,
        'priorityclasses.scheduling.k8s.io "system-node-critical" is forbidden: this is a system priority class and '
        "cannot be deleted",
    )


async def test_flow_schemas_are_shown_as_requests_meet_them(api: Api) -> None:
    table = await api.ok("GET", f"{FLOW}/flowschemas", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    order = [(row["cells"][2], row["cells"][0]) for row in table["rows"]]
    assert order == sorted(order)
    assert (order[0], order[-1]) == ((1, "exempt"), (10000, "catch-all"))
    assert len(order) == 13


async def test_one_class_at_most_is_the_default(api: Api) -> None:
    first = await api.ok("POST", CLASSES, {"metadata": {"name": "first"}, "value": 1, "globalDefault": True})
    reply = await api("POST", CLASSES, {"metadata": {"name": "second"}, "value": 2, "globalDefault": True})
    assert (reply.status, reply.json["message"]) == (
        403,
        'priorityclasses.scheduling.k8s.io "second" is forbidden: PriorityClass first is already marked as default. '
        "Only one default can exist",
    )
    await api.ok("PUT", f"{CLASSES}/first", {**first, "description": "for all"})
    await api.ok("POST", CLASSES, {"metadata": {"name": "second"}, "value": 2})
    mark = {"globalDefault": True}
    assert (await api("PATCH", f"{CLASSES}/second", mark, content_type=MERGE)).status == 403
    await api.ok("DELETE", f"{CLASSES}/first")
    await api.ok("PATCH", f"{CLASSES}/second", mark, content_type=MERGE)


async def test_flow_control_is_mended_at_start_as_far_as_it_is_ours(api: Api) -> None:
    async def change(path: str, **parts: Any) -> None:
        await api.ok("PATCH", f"{FLOW}/{path}", parts, content_type=MERGE)

    auto = "apf.kubernetes.io/autoupdate-spec"
    precedence = {"matchingPrecedence": 777}
    await change("flowschemas/service-accounts", spec=precedence)
    await change("flowschemas/global-default", spec=precedence, metadata={"annotations": {auto: "false"}})
    await change("prioritylevelconfigurations/exempt", spec={"exempt": {"lendablePercent": 50}})
    await api.ok("DELETE", f"{FLOW}/flowschemas/catch-all")
    await api.ok("DELETE", f"{FLOW}/prioritylevelconfigurations/system")
    await api.restart()

    async def get(path: str) -> Any:
        return await api.ok("GET", f"{FLOW}/{path}")

    assert (await get("flowschemas/service-accounts"))["spec"]["matchingPrecedence"] == 9000
    assert (await get("flowschemas/global-default"))["spec"]["matchingPrecedence"] == 777
    assert (await get("prioritylevelconfigurations/exempt"))["spec"]["exempt"]["lendablePercent"] == 50
    assert (await get("flowschemas/catch-all"))["spec"]["matchingPrecedence"] == 10000
    assert (await get("prioritylevelconfigurations/system"))["spec"]["limited"][
        "nominalConcurrencyShares"
    ] == 30
    assert (
        await api("PATCH", f"{FLOW}/flowschemas/exempt", {"spec": precedence}, content_type=MERGE)
    ).status == 422
