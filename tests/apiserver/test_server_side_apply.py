"""Server-side apply through the API: what is stored, answered and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.apiserver.conftest import Api, Kubectl, Reply

APPLY = "application/apply-patch+yaml"
NS = "/api/v1/namespaces/default"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def deployment(name: str = "web", **spec: Any) -> Any:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]},
            },
            **spec,
        },
    }


def config_map(name: str = "c", **data: str) -> Any:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def apply(api: Api, path: str, config: Any, manager: str = "a", query: str = "", **more: Any) -> Reply:
    return await api("PATCH", f"{path}?fieldManager={manager}{query}", config, content_type=APPLY, **more)


def entries(obj: Any) -> list[tuple[str, str, str, str]]:
    return [
        (m["manager"], m["operation"], m["apiVersion"], m.get("subresource", ""))
        for m in obj["metadata"].get("managedFields", ())
    ]


async def test_apply_creates_and_again_changes_nothing(api: Api) -> None:
    made = await apply(api, f"{NS}/configmaps/c", config_map(a="1"))
    assert made.status == 201
    again = await apply(api, f"{NS}/configmaps/c", config_map(a="1"))
    assert again.status == 200
    assert again.json == made.json
    changed = await apply(api, f"{NS}/configmaps/c", config_map(a="2"))
    assert changed.json["metadata"]["resourceVersion"] != made.json["metadata"]["resourceVersion"]
    assert entries(changed.json) == [("a", "Apply", "v1", "")]


async def test_manager_and_force_are_asked_for_where_they_belong(api: Api) -> None:
    path = f"{NS}/configmaps/c"
    reply = await api("PATCH", path, config_map(a="1"), content_type=APPLY)
    assert reply.status == 422
    assert reply.json["message"] == (
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
    )
    await apply(api, path, config_map(a="1"))
    reply = await api("PATCH", path + "?force=true", {}, content_type="application/merge-patch+json")
    assert reply.json["message"] == (
        'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch'
    )


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"metadata": {"name": "c", "managedFields": []}}, 400, "metadata.managedFields must be nil"),
        ({"kind": "Secret"}, 400, "invalid object type: v1, Kind=Secret"),
        ({"apiVersion": ""}, 400, "invalid object type: apiVersion must be set in an applied configuration"),
        ({"kind": 3}, 400, "invalid object type: kind must be set in an applied configuration"),
        (
            {"metadata": {"name": "other"}},
            400,
            "the name of the object (other) does not match the name on the URL (c)",
        ),
        (
            {"foo": 1, "data": {"a": 1}},
            400,
            "failed to create typed patch object (default/c; v1, Kind=ConfigMap): errors:\n"
            "  .data.a: expected string, got &value.valueUnstructured{Value:1}\n"
            "  .foo: field not declared in schema",
        ),
        (
            {"metadata": {"name": "c", "uid": "u"}},
            409,
            'Operation cannot be fulfilled on configmaps "c": uid mismatch: the provided object specified uid u, and '
            "no existing object was found",
        ),
    ],
)
async def test_refused_and_nothing_is_made(api: Api, change: Any, status: int, message: str) -> None:
    reply = await apply(api, f"{NS}/configmaps/c", {**config_map(), **change})
    assert (reply.status, reply.json["message"]) == (status, message)
    assert (await api("GET", f"{NS}/configmaps/c")).status == 404


async def test_nulls(api: Api) -> None:
    """In a struct a null takes the value away; in a map of texts it is the empty text, as everywhere in Kubernetes."""
    made = await apply(api, f"{DEPLOYMENTS}/web", {**deployment(minReadySeconds=3), "metadata": None})
    assert made.status == 201
    config = deployment(minReadySeconds=None)
    config["metadata"]["annotations"] = {"a": None}
    config["spec"]["selector"]["matchExpressions"] = None
    out = (await apply(api, f"{DEPLOYMENTS}/web", config)).json
    assert "minReadySeconds" not in out["spec"]
    assert out["metadata"]["annotations"] == {"a": ""}
    assert out["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    assert "f:minReadySeconds" in out["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]


async def test_resource_version_is_a_precondition(api: Api) -> None:
    made = (await apply(api, f"{NS}/configmaps/c", config_map(a="1"))).json
    await apply(api, f"{NS}/configmaps/c", config_map(a="2"))
    stale = config_map(a="3")
    stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    reply = await apply(api, f"{NS}/configmaps/c", stale)
    assert reply.status == 409
    assert "please apply your changes to the latest version" in reply.json["message"]


async def test_duplicate_fields(api: Api) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: one, a: two}\n"
    path = f"{NS}/configmaps/c"
    refused = await apply(api, path, body, query="&fieldValidation=Strict")
    assert refused.status == 400
    assert refused.json["message"].startswith("error strict decoding YAML: ")
    assert "data.a" in refused.json["message"]
    warned = await apply(api, path, body, query="&fieldValidation=Warn")
    assert warned.status == 201
    assert any("data.a" in w for w in warned.warnings)
    assert not (await apply(api, path, body, query="&fieldValidation=Ignore")).warnings


async def test_who_may_not_create_may_not_apply_what_is_not_there(api: Api) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "patcher"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch", "get"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "patcher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "patcher"},
        "subjects": [{"kind": "User", "name": "nobody", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    await api.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
    await api.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    refused = await apply(api, f"{NS}/configmaps/c", config_map(a="1"), token="nobody")
    assert refused.status == 403
    assert 'cannot create resource "configmaps"' in refused.json["message"]
    await apply(api, f"{NS}/configmaps/c", config_map(a="1"))
    assert (await apply(api, f"{NS}/configmaps/c", config_map(b="1"), "n", token="nobody")).status == 200


async def test_status_has_its_own_managers(api: Api) -> None:
    await apply(api, f"{DEPLOYMENTS}/web", deployment())
    status: Any = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "status": {"readyReplicas": 1, "replicas": 1},
        "spec": {"paused": True},
    }
    assert (
        await apply(api, f"{DEPLOYMENTS}/none/status", {**status, "metadata": {"name": "none"}})
    ).status == 404
    out = (await apply(api, f"{DEPLOYMENTS}/web/status", status)).json
    assert "paused" not in out["spec"]
    assert entries(out) == [("a", "Apply", "apps/v1", ""), ("a", "Apply", "apps/v1", "status")]
    assert out["metadata"]["managedFields"][1]["fieldsV1"] == {
        "f:status": {"f:readyReplicas": {}, "f:replicas": {}}
    }
    # The spec is not the status manager's to take away, nor the other way round.
    del status["spec"], status["status"]["readyReplicas"]
    out = (await apply(api, f"{DEPLOYMENTS}/web/status", status)).json
    assert out["status"] == {"replicas": 1}
    assert out["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx"


async def test_scale_shows_the_managers_of_replicas(api: Api) -> None:
    scale = {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "web"},
        "spec": {"replicas": 3},
    }
    path = f"{DEPLOYMENTS}/web"
    await apply(api, path, deployment(replicas=1))
    refused = await apply(api, path + "/scale", scale, "hpa")
    assert refused.status == 409
    assert refused.json["message"] == 'Apply failed with 1 conflict: conflict with "a": .spec.replicas'
    forced = await apply(api, path + "/scale", scale, "hpa", "&force=true")
    assert forced.json["kind"] == "Scale"
    assert forced.json["spec"] == {"replicas": 3}
    assert "managedFields" not in forced.json["metadata"]
    out = await api.ok("GET", path)
    assert out["spec"]["replicas"] == 3
    assert entries(out) == [("a", "Apply", "apps/v1", ""), ("hpa", "Apply", "apps/v1", "scale")]
    assert out["metadata"]["managedFields"][1]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in out["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
    # The same again writes nothing; the owner of the Deployment meets the scale's manager.
    assert (await apply(api, path + "/scale", scale, "hpa")).status == 200
    assert (await api.ok("GET", path)) == out
    conflict = await apply(api, path, deployment(replicas=2))
    assert conflict.json["message"] == (
        'Apply failed with 1 conflict: conflict with "hpa" with subresource "scale": .spec.replicas'
    )
    assert (await apply(api, path, deployment())).status == 200


async def test_scale_by_update_takes_the_replicas(api: Api) -> None:
    path = f"{DEPLOYMENTS}/web"
    await api.ok("POST", DEPLOYMENTS + "?fieldManager=maker", deployment(replicas=1))
    scale = await api.ok("GET", path + "/scale")
    scale["spec"]["replicas"] = 4
    await api.ok("PUT", path + "/scale?fieldManager=scaler", scale)
    out = await api.ok("GET", path)
    assert entries(out) == [("maker", "Update", "apps/v1", ""), ("scaler", "Update", "apps/v1", "scale")]
    again = {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "web"},
        "spec": {"replicas": 5},
    }
    refused = await apply(api, path + "/scale", again, "hpa")
    assert refused.json["message"] == (
        'Apply failed with 1 conflict: conflict with "scaler" with subresource "scale" using autoscaling/v1: '
        ".spec.replicas"
    )


async def test_managed_fields_are_reset_and_cannot_be_forged(api: Api) -> None:
    path = f"{NS}/configmaps/c"
    merge = "application/merge-patch+json"
    await api.ok("POST", f"{NS}/configmaps?fieldManager=maker", config_map(a="1"))

    async def patch(value: Any, path: str = path) -> Any:
        body = {"metadata": {"managedFields": value}}
        return await api.ok("PATCH", path + "?fieldManager=m", body, content_type=merge)

    before = (await api.ok("GET", path))["metadata"]["managedFields"]
    entry = {"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1"}
    for odd in (
        [{**entry, "operation": "Sing"}],
        [{**entry, "fieldsType": "FieldsV2"}],
        [{**entry, "apiVersion": ""}],
        [{**entry, "fieldsV1": {"k:x": {}}}],
        [{**entry, "fieldsV1": {"f:data": []}}],
        [{**entry, "fieldsV1": {"data": {}}}],
        [{**entry, "fieldsV1": {'k:{"a":{}}': {}}}],
    ):
        assert (await patch(odd))["metadata"]["managedFields"] == before, odd
    given = await patch([{**entry, "fieldsV1": {"f:data": {"f:a": {}}}}])
    assert entries(given) == [("x", "Apply", "v1", "")]
    reset = await patch([{}])
    assert "managedFields" not in reset["metadata"]
    # Nobody follows the object now, until somebody applies to it.
    assert "managedFields" not in (await api.ok("PUT", path, config_map(a="2")))["metadata"]
    out = (await apply(api, path, config_map(b="1"))).json
    assert entries(out) == [("a", "Apply", "v1", ""), ("before-first-apply", "Update", "v1", "")]


async def test_the_eleventh_updater_makes_ancient_changes(api: Api) -> None:
    path = f"{NS}/configmaps/c"
    await api.ok("POST", f"{NS}/configmaps?fieldManager=m00", config_map(k="v"))
    for i in range(1, 14):
        body = {"data": {f"k{i}": "v"}}
        out = await api.ok(
            "PATCH", f"{path}?fieldManager=m{i:02}", body, content_type="application/merge-patch+json"
        )
    assert len(out["metadata"]["managedFields"]) == 10
    ancient = [m for m in out["metadata"]["managedFields"] if m["manager"] == "ancient-changes"]
    assert set(ancient[0]["fieldsV1"]["f:data"]) >= {".", "f:k", "f:k1", "f:k2", "f:k3"}


async def test_managed_fields_in_every_form(api: Api) -> None:
    made = (await apply(api, f"{NS}/configmaps/c", config_map(a="1"))).json
    expected: Any = {"f:data": {"f:a": {}}}
    assert made["metadata"]["managedFields"][0]["fieldsV1"] == expected
    for target, accept in (
        (f"{NS}/configmaps/c", "application/yaml"),
        (f"{NS}/configmaps", "application/yaml"),
        (f"{NS}/configmaps/c", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
        (f"{NS}/configmaps", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
        (f"{NS}/configmaps?pretty=true", "application/json"),
    ):
        read = yaml.safe_load((await api("GET", target, accept=accept)).body)
        found = [o["metadata"] for o in read.get("items", [read])]
        assert [m["managedFields"][0]["fieldsV1"] for m in found if m["name"] == "c"] == [expected]
    await api.restart()
    assert (await api.ok("GET", f"{NS}/configmaps/c")) == made
    # Read from the store, looked into by operations, and handed on by another patch.
    test = [{"op": "test", "path": "/metadata/managedFields/0/fieldsV1/f:data", "value": {"f:a": {}}}]
    await api.ok("PATCH", f"{NS}/configmaps/c", test, content_type="application/json-patch+json")
    await api.ok(
        "PATCH",
        f"{NS}/configmaps/c?fieldManager=z",
        {"data": {"z": "1"}},
        content_type="application/merge-patch+json",
    )
    out = await api.ok("GET", f"{NS}/configmaps/c")
    assert entries(out) == [("a", "Apply", "v1", ""), ("z", "Update", "v1", "")]
    # Sent back in another order it is the same, and nothing is written.
    out["metadata"]["managedFields"] = [
        dict(reversed(m.items())) for m in reversed(out["metadata"]["managedFields"])
    ]
    assert (await api.ok("PUT", f"{NS}/configmaps/c", out))["metadata"]["resourceVersion"] == out["metadata"][
        "resourceVersion"
    ]


async def test_owners_that_are_there_twice(api: Api) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u-1"}
    body = config_map(a="1")
    body["metadata"]["ownerReferences"] = [owner, owner]
    made = await api("POST", f"{NS}/configmaps", body)
    assert made.json["metadata"]["ownerReferences"] == [owner]
    assert made.warnings[0].endswith('duplicate UID(s) observed: u-1"')
    again = await api("PUT", f"{NS}/configmaps/c", body)
    assert again.json["metadata"]["ownerReferences"] == [owner]
    assert again.warnings


async def test_who_creates_does_not_own_what_admission_adds(api: Api) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await api.ok_or_exists("POST", f"{NS}/serviceaccounts", account)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    }
    made = await api.ok("POST", f"{NS}/pods?fieldManager=kubectl-run", pod)
    assert made["spec"]["tolerations"]
    assert set(made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]) == {
        "f:containers",
        "f:dnsPolicy",
        "f:enableServiceLinks",
        "f:restartPolicy",
        "f:schedulerName",
        "f:securityContext",
        "f:terminationGracePeriodSeconds",
    }


async def test_events_of_both_groups(api: Api) -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "x/y",
        "reportingInstance": "i",
        "action": "A",
        "reason": "R",
        "type": "Normal",
        "note": "n",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    }
    path = "/apis/events.k8s.io/v1/namespaces/default/events"
    made = await api.ok("POST", path + "?fieldManager=m", event)
    assert entries(made) == [("m", "Update", "events.k8s.io/v1", "")]
    assert "f:note" in made["metadata"]["managedFields"][0]["fieldsV1"]
    shown = await api.ok("GET", path + "/e", accept="application/json")
    assert shown["metadata"]["managedFields"] == made["metadata"]["managedFields"]
    # The same manager in both versions has an entry in each.
    patched = await api.ok(
        "PATCH", f"{NS}/events/e?fieldManager=m", {"count": 3}, content_type="application/merge-patch+json"
    )
    assert sorted(entries(patched)) == [("m", "Update", "events.k8s.io/v1", ""), ("m", "Update", "v1", "")]
    core = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "other"}
    refused = await apply(api, f"{NS}/events/e", core)
    assert refused.status == 409
    assert refused.json["message"] == (
        'Apply failed with 1 conflict: conflict with "m" using events.k8s.io/v1: .note'
    )


async def test_kubectl_from_client_side_to_server_side_and_back(kubectl: Kubectl) -> None:
    first = json.dumps(deployment(replicas=1))
    await kubectl("apply", "-f", "-", stdin=first)
    out = json.loads(await kubectl("get", "deploy", "web", "-o", "json", "--show-managed-fields"))
    assert entries(out) == [("kubectl-client-side-apply", "Update", "apps/v1", "")]

    second = json.dumps(deployment(replicas=2, minReadySeconds=1))
    await kubectl("apply", "--server-side", "-f", "-", stdin=second)
    out = json.loads(await kubectl("get", "deploy", "web", "-o", "json", "--show-managed-fields"))
    assert out["spec"]["replicas"] == 2
    # The second is what kubectl keeps the annotation with, once it has gone over.
    assert entries(out) == [
        ("kubectl", "Apply", "apps/v1", ""),
        ("kubectl-last-applied", "Apply", "apps/v1", ""),
    ]
    assert (
        '"minReadySeconds":1'
        in out["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    )
    # What is not applied any more goes, and the other way of applying goes on from there.
    await kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(deployment(replicas=2)))
    out = json.loads(await kubectl("get", "deploy", "web", "-o", "json"))
    assert "minReadySeconds" not in out["spec"]
    assert "unchanged" not in await kubectl("apply", "-f", "-", stdin=second)

    code, _, err = await kubectl.run(
        "apply", "--server-side", "--field-manager=other", "-f", "-", stdin=json.dumps(deployment(replicas=9))
    )
    assert code == 1
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .spec.replicas' in err
    await kubectl(
        "apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-",
        stdin=json.dumps(deployment(replicas=9)),
    )  # fmt: skip
    assert "deployment.apps/web serverside-applied" in await kubectl(
        "apply", "--server-side", "--dry-run=server", "--field-manager=other", "-f", "-",
        stdin=json.dumps(deployment(replicas=9)),
    )  # fmt: skip
