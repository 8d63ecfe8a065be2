"""Whatever changes, in whatever order: what the server answers from what it kept is what it would answer anew."""

from __future__ import annotations

import asyncio
import os
import random

import dns.message
import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import ENDPOINTSLICES, SERVICES
from sampan.dns import directives, wire
from sampan.dns.resolver import Question, Resolver
from tests.dns.cluster import service, slice_
from tests.dns.resolver import lines
from tests.dns.test_server import Site, site  # noqa: F401

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="port 53 needs root")
STEPS = 40
NAMES = ("a", "b")
ADDRESSES = ("10.244.9.1", "10.244.9.2", "10.244.9.3")
HOSTNAMES = ("x", "y", "")
COREFILE = ". {\n kubernetes cluster.local in-addr.arpa {\n ttl 30\n }\n loadbalance\n}\n"
SUFFIX = "default.svc.cluster.local."
QUESTIONS = [
    *((f"{prefix}{name}.{SUFFIX}", kind) for name in NAMES for prefix in ("", "x.", "_http._tcp.") for kind in ("A", "SRV")),
    *((f"{address.rpartition('.')[2]}.9.244.10.in-addr.arpa.", "PTR") for address in ADDRESSES),
    *((f"{n}.7.96.10.in-addr.arpa.", "PTR") for n in range(len(NAMES))),
]  # fmt: skip


async def anew(resolver: Resolver, name: str, kind: str) -> list[str]:
    """The answer of a resolver that keeps nothing."""
    query = wire.read_query(dns.message.make_query(name, kind, use_edns=0).to_wire())
    chain = resolver.chain(query.key)
    assert chain is not None
    question = Question.of(query, "127.0.0.1")
    answer, body = resolver.now(chain, question) or await resolver.later(chain, question)
    return lines(dns.message.from_wire(wire.respond(query, answer, 4096, body), one_rr_per_rrset=True))


def some_service(chance: random.Random, number: int) -> Object:
    name = NAMES[number]
    match chance.randrange(3):
        case 0:
            return service(name, clusterIP=f"10.96.7.{number}")
        case 1:
            return service(name, clusterIP="None")
    other = NAMES[1 - number]
    return service(name, type="ExternalName", externalName=f"{other}.{SUFFIX}".rstrip("."), ports=None)


def some_slice(chance: random.Random, name: str) -> Object:
    endpoints = [(a, chance.choice(HOSTNAMES)) for a in ADDRESSES if chance.random() < 0.5]
    owner, _, number = name.partition("-")
    return slice_(
        owner, endpoints, ports=[("http", "TCP", 8080 + int(number))], name=name, ready=chance.random() < 0.8
    )


async def change(site: Site, chance: random.Random) -> None:  # noqa: F811
    """Make, replace or delete one of the objects that there may be."""
    if chance.random() < 0.4:
        number = chance.randrange(len(NAMES))
        resource, name, wanted = SERVICES, NAMES[number], some_service(chance, number)
    else:
        name = f"{chance.choice(NAMES)}-{chance.randrange(2)}"
        resource, wanted = ENDPOINTSLICES, some_slice(chance, name)
    try:
        present = await site.client.get(resource, "default", name)
    except StatusError:
        await site.client.create(resource, wanted)
        return
    if resource is SERVICES or chance.random() < 0.3:  # a Service's kind is changed by making it anew
        await site.client.delete(resource, "default", name)
    else:
        await site.client.update(resource, {**deep_copy(present), "endpoints": wanted["endpoints"]})


async def test_nothing_stale_is_answered(site: Site) -> None:  # noqa: F811
    chance = random.Random(7)
    await site.replace(COREFILE)
    resolver = Resolver(
        directives.load({"Corefile": COREFILE}), site.server, lambda *_: None, own=[site.address],  # type: ignore[arg-type,return-value]
        changed=lambda: 0.0, clock=lambda: 0.0,
    )  # fmt: skip
    for _ in range(STEPS):
        await change(site, chance)
        for name, kind in QUESTIONS:
            async with asyncio.timeout(20):
                # Twice: the second answer is one that was kept. The change may still be on its way at first.
                while True:
                    found = [await site.lines(name, kind) for _ in range(2)]
                    if found == [await anew(resolver, name, kind)] * 2:
                        break
                    await asyncio.sleep(0)
