"""Claims for devices through the API."""

from __future__ import annotations

import pytest

from sampan.api.errors import Object

from .conftest import Api

GROUP = "/apis/resource.k8s.io/v1"
CLAIMS = f"{GROUP}/namespaces/default/resourceclaims"


def claim(name: str, **exactly: object) -> Object:
    request = {"name": "r", "exactly": {"deviceClassName": "gpu", **exactly}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name},
        "spec": {"devices": {"requests": [request]}},
    }


RESULT = {"request": "r", "driver": "d.example.com", "pool": "p", "device": "a"}
LABEL = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
MERGE = {"content_type": "application/merge-patch+json"}


async def test_a_claim_is_allocated_and_reserved(api: Api) -> None:
    reply = await api("POST", CLAIMS, claim("c"))
    assert reply.status == 201
    assert any("dynamic resource allocation is not implemented" in w for w in reply.warnings)
    given = {"allocation": {"devices": {"results": [RESULT]}}, "reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}  # fmt: skip
    made = await api.ok("PATCH", f"{CLAIMS}/c/status", {"status": given}, **MERGE)
    assert made["status"]["reservedFor"][0]["uid"] == "u"
    kept = await api.ok("PATCH", f"{CLAIMS}/c", {"metadata": {"labels": {"a": "b"}}, "status": None}, **MERGE)
    assert kept["status"] == made["status"], "the status is written through its subresource alone"
    other = {"status": {"allocation": {"devices": {"results": [{**RESULT, "device": "b"}]}}}}
    reply = await api("PATCH", f"{CLAIMS}/c/status", other, **MERGE)
    assert (reply.status, reply.json["details"]["causes"][0]["field"]) == (422, "status.allocation")
    reply = await api("PATCH", f"{CLAIMS}/c", {"spec": {"devices": {"requests": []}}}, **MERGE)
    assert (reply.status, reply.json["details"]["causes"][0]["field"]) == (422, "spec")


@pytest.mark.parametrize("template", [False, True])
async def test_admin_access_needs_a_marked_namespace(api: Api, template: bool) -> None:
    body, path, at = claim("c", adminAccess=True), CLAIMS, "spec.devices.requests[0].adminAccess"
    if template:
        body = {**body, "kind": "ResourceClaimTemplate", "spec": {"spec": body["spec"]}}
        path, at = path.replace("resourceclaims", "resourceclaimtemplates"), f"spec.{at}"
    reply = await api("POST", path, body)
    assert reply.status == 422
    assert reply.json["details"]["causes"] == [
        {
            "reason": "FieldValueForbidden",
            "field": at,
            "message": "Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` "
            "label on the containing namespace",
        }
    ]
    await api.ok("PATCH", "/api/v1/namespaces/default", LABEL, **MERGE)
    assert (await api("POST", path, body)).status == 201


async def test_admin_access_of_a_result(api: Api) -> None:
    await api.ok("POST", CLAIMS, claim("c"))
    status = {"status": {"allocation": {"devices": {"results": [{**RESULT, "adminAccess": True}]}}}}
    reply = await api("PATCH", f"{CLAIMS}/c/status", status, **MERGE)
    assert reply.json["details"]["causes"][0]["field"] == "status.allocation.devices.results[0].adminAccess"


async def test_slices_are_listed_by_node(api: Api) -> None:
    for node in ("n1", "n2"):
        pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
        body = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"generateName": f"{node}-"}, "spec": {"driver": "d.example.com", "nodeName": node, "pool": pool, "devices": [{"name": "a"}]}}  # fmt: skip
        await api.ok("POST", f"{GROUP}/resourceslices", body)
    found = await api.ok("GET", f"{GROUP}/resourceslices?fieldSelector=spec.nodeName%3Dn2")
    assert [s["spec"]["nodeName"] for s in found["items"]] == ["n2"]
