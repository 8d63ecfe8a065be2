"""Random operations, restarts and compactions, held against a model that keeps every state there ever was."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sampan.store.sqlite import SqliteStore, open_store
from sampan.store.types import Compacted, Conflict, Entry, Event, FutureRevision, KeyExists

_KEYS = st.sampled_from(["/a/1", "/a/2", "/a/é", "/a", "/b/1", "/b/22", "/b/2"])
_PREFIXES = st.sampled_from(["/", "/a/", "/b/", "/b/2", "/none"])
_WRITES = st.lists(st.tuples(st.sampled_from("cud"), _KEYS, st.binary(max_size=8), st.booleans()), max_size=8)


class AgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory(prefix="t-store-")
        self.store: SqliteStore = self.run(open_store(Path(self.directory.name) / "s.db"))
        self.states: list[dict[str, Entry]] = [{}]
        self.events: list[Event] = []
        self.told: list[Event] = []
        self.store.subscribe(self.told.extend)
        self.oldest = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        self.directory.cleanup()

    @rule(writes=_WRITES)
    def write_together(self, writes: list[tuple[str, str, bytes, bool]]) -> None:
        now = self.states[-1]

        async def all_at_once() -> list[Any]:
            calls = []
            for verb, key, value, right in writes:
                expected = now[key].revision if key in now and right else 99_999
                if verb == "c":
                    calls.append(self.store.create(key, value))
                elif verb == "u":
                    calls.append(self.store.update(key, value, expected))
                else:
                    calls.append(self.store.delete(key, expected if not right or key in now else None))
            return await asyncio.gather(*calls, return_exceptions=True)

        for (verb, key, value, right), result in zip(writes, self.run(all_at_once()), strict=True):
            self._check(verb, key, value, now[key].revision if key in now and right else None, right, result)

    def _check(
        self, verb: str, key: str, value: bytes, expected: int | None, right: bool, result: object
    ) -> None:
        state = dict(self.states[-1])
        before = state.get(key)
        revision = len(self.states)
        if verb == "c" and before is not None:
            assert isinstance(result, KeyExists)
            assert result.present == before
            return
        if verb != "c":
            any_revision = verb == "d" and right and expected is None
            if before is None or not (any_revision or before.revision == expected):
                assert isinstance(result, Conflict)
                assert result.present == before
                return
        created = before.created if before else revision
        if verb == "d":
            assert before is not None
            entry = Entry(key, before.value, revision, created)
            del state[key]
        else:
            entry = state[key] = Entry(key, value, revision, created)
        assert result == entry
        self.states.append(state)
        self.events.append(Event(verb == "d", entry, before.value if before else None))

    @rule(prefix=_PREFIXES, back=st.integers(0, 12), limit=st.integers(0, 3), after=_KEYS | st.just(""))
    def list_at(self, prefix: str, back: int, limit: int, after: str) -> None:
        revision = max(len(self.states) - 1 - back, 0)
        if 0 < revision < self.oldest:
            with pytest.raises(Compacted) as e:
                self.run(self.store.list(prefix, revision=revision))
            assert e.value.oldest == self.oldest
            return
        state = self.states[revision or -1]
        wanted = [state[k] for k in sorted(state) if k.startswith(prefix) and k > after]
        page = self.run(self.store.list(prefix, revision=revision, limit=limit, after=after))
        shown = wanted[:limit] if limit else wanted
        assert list(page.entries) == shown
        assert page.remaining == len(wanted) - len(shown)
        assert page.revision == (revision or len(self.states) - 1)

    @rule(prefix=_PREFIXES, back=st.integers(0, 30))
    def watch_from(self, prefix: str, back: int) -> None:
        after = max(len(self.events) - back, 0)
        wanted = [e for e in self.events[after:] if e.entry.key.startswith(prefix)]

        async def collect() -> list[Event]:
            watch = self.store.watch(prefix, after)
            found: list[Event] = []
            while len(found) < len(wanted):
                found += await anext(watch)
            await watch.aclose()
            return found

        if after >= self.oldest:
            assert self.run(collect()) == wanted
        elif wanted:
            with pytest.raises(Compacted) as e:
                self.run(collect())
            assert e.value.oldest == self.oldest

    @rule(back=st.integers(-1, 8))
    def compact(self, back: int) -> None:
        revision = len(self.states) - 1 - back
        try:
            self.run(self.store.compact(revision))
        except FutureRevision:
            assert back < 0
        else:
            assert back >= 0
            self.oldest = max(self.oldest, revision)

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.store = self.run(open_store(Path(self.directory.name) / "s.db"))
        self.store.subscribe(self.told.extend)

    @invariant()
    def newest_agree(self) -> None:
        assert self.store.revision() == len(self.states) - 1
        assert self.told == self.events
        for key, entry in self.states[-1].items():
            assert self.run(self.store.get(key)) == entry
        assert self.run(self.store.count("/")) == len(self.states[-1])


_EXAMPLES = int(os.environ.get("SAMPAN_SOAK", "0")) or 60
pytestmark = pytest.mark.timeout(60 + 2 * _EXAMPLES)
TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(
    max_examples=_EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
