"""Priority and fairness: classification, seats and queues, and that a flood leaves room for others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from sampan.api import flow_control
from sampan.apiserver.flowcontrol.classification import Classifier, Flow
from sampan.apiserver.flowcontrol.levels import PriorityLevel, Queuing, Rejected, deal
from sampan.apiserver.types import RequestInfo, User
from sampan.transport.types import Response
from tests.apiserver.conftest import Api

AUTH = "system:authenticated"
MAPS = "/api/v1/namespaces/default/configmaps"


def _schemas() -> list[dict[str, Any]]:
    made = {**flow_control.MANDATORY_SCHEMAS, **flow_control.SUGGESTED_SCHEMAS}
    return [{**s, "metadata": {**s["metadata"], "uid": name}} for name, s in made.items()]


LEVELS = {**flow_control.MANDATORY_LEVELS, **flow_control.SUGGESTED_LEVELS}


def _object(
    verb: str, plural: str, group: str = "", namespace: str = "", subresource: str = ""
) -> RequestInfo:
    return RequestInfo(verb, "/", True, group, "v1", plural, namespace, "", subresource)


@pytest.mark.parametrize(
    ("user", "info", "schema", "level", "flow"),
    [
        (User("admin", "", ("system:masters", AUTH)), _object("list", "pods"), "exempt", "exempt", ""),
        (User("jane", "", (AUTH,)), RequestInfo("get", "/healthz"), "probes", "exempt", ""),
        (User("jane", "", (AUTH,)), _object("list", "pods", namespace="a"), "global-default", "global-default", "jane"),
        (User("system:node:n", "", ("system:nodes", AUTH)), _object("update", "nodes", subresource="status"), "system-node-high", "node-high", "system:node:n"),
        (User("system:node:n", "", ("system:nodes", AUTH)), _object("get", "secrets", namespace="a"), "system-nodes", "system", "system:node:n"),
        (User("system:kube-scheduler", "", (AUTH,)), _object("update", "leases", "coordination.k8s.io", "kube-system"), "system-leader-election", "leader-election", "system:kube-scheduler"),
        (User("system:kube-scheduler", "", (AUTH,)), _object("list", "pods"), "kube-scheduler", "workload-high", ""),
        (User("system:serviceaccount:kube-system:x", "", ("system:serviceaccounts", AUTH)), _object("list", "pods", namespace="b"), "kube-system-service-accounts", "workload-high", "b"),
        (User("system:serviceaccount:a:x", "", ("system:serviceaccounts", AUTH)), _object("list", "pods"), "service-accounts", "workload-low", "system:serviceaccount:a:x"),
        (User("who", "", ()), _object("list", "pods"), "catch-all", "catch-all", "who"),
    ],
)  # fmt: skip
def test_requests_are_classified_as_upstream_does(
    user: User, info: RequestInfo, schema: str, level: str, flow: str
) -> None:
    found = Classifier(_schemas(), LEVELS).classify(user, info)
    assert (found.schema, found.level, found.distinguisher) == (schema, level, flow)


def test_a_schema_whose_level_is_not_there_is_passed_over() -> None:
    levels = {name: level for name, level in LEVELS.items() if name != "global-default"}
    found = Classifier(_schemas(), levels).classify(User("jane", "", (AUTH,)), _object("list", "pods"))
    assert found.schema == "catch-all"


def test_hands_are_dealt_alike_for_a_flow_and_apart_for_others() -> None:
    hands = {flow: deal(flow, 64, 6) for flow in map(str, range(200))}
    assert all(len(set(hand)) == 6 and max(hand) < 64 for hand in hands.values())
    assert hands["7"] == deal("7", 64, 6)
    assert len(set(hands.values())) > 190


def _level(seats: int, queuing: Queuing | None = None) -> PriorityLevel:
    level = PriorityLevel("l", "u")
    level.seats = seats
    level.configure(queuing or Queuing(16, 4, 3))
    return level


async def _settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_seats_go_round_the_flows_that_wait() -> None:
    level = _level(1, Queuing(64, 1, 50))
    loud, quiet = Flow("s", "", "l", "loud"), Flow("s", "", "l", "quiet")
    order: list[str] = []

    async def ask(flow: Flow) -> None:
        await level.wait(flow, 10)
        order.append(flow.distinguisher)
        level.release()

    assert level.take(0)
    tasks = [asyncio.ensure_future(ask(loud)) for _ in range(5)] + [asyncio.ensure_future(ask(quiet))]
    await _settle()
    assert level.waiting == 6
    level.release()
    await asyncio.gather(*tasks)
    assert "quiet" in order[:2]
    assert len(order) == 6
    assert (level.executing, level.waiting) == (0, 0)


async def test_full_queues_and_long_waits_end() -> None:
    level = _level(1)
    flow = Flow("s", "", "l", "f")
    assert level.take(0)
    assert not level.take(0)
    waiting = [asyncio.ensure_future(level.wait(flow, 0.01)) for _ in range(12)]
    await _settle()
    with pytest.raises(Rejected, match="queue-full"):
        await level.wait(flow, 10)
    for task in waiting:
        with pytest.raises(Rejected, match="time-out"):
            await task
    level.release()
    assert level.take(0), "those who gave up are passed over"
    level.release()
    assert (level.executing, level.waiting) == (0, 0)


async def test_without_queues_it_refuses_at_once() -> None:
    level = _level(1, Queuing())
    assert level.take(0)
    with pytest.raises(Rejected, match="concurrency-limit"):
        await level.wait(Flow("s", "", "l", "f"), 10)


async def test_one_who_goes_while_he_waits_leaves_no_seat_taken() -> None:
    level = _level(1)
    assert level.take(0)
    task = asyncio.ensure_future(level.wait(Flow("s", "", "l", "f"), 10))
    await _settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    level.release()
    assert level.take(0)
    level.release()
    late = asyncio.ensure_future(level.wait(Flow("s", "", "l", "f"), 10))
    assert level.take(0)
    await _settle()
    level.release()
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert level.executing == 0


async def test_one_who_goes_as_his_wait_is_over_gives_no_seat_back() -> None:
    level = _level(1)
    assert level.take(0)
    task = asyncio.ensure_future(level.wait(Flow("s", "", "l", "f"), 10))
    await _settle()
    (waiting,) = (queue[0][0] for queue in level._queues if queue)
    level._give_up(waiting)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert level.executing == 1, "the seat of the one who has it"


async def test_idle_seats_are_lent() -> None:
    level = _level(2)
    level.borrowable = 3
    assert [level.take(2) for _ in range(5)] == [True, True, True, True, False]
    assert level.lent == 2
    lender = _level(4)
    lender.lendable = 3
    assert lender.idle == 3
    assert [lender.take(0) for _ in range(3)] == [True] * 3
    assert lender.idle == 1


async def test_a_flood_is_held_back_and_another_user_is_answered(api: Api) -> None:
    """Thousands of requests come at once; the one of another user, who comes last, is among the first answered."""
    answered: list[str] = []

    async def finish(name: str, answer: Response | Awaitable[Any]) -> int:
        made = await answer if isinstance(answer, Awaitable) else answer
        answered.append(name)
        return int(made.status)

    made: list[tuple[str, Any]] = []
    for i in range(2000):
        made.append(("nobody", api.answer("GET", f"{MAPS}/{i}", token="nobody")))
    waiting = [m for m in made if isinstance(m[1], Awaitable)]
    assert 0 < len(made) - len(waiting) < 400, "as many as the level has seats are answered in this turn"
    made.append(("other", api.answer("GET", f"{MAPS}/x", token="other")))
    statuses = await asyncio.gather(*(finish(*m) for m in made if isinstance(m[1], Awaitable)))
    assert set(statuses) == {403, 429}
    assert 429 not in statuses[-1:]
    assert answered.index("other") < 1900
    served = [n for n, s in zip((m[0] for m in waiting + made[-1:]), statuses, strict=True) if s == 403]
    seats = api.app._flows.levels["global-default"].seats
    assert len(served) <= 6 * 50 + seats + 1, "no more wait than the queues of a hand hold"


async def test_answers_say_how_they_were_classified(api: Api) -> None:
    reply = await api("GET", MAPS, token="nobody")
    headers = dict(reply.headers)
    schema = await api.ok("GET", "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/global-default")
    level = await api.ok(
        "GET", "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/global-default"
    )
    assert headers["X-Kubernetes-PF-FlowSchema-UID"] == schema["metadata"]["uid"]
    assert headers["X-Kubernetes-PF-PriorityLevel-UID"] == level["metadata"]["uid"]


async def test_a_schema_of_ones_own_counts_at_once_and_says_whether_it_dangles(api: Api) -> None:
    path = "/apis/flowcontrol.apiserver.k8s.io/v1"
    spec = {
        "priorityLevelConfiguration": {"name": "mine"},
        "matchingPrecedence": 50,
        "rules": [
            {
                "subjects": [{"kind": "User", "user": {"name": "nobody"}}],
                "resourceRules": [
                    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}
                ],
            }
        ],
    }
    watching = api.watch(f"{path}/flowschemas?watch=1&fieldSelector=metadata.name=mine")
    await api.ok("POST", f"{path}/flowschemas", {"metadata": {"name": "mine"}, "spec": spec})
    while not (dangling := _dangling((await watching.next())["object"])):
        pass
    assert (dangling["status"], dangling["reason"]) == ("True", "NotFound")
    limited = {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}},
    }
    await api.ok(
        "POST", f"{path}/prioritylevelconfigurations", {"metadata": {"name": "mine"}, "spec": limited}
    )
    while (dangling := _dangling((await watching.next())["object"]))["status"] == "True":
        pass
    assert dangling["reason"] == "Found"
    none_left = {"limited": {**limited["limited"], "lendablePercent": 0, "borrowingLimitPercent": 0}}  # type: ignore[dict-item]
    await api.ok(
        "PATCH",
        f"{path}/prioritylevelconfigurations/mine",
        {"spec": none_left},
        content_type="application/merge-patch+json",
    )
    reply = await api("GET", MAPS, token="nobody")
    assert reply.status == 429
    assert dict(reply.headers)["Retry-After"] == "1"
    assert (await api("GET", MAPS)).status == 200


def _dangling(schema: dict[str, Any]) -> dict[str, Any]:
    conditions = (schema.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "Dangling"), {})
