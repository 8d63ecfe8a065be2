"""Lists: which options go together, pages at one revision, tokens and revisions that are old, foreign or forged."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from sampan.apiserver import listing
from tests.apiserver.conftest import Api
from tests.apiserver.test_verbs import CM, MERGE, config_map


def names(found: Any) -> list[str]:
    return [o["metadata"]["name"] for o in found["items"]]


def token(**fields: Any) -> str:
    given = {"v": "meta.k8s.io/v1", "rv": 1, "start": "default/a\0", **fields}
    return base64.urlsafe_b64encode(json.dumps(given).encode()).rstrip(b"=").decode()


async def made(api: Api, *which: str) -> None:
    for name in which:
        await api.ok("POST", CM, config_map(name))


UNLESS = (
    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
)
WITH_CONTINUE = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided"
ZERO = 'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
UNKNOWN = 'resourceVersionMatch: Unsupported value: "Newer": supported values: "Exact", "NotOlderThan", ""'
INITIAL = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"


@pytest.mark.parametrize(
    ("query", "problems"),
    [
        ("resourceVersionMatch=Exact", [UNLESS]),
        ("resourceVersionMatch=NotOlderThan", [UNLESS]),
        ("resourceVersionMatch=Exact&resourceVersion=0", [ZERO]),
        ("resourceVersionMatch=Newer&resourceVersion=1", [UNKNOWN]),
        ("resourceVersionMatch=Newer", [UNLESS, UNKNOWN]),
        ("resourceVersionMatch=Exact&continue=x", [UNLESS, WITH_CONTINUE]),
        ("resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=x", [WITH_CONTINUE]),
        ("sendInitialEvents=true", [INITIAL]),
        ("sendInitialEvents=false&limit=3", [INITIAL]),
    ],
)
async def test_options_that_do_not_go_together(api: Api, query: str, problems: list[str]) -> None:
    for method in ("GET", "DELETE"):
        reply = await api(method, f"{CM}?{query}")
        assert reply.status == 422
        listed = problems[0] if len(problems) == 1 else "[" + ", ".join(problems) + "]"
        assert reply.json["message"] == f'ListOptions.meta.k8s.io "" is invalid: {listed}'
        assert len(reply.json["details"]["causes"]) == len(problems)


async def test_what_each_resource_version_shows(api: Api) -> None:
    await made(api, "a", "b")
    old = (await api.ok("GET", CM))["metadata"]["resourceVersion"]
    await made(api, "c")
    await api.ok("DELETE", f"{CM}/a")
    now = (await api.ok("GET", CM))["metadata"]["resourceVersion"]
    for query, expected, version in (
        ("", ["b", "c"], now),
        ("resourceVersion=0", ["b", "c"], now),
        ("resourceVersion=0&limit=1", ["b"], now),
        (f"resourceVersion={old}", ["b", "c"], now),
        (f"resourceVersion={old}&resourceVersionMatch=NotOlderThan", ["b", "c"], now),
        (f"resourceVersion={old}&resourceVersionMatch=NotOlderThan&limit=1", ["b"], now),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan", ["b", "c"], now),
        (f"resourceVersion={old}&resourceVersionMatch=Exact", ["a", "b"], old),
        (f"resourceVersion={old}&resourceVersionMatch=Exact&limit=1", ["a"], old),
        (f"resourceVersion={old}&limit=1", ["a"], old),  # as it was before resourceVersionMatch
    ):
        found = await api.ok("GET", f"{CM}?{query}")
        assert names(found) == expected, query
        shown = found["metadata"]["resourceVersion"]
        assert shown == old if version == old else int(shown) >= int(now), query
    label = f"{CM}?resourceVersion={old}&resourceVersionMatch=Exact&fieldSelector=metadata.name%3Da"
    assert names(await api.ok("GET", label)) == ["a"]


async def test_pages_show_one_revision_while_writes_go_on(api: Api) -> None:
    await made(api, *(f"c{i:02}" for i in range(20)))
    everything = await api.ok("GET", CM)
    seen: list[Any] = []
    versions: set[str] = set()
    query = "limit=3"
    for turn in range(7):
        page = await api.ok("GET", f"{CM}?{query}")
        versions.add(page["metadata"]["resourceVersion"])
        seen += page["items"]
        assert page["metadata"].get("remainingItemCount", 0) == 20 - len(seen)
        await api.ok("DELETE", f"{CM}/c{19 - turn:02}")
        await made(api, f"c{turn:02}x")
        await api.ok("PATCH", f"{CM}/c10", {"data": {"turn": str(turn)}}, content_type=MERGE)
        query = f"limit=3&continue={page['metadata'].get('continue')}"
    assert "continue" not in page["metadata"]
    assert seen == everything["items"]
    assert len(versions) == 1


async def test_pages_of_a_selection_do_not_say_how_much_remains(api: Api) -> None:
    for i in range(6):
        await api.ok("POST", CM, config_map(f"c{i}", labels={"half": str(i % 2)}))
    page = await api.ok("GET", f"{CM}?limit=2&labelSelector=half%3D1")
    assert names(page) == ["c1", "c3"]
    assert "remainingItemCount" not in page["metadata"]
    rest = f"{CM}?limit=2&labelSelector=half%3D1&continue={page['metadata']['continue']}"
    page = await api.ok("GET", rest)
    assert (names(page), page["metadata"].get("continue")) == (["c5"], None)
    await api.ok("DELETE", f"{CM}/c5")
    assert names(await api.ok("GET", rest)) == ["c5"]


async def test_pages_of_all_namespaces(api: Api) -> None:
    await made(api, "a", "b")
    await api.ok("POST", "/api/v1/namespaces/kube-system/configmaps", config_map("a"))
    seen: list[tuple[str, str]] = []
    query = "limit=1"
    while query:
        page = await api.ok("GET", f"/api/v1/configmaps?{query}")
        seen += [(o["metadata"]["namespace"], o["metadata"]["name"]) for o in page["items"]]
        query = page["metadata"].get("continue", "") and f"limit=1&continue={page['metadata']['continue']}"
    assert seen == sorted(seen)
    assert {("default", "a"), ("default", "b"), ("kube-system", "a")} <= set(seen)
    # A token of one namespace's list, used on another's: it stays where it is.
    foreign = (await api.ok("GET", f"{CM}?limit=1"))["metadata"]["continue"]
    found = await api.ok("GET", f"/api/v1/namespaces/kube-system/configmaps?continue={foreign}")
    assert {o["metadata"]["namespace"] for o in found["items"]} == {"kube-system"}


async def test_after_compaction_a_token_goes_on_with_what_there_is(api: Api) -> None:
    await made(api, "c0", "c1", "c2", "c3", "c4")
    first = await api.ok("GET", CM + "?limit=2")
    await api.ok("DELETE", f"{CM}/c2")
    await api.store.compact(api.store.revision())
    old = first["metadata"]["resourceVersion"]
    reply = await api("GET", f"{CM}?limit=2&continue={first['metadata']['continue']}")
    assert (reply.status, reply.json["reason"]) == (410, "Expired")
    assert "inconsistent list" in reply.json["message"]
    page = await api.ok("GET", f"{CM}?limit=1&continue={reply.json['metadata']['continue']}")
    assert (names(page), page["metadata"]["remainingItemCount"]) == (["c3"], 1)
    assert int(page["metadata"]["resourceVersion"]) > int(old)
    page = await api.ok("GET", f"{CM}?limit=1&continue={page['metadata']['continue']}")
    assert names(page) == ["c4"]
    exact = await api("GET", f"{CM}?resourceVersion={old}&resourceVersionMatch=Exact")
    assert (exact.status, exact.json["reason"]) == (410, "Expired")
    assert exact.json["message"] == "The resourceVersion for the provided list is too old."
    assert exact.json["metadata"] == {}


@pytest.mark.parametrize(
    "forged",
    [
        "rubbish",
        "%00",
        "x" * 100_000,
        base64.urlsafe_b64encode(b"[" * 50_000).decode(),
        base64.urlsafe_b64encode(b"[1]").decode(),
        base64.urlsafe_b64encode(b'"text"').decode(),
        token(v="meta.k8s.io/v2"),
        token(v=None),
        token(rv=0),
        token(rv="5"),
        token(rv=True),
        token(rv=2**70),
        token(rv=1.5),
        token(start=""),
        token(start=7),
        token(start="../../secrets/default/a"),
        token(start="default/./a"),
        token(start="default//a"),
    ],
)
async def test_forged_tokens(api: Api, forged: str) -> None:
    reply = await api("GET", f"{CM}?continue={forged}")
    assert (reply.status, reply.json["reason"]) == (400, "BadRequest")
    assert reply.json["message"].startswith("invalid continue token: continue key is not valid")


async def test_tokens_and_revisions_of_another_time(api: Api) -> None:
    await made(api, "a")
    future = await api("GET", f"{CM}?continue={token(rv=999_999)}")
    assert future.status == 504
    both = await api("GET", f"{CM}?continue={token()}&resourceVersion=5")
    assert both.json["message"] == "specifying resource version is not allowed when using continue"
    assert (await api("GET", f"{CM}?continue={token(rv=-1)}&resourceVersion=0")).status == 200
    for target in (CM, f"{CM}/a"):
        for wrong in ("x", "-1", "1.5", "0x1", "%C2%B2", "1" * 40, "18446744073709551616"):
            reply = await api("GET", f"{target}?resourceVersion={wrong}")
            assert (reply.status, reply.json["reason"]) == (400, "BadRequest"), wrong
            assert reply.json["message"].startswith("invalid resource version: ")
        reply = await api("GET", f"{target}?resourceVersion=999999")
        assert reply.status == 504
        assert reply.json["reason"] == "Timeout"
        message = reply.json["message"]
        assert re.fullmatch("Timeout: Too large resource version: 999999, current: [0-9]+", message)
        assert reply.json["details"] == {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }
        assert ("Retry-After", "1") in reply.headers
    for wrong in ("limit=x", "limit=1.5", "timeoutSeconds=x", f"limit={2**64}"):
        assert (await api("GET", f"{CM}?{wrong}")).status == 400
    assert names(await api.ok("GET", f"{CM}?limit=-5")) == ["a"]


async def test_field_selectors(api: Api) -> None:
    await made(api, "a", "b")
    for selector, expected in (
        ("metadata.name=a", ["a"]),
        ("metadata.name==a", ["a"]),
        ("metadata.name!=a", ["b"]),
        ("metadata.name=a,metadata.namespace=default", ["a"]),
        ("metadata.namespace=default,metadata.name=a", ["a"]),
        ("metadata.name=a,metadata.name=b", []),
        ("metadata.name=a,metadata.namespace=other", []),
        ("metadata.name=..", []),
        ("metadata.name=x/y", []),
        ("", ["a", "b"]),
    ):
        found = await api.ok("GET", f"{CM}?fieldSelector={selector.replace('=', '%3D').replace('/', '%2F')}")
        assert names(found) == expected, selector
    unknown = await api("GET", "/api/v1/pods?fieldSelector=spec.x%3Dy")
    assert (unknown.status, unknown.json["message"]) == (400, "field label not supported: spec.x")
    unknown = await api("GET", f"{CM}?fieldSelector=data.k%3Dv")
    assert unknown.status == 400


async def test_selectors_over_many_objects(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_AT_ONCE", 5)
    monkeypatch.setattr(listing, "_STEP", 2)
    for i in range(12):
        await api.ok("POST", CM, config_map(f"c{i:02}", labels={"third": str(i % 3)}))
    query = f"{CM}?labelSelector=third%3D1"
    assert names(await api.ok("GET", query)) == ["c01", "c04", "c07", "c10"]
    page = await api.ok("GET", query + "&limit=2")
    assert names(page) == ["c01", "c04"]
    await api.ok("DELETE", f"{CM}/c07")
    rest = await api.ok("GET", f"{query}&limit=2&continue={page['metadata']['continue']}")
    assert names(rest) == ["c07", "c10"]
    assert "continue" not in rest["metadata"]


async def test_where_others_write_too_the_newest_is_waited_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(api, "a")
    asked = 0

    async def catch_up() -> int:
        nonlocal asked
        asked += 1
        return api.store.revision()

    monkeypatch.setattr(api.store, "catch_up", catch_up)
    monkeypatch.setattr(type(api.store), "shared", True)
    assert names(await api.ok("GET", CM)) == ["a"]
    assert (await api.ok("GET", f"{CM}/a"))["metadata"]["name"] == "a"
    assert asked == 2
    assert names(await api.ok("GET", f"{CM}?resourceVersion=0")) == ["a"]
    assert (await api.ok("GET", f"{CM}/a?resourceVersion=0"))["metadata"]["name"] == "a"
    assert asked == 2
    assert (await api("GET", f"{CM}?resourceVersion=99999")).status == 504
    assert asked == 3
