"""The verbs as a client sees them, on a real store."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
import yaml

from tests.apiserver.conftest import Api

CM = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def config_map(name: str, **more: object) -> dict[str, object]:
    return {"metadata": {"name": name, **more}, "data": {"k": "v"}}


async def test_create_fills_in_what_the_server_decides(api: Api) -> None:
    made = await api.ok("POST", CM, config_map("a"), user_agent="curl/8.1")
    assert (made["kind"], made["apiVersion"]) == ("ConfigMap", "v1")
    metadata = made["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert metadata["managedFields"][0]["manager"] == "curl"
    assert (await api.ok("GET", f"{CM}/a")) == made
    listed = await api.ok("GET", CM + "?fieldSelector=metadata.name%3Da")
    assert listed["items"] == [made]
    assert listed["kind"] == "ConfigMapList"


async def test_create_of_what_exists(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    reply = await api("POST", CM, config_map("a"))
    assert reply.status == 409
    assert reply.json["reason"] == "AlreadyExists"
    assert reply.json["message"] == 'configmaps "a" already exists'
    assert reply.json["details"] == {"name": "a", "kind": "configmaps"}


async def test_generated_names_differ(api: Api) -> None:
    body = {"metadata": {"generateName": "x-"}}
    names = {(await api.ok("POST", CM, body))["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(n.startswith("x-") and len(n) == 7 for n in names)


async def test_a_generated_name_that_is_taken(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another is tried, and what repeats the name has the new one."""
    names = iter(["x-1", "x-1", "x-2", "y-1", "y-1", "y-2"])
    monkeypatch.setattr("sampan.apiserver.registry.generate_name", lambda _: next(names))
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}
    body = {"metadata": {"generateName": "x-"}, "spec": spec}
    assert (await api.ok("POST", jobs, body))["metadata"]["name"] == "x-1"
    made = await api.ok("POST", jobs, body)
    assert made["metadata"]["name"] == "x-2"
    assert made["metadata"]["labels"]["job-name"] == "x-2"
    assert made["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "x-2"
    for name in ("y-1", "y-2"):
        made = await api.ok("POST", "/api/v1/namespaces", {"metadata": {"generateName": "y-"}})
        assert made["metadata"]["labels"]["kubernetes.io/metadata.name"] == made["metadata"]["name"] == name


async def test_invalid_objects_tell_every_problem(api: Api) -> None:
    reply = await api("POST", CM, config_map("A_", labels={"a b": "c d"}))
    assert reply.status == 422
    assert len(reply.json["details"]["causes"]) >= 2
    assert (await api("GET", f"{CM}/A_")).status == 404


async def test_wrong_places_are_refused(api: Api) -> None:
    other = await api("POST", CM, config_map("a", namespace="kube-system"))
    assert other.status == 400
    assert "namespace of the provided object does not match" in other.json["message"]
    kind = await api("POST", CM, {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}})
    assert kind.status == 400
    version = await api("POST", CM, {"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "a"}})
    assert version.status == 400
    assert (await api("POST", "/api/v1/configmaps", config_map("a"))).status == 405
    assert (await api("GET", "/api/v1/namespaces/default/nothings")).status == 404
    assert (await api("POST", "/api/v1/namespaces/none/configmaps", config_map("a"))).status == 404
    assert (await api("POST", CM, b"{")).status == 400
    assert (await api("POST", CM, b"x", content_type="text/html")).status == 415


async def test_update_needs_the_newest_version(api: Api) -> None:
    made = await api.ok("POST", CM, config_map("a"))
    stale = {**made, "data": {"k": "2"}}
    second = await api.ok("PUT", f"{CM}/a", stale)
    assert second["data"] == {"k": "2"}
    assert int(second["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    reply = await api("PUT", f"{CM}/a", stale)
    assert reply.status == 409
    assert reply.json["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    unconditional = await api.ok("PUT", f"{CM}/a", config_map("a"))
    assert unconditional["metadata"]["uid"] == made["metadata"]["uid"]
    assert (await api("PUT", f"{CM}/b", config_map("a"))).status == 400
    assert (await api("PUT", f"{CM}/b", config_map("b"))).status == 404


async def test_update_without_change_writes_nothing(api: Api) -> None:
    made = await api.ok("POST", CM, config_map("a"))
    again = await api.ok("PUT", f"{CM}/a", made)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_leases_are_created_on_update(api: Api) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    reply = await api("PUT", path, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}})
    assert reply.status == 201
    reply = await api("PUT", path, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "you"}})
    assert reply.status == 422
    assert "must be specified for an update" in reply.json["message"]


async def test_patches(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    merged = await api.ok("PATCH", f"{CM}/a", {"data": {"k": None, "z": "1"}}, content_type=MERGE)
    assert merged["data"] == {"z": "1"}
    ops = [{"op": "add", "path": "/data/y", "value": "2"}]
    patched = await api.ok("PATCH", f"{CM}/a", ops, content_type="application/json-patch+json")
    assert patched["data"] == {"z": "1", "y": "2"}
    strategic = "application/strategic-merge-patch+json"
    patched = await api.ok("PATCH", f"{CM}/a", {"metadata": {"labels": {"a": "b"}}}, content_type=strategic)
    assert patched["metadata"]["labels"] == {"a": "b"}
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"q": "r"}}
    assert (await api("PATCH", f"{CM}/a", stale, content_type=MERGE)).status == 409
    assert (await api("PATCH", f"{CM}/a", {}, content_type="application/json")).status == 415
    assert (await api("PATCH", f"{CM}/b", {}, content_type=MERGE)).status == 404


