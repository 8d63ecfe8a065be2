"""Whatever is asked of any resource: no failure of ours, no hang, no memory that grows, and every refusal says of what."""

from __future__ import annotations

import gc
import logging
import os
import random
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from sampan.api.resources import RESOURCES
from sampan.apiserver import watchcache
from tests.apiserver.fuzz import JSON_PATCH, MERGE, NAMES, Asked, Fuzz
from tests.apiserver.https import Answer
from tests.apiserver.running import Running, running

SECONDS = float(os.environ.get("SAMPAN_FUZZ_SECONDS", "0"))
"""How long to go on with random choices; 0 is a short run that always makes the same ones."""
_SHORT = 12.0
_MOST_GROWTH = 40 * 2**20
"""Bytes by which the process (server and fuzzer) may grow once it has seen everything once, a million requests or few."""
pytestmark = pytest.mark.timeout(120 + 2 * SECONDS)


def test_every_valid_object_is_valid() -> None:
    """Or the fuzzer would only ever scratch at the surface."""
    fuzz = Fuzz(random.Random(0))
    with running() as server:
        for resource in fuzz.resources:
            if "create" in resource.verbs and resource.plural != "bindings":
                path = fuzz._path(resource)
                answer = server("POST", path + "?fieldValidation=Strict", fuzz.valid(resource, "f0"), Content_Type="application/json")  # fmt: skip
                if resource.plural == "serviceaccounts" or (answer.status == 409 and resource.storage):
                    continue
                if "not implemented" in answer.body.decode():
                    continue  # A kind that is refused by name.
                assert answer.status == 201, (path, answer.body)


def test_whatever_is_asked(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    # What watches may start behind is kept by intent, up to 8 MB a resource: here little of it, or it would hide a leak.
    monkeypatch.setattr(watchcache, "HISTORY_EVENTS", 32)
    monkeypatch.setattr(watchcache, "HISTORY_LEAST", 8)
    caplog.set_level(logging.ERROR)
    seed = random.SystemRandom().randrange(2**32) if SECONDS else 1
    print("seed", seed)
    fuzz = Fuzz(random.Random(seed))
    counts: dict[int, int] = {}
    with running() as server:
        end = time.monotonic() + (SECONDS or _SHORT)
        first = 0
        asked = 0
        settled_at = time.monotonic() + (SECONDS or _SHORT) / 2
        while time.monotonic() < end:
            if asked % 300 == 0:
                clear(server)
                stock(server)
                if not first and time.monotonic() >= settled_at:
                    first = resident()
            request = fuzz.ask()
            asked += 1
            headers = {"Content_Type": request.media} if request.media else {}
            try:
                answer = server(request.method, request.target, request.body, **headers)
            except Exception as e:
                raise AssertionError(
                    f"seed {seed}, request {asked}: {request}\nwas not answered: {e!r}"
                ) from e
            counts[answer.status] = counts.get(answer.status, 0) + 1
            check(
                request,
                answer,
                f"seed {seed}, request {asked}: {request}\n{answer.status} {answer.body[:3000]!r}",
            )
            assert not caplog.records, f"seed {seed}, request {asked}: {request}"
        clear(server)
        grown = resident() - (first or resident())
    print(f"{asked} requests: {dict(sorted(counts.items()))}; grown by {grown / 2**20:.1f} MB")
    assert counts[201] + counts[200] > asked / 10
    assert grown < _MOST_GROWTH


def check(request: Asked, answer: Answer, what: str) -> None:
    if answer.status < 400:
        return
    status = answer.json
    assert (status["kind"], status["code"]) == ("Status", answer.status), what
    message = status["message"]
    assert message, what
    # Asked for a revision that is yet to come.
    assert answer.status < 500 or "Too large resource version" in message, what
    for word in ("Traceback", "codec", "object at 0x", "KeyError", "TypeError", "NoneType", "$["):
        assert word not in message.replace(str(request.body), ""), what
    if answer.status == 422 and request.media != JSON_PATCH:
        causes = status.get("details", {}).get("causes")
        assert causes, what
        assert all(cause["field"] and cause["message"] for cause in causes), what


def stock(server: Running) -> None:
    """Have one valid object of each resource."""
    fuzz = Fuzz(random.Random(0))
    for resource in fuzz.resources:
        if "list" in resource.verbs:
            server("POST", fuzz._path(resource), fuzz.valid(resource, "f0"), Content_Type="application/json")


def clear(server: Running) -> None:
    """Take away whatever the fuzzer has made."""
    fuzz = Fuzz(random.Random(0))
    for resource in RESOURCES:
        if "delete" in resource.verbs:
            for obj in server.ok("GET", fuzz._path(resource))["items"]:
                name = obj["metadata"]["name"]
                ours = name in NAMES or name.startswith("10.96.200.") or obj["metadata"].get("labels", {}).get("app") == "f"  # fmt: skip
                if not ours or resource.plural == "namespaces":
                    continue
                path = resource.path(obj["metadata"].get("namespace", ""), quote(name, safe=""))
                if obj["metadata"].get("finalizers"):
                    server("PATCH", path, {"metadata": {"finalizers": None}}, Content_Type=MERGE)
                server("DELETE", path, {"gracePeriodSeconds": 0}, Content_Type="application/json")


def resident() -> int:
    """Bytes of memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
