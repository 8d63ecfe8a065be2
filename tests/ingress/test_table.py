"""What objects have of each other: who is told that something is otherwise for them when others change, and what a canary has of its base."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.errors import Object
from sampan.ingress.annotations import read
from sampan.ingress.ingresses import Wishes, contribution
from sampan.ingress.route_options import Options, Rewrite, Timeouts
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import (
    INGRESS_SCOPE,
    NOTHING,
    Backend,
    Canary,
    Certificate,
    Contribution,
    Host,
    Owner,
    Policy,
    Route,
    ServicePort,
    Source,
)
from tests.ingress.objects import ingress, service

OWNERS: list[Owner] = [("Ingress", namespace, f"i{n}") for namespace in "ab" for n in range(3)]
CHANGES = st.tuples(
    st.sampled_from(OWNERS),
    st.booleans(),  # whether it stays
    st.booleans(),  # whether it is a canary
    st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
    st.sets(st.sampled_from(["/", "/x"])),
    st.sampled_from(["", "s", "other"]),  # default backend
)


@settings(max_examples=500, database=None, deadline=None)
@given(st.lists(CHANGES, max_size=12))
def test_nobody_is_left_out_whose_conflicts_are_others(
    changes: list[tuple[Owner, bool, bool, str, set[str], str]],
) -> None:
    table = RoutingTable()
    for owner, stays, canary, created, paths, default in changes:
        before = {o: table.conflicts(o) for o in OWNERS}
        _, namespace, name = owner
        rules = [("foo.com", path, "Prefix", "s") for path in sorted(paths)]
        obj = ingress(name, rules, default, created, namespace)
        wishes = Wishes(canary=Canary(20) if canary else None)
        touched = table.update(owner, contribution(obj, service, wishes) if stays else NOTHING)
        for other in set(OWNERS) - touched - {owner}:
            assert table.conflicts(other) == before[other]


def test_a_canary_of_nginx_is_as_its_base_but_for_its_own() -> None:
    table = RoutingTable()

    def add(name: str, to: str, given: dict[str, str]) -> None:
        obj = ingress(name, [("foo.com", "/app", "Prefix", to)], created=f"2026-01-0{len(name)}T00:00:00Z")
        obj["metadata"]["annotations"] = {f"nginx.ingress.kubernetes.io/{k}": v for k, v in given.items()}
        wishes = read(obj, lambda *_: None, lambda *_: None)
        assert wishes.problems == ()
        table.update(("Ingress", "a", name), contribution(obj, found, wishes))

    def found(namespace: str, name: str) -> Object | None:
        there = service(namespace, name)
        if there is not None and name == "streams":
            there["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/h2c"
        return there

    def first() -> Route:
        (routes,) = table.routing.routes.values()
        return routes[0]

    add("b", "s", {"rewrite-target": "/new", "proxy-read-timeout": "9", "backend-protocol": "HTTPS"})
    add("new", "t", {"canary": "true", "canary-weight": "5", "proxy-read-timeout": "7"})
    assert first().options == Options(rewrite=Rewrite(path="/new"), timeouts=Timeouts(response=7000))
    assert [t.backend for t in first().targets] == [Backend(ServicePort("a", "t", 80), Policy("https"))]
    assert not table.conflicts(("Ingress", "a", "new"))
    # Of timeouts each by itself; what it says of its protocol holds, and what its base's Service says is of that one alone.
    add("b", "s", {"proxy-connect-timeout": "8", "backend-protocol": "HTTPS"})
    add(
        "new",
        "t",
        {
            "canary": "true",
            "canary-weight": "5",
            "proxy-read-timeout": "7",
            "backend-protocol": "HTTP",
        },
    )
    assert first().options == Options(timeouts=Timeouts(connect=8000, response=7000))
    assert [t.backend.policy for t in first().targets] == [Policy()]
    add("new", "t", {"canary": "true", "canary-weight": "5", "proxy-read-timeout": "7"})
    assert [t.backend.policy for t in first().targets] == [Policy("https")]
    add("b", "streams", {})
    assert [t.backend.policy for t in first().targets] == [Policy()]
    add("b", "s", {})
    assert first().options == Options(timeouts=Timeouts(response=7000))
    assert [t.backend.policy for t in first().targets] == [Policy()]


def test_those_who_lose_a_place_are_no_business_of_each_others() -> None:
    """Many may have a default backend for all hosts."""
    table = RoutingTable()

    def add(number: int, default: str = "s") -> frozenset[Owner]:
        obj = ingress(f"i{number}", default=default, created=f"2026-01-01T00:00:{number:02}Z")
        return table.update(("Ingress", "a", f"i{number}"), contribution(obj, service))

    assert not any(add(n) for n in range(1, 50))
    assert add(20, "other") == frozenset()
    assert add(1, "other") == frozenset()  # it has the place as before
    assert len(add(0)) == 49
    assert len(table.update(("Ingress", "a", "i0"), NOTHING)) == 49


def test_whose_certificate_is_not_shown_is_told() -> None:
    """Unless it is the same one, or both are of the cluster's own authority."""
    table = RoutingTable()

    def add(name: str, *chains: str, local: bool = False) -> frozenset[Owner]:
        found = tuple(
            Certificate(
                INGRESS_SCOPE,
                Host.of_ingress("foo.com"),
                chain,
                "key",
                Source("Ingress", "a", name, f"spec.tls[{i}]"),
                f"2026-01-01T00:00:0{name}Z",
                local,
            )
            for i, chain in enumerate(chains)
        )
        return table.update(("Ingress", "a", name), Contribution(certificates=found))

    def told(name: str) -> list[str]:
        return [f"{p.reason}: {p.message}" for p in table.conflicts(("Ingress", "a", name))]

    before = "Conflict: spec.tls[0]: the certificate for host foo.com: that of Ingress a/1 is shown, for it goes first"
    assert add("1", "one") == frozenset()
    assert add("2", "two") == frozenset()
    assert (told("1"), told("2")) == ([], [before])
    assert add("1", "two") == {("Ingress", "a", "2")}
    assert told("2") == []
    assert add("1", "own", local=True) == {("Ingress", "a", "2")}
    assert told("2") == [before]
    add("2", "another", local=True)
    assert told("2") == []
    assert add("1") == {("Ingress", "a", "2")}
    add("2", "two", "three")
    assert told("2") == [
        "Conflict: spec.tls[1]: the certificate for host foo.com: that of an entry before it is shown, for it goes first"
    ]
    assert add("2") == frozenset()
