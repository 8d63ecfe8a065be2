"""Deletion: grace, finalizers, propagation, preconditions, collections, namespaces, pods' actions."""

from __future__ import annotations

from typing import Any

import pytest

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
    assert wrong.json["message"] == (
        'Operation cannot be fulfilled on ConfigMap "a": the UID in the precondition (other) does not match the UID in '
        f"record ({made['metadata']['uid']}). The object might have been deleted and then recreated"
    )
    old = await api("DELETE", f"{CM}/a", {"preconditions": {"resourceVersion": "1"}})
    assert old.status == 409
    assert "the ResourceVersion in the precondition (1) does not match" in old.json["message"]
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


async def test_some_kinds_leave_their_pods_behind(api: Api) -> None:
    """Jobs and ReplicationControllers, unless told otherwise."""
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    spec: Any = {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    }
    for name in ("a", "b"):
        await api.ok("POST", jobs, {"metadata": {"name": name}, "spec": spec})
    reply = await api("DELETE", f"{jobs}/a")
    assert reply.json["metadata"]["finalizers"] == ["orphan"]
    assert any("child pods are preserved by default when jobs are deleted" in w for w in reply.warnings)
    reply = await api("DELETE", f"{jobs}/b?propagationPolicy=Background")
    assert (reply.json["status"], reply.warnings) == ("Success", [])
    controllers = "/api/v1/namespaces/default/replicationcontrollers"
    template = {**spec["template"], "metadata": {"labels": {"a": "b"}}}
    template["spec"] = {**template["spec"], "restartPolicy": "Always"}
    await api.ok("POST", controllers, {"metadata": {"name": "c"}, "spec": {"template": template}})
    assert (await api.ok("DELETE", f"{controllers}/c"))["metadata"]["finalizers"] == ["orphan"]


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


async def test_grace_that_was_given_is_kept_and_time_that_is_up_is_not_given_again(api: Api) -> None:
    await pod(api)
    await bind(api)
    going = await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=90")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 90
    assert (await api.ok("DELETE", f"{PODS}/p"))["metadata"] == going["metadata"]
    assert (await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=-7"))["metadata"][
        "deletionGracePeriodSeconds"
    ] == 1
    await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=0")

    await api.ok("POST", PODS, {"metadata": {"name": "q", "finalizers": ["x.io/y"]}, "spec": {"containers": [{"name": "c", "image": "i"}]}})  # fmt: skip
    await bind(api, "q")
    held = await api.ok("DELETE", f"{PODS}/q?gracePeriodSeconds=0")
    assert held["metadata"]["deletionGracePeriodSeconds"] == 0
    again = await api.ok("DELETE", f"{PODS}/q")
    assert again["metadata"] == held["metadata"]
    await api.ok("PATCH", f"{PODS}/q", {"metadata": {"finalizers": []}}, content_type=MERGE)
    assert (await api("GET", f"{PODS}/q")).status == 404


@pytest.mark.parametrize(
    ("body", "query", "status", "message"),
    [
        (
            {"propagationPolicy": "Never"},
            "",
            422,
            'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Never": supported values: '
            '"Foreground", "Background", "Orphan", "nil"',
        ),
        (
            {"propagationPolicy": "Orphan", "orphanDependents": True},
            "",
            422,
            'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and '
            "deletionPropagation cannot be both set",
        ),
        (
            {"dryRun": ["Some"]},
            "",
            422,
            'DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"',
        ),
        (
            {"ignoreStoreReadErrorWithClusterBreakingPotential": True},
            "",
            422,
            'DeleteOptions.meta.k8s.io "" is invalid: ignoreStoreReadErrorWithClusterBreakingPotential: Forbidden: '
            "not supported by sampan",
        ),
        (
            None,
            "?ignoreStoreReadErrorWithClusterBreakingPotential=true",
            422,
            'DeleteOptions.meta.k8s.io "" is invalid: ignoreStoreReadErrorWithClusterBreakingPotential: Forbidden: '
            "not supported by sampan",
        ),
        (None, "?gracePeriodSeconds=soon", 400, 'gracePeriodSeconds: "soon" is not a whole number'),
        ({"kind": "Pod"}, "", 400, "the body of a deletion is a DeleteOptions, not a Pod"),
        ({"gracePeriodSeconds": "1"}, "", 400, None),
        ([1], "", 400, None),
    ],
)
async def test_wrong_options(api: Api, body: Any, query: str, status: int, message: str | None) -> None:
    await api.ok("POST", CM, config_map("a"))
    reply = await api("DELETE", f"{CM}/a{query}", b"" if body is None else body)
    assert reply.status == status
    assert message in (None, reply.json["message"])
    assert (await api("GET", f"{CM}/a")).status == 200


async def test_a_collection_with_limit_selectors_and_dry_run(api: Api) -> None:
    for name in "abcd":
        await api.ok("POST", CM, config_map(name, labels={"l": "x" if name < "d" else "y"}))

    async def left() -> list[str]:
        return [o["metadata"]["name"] for o in (await api.ok("GET", CM))["items"]]

    dry = await api.ok("DELETE", CM + "?labelSelector=l%3Dx&dryRun=All")
    assert len(dry["items"]) == 3
    assert await left() == ["a", "b", "c", "d"]
    gone = await api.ok("DELETE", CM + "?labelSelector=l%3Dx&limit=2")
    assert [o["metadata"]["name"] for o in gone["items"]] == ["a", "b"]
    assert await left() == ["c", "d"]
    await api.ok("DELETE", CM + "?fieldSelector=metadata.name%3Dd", {"dryRun": ["All"]})
    assert await left() == ["c", "d"]
    await api.ok("DELETE", CM + "?fieldSelector=metadata.name%3Dd", {"propagationPolicy": "Foreground"})
    assert await left() == ["c", "d"]
    assert (await api.ok("GET", f"{CM}/d"))["metadata"]["finalizers"] == ["foregroundDeletion"]


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
