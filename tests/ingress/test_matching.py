"""Which rule a request matches: the specification's rules as a plain model, and the real HAProxy held against it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from shutil import which

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.ingress.ingresses import canonical_path
from tests.ingress.door import Door, Upstream, open_door
from tests.ingress.objects import Rule, add, ingress, set_backends

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]


def model(rules: Sequence[Rule], default: str, host: str, path: str) -> str:
    """The Service that networking.k8s.io/v1 says; the first of equal rules."""

    def host_rank(wanted: str) -> int:
        if wanted == host:
            return 0
        if wanted.startswith("*."):
            return 1 if host.partition(".")[2] == wanted[2:] and host.partition(".")[0] else 9
        return 2 if not wanted else 9

    def path_rank(kind: str, wanted: str) -> tuple[int, int] | None:
        if kind == "Exact":
            return (0, 0) if wanted == path else None
        elements = [e for e in wanted.split("/") if e]
        asked = path.split("/")[1:]
        return (1, -len(elements)) if asked[: len(elements)] == elements else None

    found = []
    for n, (wanted, pattern, kind, service) in enumerate(rules):
        rank = path_rank(kind, pattern)
        if host_rank(wanted) < 9 and rank is not None:
            found.append((host_rank(wanted), rank, n, service))
    return min(found)[3] if found else default or "404"


HOSTS = ["", "foo.com", "bar.foo.com", "*.foo.com", "*.bar.foo.com", "com"]
ASKED = ["foo.com", "bar.foo.com", "baz.foo.com", "a.bar.foo.com", "com", "other.org"]
ELEMENTS = st.lists(st.sampled_from(["a", "aa", "b", "a.b", "~x"]), max_size=3)
PATHS = st.tuples(ELEMENTS, st.booleans()).map(
    lambda t: "/" + "/".join(t[0]) + ("/" if t[0] and t[1] else "")
)
RULES = st.lists(
    st.tuples(st.sampled_from(HOSTS), PATHS, st.sampled_from(["Exact", "Prefix"]), st.sampled_from("pqrst")),
    max_size=8,
)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as opened:
        yield opened


async def test_rules_of_all_kinds_as_the_model_says(door: Door) -> None:
    async with AsyncExitStack() as stack:
        ups = {name: await stack.enter_async_context(Upstream(name)) for name in "pqrstd"}
        requests = st.lists(st.tuples(st.sampled_from(ASKED), PATHS), min_size=1, max_size=5)
        cases = st.tuples(RULES, st.sampled_from(["", "d"]), requests)
        seen: list[tuple[list[Rule], str, list[tuple[str, str]]]] = []

        @settings(max_examples=60, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(cases)
        def collect(case: tuple[list[Rule], str, list[tuple[str, str]]]) -> None:
            seen.append(case)

        collect()
        for rules, default, asked in seen:
            add(door.table, ingress("made", rules, default))
            set_backends(door.table, {name: [up.endpoint] for name, up in ups.items()})
            await door.settle()
            for host, path in asked:
                assert await door.who(host, path) == model(rules, default, host, path), (host, path, rules)
        assert door.driver.reloads == 0


@pytest.mark.parametrize(
    ("given_", "canonical"),
    [
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/café", "/caf%C3%A9"),
        ("/%7euser", "/~user"),
        ("/a b", "/a%20b"),
        ("/a\nserver evil 1.1.1.1", "/a%0Aserver%20evil%201.1.1.1"),
        ('/"#\x00', "/%22%23%00"),
        ("/100%", "/100%25"),
    ],
)
def test_canonical_paths(given_: str, canonical: str) -> None:
    assert canonical_path(given_) == canonical
    assert canonical_path(canonical) == canonical
