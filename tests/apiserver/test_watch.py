"""Watches: what is told, in which order, to whom, and how they end."""

from __future__ import annotations

import asyncio

import pytest

from sampan.api.errors import StatusError
from sampan.api.resources import CONFIGMAPS, EVENTS_V1, PODS
from sampan.apiserver import inprocess, watchcache
from sampan.apiserver import watching as http_watching
from sampan.apiserver.events import INITIAL_EVENTS_END
from sampan.apiserver.records import Record
from sampan.apiserver.rendering import Rendering
from sampan.client.informer import Informer
from sampan.client.types import WatchEvent
from tests.apiserver.conftest import Api, FakeStream
from tests.apiserver.test_verbs import CM, MERGE, TABLE, config_map


async def version_now(api: Api) -> str:
    return str((await api.ok("GET", CM + "?limit=1"))["metadata"]["resourceVersion"])


async def test_changes_come_in_order_with_their_versions(api: Api) -> None:
    stream = api.watch(f"{CM}?watch=1&resourceVersion={await version_now(api)}")
    made = await api.ok("POST", CM, config_map("a"))
    changed = await api.ok("PATCH", f"{CM}/a", {"data": {"x": "y"}}, content_type=MERGE)
    await api.ok("DELETE", f"{CM}/a")
    assert await stream.next() == {"type": "ADDED", "object": made}
    assert await stream.next() == {"type": "MODIFIED", "object": changed}
    gone = await stream.next()
    assert gone["type"] == "DELETED"
    assert int(gone["object"]["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])
    assert gone["object"]["data"] == changed["data"]


async def test_a_watch_begins_where_it_is_told(api: Api) -> None:
    first = await api.ok("POST", CM, config_map("a"))
    second = await api.ok("POST", CM, config_map("b"))
    stream = api.watch(f"{CM}?watch=1&resourceVersion={first['metadata']['resourceVersion']}")
    assert (await stream.next())["object"] == second
    present = api.watch(f"{CM}?watch=true")
    assert [(await present.next())["object"] for _ in range(2)] == [first, second]
    await api.ok("DELETE", f"{CM}/a")
    assert (await stream.next())["type"] == "DELETED"
    assert (await present.next())["type"] == "DELETED"


async def test_selectors_make_objects_come_and_go(api: Api) -> None:
    stream = api.watch(f"{CM}?watch=1&labelSelector=app%3Dx&resourceVersion={await version_now(api)}")
    await api.ok("POST", CM, config_map("a"))
    await api.ok("PATCH", f"{CM}/a", {"metadata": {"labels": {"app": "x"}}}, content_type=MERGE)
    entered = await stream.next()
    assert entered["type"] == "ADDED"
    await api.ok("PATCH", f"{CM}/a", {"data": {"n": "1"}}, content_type=MERGE)
    assert (await stream.next())["type"] == "MODIFIED"
    left = await api.ok("PATCH", f"{CM}/a", {"metadata": {"labels": {"app": "y"}}}, content_type=MERGE)
    told = await stream.next()
    assert told["type"] == "DELETED"
    assert told["object"]["metadata"]["labels"] == {"app": "x"}
    assert told["object"]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    await api.ok("DELETE", f"{CM}/a")
    assert stream.events.empty()


async def test_a_watch_of_one_name_and_of_one_namespace(api: Api) -> None:
    now = await version_now(api)
    one = api.watch(f"{CM}?watch=1&fieldSelector=metadata.name%3Db&resourceVersion={now}")
    elsewhere = api.watch(f"/api/v1/namespaces/kube-system/configmaps?watch=1&resourceVersion={now}")
    every = api.watch(f"/api/v1/configmaps?watch=1&resourceVersion={now}")
    old_form = api.watch(f"/api/v1/watch/namespaces/default/configmaps/b?resourceVersion={now}")
    await api.ok("POST", CM, config_map("a"))
    await api.ok("POST", CM, config_map("b"))
    assert (await one.next())["object"]["metadata"]["name"] == "b"
    assert (await old_form.next())["object"]["metadata"]["name"] == "b"
    assert [(await every.next())["object"]["metadata"]["name"] for _ in range(2)] == ["a", "b"]
    assert elsewhere.events.empty()


async def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    made = await api.ok("POST", CM, config_map("a"))
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    stream = api.watch(f"{CM}?{query}")
    assert await stream.next() == {"type": "ADDED", "object": made}
    mark = await stream.next()
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["kind"] == "ConfigMap"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    marked = int(mark["object"]["metadata"]["resourceVersion"])
    assert int(made["metadata"]["resourceVersion"]) <= marked <= int(await version_now(api))


NOT_OLDER = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
WITHOUT = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
CONTINUED = "resourceVersionMatch is forbidden when continue is provided"


@pytest.mark.parametrize(
    ("query", "problems"),
    [
        ("sendInitialEvents=true", [f"Forbidden: {NOT_OLDER}"]),
        ("sendInitialEvents=false", [f"Forbidden: {NOT_OLDER}"]),
        ("sendInitialEvents", [f"Forbidden: {NOT_OLDER}"]),
        ("resourceVersionMatch=NotOlderThan&resourceVersion=1", [f"Forbidden: {WITHOUT}"]),
        (
            "sendInitialEvents=true&resourceVersionMatch=Exact",
            [f"Forbidden: {NOT_OLDER}", 'Unsupported value: "Exact": supported values: "NotOlderThan"'],
        ),
        (
            "resourceVersionMatch=Exact",
            [f"Forbidden: {WITHOUT}", 'Unsupported value: "Exact": supported values: "NotOlderThan"'],
        ),
        (
            "sendInitialEvents=1&resourceVersionMatch=NotOlderThan&continue=x",
            [f"Forbidden: {CONTINUED}"],
        ),
    ],
)
async def test_options_of_a_watch_that_do_not_go_together(api: Api, query: str, problems: list[str]) -> None:
    for target in (f"{CM}?watch=1&{query}", f"/api/v1/watch/namespaces/default/configmaps?{query}"):
        reply = await api("GET", target)
        assert (reply.status, reply.json["reason"]) == (422, "Invalid")
        assert [c["message"] for c in reply.json["details"]["causes"]] == problems
        assert all(c["field"] == "resourceVersionMatch" for c in reply.json["details"]["causes"])


async def test_what_comes_first(api: Api) -> None:
    """For each way to begin: the names of the state that is sent, and whether its end is marked."""
    old = (await api.ok("POST", CM, config_map("a")))["metadata"]["resourceVersion"]
    await api.ok("POST", CM, config_map("b"))
    streaming = "&resourceVersionMatch=NotOlderThan&sendInitialEvents"
    for query, state, marked in (
        ("", "ab", True),
        ("&resourceVersion=0", "ab", True),
        (f"&resourceVersion={old}", "b", False),
        (f"{streaming}=true", "ab", True),
        (f"{streaming}=true&resourceVersion=0", "ab", True),
        (f"{streaming}=true&resourceVersion={old}", "ab", True),
        (f"{streaming}=false", "", False),
        (f"{streaming}=false&resourceVersion=0", "", False),
        (f"{streaming}=false&resourceVersion={old}", "b", False),
    ):
        for bookmarks in (False, True):
            stream = api.watch(f"{CM}?watch=1{query}&allowWatchBookmarks={str(bookmarks).lower()}")
            events = [await stream.next() for _ in state]
            assert "".join(e["object"]["metadata"]["name"] for e in events) == state
            assert {e["type"] for e in events} <= {"ADDED"}
            if marked and bookmarks:
                assert INITIAL_EVENTS_END in (await stream.next())["object"]["metadata"]["annotations"]
            assert stream.events.empty(), (query, bookmarks)
            stream.close()


async def test_too_old_is_told_as_expired(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "HISTORY_EVENTS", 3)
    start = await version_now(api)
    for i in range(5):
        await api.ok("POST", CM, config_map(f"c{i}"))
    stream = api.watch(f"{CM}?watch=1&resourceVersion={start}")
    told = await stream.next()
    assert told["type"] == "ERROR"
    assert told["object"]["code"] == 410
    assert told["object"]["reason"] == "Expired"
    assert told["object"]["message"].startswith(f"too old resource version: {start} (")
    assert stream.ended
    with pytest.raises(StatusError, match="too old resource version"):
        async for _ in api.app.client().watch(CONFIGMAPS, "default", resource_version=start):
            pass


async def test_a_version_of_the_future_is_refused(api: Api) -> None:
    assert (await api("GET", f"{CM}?watch=1&resourceVersion=99999")).status == 504
    assert (await api("GET", f"{CM}?watch=1&resourceVersion=x")).status == 400


async def test_bookmarks_are_for_those_who_want_them_and_tell_how_far_they_are(api: Api) -> None:
    now = await version_now(api)
    marked = api.watch(f"{CM}?watch=1&resourceVersion={now}&allowWatchBookmarks=true")
    bare = api.watch(f"{CM}?watch=1&resourceVersion={now}")
    made = await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "x"}})
    version = api.app.cache.revision
    assert version >= int(made["metadata"]["resourceVersion"]), "of whatever kind"
    api.app.cache._send_bookmarks()
    assert await marked.next() == {
        "type": "BOOKMARK",
        "object": {
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": {
                "resourceVersion": str(version),
                "creationTimestamp": None,
            },
        },
    }
    assert bare.events.empty()


