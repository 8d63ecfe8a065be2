"""ComponentStatuses: not stored, read only, deprecated."""

from __future__ import annotations

from sampan.api.objects import now_micro

from .conftest import Api, Kubectl

PATH = "/api/v1/componentstatuses"
WARNING = '299 - "v1 ComponentStatus is deprecated in v1.19+"'


async def test_they_are_made_when_they_are_read(api: Api) -> None:
    reply = await api("GET", PATH)
    assert reply.warnings == [WARNING]
    assert (reply.json["kind"], reply.json["apiVersion"]) == ("ComponentStatusList", "v1")
    found = {o["metadata"]["name"]: o["conditions"] for o in reply.json["items"]}
    assert list(found) == ["scheduler", "controller-manager", "etcd-0"]
    assert found["etcd-0"] == [{"type": "Healthy", "status": "True", "message": "ok"}]
    assert found["scheduler"] == [
        {"type": "Healthy", "status": "False", "error": "nobody holds the Lease kube-scheduler"}
    ]
    api.app.components["scheduler"] = lambda: ""
    one = await api("GET", f"{PATH}/scheduler")
    assert (one.json["kind"], one.json["conditions"][0]["status"]) == ("ComponentStatus", "True")
    assert one.warnings == [WARNING]


async def test_parts_elsewhere_are_known_by_their_leases(api: Api) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": now_micro()}
    for name, renewed in (
        ("kube-scheduler", {}),
        ("kube-controller-manager", {"renewTime": "2020-01-01T00:00:00Z"}),
    ):
        await api.ok("POST", path, {"metadata": {"name": name}, "spec": {**spec, **renewed}})
    assert (await api.ok("GET", f"{PATH}/scheduler"))["conditions"][0]["status"] == "True"
    late = (await api.ok("GET", f"{PATH}/controller-manager"))["conditions"][0]
    assert late["error"].startswith("the Lease kube-controller-manager ran out ")


async def test_selectors_and_what_is_not_there(api: Api) -> None:
    listed = await api.ok("GET", f"{PATH}?fieldSelector=metadata.name%3Detcd-0")
    assert [o["metadata"]["name"] for o in listed["items"]] == ["etcd-0"]
    assert (await api("GET", f"{PATH}/nothing")).status == 404
    assert (await api("GET", f"{PATH}?watch=true")).status == 405
    assert (await api("POST", PATH, {"metadata": {"name": "x"}})).status == 405
    assert (await api("DELETE", f"{PATH}/etcd-0")).status == 405


async def test_as_kubectl_shows_them(kubectl: Kubectl) -> None:
    code, out, err = await kubectl.run("get", "cs")
    assert (code, err) == (0, "Warning: v1 ComponentStatus is deprecated in v1.19+\n")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["NAME", "STATUS", "MESSAGE", "ERROR"]
    assert lines[3] == ["etcd-0", "Healthy", "ok"]
