"""Requests that take too long, and the end of a server, over real HTTPS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.apiserver.request_timeout import duration
from tests.apiserver.conftest import Api
from tests.apiserver.https import serving
from tests.apiserver.test_verbs import CM, config_map

SERVICES = "/api/v1/namespaces/default/services"


class Slow:
    """A store whose writes of one object wait at a gate, before or after they are done."""

    def __init__(self, api: Api, name: str, *, after: bool) -> None:
        self.name = name
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()
        api.store.create = self._held(api.store.create, after)  # type: ignore[assignment,method-assign]

    def _held(self, write: Callable[..., Awaitable[Any]], after: bool) -> Callable[..., Awaitable[Any]]:
        async def held(*args: Any, **kwargs: Any) -> Any:
            if not args[0].endswith(f"/{self.name}"):
                return await write(*args, **kwargs)
            made = await write(*args, **kwargs) if after else None
            self.reached.set()
            await self.gate.wait()
            return made if after else await write(*args, **kwargs)

        return held


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1s", 1), ("1m30s", 90), ("1.5h", 5400), (".5s", 0.5), ("5.s", 5), ("-1s", -1), ("300ms", 0.3), ("+2us", 2e-6)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", 'time: invalid duration "x"'),
        ("5", 'time: missing unit in duration "5"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        ("1s2", 'time: missing unit in duration "1s2"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
        ("-", 'time: invalid duration "-"'),
        ("٣s", 'time: invalid duration "٣s"'),
        (".s", 'time: invalid duration ".s"'),
    ],
)
async def test_a_bad_timeout_is_refused(api: Api, text: str, said: str) -> None:
    from urllib.parse import quote

    for target in (f"{CM}?timeout={quote(text)}", f"{CM}/a?timeout={quote(text)}"):
        found = await api("GET", target)
        assert (found.status, found.json["reason"]) == (400, "BadRequest")
        assert found.json["message"] == f"invalid timeout specified in the request URL - {said}"
    # A watch goes on for as long as it likes: nobody reads it there.
    api.watch(f"{CM}?watch=1&timeout={quote(text)}").close()


async def test_a_write_that_takes_too_long_is_done_once_and_whole(api: Api, tmp_path: Path) -> None:
    async with serving(api, tmp_path) as https:
        connection = await https.connect()
        slow = Slow(api, "late", after=False)
        found = await connection("POST", f"{CM}?timeout=50ms", config_map("late"))
        assert (found.status, found.json["reason"]) == (504, "Timeout")
        assert found.json["message"] == "Timeout: request did not complete within the allotted timeout"
        assert (await connection("GET", f"{CM}/late")).status == 404
        slow.gate.set()
        await api.app._timeouts.written(5)
        assert (await connection("GET", f"{CM}/late")).json["data"] == config_map("late")["data"]
        assert not any(level.executing for level in api.app._flows.levels.values())


@pytest.mark.parametrize("after", [False, True])
async def test_who_has_gone_leaves_a_whole_write(api: Api, tmp_path: Path, after: bool) -> None:
    """The client of a Service's create goes in the middle of it: the address is the Service's or free again."""
    async with serving(api, tmp_path) as https:
        slow = Slow(api, "s", after=after)
        connection = await https.connect()
        body = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.96.7.7"}}
        connection.send("POST", SERVICES, body)
        await slow.reached.wait()
        connection.writer.transport.abort()
        while https.server.connections:
            await asyncio.sleep(0)
        slow.gate.set()
        await api.app._timeouts.written(5)
        again = await https.connect()
        service = (await again("GET", f"{SERVICES}/s")).json
        assert service["spec"]["clusterIP"] == "10.96.7.7"
        taken = (await again("GET", "/apis/networking.k8s.io/v1/ipaddresses/10.96.7.7")).json
        assert taken["spec"]["parentRef"]["name"] == "s"


async def test_shutdown(api: Api, tmp_path: Path) -> None:
    """Readiness goes first; then watches end with their last chunk, writes under way are answered, the rest is closed."""
    async with serving(api, tmp_path) as https:
        watch, busy, idle = [await https.connect() for _ in range(3)]
        watch.send("GET", f"{CM}?watch=1")
        assert (await watch.answer(head_only=True)).status == 200
        assert (await idle("GET", "/readyz")).body == b"ok"
        api.app.shutting_down = lambda: "process is shutting down"
        ready = await idle("GET", "/readyz")
        assert (ready.status, ready.headers["content-type"]) == (500, "text/plain; charset=utf-8")
        assert b"[-]shutdown failed: reason withheld\nreadyz check failed\n" in ready.body
        assert (await idle("GET", "/readyz/shutdown")).status == 500
        assert (await idle("GET", "/readyz?exclude=shutdown")).body == b"ok"
        assert (await idle("GET", "/livez")).body == b"ok"
        assert (await idle("POST", CM, config_map("still"))).status == 201
        slow = Slow(api, "last", after=False)
        busy.send("POST", CM, config_map("last"))
        await slow.reached.wait()
        closing = asyncio.ensure_future(https.server.close(60))
        assert (await watch.ended()).endswith(b"0\r\n\r\n")
        assert await idle.ended() == b""
        with pytest.raises(OSError, match="Connect"):
            await https.connect()
        slow.gate.set()
        answer = await busy.answer()
        assert (answer.status, answer.headers["connection"]) == (201, "close")
        await asyncio.wait_for(closing, 20)
    await api.restart()
    assert (await api("GET", f"{CM}/last")).status == 200


async def test_the_named_checks(api: Api) -> None:
    assert (await api("GET", "/livez?verbose")).body.decode().splitlines() == [
        "[+]ping ok",
        "[+]log ok",
        "[+]etcd ok",
        "[+]poststarthook/start-system-namespaces-controller ok",
        "[+]poststarthook/start-service-ip-repair-controllers ok",
        "[+]poststarthook/start-legacy-token-tracking-controller ok",
        "[+]poststarthook/rbac/bootstrap-roles ok",
        "[+]poststarthook/scheduling/bootstrap-system-priority-classes ok",
        "[+]poststarthook/priority-and-fairness-config-producer ok",
        "[+]poststarthook/priority-and-fairness-config-consumer ok",
        "[+]poststarthook/bootstrap-controller ok",
        "livez check passed",
    ]
    for name in ("etcd-readiness", "informer-sync", "shutdown"):
        assert (await api("GET", f"/readyz/{name}")).body == b"ok"
        assert (await api("GET", f"/livez/{name}")).status == 404
    assert (await api("GET", "/readyz/poststarthook/rbac/bootstrap-roles")).body == b"ok"
    unknown = (await api("GET", "/readyz?verbose&exclude=etcd&exclude=no&exclude=not")).body.decode()
    assert "[+]etcd excluded: ok\n" in unknown
    assert 'warn: some health checks cannot be excluded: no matches for "no","not"\n' in unknown
