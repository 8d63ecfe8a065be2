"""Deletion: grace, finalizers, propagation, preconditions, collections, namespaces, pods' actions."""

from __future__ import annotations

from typing import Any

from sampan.api.objects import parse_time
from tests.apiserver.conftest import Api
from tests.apiserver.test_verbs import CM, MERGE, config_map

PODS = "/api/v1/namespaces/default/pods"


async def pod(api: Api, name: str = "p", **spec: Any) -> Any:
    await api.ok_or_exists("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})  # fmt: skip
    body = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}
    return await api.ok("POST", PODS, body)


async def bind(api: Api, name: str = "p", node: str = "n1") -> Any:
    body = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
    return await api("POST", f"{PODS}/{name}/binding", body)


async def test_delete_answers_with_a_status(api: Api) -> None:
    made = await api.ok("POST", CM, config_map("a"))
    status = await api.ok("DELETE", f"{CM}/a")
    assert status["status"] == "Success"
    assert status["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert (await api("GET", f"{CM}/a")).status == 404
    assert (await api("DELETE", f"{CM}/a")).status == 404


async def test_finalizers_hold_an_object(api: Api) -> None:
    await api.ok("POST", CM, config_map("a", finalizers=["x.io/hold"]))
    going = await api.ok("DELETE", f"{CM}/a")
    assert going["metadata"]["deletionTimestamp"]
    assert going["metadata"]["deletionGracePeriodSeconds"] == 0
    again = await api.ok("DELETE", f"{CM}/a")
    assert again["metadata"]["resourceVersion"] == going["metadata"]["resourceVersion"]
    stream = api.watch(f"{CM}?watch=1&resourceVersion={going['metadata']['resourceVersion']}")
    last = await api.ok("PATCH", f"{CM}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)
    assert "finalizers" not in last["metadata"]
    assert (await stream.next())["type"] == "DELETED"
    assert (await api("GET", f"{CM}/a")).status == 404


async def test_preconditions(api: Api) -> None:
    made = await api.ok("POST", CM, config_map("a"))
    wrong = await api("DELETE", f"{CM}/a", {"preconditions": {"uid": "other"}})
    assert wrong.status == 409
    assert "Precondition failed: UID in precondition: other" in wrong.json["message"]
    old = await api("DELETE", f"{CM}/a", {"preconditions": {"resourceVersion": "1"}})
    assert old.status == 409
    metadata = made["metadata"]
    right = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    assert (await api("DELETE", f"{CM}/a", {"preconditions": right})).status == 200


async def test_propagation_becomes_finalizers(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    going = await api.ok("DELETE", f"{CM}/a", {"propagationPolicy": "Foreground"})
    assert going["metadata"]["finalizers"] == ["foregroundDeletion"]
    await api.ok("POST", CM, config_map("b"))
    going = await api.ok("DELETE", f"{CM}/b?propagationPolicy=Orphan")
    assert going["metadata"]["finalizers"] == ["orphan"]
    await api.ok("POST", CM, config_map("c"))
    assert (await api("DELETE", f"{CM}/c", {"propagationPolicy": "Never"})).status == 422
    await api.ok(
        "DELETE", f"{CM}/c", {"propagationPolicy": "Background", "kind": "DeleteOptions", "apiVersion": "v1"}
    )
    assert (await api("GET", f"{CM}/c")).status == 404


async def test_unscheduled_pods_go_at_once(api: Api) -> None:
    await pod(api)
    gone = await api.ok("DELETE", f"{PODS}/p")
    assert gone["kind"] == "Pod"
    assert (await api("GET", f"{PODS}/p")).status == 404


async def test_scheduled_pods_are_given_their_grace(api: Api) -> None:
    await pod(api)
    assert (await bind(api)).status == 201
    running = await api.ok("GET", f"{PODS}/p")
    assert running["spec"]["nodeName"] == "n1"
    assert running["status"]["conditions"][0]["type"] == "PodScheduled"
    going = await api.ok("DELETE", f"{PODS}/p")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 30
    later = parse_time(going["metadata"]["deletionTimestamp"])
    assert 20 < later - parse_time(going["metadata"]["creationTimestamp"]) < 40
    shorter = await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=5")
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    assert later - parse_time(shorter["metadata"]["deletionTimestamp"]) == 25
    longer = await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=60")
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
    await api.ok("PATCH", f"{PODS}/p/status", {"status": {"phase": "Running"}}, content_type=MERGE)
    assert (await api("GET", f"{PODS}/p")).status == 200
    await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=0")
    assert (await api("GET", f"{PODS}/p")).status == 404


async def test_a_pod_is_bound_once(api: Api) -> None:
    await pod(api)
    assert (await bind(api)).json["status"] == "Success"
    again = await bind(api, node="n2")
    assert again.status == 409
    assert 'already assigned to node "n1"' in again.json["message"]
    assert (await bind(api, "none")).status == 404
    body = {"metadata": {"name": "p"}, "target": {"name": "n1"}}
    assert (await api("POST", "/api/v1/namespaces/default/bindings", body)).status == 409


async def test_eviction_deletes(api: Api) -> None:
    await pod(api)
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "default"}}
    reply = await api("POST", f"{PODS}/p/eviction", body)
    assert reply.status == 201
    assert reply.json["status"] == "Success"
    assert (await api("GET", f"{PODS}/p")).status == 404


async def test_collections(api: Api) -> None:
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        await api.ok("POST", CM, config_map(name, labels={"l": label}))
    gone = await api.ok("DELETE", CM + "?labelSelector=l%3Dx")
    assert gone["kind"] == "ConfigMapList"
    assert [o["metadata"]["name"] for o in gone["items"]] == ["a", "b"]
    left = await api.ok("GET", CM)
    assert [o["metadata"]["name"] for o in left["items"]] == ["c"]
    assert (await api("DELETE", "/api/v1/namespaces")).status == 405


async def test_namespaces_wait_for_their_finalizer(api: Api) -> None:
    made = await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "x"}})
    assert made["status"] == {"phase": "Active"}
    assert made["spec"]["finalizers"] == ["kubernetes"]
    going = await api.ok("DELETE", "/api/v1/namespaces/x")
    assert going["status"]["phase"] == "Terminating"
    refused = await api("POST", "/api/v1/namespaces/x/configmaps", config_map("a"))
    assert refused.status == 403
    assert "being terminated" in refused.json["message"]
    going["spec"]["finalizers"] = []
    await api.ok("PUT", "/api/v1/namespaces/x/finalize", going)
    assert (await api("GET", "/api/v1/namespaces/x")).status == 404
    assert (await api("DELETE", "/api/v1/namespaces/default")).status == 403


