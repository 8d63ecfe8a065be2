"""`pods/eviction` and the PodDisruptionBudgets that it respects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.apiserver.conftest import Api, Reply
from tests.apiserver.test_deletion import PODS, bind, pod

BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
VIOLATION = "Cannot evict pod as it would violate the pod's disruption budget."


async def running(api: Api, name: str = "p", *, ready: bool = True) -> None:
    await pod(api, name)
    labelled = {"metadata": {"labels": {"app": "web"}}}
    await api.ok("PATCH", f"{PODS}/{name}", labelled, content_type="application/merge-patch+json")
    assert (await bind(api, name)).status == 201
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    merge = {"content_type": "application/merge-patch+json"}
    await api.ok("PATCH", f"{PODS}/{name}/status", {"status": status}, **merge)


async def budget(api: Api, name: str = "b", *, allowed: int, observed: int = 1, **more: Any) -> None:
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}, **more.pop("spec", {})}
    made = await api.ok("POST", BUDGETS, {"metadata": {"name": name}, "spec": spec})
    made["status"] = {
        "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
        "disruptionsAllowed": allowed, "observedGeneration": observed, **more,
    }  # fmt: skip
    await api.ok("PUT", f"{BUDGETS}/{name}/status", made)


async def evict(api: Api, name: str = "p", query: str = "", **options: Any) -> Reply:
    body: dict[str, Any] = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    if options:
        body["deleteOptions"] = options
    return await api("POST", f"{PODS}/{name}/eviction{query}", body)


async def going(api: Api, name: str = "p") -> bool:
    reply = await api("GET", f"{PODS}/{name}")
    return reply.status == 404 or "deletionTimestamp" in reply.json["metadata"]


async def test_a_pod_without_a_budget_goes_and_says_why(api: Api) -> None:
    await running(api)
    reply = await evict(api)
    assert (reply.status, reply.json["status"], reply.json["code"]) == (201, "Success", 201)
    left = await api.ok("GET", f"{PODS}/p")
    assert left["metadata"]["deletionGracePeriodSeconds"] == 30
    (target,) = (c for c in left["status"]["conditions"] if c["type"] == "DisruptionTarget")
    assert (target["status"], target["reason"], target["message"]) == (
        "True", "EvictionByEvictionAPI", "Eviction API: evicting",
    )  # fmt: skip


async def test_a_budget_is_spent(api: Api) -> None:
    await running(api)
    await budget(api, allowed=1)
    assert (await evict(api)).status == 201
    status = (await api.ok("GET", f"{BUDGETS}/b"))["status"]
    assert status["disruptionsAllowed"] == 0
    assert status["disruptedPods"].keys() == {"p"}
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "DisruptionAllowed", "False", "InsufficientPods",
    )  # fmt: skip
    await running(api, "q")
    reply = await evict(api, "q")
    assert (reply.status, reply.json["reason"], reply.json["message"]) == (429, "TooManyRequests", VIOLATION)
    assert reply.json["details"]["causes"] == [
        {
            "reason": "DisruptionBudget",
            "message": "The disruption budget b needs 1 healthy pods and has 1 currently",
        }
    ]
    assert not await going(api, "q")


async def test_a_budget_that_is_not_counted_yet(api: Api) -> None:
    await running(api)
    await budget(api, allowed=1, observed=0)
    reply = await evict(api)
    assert reply.status == 429
    assert reply.json["details"] == {
        "retryAfterSeconds": 10,
        "causes": [
            {
                "reason": "DisruptionBudget",
                "message": "The disruption budget b is still being processed by the server.",
            }
        ],
    }
    assert ("Retry-After", "10") in reply.headers


NO = "The disruption budget b does not allow evicting pods currently"


def refusing(reason: str, message: str) -> Any:
    return {"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ({"conditions": [refusing("SyncFailed", "no scale")]}, 429, f"{NO} because it failed sync: no scale"),
        ({"currentHealthy": 4, "conditions": [refusing("Other", "for a reason")]}, 429, f"{NO} (Other): for a reason"),
        ({"currentHealthy": 4}, 429, NO),
        ({"disruptedPods": {f"p{i}": "2026-01-01T00:00:00Z" for i in range(2001)}}, 403,
         f"{NO}: DisruptedPods map too big - too many evictions not confirmed by PDB controller"),
    ],
)  # fmt: skip
async def test_why_a_budget_says_no(api: Api, more: Any, code: int, message: str) -> None:
    await running(api)
    await budget(api, allowed=0, **more)
    reply = await evict(api)
    assert reply.status == code
    assert reply.json["details"]["causes"] == [{"reason": "DisruptionBudget", "message": message}]


async def test_several_budgets(api: Api) -> None:
    await running(api)
    await budget(api, "a", allowed=1)
    await budget(api, "b", allowed=1)
    reply = await evict(api)
    assert (reply.status, reply.json["message"]) == (
        500,
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
    )
    assert not await going(api)


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ({}, 201),  # enough others are healthy
        ({"currentHealthy": 0}, 429),
        ({"currentHealthy": 0, "spec": {"unhealthyPodEvictionPolicy": "IfHealthyBudget"}}, 429),
        ({"currentHealthy": 0, "spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}, 201),
    ],
)
async def test_an_unhealthy_pod(api: Api, more: Any, answer: int) -> None:
    await running(api, ready=False)
    await budget(api, allowed=0, **more)
    assert (await evict(api)).status == answer
    assert await going(api) is (answer == 201)


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
async def test_pods_that_serve_nobody(api: Api, phase: str) -> None:
    await running(api)
    await api.ok(
        "PATCH", f"{PODS}/p/status", {"status": {"phase": phase}}, content_type="application/merge-patch+json"
    )
    await budget(api, allowed=0)
    assert (await evict(api)).status == 201
    assert await going(api)
    assert (await api.ok("GET", f"{BUDGETS}/b"))["status"].get("disruptedPods") is None


async def test_nobody_else_counts(api: Api) -> None:
    """A selector that is not there, or of another app; an empty one counts for all."""
    await running(api)
    await budget(api, "a", allowed=0, spec={"selector": None})
    await budget(api, "b", allowed=0, spec={"selector": {"matchLabels": {"app": "db"}}})
    await budget(api, "c", allowed=0, spec={"selector": {}})
    assert (await evict(api)).status == 429
    await api.ok("DELETE", f"{BUDGETS}/c")
    assert (await evict(api)).status == 201


@pytest.mark.parametrize("in_query", [True, False])
async def test_dry_run(api: Api, in_query: bool) -> None:
    await running(api)
    await budget(api, allowed=1)
    before = (await api.ok("GET", f"{PODS}/p")), (await api.ok("GET", f"{BUDGETS}/b"))
    reply = await evict(api, query="?dryRun=All") if in_query else await evict(api, dryRun=["All"])
    assert reply.status == 201
    assert before == ((await api.ok("GET", f"{PODS}/p")), (await api.ok("GET", f"{BUDGETS}/b")))
    await api.ok("PATCH", f"{BUDGETS}/b/status", {"status": {"disruptionsAllowed": 0}}, content_type="application/merge-patch+json")  # fmt: skip
    assert (await evict(api, dryRun=["All"])).status == 429


async def test_preconditions(api: Api) -> None:
    await running(api)
    old = await evict(api, preconditions={"resourceVersion": "1"})
    assert old.status == 409
    other = await evict(api, preconditions={"uid": "other"})
    assert other.status == 409
    assert not await going(api)
    left = await api.ok("GET", f"{PODS}/p")
    assert [c["type"] for c in left["status"]["conditions"]] == ["Ready"]
    meta = left["metadata"]
    right = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    assert (await evict(api, preconditions=right)).status == 201


async def test_one_disruption_is_spent_once(api: Api) -> None:
    names = [f"p{i}" for i in range(6)]
    for name in names:
        await running(api, name)
    await budget(api, allowed=2)
    answers = [r.status for r in await asyncio.gather(*(evict(api, n) for n in names))]
    assert sorted(answers) == [201, 201, 429, 429, 429, 429]
    assert sum([await going(api, n) for n in names]) == 2
    status = (await api.ok("GET", f"{BUDGETS}/b"))["status"]
    assert (status["disruptionsAllowed"], len(status["disruptedPods"])) == (0, 2)


async def test_what_an_eviction_must_say(api: Api) -> None:
    await running(api)
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "other"}}
    reply = await api("POST", f"{PODS}/p/eviction", body)
    assert (reply.status, reply.json["message"]) == (
        400,
        "name in URL does not match name in Eviction object",
    )
    assert (await evict(api, "none")).status == 404
    old = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}}
    assert (await api("POST", f"{PODS}/p/eviction", old)).status == 201


async def test_a_budget_is_replaced_in_a_known_version(api: Api) -> None:
    """Counting and changing it at the same time must not undo each other."""
    await budget(api, allowed=1)
    known = await api.ok("GET", f"{BUDGETS}/b")
    blind = {**known, "metadata": {"name": "b"}}
    reply = await api("PUT", f"{BUDGETS}/b", blind)
    assert reply.status == 422
    assert (
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in reply.json["message"]
    )
    assert (await api("PUT", f"{BUDGETS}/b", known)).status == 200
