"""The forms of an answer: Accept negotiation, Tables, metadata alone, YAML, pretty JSON; in get, list and watch."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any

import pytest
import yaml

from sampan.api.resources import CONFIGMAPS
from sampan.apiserver import negotiation, rendering
from sampan.transport.types import Response
from tests.apiserver.conftest import Api
from tests.apiserver.test_verbs import CM, MERGE, config_map

META = "meta.k8s.io"
TABLE = f"application/json;as=Table;v=v1;g={META}"
OLD_TABLE = f"application/json;as=Table;v=v1beta1;g={META}"
ONE = f"application/json;as=PartialObjectMetadata;v=v1;g={META}"
LIST = f"application/json;as=PartialObjectMetadataList;v=v1;g={META}"
PROTOBUF = "application/vnd.kubernetes.protobuf"


@pytest.mark.parametrize(
    ("accept", "content_type", "kind"),
    [
        ("", "json", "ConfigMapList"),
        ("*/*", "json", "ConfigMapList"),
        ("application/*", "json", "ConfigMapList"),
        ("application/json;charset=utf-8", "json", "ConfigMapList"),
        ("application/json;stream=watch", "json", "ConfigMapList"),
        ("application/yaml", "yaml", "ConfigMapList"),
        ("application/json;q=0.5,application/yaml", "yaml", "ConfigMapList"),
        ("application/yaml;q=0.5,application/json;q=0.8", "json", "ConfigMapList"),
        ("*/*,application/yaml", "yaml", "ConfigMapList"),  # the more specific comes first
        ("application/yaml;q=0, */*", "json", "ConfigMapList"),
        (f"{PROTOBUF},application/json", "json", "ConfigMapList"),
        (f"{PROTOBUF}, */*", "json", "ConfigMapList"),
        ("application/cbor,application/json;q=0.1", "json", "ConfigMapList"),
        (f"{TABLE},{OLD_TABLE},application/json", "json", "Table"),
        (f"{OLD_TABLE},application/json", "json", "ConfigMapList"),
        (f"application/json;as=Table;v=v2;g={META},application/json", "json", "ConfigMapList"),
        (f"{LIST},application/json", "json", "PartialObjectMetadataList"),
        (f"application/yaml;as=Table;v=v1;g={META}", "yaml", "Table"),
        (f"application/json;q=0.3,{TABLE};q=0.2", "json", "ConfigMapList"),
    ],
)
async def test_the_first_that_can_be_served_is(api: Api, accept: str, content_type: str, kind: str) -> None:
    await api.ok("POST", CM, config_map("a"))
    reply = await api("GET", CM, accept=accept)
    assert (reply.status, reply.content_type) == (200, f"application/{content_type}")
    found = yaml.safe_load(reply.body) if content_type == "yaml" else reply.json
    assert found["kind"] == kind
    assert found["metadata"]["resourceVersion"]


@pytest.mark.parametrize(
    "accept",
    [PROTOBUF, "application/cbor", "text/html", OLD_TABLE, "application/json;q=0", "image/*", "text/json"],
)
async def test_nothing_that_can_be_served(api: Api, accept: str) -> None:
    for target in (CM, f"{CM}/a"):
        reply = await api("GET", target, accept=accept)
        assert (reply.status, reply.json["reason"]) == (406, "NotAcceptable")
        assert reply.json["message"] == (
            "only the following media types are accepted: application/json, application/yaml"
        )
    watched = await api("GET", f"{CM}?watch=1", accept="application/yaml")
    assert watched.status == 406
    assert "application/json;stream=watch" in yaml.safe_load(watched.body)["message"]
    assert (await api("POST", CM, config_map("a"), accept=accept)).status == 406
    assert (await api("GET", f"{CM}/a")).status == 404


async def test_cbor_bodies_are_refused(api: Api) -> None:
    for method, target in (("POST", CM), ("PATCH", f"{CM}/a")):
        reply = await api(method, target, b"\xa0", content_type="application/cbor")
        assert (reply.status, reply.json["reason"]) == (415, "UnsupportedMediaType")


async def test_a_list_is_no_object_and_an_object_no_list(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    one, many = f"{CM}/a", CM
    assert (await api.ok("GET", one, accept=ONE))["kind"] == "PartialObjectMetadata"
    assert (await api.ok("GET", many, accept=LIST))["items"][0]["kind"] == "PartialObjectMetadata"
    reply = await api("GET", many, accept=ONE)
    assert reply.status == 406
    assert "you requested PartialObjectMetadata, but the requested object is a list" in reply.json["message"]
    reply = await api("GET", one, accept=LIST)
    assert "the requested object is not a list" in reply.json["message"]


async def test_table_rows_carry_what_was_asked_for(api: Api) -> None:
    made = await api.ok("POST", CM, config_map("a"))
    partial = {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"{META}/v1",
        "metadata": made["metadata"],
    }
    for include, carried in (("", partial), ("Metadata", partial), ("Object", made), ("None", None)):
        for target in (f"{CM}/a", CM):
            table = await api.ok("GET", f"{target}?includeObject={include}", accept=TABLE)
            assert table["rows"][0].get("object") == carried
            assert table["columnDefinitions"][0]["name"] == "Name"
    version = made["metadata"]["resourceVersion"]
    assert (await api.ok("GET", f"{CM}/a", accept=TABLE))["metadata"] == {"resourceVersion": version}
    wrong = await api("GET", f"{CM}?includeObject=All", accept=TABLE)
    assert wrong.status == 400
    assert wrong.json["message"] == (
        'Unable to convert to Table as requested: includeObject: Invalid value: "All": '
        "must be 'Metadata', 'Object', 'None', or empty"
    )
    # Writes answer in the form that was asked for too.
    assert (await api.ok("PATCH", f"{CM}/a", {}, content_type=MERGE, accept=TABLE))["kind"] == "Table"


async def test_pages_of_tables(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.ok("POST", CM, config_map(name))
    page = await api.ok("GET", f"{CM}?limit=2", accept=TABLE)
    assert [r["cells"][0] for r in page["rows"]] == ["a", "b"]
    assert page["metadata"]["remainingItemCount"] == 1
    rest = await api.ok("GET", f"{CM}?limit=2&continue={page['metadata']['continue']}", accept=TABLE)
    assert [r["cells"][0] for r in rest["rows"]] == ["c"]


async def test_a_watched_table_says_once_what_its_columns_are(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    now = (await api.ok("GET", CM))["metadata"]["resourceVersion"]
    begun = api.watch(f"{CM}?watch=1", accept=TABLE)
    later = api.watch(f"{CM}?watch=1&resourceVersion={now}&includeObject=Object", accept=TABLE)
    await api.ok("POST", CM, config_map("b"))
    await api.ok("POST", CM, config_map("c"))
    for stream, names in ((begun, "abc"), (later, "bc")):
        tables = [(await stream.next())["object"] for _ in names]
        assert [t["rows"][0]["cells"][0] for t in tables] == list(names)
        assert tables[0]["columnDefinitions"][0]["name"] == "Name"
        assert [t["columnDefinitions"] for t in tables[1:]] == [None] * (len(names) - 1)
    assert tables[0]["rows"][0]["object"]["kind"] == "ConfigMap"


async def test_metadata_can_be_watched_but_not_as_a_list(api: Api) -> None:
    stream = api.watch(
        f"{CM}?watch=1&allowWatchBookmarks=1", accept=f"{PROTOBUF};as=PartialObjectMetadata,{ONE}"
    )
    assert (await stream.next())["object"]["kind"] == "PartialObjectMetadata"  # the bookmark
    await api.ok("POST", CM, config_map("a"))
    assert set((await stream.next())["object"]) == {"kind", "apiVersion", "metadata"}
    assert (await api("GET", f"{CM}?watch=1", accept=LIST)).status == 406


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("accept", ["application/json", TABLE, LIST])
@pytest.mark.parametrize("syntax", ["json", "yaml", "pretty"])
async def test_every_syntax_says_the_same(api: Api, accept: str, syntax: str, count: int) -> None:
    for i in range(count):
        await api.ok(
            "POST", CM, {**config_map(f"c{i}"), "data": {"k": 'line\nbreak "é" \\ \t', "x": ": - #"}}
        )
    said = accept.replace("json", "yaml") if syntax == "yaml" else accept
    query = "?pretty=true" if syntax == "pretty" else "?pretty=0"
    plain = await api("GET", CM, accept=accept)
    reply = await api("GET", CM + query, accept=said)
    found = yaml.safe_load(reply.body) if syntax == "yaml" else reply.json
    expected = plain.json
    if accept == TABLE and count:  # the age may have moved on
        for table in (found, expected):
            table["rows"] = [[r["cells"][:2], r["object"]] for r in table["rows"]]
    assert found == expected
    if syntax == "pretty":
        assert json.dumps(reply.json, indent=2, ensure_ascii=False).encode() == reply.body
    if count:
        one = await api("GET", f"{CM}/c0{query}", accept="application/yaml" if syntax == "yaml" else "")
        found = yaml.safe_load(one.body) if syntax == "yaml" else one.json
        assert found == (await api.ok("GET", f"{CM}/c0"))


async def test_who_gets_pretty_json(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    for agent, query, pretty in (
        ("curl/8.5.0", "", True),
        ("Wget/1.21", "", True),
        ("Mozilla/5.0 (X11)", "", True),
        ("kubectl/v1.36.0", "", False),
        ("curl/8.5.0", "?pretty=false", False),
        ("kubectl/v1.36.0", "?pretty=1", True),
        ("kubectl/v1.36.0", "?pretty=x", False),
    ):
        for target in (f"{CM}/a", CM, f"{CM}/missing", "/apis/apps/v1/namespaces/default/deployments"):
            body = (await api("GET", target + query, user_agent=agent)).body
            assert (b"\n  " in body) is pretty, (agent, query, target)
    assert b"\n  " in (await api("GET", f"{CM}/a", accept="application/json;pretty=1")).body


async def test_large_lists_are_made_in_turns_and_are_the_same(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(9):
        await api.ok("POST", CM, config_map(f"c{i}"))
    for accept in ("", "application/yaml", TABLE, LIST):
        target = f"{CM}?pretty=1" if accept == TABLE else CM
        at_once = await api("GET", target, accept=accept)
        monkeypatch.setattr(rendering.Rendering, "is_quick", lambda self, records: False)
        monkeypatch.setattr(rendering.Rendering, "_step", 2)
        answer = api.answer("GET", target, accept=accept)
        assert isinstance(answer, Awaitable)
        sliced = await answer
        monkeypatch.undo()
        assert isinstance(sliced, Response)
        assert not isinstance(sliced.body, bytes)
        body = b"".join(sliced.body)
        assert sliced.size == len(body)
        if accept == "application/yaml":
            assert yaml.safe_load(body) == yaml.safe_load(at_once.body)
        else:
            assert json.loads(body) == at_once.json


async def test_much_yaml_is_made_in_a_thread(api: Api) -> None:
    data = {f"k{i}": "v" * 50 for i in range(1_000)}
    await api.ok("POST", CM, {**config_map("a"), "data": data})
    assert isinstance(api.answer("GET", f"{CM}/a"), Response)
    answer = api.answer("GET", f"{CM}/a", accept="application/yaml")
    assert isinstance(answer, Awaitable)
    found = await answer
    assert isinstance(found, Response)
    assert isinstance(found.body, bytes)
    assert yaml.safe_load(found.body)["data"] == data


async def test_head_is_answered_as_get(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    for target in (CM, f"{CM}/a"):
        assert (await api("HEAD", target)).body == (await api("GET", target)).body
    assert (await api("HEAD", f"{CM}/b")).status == 404


def test_a_rendering_is_one_for_each_choice() -> None:
    table = rendering.rendering(CONFIGMAPS, "table")
    assert table is rendering.rendering(CONFIGMAPS, "table", "Metadata", "json")
    assert table.following is not table
    assert table.following.following is table.following
    plain = rendering.rendering(CONFIGMAPS)
    assert plain.following is plain


def test_accept_headers_that_are_odd() -> None:
    def ranges(header: str) -> list[Any]:
        return [media for media, _ in negotiation.accepts(header)]

    assert ranges(",, ;q=1, a/b;q=x ,") == ["a/b"]
    assert ranges("*/*, a/*, a/b") == ["a/b", "a/*", "*/*"]
    assert ranges("a/b;q=0.1, c/d;q=0.9, e/f;q=0") == ["c/d", "a/b"]