async def test_deleting_a_service_frees_its_address(api: Api) -> None:
    services = "/api/v1/namespaces/default/services"
    body = {"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]}}
    await api.ok("POST", services, body)
    body["metadata"] = {"name": "t"}
    assert (await api("POST", services, body)).status == 422
    await api.ok("DELETE", f"{services}/s")
    await api.ok("POST", services, body)
    await api.restart()
    body["metadata"] = {"name": "u"}
    assert (await api("POST", services, body)).status == 422


async def test_tokens_of_service_accounts(api: Api) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await api.ok("POST", accounts, {"metadata": {"name": "robot"}})
    made = await api.ok("POST", f"{accounts}/robot/token", {"spec": {"expirationSeconds": 3600}})
    token = made["status"]["token"]
    denied = await api("GET", CM, token=token)
    assert denied.status == 403
    assert 'User "system:serviceaccount:default:robot"' in denied.json["message"]
    await api.ok("DELETE", f"{accounts}/robot")
    assert (await api("GET", CM, token=token)).status == 401


async def test_a_binding_ends_the_nomination(api: Api) -> None:
    await pod(api)
    promise = {"status": {"nominatedNodeName": "n2"}}
    promised = await api.ok("PATCH", f"{PODS}/p/status", promise, content_type=MERGE)
    assert promised["status"]["nominatedNodeName"] == "n2"
    assert (await bind(api)).status == 201
    bound = await api.ok("GET", f"{PODS}/p")
    assert bound["spec"]["nodeName"] == "n1"
    assert "nominatedNodeName" not in bound["status"]
