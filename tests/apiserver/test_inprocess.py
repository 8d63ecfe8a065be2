"""The in-process client: the same rules as over HTTP, shared objects, nothing of the caller's changed."""

from __future__ import annotations

import time

import pytest

from sampan.api import managed_fields
from sampan.api.errors import StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    EVENTS_V1,
    NAMESPACES,
    PODS,
    SELFSUBJECTACCESSREVIEWS,
    SERVICEACCOUNTS,
    SERVICES,
)
from sampan.apiserver import expiry
from sampan.apiserver.types import User
from sampan.client.types import APPLY_PATCH, STRATEGIC_MERGE_PATCH
from tests.apiserver.conftest import Api
from tests.apiserver.test_verbs import CM

DEPLOYMENT = {
    "metadata": {"name": "d", "namespace": "default"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        },
    },
}


async def test_what_is_read_is_shared_and_what_is_given_is_left_alone(api: Api) -> None:
    client = api.app.client()
    given = {"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}}
    before = deep_copy(given)
    made = await client.create(CONFIGMAPS, given)
    assert given == before
    assert await client.get(CONFIGMAPS, "default", "a") is await client.get(CONFIGMAPS, "default", "a")
    assert api.app.cache.get(CONFIGMAPS, "default", "a") == made
    assert (await client.list(CONFIGMAPS, "default")).items[-1] == made
    assert (await api.ok("GET", f"{CM}/a")) == managed_fields.plain(made)


async def test_every_verb(api: Api) -> None:
    client = api.app.client(User("system:kube-controller-manager"), manager="kube-controller-manager")
    made = await client.create(DEPLOYMENTS, DEPLOYMENT)
    assert made["metadata"]["managedFields"][0]["manager"] == "kube-controller-manager"
    assert made["spec"]["replicas"] == 1
    scale = await client.get(DEPLOYMENTS, "default", "d", subresource="scale")
    scaled = await client.update(DEPLOYMENTS, {**scale, "spec": {"replicas": 4}}, subresource="scale")
    assert scaled["spec"]["replicas"] == 4
    with pytest.raises(StatusError) as stale:
        await client.update(DEPLOYMENTS, made)
    assert stale.value.code == 409
    status = await client.patch(
        DEPLOYMENTS, "default", "d", {"status": {"replicas": 4}}, subresource="status"
    )
    assert status["status"]["replicas"] == 4
    labelled = await client.patch(
        DEPLOYMENTS, "default", "d", {"metadata": {"labels": {"x": "y"}}}, content_type=STRATEGIC_MERGE_PATCH
    )
    assert labelled["spec"]["replicas"] == 4
    found = await client.list(DEPLOYMENTS, label_selector="x=y")
    assert [o["metadata"]["name"] for o in found.items] == ["d"]
    await client.delete(DEPLOYMENTS, "default", "d")
    with pytest.raises(StatusError) as gone:
        await client.get(DEPLOYMENTS, "default", "d")
    assert gone.value.code == 404


async def test_pages(api: Api) -> None:
    client = api.app.client()
    for name in "abc":
        await client.create(CONFIGMAPS, {"metadata": {"name": name, "namespace": "default"}})
    first = await client.list(CONFIGMAPS, "default", limit=2)
    assert first.remaining == 1
    rest = await client.list(CONFIGMAPS, "default", limit=2, continue_=first.continue_)
    assert [o["metadata"]["name"] for o in [*first.items, *rest.items]] == ["a", "b", "c"]
    assert rest.continue_ == ""


async def test_a_misspelt_field_of_ours_is_an_error(api: Api) -> None:
    with pytest.raises(StatusError, match="unknown field"):
        await api.app.client().create(
            CONFIGMAPS, {"metadata": {"name": "a", "namespace": "default"}, "dta": {}}
        )


async def test_admission_and_validation_hold_here_too(api: Api) -> None:
    client = api.app.client()
    with pytest.raises(StatusError) as missing:
        await client.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "none"}})
    assert missing.value.code == 404
    spec = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 1}]}
    with pytest.raises(StatusError) as port:
        await client.create(SERVICES, {"metadata": {"name": "s", "namespace": "default"}, "spec": spec})
    assert port.value.code == 422


async def test_actions(api: Api) -> None:
    client = api.app.client()
    await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await client.create(PODS, pod, namespace="default")
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
    await client.create(PODS, binding, namespace="default", name="p", subresource="binding")
    assert (await client.get(PODS, "default", "p"))["spec"]["nodeName"] == "n"
    found = await client.list(PODS, field_selector="spec.nodeName=n")
    assert len(found.items) == 1
    assert not (await client.list(PODS, field_selector="spec.nodeName=m")).items
    eviction = {"metadata": {"name": "p"}}
    await client.create(PODS, eviction, namespace="default", name="p", subresource="eviction")
    assert (await client.get(PODS, "default", "p"))["metadata"]["deletionTimestamp"]
    await client.delete(PODS, "default", "p", grace_period_seconds=0)
    asked = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    review = await api.app.client(User("nobody")).create(SELFSUBJECTACCESSREVIEWS, asked)
    assert review["status"]["allowed"] is False


async def test_server_side_apply_creates_and_changes(api: Api) -> None:
    client = api.app.client()
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "default"},
        "data": {"k": "v"},
    }
    made = await client.patch(
        CONFIGMAPS, "default", "a", config, content_type=APPLY_PATCH, field_manager="one"
    )
    assert [m["operation"] for m in made["metadata"]["managedFields"]] == ["Apply"]
    other = {**config, "data": {"k": "w"}}
    with pytest.raises(StatusError) as conflict:
        await client.patch(CONFIGMAPS, "default", "a", other, content_type=APPLY_PATCH, field_manager="two")
    assert conflict.value.code == 409
    taken = await client.patch(
        CONFIGMAPS, "default", "a", other, content_type=APPLY_PATCH, field_manager="two", force=True
    )
    assert taken["data"] == {"k": "w"}
    again = await client.patch(
        CONFIGMAPS, "default", "a", other, content_type=APPLY_PATCH, field_manager="two"
    )
    assert again["metadata"]["resourceVersion"] == taken["metadata"]["resourceVersion"]


async def test_namespaces_finalize(api: Api) -> None:
    client = api.app.client()
    await client.create(NAMESPACES, {"metadata": {"name": "x"}})
    going = deep_copy(await client.delete(NAMESPACES, "", "x"))
    going["spec"]["finalizers"] = []
    await client.update(NAMESPACES, going, subresource="finalize")
    with pytest.raises(StatusError):
        await client.get(NAMESPACES, "", "x")


async def test_events_expire(api: Api) -> None:
    client = api.app.client()
    event = {
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "R",
        "type": "Normal",
    }
    made = await client.create(EVENTS, event)
    assert (await client.get(EVENTS_V1, "default", "e"))["regarding"] == made["involvedObject"]
    await expiry.expire_events(api.store, api.app.cache, time.time() + 3000)
    assert len((await client.list(EVENTS)).items) == 1
    await expiry.expire_events(api.store, api.app.cache, time.time() + 4000)
    assert not (await client.list(EVENTS)).items