async def test_patches_at_the_same_time_all_count(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    await asyncio.gather(
        *(api.ok("PATCH", f"{CM}/a", {"data": {f"k{i}": "v"}}, content_type=MERGE) for i in range(20))
    )
    assert len((await api.ok("GET", f"{CM}/a"))["data"]) == 21


async def test_field_validation(api: Api) -> None:
    body = {**config_map("a"), "spec": {}}
    strict = await api("POST", CM + "?fieldValidation=Strict", body)
    assert strict.status == 400
    assert 'unknown field "spec"' in strict.json["message"]
    warned = await api("POST", CM, body)
    assert warned.status == 201
    assert any("unknown field" in w for w in warned.warnings)
    ignored = await api("POST", CM + "?fieldValidation=Ignore", {**body, "metadata": {"name": "b"}})
    assert not ignored.warnings
    assert "spec" not in ignored.json
    assert (await api("POST", CM + "?fieldValidation=Perhaps", body)).status == 422


async def test_dry_run_stores_nothing_and_spends_no_address(api: Api) -> None:
    services = "/api/v1/namespaces/default/services"
    body = {
        "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30100}]},
    }
    tried = await api.ok("POST", services + "?dryRun=All", body)
    assert tried["metadata"]["uid"]
    assert (await api("GET", f"{services}/s")).status == 404
    made = await api.ok("POST", services, body)
    assert made["spec"]["ports"][0]["nodePort"] == 30100
    tried = await api.ok("DELETE", f"{services}/s?dryRun=All")
    assert (await api.ok("GET", f"{services}/s"))["spec"] == made["spec"]
    changed = {**made, "spec": {**made["spec"], "ports": [{"port": 81, "nodePort": 30100}]}}
    tried = await api.ok("PUT", f"{services}/s?dryRun=All", changed)
    assert tried["spec"]["ports"][0]["port"] == 81
    assert (await api.ok("GET", f"{services}/s")) == made


async def test_node_ports_out_of_range_and_taken(api: Api) -> None:
    services = "/api/v1/namespaces/default/services"

    def service(name: str, port: int) -> dict[str, object]:
        spec = {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}
        return {"metadata": {"name": name}, "spec": spec}

    out = await api("POST", services, service("a", 37844))
    assert out.status == 422
    assert "The range of valid ports is 30000-32767" in out.json["message"]
    await api.ok("POST", services, service("b", 30001))
    taken = await api("POST", services, service("c", 30001))
    assert taken.status == 422
    assert "provided port is already allocated" in taken.json["message"]
    await api.ok("DELETE", f"{services}/b")
    await api.ok("POST", services, service("c", 30001))


async def test_pages(api: Api) -> None:
    for i in range(7):
        await api.ok("POST", CM, config_map(f"c{i}"))
    first = await api.ok("GET", CM + "?limit=3")
    assert [o["metadata"]["name"] for o in first["items"]] == ["c0", "c1", "c2"]
    assert first["metadata"]["remainingItemCount"] == 4
    await api.ok("DELETE", f"{CM}/c4")
    await api.ok("POST", CM, config_map("c33"))
    token = first["metadata"]["continue"]
    second = await api.ok("GET", f"{CM}?limit=3&continue={token}")
    assert [o["metadata"]["name"] for o in second["items"]] == ["c3", "c4", "c5"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    third = await api.ok("GET", f"{CM}?limit=3&continue={second['metadata']['continue']}")
    assert [o["metadata"]["name"] for o in third["items"]] == ["c6"]
    assert "continue" not in third["metadata"]
    assert (await api("GET", f"{CM}?continue=rubbish")).status == 400


async def test_pages_after_compaction_offer_an_inconsistent_rest(api: Api) -> None:
    for i in range(4):
        await api.ok("POST", CM, config_map(f"c{i}"))
    token = (await api.ok("GET", CM + "?limit=2"))["metadata"]["continue"]
    await api.ok("DELETE", f"{CM}/c2")
    await api.store.compact(api.store.revision())
    reply = await api("GET", f"{CM}?limit=2&continue={token}")
    assert reply.status == 410
    assert reply.json["reason"] == "Expired"
    rest = await api.ok("GET", f"{CM}?continue={reply.json['metadata']['continue']}")
    assert [o["metadata"]["name"] for o in rest["items"]] == ["c3"]


async def test_list_at_a_revision(api: Api) -> None:
    made = await api.ok("POST", CM, config_map("a"))
    version = made["metadata"]["resourceVersion"]
    await api.ok("POST", CM, config_map("b"))
    exact = await api.ok("GET", f"{CM}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert [o["metadata"]["name"] for o in exact["items"]] == ["a"]
    assert exact["metadata"]["resourceVersion"] == version
    newer = await api.ok("GET", f"{CM}?resourceVersion={version}&resourceVersionMatch=NotOlderThan")
    assert len(newer["items"]) == 2
    future = await api("GET", f"{CM}?resourceVersion=999999")
    assert future.status == 504
    assert future.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert (await api("GET", f"{CM}?resourceVersionMatch=Exact")).status == 422


async def test_selectors(api: Api) -> None:
    await api.ok("POST", CM, config_map("a", labels={"app": "x", "tier": "1"}))
    await api.ok("POST", CM, config_map("b", labels={"app": "y"}))
    for selector, names in (("app%3Dx", ["a"]), ("app%20in%20(x,y)", ["a", "b"]), ("!tier", ["b"])):
        found = await api.ok("GET", f"{CM}?labelSelector={selector}")
        assert [o["metadata"]["name"] for o in found["items"]] == names
    assert (await api("GET", f"{CM}?labelSelector=,,")).status == 400
    assert (await api("GET", f"{CM}?fieldSelector=spec.x%3Dy")).status == 400


async def test_forms_of_an_answer(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    table = await api.ok("GET", CM, accept=TABLE)
    assert table["kind"] == "Table"
    assert table["rows"][0]["cells"][:2] == ["a", 1]
    one = await api.ok("GET", f"{CM}/a", accept=TABLE)
    assert one["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    meta = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    partial = await api.ok("GET", CM, accept=meta)
    assert partial["kind"] == "PartialObjectMetadataList"
    assert set(partial["items"][0]) == {"kind", "apiVersion", "metadata"}
    text = await api("GET", f"{CM}/a", accept="application/yaml")
    assert text.content_type == "application/yaml"
    assert yaml.safe_load(text.body)["data"] == {"k": "v"}
    protobuf = "application/vnd.kubernetes.protobuf"
    assert (await api("GET", CM, accept=protobuf)).status == 406
    assert (await api("GET", CM, accept=f"{protobuf},application/json")).status == 200
    assert (await api("POST", CM, b"metadata: {name: second}", content_type="application/yaml")).status == 201


async def test_events_under_two_names(api: Api) -> None:
    core = "/api/v1/namespaces/default/events"
    new = "/apis/events.k8s.io/v1/namespaces/default/events"
    body = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started",
        "message": "hello",
        "type": "Normal",
        "source": {"component": "kubelet"},
        "count": 1,
    }
    await api.ok("POST", core, body)
    shown = await api.ok("GET", f"{new}/e")
    assert shown["apiVersion"] == "events.k8s.io/v1"
    assert shown["note"] == "hello"
    assert shown["regarding"]["name"] == "p"
    assert shown["deprecatedCount"] == 1
    assert "message" not in shown
    listed = await api.ok("GET", new)
    assert listed["kind"] == "EventList"
    assert listed["items"][0]["note"] == "hello"
    made = {
        "metadata": {"name": "f"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started",
        "note": "bye",
        "type": "Normal",
        "action": "Starting",
        "reportingController": "test.io/x",
        "reportingInstance": "me",
        "eventTime": "2026-01-01T00:00:00.000000Z",
    }
    assert (await api.ok("POST", new, made))["note"] == "bye"
    assert (await api.ok("GET", f"{core}/f"))["message"] == "bye"
    found = await api.ok("GET", core + "?fieldSelector=involvedObject.name%3Dp")
    assert len(found["items"]) == 2


async def test_scale(api: Api) -> None:
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    await api.ok("POST", deployments, {"metadata": {"name": "d"}, "spec": spec})
    scale = await api.ok("GET", f"{deployments}/d/scale")
    assert scale["kind"] == "Scale"
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"]["selector"] == "app=x"
    scale["spec"]["replicas"] = 5
    assert (await api.ok("PUT", f"{deployments}/d/scale", scale))["spec"] == {"replicas": 5}
    assert (await api("PUT", f"{deployments}/d/scale", scale)).status == 409
    await api.ok("PATCH", f"{deployments}/d/scale", {"spec": {"replicas": 0}}, content_type=MERGE)
    whole = await api.ok("GET", f"{deployments}/d")
    assert whole["spec"]["replicas"] == 0
    assert whole["metadata"]["generation"] == 3
    bad = await api("PATCH", f"{deployments}/d/scale", {"spec": {"replicas": -1}}, content_type=MERGE)
    assert bad.status == 422


async def test_ephemeral_containers(api: Api) -> None:
    pods = "/api/v1/namespaces/default/pods"
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await api.ok("POST", accounts, {"metadata": {"name": "default"}})
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await api.ok("POST", pods, {"metadata": {"name": "p"}, "spec": spec})
    debugger = {"name": "d", "image": "busybox"}
    patch = {"metadata": {"labels": {"a": "b"}}, "spec": {"ephemeralContainers": [debugger]}}
    made = await api.ok("PATCH", f"{pods}/p/ephemeralcontainers", patch, content_type=MERGE)
    assert made["spec"]["ephemeralContainers"][0]["terminationMessagePath"] == "/dev/termination-log"
    assert "labels" not in made["metadata"]
    assert made["metadata"]["generation"] == 2
    assert await api.ok("GET", f"{pods}/p/ephemeralcontainers") == made
    made["spec"]["ephemeralContainers"].append({"name": "e", "image": "busybox", "stdin": True})
    made = await api.ok("PUT", f"{pods}/p/ephemeralcontainers", made)
    assert [c["name"] for c in made["spec"]["ephemeralContainers"]] == ["d", "e"]
    del made["spec"]["ephemeralContainers"][0]
    refused = await api("PUT", f"{pods}/p/ephemeralcontainers", made)
    assert refused.status == 422
    assert "may not be removed" in refused.json["message"]
    direct = await api("PATCH", f"{pods}/p", {"spec": {"ephemeralContainers": []}}, content_type=MERGE)
    assert direct.status == 422


async def test_status_is_written_apart(api: Api) -> None:
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    made = await api.ok(
        "POST", deployments, {"metadata": {"name": "d"}, "spec": spec, "status": {"replicas": 9}}
    )
    assert not made["status"].get("replicas")
    made["spec"]["replicas"] = 7
    made["status"] = {"replicas": 1}
    after = await api.ok("PUT", f"{deployments}/d/status", made)
    assert after["status"]["replicas"] == 1
    assert after["spec"]["replicas"] == 1
    assert after["metadata"]["generation"] == 1


async def test_rights(api: Api) -> None:
    denied = await api("GET", CM, token="nobody")
    assert denied.status == 403
    assert denied.json["message"] == (
        'configmaps is forbidden: User "nobody" cannot list resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    wrong = await api("GET", CM, token="wrong")
    assert wrong.status == 401
    assert (await api("GET", "/healthz", token="")).status == 200
    assert (await api("GET", CM, token="")).status == 403
    as_other = await api("GET", CM, impersonate_user="jane")
    assert as_other.status == 403
    assert 'User "jane"' in as_other.json["message"]
    not_allowed = await api("GET", CM, token="nobody", impersonate_user="admin")
    assert not_allowed.status == 403
    assert "cannot impersonate" in not_allowed.json["message"]


async def test_everything_is_there_after_a_restart(api: Api) -> None:
    made = await api.ok("POST", CM, config_map("a", labels={"x": "y"}))
    await api.restart()
    assert (await api.ok("GET", f"{CM}/a")) == made
    assert len((await api.ok("GET", CM + "?labelSelector=x%3Dy"))["items"]) == 1


async def test_continue_tokens_are_upstreams(api: Api) -> None:
    for name in ("a", "b"):
        await api.ok("POST", CM, config_map(name))
    token = (await api.ok("GET", "/api/v1/configmaps?limit=1"))["metadata"]["continue"]
    decoded = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    assert decoded["v"] == "meta.k8s.io/v1"
    assert set(decoded) == {"v", "rv", "start"}


async def test_health(api: Api) -> None:
    assert (await api("GET", "/livez")).body == b"ok"
    verbose = (await api("GET", "/readyz?verbose")).body.decode()
    assert "[+]etcd ok" in verbose
    assert verbose.endswith("readyz check passed\n")
    assert (await api("GET", "/healthz/ping")).status == 200
    assert (await api("GET", "/healthz/nothing")).status == 404
