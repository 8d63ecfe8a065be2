"""Whatever a patch or a body says, it is answered with a Status that is no 5xx, and never half written."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.apiserver.app import App
from sampan.store.sqlite import open_store
from tests.apiserver.conftest import Api, Reply, config

NS = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default"
JSON, MERGE, STRATEGIC, APPLY = (
    f"application/{kind}" for kind in ("json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
)  # fmt: skip
LABELS = {"app": "web"}
POD_SPEC = {
    "containers": [
        {
            "name": "c",
            "image": "i",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "value": "1"}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }
    ],
    "volumes": [{"name": "v", "emptyDir": {}}],
}
OBJECTS: dict[str, tuple[str, Any]] = {
    f"{NS}/pods": ("p", {"spec": POD_SPEC}),
    f"{NS}/services": ("s", {"spec": {"selector": LABELS, "ports": [{"port": 80, "name": "a"}]}}),
    f"{NS}/configmaps": ("c", {"data": {"a": "1"}, "metadata": {"finalizers": ["x.io/a"], "labels": LABELS}}),
    f"{APPS}/deployments": (
        "d",
        {"spec": {"selector": {"matchLabels": LABELS}, "template": {"metadata": {"labels": LABELS}, "spec": POD_SPEC}}},
    ),
}  # fmt: skip
TARGETS = [
    f"{NS}/pods/p",
    f"{NS}/pods/p/status",
    f"{NS}/pods/p/ephemeralcontainers",
    f"{NS}/services/s",
    f"{NS}/configmaps/c",
    f"{NS}/configmaps/new",
    f"{APPS}/deployments/d",
    f"{APPS}/deployments/d/status",
    f"{APPS}/deployments/d/scale",
    "/api/v1/namespaces/default",
]


class Server:
    """An API server with some objects, for a test that is not a coroutine."""

    def __init__(self, runner: asyncio.Runner, api: Api) -> None:
        self.runner = runner
        self.api = api
        self.objects: list[Any] = []
        """As they were at first: what is drawn must not hang on what was answered."""

    def __call__(self, method: str, target: str, body: bytes, **headers: str) -> Reply:
        return self.runner.run(self.api(method, target, body, **headers))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner() as runner:

        async def start() -> Api:
            store = await open_store(Path(directory) / "db")
            app = App(store, config())
            await app.start()
            api = Api(app, store, Path(directory))
            await api.ok_or_exists("POST", f"{NS}/serviceaccounts", {"metadata": {"name": "default"}})
            return api

        async def stop(api: Api) -> None:
            await api.app.close()
            await api.store.close()

        made = Server(runner, runner.run(start()))
        restore(made)
        yield made
        runner.run(stop(made.api))


def restore(server: Server) -> None:
    """Have every object there again."""
    first = not server.objects
    for path, (name, content) in OBJECTS.items():
        found = server("GET", f"{path}/{name}", b"")
        if found.status == 404 or found.json["metadata"].get("deletionTimestamp"):
            body = {**content, "metadata": {**content.get("metadata", {}), "name": name}}
            found = server("POST", path, json.dumps(body).encode())
        if first:
            server.objects.append(found.json)


ODD_VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 2**31, 2**63, 10**30, "", "x", "a/b", "\x00", "é", "1Gi",
    [], {}, [[]], [None], [{}], {"": ""},
    {"$patch": "delete"}, {"$patch": "replace"}, {"$patch": "nonsense"}, {"$patch": None}, {"$retainKeys": ["x"]},
    {"name": "c", "$patch": "delete"}, {"$setElementOrder/containers": [1]}, {"$deleteFromPrimitiveList/finalizers": [{}]},
    [{"fieldsType": "FieldsV1", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:spec": 1, "k:{": {}}}],
    [{"manager": "m", "fieldsType": "FieldsV1", "operation": "Update", "apiVersion": "v9", "fieldsV1": {"f:spec": {}}}],
    [{"name": "c"}, {"name": "c"}], [{"name": 1}], [{"name": {}}], [{"name": "c"}, "c"], [{"containerPort": [1]}],
]  # fmt: skip
ODD = st.sampled_from(ODD_VALUES)
DIRECTIVES = st.sampled_from([
    "$patch", "$retainKeys", "$setElementOrder/containers", "$setElementOrder/ports", "$deleteFromPrimitiveList/finalizers",
    "$setElementOrder", "$deleteFromPrimitiveList", "managedFields", "ownerReferences", "finalizers", "resourceVersion",
])  # fmt: skip
RARE = {"deletionTimestamp", "uid"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    out = [path] if path else []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        if key not in RARE:
            out += places(part, (*path, key))
    return out


def around(path: tuple[Any, ...], value: Any) -> Any:
    """A patch that says one value at a path; an index becomes the one item of a list."""
    for key in reversed(path):
        value = [value] if isinstance(key, int) else {key: value}
    return value


def changed(obj: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(obj, list):
        return [changed(v, rest, value) if i == key else v for i, v in enumerate(obj)]
    return {**obj, key: changed(obj[key], rest, value)}


def merged(a: Any, b: Any) -> Any:
    if isinstance(a, dict) and isinstance(b, dict):
        return {**a, **{k: merged(a[k], v) if k in a else v for k, v in b.items()}}
    return b


@st.composite
def requests(draw: st.DrawFn, objects: list[Any]) -> tuple[str, str, str, bytes]:
    """Method, target, media type and body."""
    obj = draw(st.sampled_from(objects))
    found = places(obj)
    kind = draw(st.sampled_from([JSON, MERGE, STRATEGIC, APPLY, "application/json", "application/yaml"]))
    paths = draw(st.lists(st.sampled_from(found), min_size=1, max_size=3))
    values = [draw(ODD) for _ in paths]
    of_obj = list(OBJECTS)[objects.index(obj)]
    own = f"{of_obj}/{OBJECTS[of_obj][0]}"
    target = draw(st.sampled_from([own, own, own, *TARGETS]))
    body: Any
    if kind == JSON:
        pointers = ["".join(f"/{k}" for k in p) for p in paths] + [
            "/",
            "",
            "/spec/-",
            "/metadata/labels/~1",
            "x",
            "/spec/containers/-1",
        ]
        body = [
            {
                "op": draw(st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "leap"])),
                "path": draw(st.sampled_from(pointers)),
                "from": draw(st.sampled_from(pointers)),
                "value": value,
            }
            for value in values
        ]
    elif kind in (MERGE, STRATEGIC):
        body = {}
        for path, value in zip(paths, values, strict=True):
            body = merged(body, around(path, value))
            if draw(st.booleans()):
                body = merged(body, around(path[:-1], {draw(DIRECTIVES): value}))
    else:
        body = {k: v for k, v in obj.items() if k != "metadata"}
        kept = ("name", "labels", "finalizers") if kind == APPLY else tuple(obj["metadata"])
        body["metadata"] = {
            k: v for k, v in obj["metadata"].items() if k in kept and k not in ("uid", "resourceVersion")
        }
        for path, value in zip(paths, values, strict=True):
            try:
                body = changed(body, path, value)
            except (KeyError, TypeError):
                break
    method = "PUT" if kind in ("application/json", "application/yaml") else "PATCH"
    query = draw(st.sampled_from(["", "dryRun=All", "fieldValidation=Strict"]))
    if kind == APPLY:
        query += (
            f"&fieldManager={draw(st.sampled_from('ab'))}&force={draw(st.sampled_from(['true', 'false']))}"
        )
    return method, f"{target}?{query}", kind, json.dumps(body).encode()


def test_no_patch_is_a_server_error(server: Server) -> None:
    asked = 0

    @settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        nonlocal asked
        asked += 1
        if asked % 20 == 0:
            restore(server)
        method, target, kind, body = data.draw(requests(server.objects))
        reply = server(method, target, body, content_type=kind)
        assert reply.status < 500, (method, target, kind, body, reply.body)
        if reply.status >= 400:
            status = reply.json
            assert (status["kind"], status["code"]) == ("Status", reply.status)
            assert status["message"]

    check()
    restore(server)


DEEP = b'{"a":' * 100 + b"1" + b"}" * 100
BODIES: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("blank", b"  \n"),
    ("truncated", b'{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"b'),
    ("no JSON", b"{'a': 1}"),
    ("two values", b"{}{}"),
    ("NUL", b'{"data":{"a":"\x00"}}'),
    ("bytes that are no UTF-8", b'{"data":{"a":"\xff\xfe"}}'),
    ("half a surrogate", b'{"data":{"a":"\\ud800"}}'),
    ("deep", b'{"data":' + DEEP + b"}"),
    ("far too deep", b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    ("deep lists", b"[" * 100_000 + b"]" * 100_000),
    ("number out of range", b'{"data":{"a":1e999}}'),
    ("long number", b'{"data":{"a":' + b"9" * 5000 + b"}}"),
    ("NaN", b'{"data":{"a":NaN}}'),
    ("text", b'"text"'),
    ("null", b"null"),
    ("list", b"[]"),
    ("10 MB", b'{"data":{"a":"' + b"x" * 10_000_000 + b'"}}'),
    ("wrong types", b'{"metadata":[],"data":3}'),
    ("wrong metadata", b'{"metadata":"x"}'),
    ("wrong kind", b'{"apiVersion":{},"kind":[]}'),
    ("unknown version", b'{"apiVersion":"v9","kind":"ConfigMap"}'),
    ("YAML tags", b"!!python/object/apply:os.system ['true']"),
    ("YAML that contains itself", b"a: &a [*a]"),
    ("YAML merge of itself", b"a: &a {<<: *a}"),
    ("YAML bomb", b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(b"b%d: &%c [%s]\n" % (i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9))),
    ("YAML half a surrogate", b'data: {a: "\\ud800"}'),
    ("YAML documents", b"a: 1\n---\nb: 2\n"),
    ("YAML key", b"? [a]\n: 1"),
    ("YAML set", b"data: !!set {a, b}"),
    ("YAML number", b"data: {a: " + b"9" * 5000 + b"}"),
    ("YAML deep", b"[" * 3000 + b"]" * 3000),
    ("YAML list as binary", b"- !!binary gIGC"),
]  # fmt: skip
GOOD_YAML = {"no JSON", "NaN"}
KINDS = ["application/json", "application/yaml", JSON, MERGE, STRATEGIC, APPLY, "application/vnd.kubernetes.protobuf", "text/plain", ""]  # fmt: skip


@pytest.mark.parametrize(("name", "body"), BODIES, ids=[n for n, _ in BODIES])
def test_bad_bodies(server: Server, name: str, body: bytes) -> None:
    """Each under every media type: one clear Status, never a trace, never half a write."""
    before = server("GET", f"{NS}/configmaps", b"").json["items"]
    for kind in KINDS:
        if name in GOOD_YAML and kind in (APPLY, "application/yaml"):
            continue
        for method, target in (
            ("POST", f"{NS}/configmaps"),
            ("PUT", f"{NS}/configmaps/c"),
            ("PATCH", f"{NS}/configmaps/c?fieldManager=m" if kind == APPLY else f"{NS}/configmaps/c"),
            ("DELETE", f"{NS}/configmaps/none"),
            ("POST", f"{NS}/pods/none/eviction"),
            ("POST", f"{NS}/pods/none/binding"),
        ):
            reply = server(method, target, body, content_type=kind)
            if method == "PATCH" and reply.status == 200:
                continue  # A patch that says nothing to be said against (`[]`, `{}`).
            assert 400 <= reply.status < 500, (name, kind, method, target, reply.body)
            assert reply.json["kind"] == "Status"
            assert reply.json["message"]
            assert "Traceback" not in reply.json["message"]
            assert len(reply.body) < 5000
    assert server("GET", f"{NS}/configmaps", b"").json["items"] == before


@pytest.mark.parametrize("version", ["x", "-1", "99999999999999999999", "1.5", "0x1", " 1", "1\\u0000"])
def test_forged_resource_versions(server: Server, version: str) -> None:
    body = (
        json.dumps({"metadata": {"name": "c", "resourceVersion": "VERSION"}})
        .replace("VERSION", version)
        .encode()
    )
    for method, target, kind in (
        ("PUT", f"{NS}/configmaps/c", "application/json"),
        ("PATCH", f"{NS}/configmaps/c", MERGE),
        ("POST", f"{NS}/configmaps", "application/json"),
    ):
        reply = server(method, target, body, content_type=kind)
        assert 400 <= reply.status < 500, reply.body
    delete = (
        json.dumps({"preconditions": {"resourceVersion": "VERSION"}}).replace("VERSION", version).encode()
    )
    assert server("DELETE", f"{NS}/configmaps/c", delete).status == 409