async def test_a_watch_in_its_old_form(api: Api) -> None:
    await api.ok("POST", CM, config_map("a"))
    await api.ok("POST", CM, config_map("b"))
    old = "/api/v1/watch/namespaces/default/configmaps"
    stream = api.watch(f"{old}?watch=false")
    assert [(await stream.next())["object"]["metadata"]["name"] for _ in "ab"] == ["a", "b"]
    for query in ("", "?fieldSelector=metadata.name%3Db"):
        one = api.watch(f"{old}/b{query}")
        assert (await one.next())["object"]["metadata"]["name"] == "b"
        assert one.events.empty()
    contrary = await api("GET", f"{old}/b?fieldSelector=metadata.name%3Da")
    assert contrary.json["message"] == "fieldSelector metadata.name doesn't match requested name"
    assert (await api("GET", f"{old}/b?fieldSelector=metadata.namespace%3Da")).status == 400
    assert api.watch(f"{old}/a,b=c").events.empty()
    assert (await api("POST", old, config_map("c"))).status == 405
    assert (await api("DELETE", f"{old}/a")).status == 405
    assert (await api("GET", f"{old}/a/status")).status in (404, 405)
    assert (await api("GET", "/api/v1/watch")).status == 404


async def test_much_to_catch_up_with_goes_at_the_peers_pace(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_watching, "_AT_ONCE", 3)
    for i in range(10):
        await api.ok("POST", CM, config_map(f"c{i}"))
    gate = asyncio.Event()
    drains = asyncio.Queue[None]()

    async def drain(self: FakeStream) -> None:
        drains.put_nowait(None)
        await gate.wait()

    monkeypatch.setattr(FakeStream, "drain", drain)
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    stream = api.watch(f"{CM}?{query}")
    await drains.get()
    assert stream.events.qsize() == 3
    # What changes meanwhile comes behind what was there, and before the mark.
    await api.ok("PATCH", f"{CM}/c9", {"data": {"k": "2"}}, content_type=MERGE)
    await api.ok("DELETE", f"{CM}/c1")
    await api.ok("POST", CM, config_map("d"))
    await api.ok("DELETE", f"{CM}/c8")
    last = await api.ok("POST", CM, config_map("e"))
    gate.set()
    told = [await stream.next() for _ in range(16)]
    assert [(e["type"], e["object"]["metadata"].get("name")) for e in told] == [
        *(("ADDED", f"c{i}") for i in range(10)),
        ("MODIFIED", "c9"),
        ("DELETED", "c1"),
        ("ADDED", "d"),
        ("DELETED", "c8"),
        ("ADDED", "e"),
        ("BOOKMARK", None),
    ]
    assert told[9]["object"]["data"] == {"k": "v"}
    marked = int(told[-1]["object"]["metadata"]["resourceVersion"])
    assert marked >= int(last["metadata"]["resourceVersion"])
    await api.ok("DELETE", f"{CM}/e")
    assert (await stream.next())["type"] == "DELETED"


