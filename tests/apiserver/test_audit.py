"""The audit log: levels, stages and rules as the policy file has them, on a whole API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sampan.apiserver.app import App
from sampan.apiserver.audit import policy
from sampan.apiserver.audit.log import AuditLog
from sampan.apiserver.configuration_file import ConfigurationError
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import Api, config

MAPS = "/api/v1/namespaces/default/configmaps"
Audited = Callable[[], list[dict[str, Any]]]


def write(directory: Path, *rules: dict[str, Any], **more: Any) -> Path:
    path = directory / "policy.yaml"
    path.write_text(
        yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more})
    )
    return path


@asynccontextmanager
async def audited(directory: Path, *rules: dict[str, Any], **more: Any) -> AsyncIterator[tuple[Api, Audited]]:
    """An API server, and a function that gives the events so far."""
    log = directory / "audit.log"
    store = MemoryStore()
    app = App(store, config(audit_policy_file=write(directory, *rules, **more), audit_log_path=log))
    await app.start()

    def told() -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_text().splitlines()]

    try:
        yield Api(app, store, directory), told  # type: ignore[arg-type]
    finally:
        await app.close()


def body(name: str = "c") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}


async def test_metadata_of_both_stages(tmp_path: Path) -> None:
    async with audited(tmp_path, {"level": "Metadata"}) as (api, told):
        reply = await api("POST", MAPS + "?fieldManager=me", body(), user_agent="tests")
        received, complete = told()
    assert received["stage"] == "RequestReceived"
    assert complete["stage"] == "ResponseComplete"
    assert received["auditID"] == complete["auditID"] == dict(reply.headers)["Audit-Id"]
    assert complete["kind"] == "Event"
    assert complete["apiVersion"] == "audit.k8s.io/v1"
    assert complete["level"] == "Metadata"
    assert complete["verb"] == "create"
    assert complete["requestURI"] == MAPS + "?fieldManager=me"
    assert complete["user"] == {"username": "admin", "groups": ["system:masters", "system:authenticated"]}
    assert complete["userAgent"] == "tests"
    assert complete["objectRef"] == {"resource": "configmaps", "namespace": "default", "apiVersion": "v1"}
    assert complete["responseStatus"] == {"metadata": {}, "code": 201}
    assert complete["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert "requestObject" not in complete
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


async def test_request_and_response(tmp_path: Path) -> None:
    rules = (
        {"level": "RequestResponse", "verbs": ["create"], "omitManagedFields": True},
        {"level": "Request", "verbs": ["patch"]},
        {"level": "None"},
    )
    async with audited(tmp_path, *rules, omitStages=["RequestReceived"]) as (api, told):
        await api.ok("POST", MAPS, body())
        await api.ok("GET", f"{MAPS}/c")
        await api.ok("PATCH", f"{MAPS}/c", {"data": {"a": "c"}}, content_type="application/merge-patch+json")
        created, patched = told()
    assert created["requestObject"] == body()
    assert created["responseObject"]["metadata"]["uid"]
    assert "managedFields" not in created["responseObject"]["metadata"]
    assert patched["requestObject"] == {"data": {"a": "c"}}
    assert "responseObject" not in patched
    assert patched["objectRef"]["name"] == "c"


async def test_a_refusal_says_why(tmp_path: Path) -> None:
    rule = {"level": "Metadata", "omitStages": ["RequestReceived"]}
    async with audited(tmp_path, rule) as (api, told):
        await api("GET", f"{MAPS}/c", token="nobody")
        await api("GET", f"{MAPS}/c", token="wrong")
        await api("GET", f"{MAPS}/c")
        await api("GET", f"{MAPS}/c", impersonate_user="jane", impersonate_group="readers")
        forbidden, unknown, missing, acted = told()
    assert forbidden["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert forbidden["responseStatus"]["reason"] == "Forbidden"
    assert unknown["user"] == {}
    assert unknown["responseStatus"]["code"] == 401
    assert unknown["stage"] == "ResponseStarted"
    assert missing["responseStatus"]["message"] == 'configmaps "c" not found'
    assert acted["user"]["username"] == "admin"
    assert acted["impersonatedUser"] == {"username": "jane", "groups": ["readers", "system:authenticated"]}


async def test_one_who_does_not_wait_for_the_answer_is_told_of_too(tmp_path: Path) -> None:
    async with audited(tmp_path, {"level": "Metadata", "omitStages": ["RequestReceived"]}) as (api, told):
        reached = asyncio.Event()

        async def never(*args: object, **kwargs: object) -> object:
            reached.set()
            return await asyncio.Event().wait()

        api.store.create = never  # type: ignore[assignment,method-assign]
        answer = api.answer("POST", MAPS, body())
        assert isinstance(answer, Awaitable)
        task = asyncio.ensure_future(answer)
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (event,) = told()
    assert (event["verb"], event["stage"]) == ("create", "ResponseComplete")
    assert event["responseStatus"]["message"] == "Connection closed early"


async def test_a_watch_is_told_when_it_starts_and_when_it_ends(tmp_path: Path) -> None:
    async with audited(tmp_path, {"level": "Metadata", "verbs": ["watch"]}) as (api, told):
        stream = api.watch(MAPS + "?watch=1")
        assert [e["stage"] for e in told()] == ["RequestReceived", "ResponseStarted"]
        stream.close()
        assert [e["stage"] for e in told()][2:] == ["ResponseComplete"]


@pytest.mark.parametrize(
    ("rule", "target", "fits"),
    [
        ({"users": ["admin"]}, "/version", True),
        ({"users": ["other"]}, "/version", False),
        ({"userGroups": ["system:masters", "x"]}, "/version", True),
        ({"verbs": ["list"]}, MAPS, True),
        ({"verbs": ["watch"]}, MAPS, False),
        ({"nonResourceURLs": ["/ver*"]}, "/version", True),
        ({"nonResourceURLs": ["/version"]}, "/healthz", False),
        ({"nonResourceURLs": ["*"]}, MAPS, False),
        ({"namespaces": ["default"]}, MAPS, True),
        ({"namespaces": ["kube-system"]}, MAPS, False),
        ({"namespaces": [""]}, "/api/v1/nodes", True),
        ({"resources": [{"group": ""}]}, MAPS, True),
        ({"resources": [{"group": "apps"}]}, MAPS, False),
        ({"resources": [{"group": "", "resources": ["configmaps"]}]}, MAPS, True),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, "/api/v1/namespaces/default/pods/p/log", False),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, "/api/v1/namespaces/default/pods/p/log", True),
        ({"resources": [{"group": "", "resources": ["*/log"]}]}, "/api/v1/namespaces/default/pods/p/log", True),
        ({"resources": [{"group": "", "resources": ["configmaps"], "resourceNames": ["c"]}]}, f"{MAPS}/c", True),
        ({"resources": [{"group": "", "resources": ["configmaps"], "resourceNames": ["c"]}]}, f"{MAPS}/d", False),
        ({"resources": [{"group": ""}]}, "/version", False),
    ],
)  # fmt: skip
async def test_rules(tmp_path: Path, rule: dict[str, Any], target: str, fits: bool) -> None:
    async with audited(tmp_path, {"level": "Metadata", **rule}) as (api, told):
        await api("GET", target)
        assert bool(told()) is fits


def test_every_problem_of_the_policy_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"level": "metadata", "nonResourceURLs": ["healthz", "/a*b"], "namespaces": ["x"]},
        {"resources": [{"group": "apps/v1", "resourceNames": ["x"]}], "verb": ["get"]},
        omitStages=["Received"],
    )
    with pytest.raises(ConfigurationError) as found:
        policy.load(path)
    for problem in (
        'omitStages[0]: Unsupported value: "Received"',
        'rules[0].level: Unsupported value: "metadata": supported values: "None", "Metadata"',
        "rules[0].nonResourceURLs[0]: Invalid value: \"healthz\": non-resource URL rules must begin with a '/'",
        "rules[0].nonResourceURLs[1]: Invalid value: \"/a*b\": non-resource URL wildcards '*' must be the final",
        "rules[0].nonResourceURLs: Invalid value: rules cannot apply to both",
        "rules[1].level: Required value",
        'rules[1].resources[0].group: Invalid value: "apps/v1"',
        "rules[1].resources[0].resourceNames: Invalid value: using resourceNames requires at least one resource",
        "rules[1].verb: unknown field (did you mean verbs?)",
    ):
        assert problem in str(found.value)


async def test_a_full_log_is_set_aside_and_old_ones_go(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", most_megabytes=1, most_backups=2)
    for i in range(10):
        log.write({"i": i, "text": "x" * 600_000})
    kept = sorted(tmp_path.glob("audit-*.log"))
    log.close()
    assert [json.loads(p.read_text())["i"] for p in kept] == [7, 8]
    assert json.loads((tmp_path / "audit.log").read_text())["i"] == 9


async def test_a_log_that_cannot_be_opened_anew_writes_to_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path / "audit.log", most_megabytes=1)
    log.write({"text": "x" * 600_000})

    def none_left() -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(log, "_open", none_left)
        log.write({"text": "x" * 600_000})
        with open(tmp_path / "another", "wb"):  # Takes the number that has become free.
            log.write({"i": 2})
    log.write({"i": 3})
    log.close()
    assert log.lost == 2
    assert not (tmp_path / "another").read_bytes()
    assert json.loads((tmp_path / "audit.log").read_text())["i"] == 3


async def test_a_log_that_cannot_be_written_keeps_nobody_from_an_answer(tmp_path: Path) -> None:
    log = AuditLog(Path("/dev/full"))
    log.write({"a": 1})
    assert log.lost == 1
    log.close()