async def test_who_catches_up_too_slowly_is_told_that_it_is_too_late(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_watching, "_AT_ONCE", 3)
    monkeypatch.setattr(watchcache, "HISTORY_EVENTS", 4)
    for i in range(5):
        await api.ok("POST", CM, config_map(f"c{i}"))
    gate, drains = asyncio.Event(), asyncio.Queue[None]()

    async def drain(self: FakeStream) -> None:
        drains.put_nowait(None)
        await gate.wait()

    monkeypatch.setattr(FakeStream, "drain", drain)
    stream = api.watch(f"{CM}?watch=1")
    gone = api.watch(f"{CM}?watch=1")
    await drains.get()
    await drains.get()
    gone.close()
    for i in range(6):
        await api.ok("POST", CM, config_map(f"d{i}"))
    gate.set()
    told = [await stream.next() for _ in range(6)]
    assert [e["type"] for e in told] == ["ADDED"] * 5 + ["ERROR"]
    assert told[-1]["object"]["code"] == 410
    assert stream.ended
    assert gone.events.qsize() == 3
    assert not api.app.cache.shelf(CONFIGMAPS).groups


async def test_many_watchers_are_told_in_slices_and_in_order(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With slices of no length, each watcher is told in a turn of the loop of its own."""
    now = await version_now(api)
    streams = [api.watch(f"{CM}?watch=1&resourceVersion={now}&allowWatchBookmarks=1") for _ in range(8)]
    monkeypatch.setattr(watchcache, "SLICE_SECONDS", -1.0)
    await asyncio.gather(*(api.ok("POST", CM, config_map(f"c{i}")) for i in range(4)))
    late = api.watch(f"{CM}?watch=1&resourceVersion={now}&allowWatchBookmarks=1")
    assert api.app.cache.told < api.app.cache.revision
    streams[7].close()
    api.app.cache._send_bookmarks()
    for stream in (*streams[:7], late):
        seen: list[int] = []
        mark = 0
        for _ in range(5):
            event = await stream.next()
            version = int(event["object"]["metadata"]["resourceVersion"])
            if event["type"] == "BOOKMARK":
                mark, before = version, len(seen)
            else:
                seen.append(version)
        assert seen == sorted(set(seen))
        assert len(seen) == 4
        # A bookmark is never ahead of what its watcher was told.
        assert mark
        assert all(version > mark for version in seen[before:])
    assert api.app.cache.told == api.app.cache.revision


async def test_a_watch_ends_at_its_time_with_a_bookmark(api: Api) -> None:
    now = await version_now(api)
    stream = api.watch(f"{CM}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={now}")
    told = await stream.next()
    assert told["type"] == "BOOKMARK"
    assert "annotations" not in told["object"]["metadata"]
    assert stream.ended
    assert not api.app.cache.shelf(CONFIGMAPS).groups


async def test_a_watcher_that_does_not_take_is_cut_off(api: Api) -> None:
    stream = api.watch(f"{CM}?watch=1&resourceVersion={await version_now(api)}")
    stream.buffered = 2**30
    await api.ok("POST", CM, config_map("a"))
    assert stream.ended
    assert not api.app.cache.shelf(CONFIGMAPS).groups


async def test_one_event_is_encoded_once(api: Api) -> None:
    now = await version_now(api)
    streams = [api.watch(f"{CM}?watch=1&resourceVersion={now}") for _ in range(50)]
    written: list[bytes] = []
    for stream in streams:
        stream.write_framed = written.append  # type: ignore[method-assign, assignment]
    await api.ok("POST", CM, config_map("a"))
    assert len(written) == 50
    assert len({id(w) for w in written}) == 1


async def test_watch_in_process_shares_its_objects(api: Api) -> None:
    client = api.app.client()
    start = (await client.list(CONFIGMAPS)).resource_version
    seen: list[list[WatchEvent]] = [[], []]

    async def follow(into: list[WatchEvent]) -> None:
        async for event in client.watch(CONFIGMAPS, resource_version=start):
            into.append(event)
            if len(into) == 2:
                return

    async with asyncio.TaskGroup() as group:
        for into in seen:
            group.create_task(follow(into))
        await asyncio.sleep(0)
        await client.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "default"}})
        await client.delete(CONFIGMAPS, "default", "a")
    assert [e.type for e in seen[0]] == ["ADDED", "DELETED"]
    assert seen[0][0].object is seen[1][0].object
    assert not api.app.cache.shelf(CONFIGMAPS).groups


async def test_watch_ends_when_the_server_closes(api: Api) -> None:
    client = api.app.client()
    ended = asyncio.Event()

    async def follow() -> None:
        async for _ in client.watch(PODS, resource_version="0"):
            pass
        ended.set()

    task = asyncio.create_task(follow())
    stream = api.watch("/api/v1/pods?watch=1")
    await asyncio.sleep(0)
    api.app.cache.close()
    await asyncio.wait_for(ended.wait(), 20)
    assert stream.ended
    await task


async def test_informer_on_the_in_process_client(api: Api) -> None:
    client = api.app.client()
    informer = Informer(client, CONFIGMAPS, "default")
    changed = asyncio.Queue[tuple[object, object]]()
    informer.add_handler(lambda old, new: changed.put_nowait((old, new)))
    task = asyncio.create_task(informer.run())
    await asyncio.wait_for(informer.synced.wait(), 20)
    await api.ok("POST", CM, config_map("a"))
    _, new = await asyncio.wait_for(changed.get(), 20)
    assert new is api.app.cache.get(CONFIGMAPS, "default", "a")
    task.cancel()


async def test_events_under_their_new_name(api: Api) -> None:
    stream = api.watch("/apis/events.k8s.io/v1/namespaces/default/events?watch=1")
    client = api.app.client()
    events = client.watch(EVENTS_V1, "default", resource_version="0")
    body = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "R",
        "message": "hello",
        "type": "Normal",
    }
    await api.ok("POST", "/api/v1/namespaces/default/events", body)
    assert (await stream.next())["object"]["note"] == "hello"
    event = await asyncio.wait_for(anext(events), 20)
    assert event.object["note"] == "hello"
    await events.aclose()  # type: ignore[attr-defined]


async def test_read_cache_announces_changes(api: Api) -> None:
    told: list[tuple[object, object]] = []
    api.app.cache.on_change(CONFIGMAPS, lambda old, new: told.append((old, new)))
    await api.ok("POST", CM, config_map("a"))
    await api.ok("PATCH", f"{CM}/a", {"data": {"x": "y"}}, content_type=MERGE)
    await api.ok("DELETE", f"{CM}/a")
    assert [(o is None, n is None) for o, n in told] == [(True, False), (False, False), (False, True)]
    assert told[0][1] is told[1][0]
    assert told[1][1] is told[2][0]


async def test_a_watch_that_an_event_cannot_be_told_to_is_cut_off_and_misses_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await version_now(api)
    by_label = api.watch(f"{CM}?watch=1&labelSelector=app%3Dx&allowWatchBookmarks=1&resourceVersion={start}")
    table = api.watch(f"{CM}?watch=1&resourceVersion={start}", accept=TABLE)
    plain = api.watch(f"{CM}?watch=1&resourceVersion={start}")
    shown = Rendering.item

    def broken(self: Rendering, record: Record) -> bytes:
        if self.form == "table":
            raise ValueError("cannot be shown")
        return shown(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(Rendering, "item", broken)
        made = await api.ok(
            "POST", CM, {**config_map("a"), "metadata": {"name": "a", "labels": {"app": "x"}}}
        )
    assert await plain.next() == {"type": "ADDED", "object": made}
    assert await by_label.next() == {"type": "ADDED", "object": made}
    assert table.ended, "loudly, not with a hole"
    assert table.events.empty(), "above all no bookmark that would lead past the event"
    again = api.watch(f"{CM}?watch=1&resourceVersion={start}", accept=TABLE)
    assert (await again.next())["type"] == "ADDED"

    def fail(changes: object, framed: bytes) -> None:
        raise ValueError("cannot be told")

    shelf = api.app.cache.shelf(CONFIGMAPS)
    (group,) = (g for g in shelf.groups.values() if g.selection.label_text)
    (watcher,) = group.watchers
    monkeypatch.setattr(watcher, "deliver", fail)
    await api.ok("PATCH", f"{CM}/a", {"data": {"x": "y"}}, content_type=MERGE)
    assert by_label.ended
    assert by_label.events.empty()
    assert (await plain.next())["type"] == "MODIFIED"
    assert not plain.ended
    assert not api.app.cache.followed.done()


async def test_a_watch_in_this_process_that_fell_behind_ends_before_what_it_missed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inprocess, "MOST_WAITING", 1)
    watching = api.app.client().watch(CONFIGMAPS, "", resource_version=await version_now(api))
    taken = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    versions = [(await api.ok("POST", CM, config_map(n)))["metadata"]["resourceVersion"] for n in "abcd"]
    api.app.cache._send_bookmarks()
    seen = [await taken] + [event async for event in watching]
    assert [e.type for e in seen] == ["ADDED"] * len(seen)
    assert [e.object["metadata"]["resourceVersion"] for e in seen] == versions[: len(seen)]


async def test_a_cache_with_a_hole_ends_its_server(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = api.watch(f"{CM}?watch=1&allowWatchBookmarks=1&resourceVersion={await version_now(api)}")
    running = asyncio.ensure_future(api.app.run())

    def fail(event: object, obj: object) -> None:
        raise ValueError("cannot be taken up")

    monkeypatch.setattr(api.app.cache.shelf(CONFIGMAPS), "apply", fail)
    await api("POST", CM, config_map("a"))
    assert stream.ended
    assert stream.events.empty()
    with pytest.raises(ValueError, match="cannot be taken up"):
        await asyncio.wait_for(running, 20)
    await api.restart()
    assert (await api.ok("GET", f"{CM}/a"))["metadata"]["name"] == "a", "it was written, and nothing is lost"
