"""The examples of the Kubernetes DNS specification 1.1.0, and what CoreDNS adds where it leaves things open."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import dns.message
import dns.rcode
import pytest

from sampan.api.errors import Object
from sampan.dns import directives, objects, wire
from sampan.dns.resolver import Question, Resolver
from tests.dns.cluster import Objects, service, slice_

COREFILE = """
.:53 {
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 4
        fallthrough in-addr.arpa ip6.arpa
    }
}
"""
MANIFESTS: list[Object] = [
    service("kubernetes", clusterIPs=["10.3.0.1"], ports=[{"name": "https", "port": 443}]),
    service("headless", clusterIPs=["None"], clusterIP="None", ports=[{"name": "https", "port": 443}]),
    slice_(
        "headless",
        [("10.3.0.100", "my-pet"), ("10.3.0.2", ""), ("10.3.0.3", "")],
        ports=[("https", "TCP", 443)],
    ),
    slice_(
        "headless", [("2001:db8::3", "")], ports=[("https", "TCP", 443)], family="IPv6", name="headless-6"
    ),
    service("empty", clusterIPs=["None"], clusterIP="None"),
    service(
        "dual", clusterIPs=["10.3.0.9", "2001:db8::9"], ports=[{"name": "dns", "port": 53, "protocol": "UDP"}]
    ),
    service("foo", type="ExternalName", externalName="kubernetes.default.svc.cluster.local"),
    service("loop", type="ExternalName", externalName="loop.default.svc.cluster.local"),
    service("address", type="ExternalName", externalName="192.0.2.1"),
    service("portless", clusterIPs=["None"], clusterIP="None", ports=None),
    slice_("portless", [("10.3.0.77", "")], ports=[]),
    service("unready", clusterIPs=["None"], clusterIP="None"),
    slice_("unready", [("10.3.0.66", "")], ports=[("http", "TCP", 80)], ready=False),
]


@pytest.fixture(scope="module")
def resolver() -> Resolver:
    def no_network(family: int, kind: int) -> socket.socket:
        raise OSError("there is none here")

    return Resolver(
        directives.load({"Corefile": COREFILE}), Objects(MANIFESTS), no_network, own=["10.96.0.10"],
        changed=lambda: 1234.0, clock=lambda: 0.0,
    )  # fmt: skip


async def ask(resolver: Resolver, name: str, kind: str) -> dns.message.Message:
    asked = dns.message.make_query(name, kind)
    query = wire.read_query(asked.to_wire())
    chain = resolver.chain(query.key)
    assert chain is not None
    question = Question.of(query, "10.244.0.5")
    found = resolver.now(chain, question) or await resolver.later(chain, question)
    return dns.message.from_wire(wire.respond(query, *found[:1], 4096, found[1]))


def text(section: Sequence[object]) -> list[str]:
    return sorted(line for rrset in section for line in str(rrset).splitlines())


DEFAULT = "default.svc.cluster.local."


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("dns-version.cluster.local.", "TXT", ['dns-version.cluster.local. 28800 IN TXT "1.1.0"']),
        (f"kubernetes.{DEFAULT}", "A", [f"kubernetes.{DEFAULT} 4 IN A 10.3.0.1"]),
        (f"_https._tcp.kubernetes.{DEFAULT}", "SRV", [f"_https._tcp.kubernetes.{DEFAULT} 4 IN SRV 0 100 443 kubernetes.{DEFAULT}"]),
        ("1.0.3.10.in-addr.arpa.", "PTR", [f"1.0.3.10.in-addr.arpa. 4 IN PTR kubernetes.{DEFAULT}"]),
        (f"headless.{DEFAULT}", "A", [f"headless.{DEFAULT} 4 IN A 10.3.0.100", f"headless.{DEFAULT} 4 IN A 10.3.0.2", f"headless.{DEFAULT} 4 IN A 10.3.0.3"]),
        (f"headless.{DEFAULT}", "AAAA", [f"headless.{DEFAULT} 4 IN AAAA 2001:db8::3"]),
        (f"my-pet.headless.{DEFAULT}", "A", [f"my-pet.headless.{DEFAULT} 4 IN A 10.3.0.100"]),
        (f"10-3-0-2.headless.{DEFAULT}", "A", [f"10-3-0-2.headless.{DEFAULT} 4 IN A 10.3.0.2"]),
        (f"_https._tcp.headless.{DEFAULT}", "SRV", [
            f"_https._tcp.headless.{DEFAULT} 4 IN SRV 0 25 443 10-3-0-2.headless.{DEFAULT}",
            f"_https._tcp.headless.{DEFAULT} 4 IN SRV 0 25 443 10-3-0-3.headless.{DEFAULT}",
            f"_https._tcp.headless.{DEFAULT} 4 IN SRV 0 25 443 2001-db8--3.headless.{DEFAULT}",
            f"_https._tcp.headless.{DEFAULT} 4 IN SRV 0 25 443 my-pet.headless.{DEFAULT}",
        ]),
        ("100.0.3.10.in-addr.arpa.", "PTR", [f"100.0.3.10.in-addr.arpa. 4 IN PTR my-pet.headless.{DEFAULT}"]),
        (f"foo.{DEFAULT}", "A", [f"foo.{DEFAULT} 4 IN CNAME kubernetes.{DEFAULT}", f"kubernetes.{DEFAULT} 4 IN A 10.3.0.1"]),
        (f"foo.{DEFAULT}", "CNAME", [f"foo.{DEFAULT} 4 IN CNAME kubernetes.{DEFAULT}"]),
        ("172-17-0-3.default.pod.cluster.local.", "A", ["172-17-0-3.default.pod.cluster.local. 4 IN A 172.17.0.3"]),
        ("2001-db8--5.default.pod.cluster.local.", "AAAA", ["2001-db8--5.default.pod.cluster.local. 4 IN AAAA 2001:db8::5"]),
        (f"dual.{DEFAULT}", "A", [f"dual.{DEFAULT} 4 IN A 10.3.0.9"]),
        (f"dual.{DEFAULT}", "AAAA", [f"dual.{DEFAULT} 4 IN AAAA 2001:db8::9"]),
        (f"_dns._udp.dual.{DEFAULT}", "SRV", [f"_dns._udp.dual.{DEFAULT} 4 IN SRV 0 50 53 dual.{DEFAULT}"]),
        ("9." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa.", "PTR", ["9." + "0." * 23 + f"8.b.d.0.1.0.0.2.ip6.arpa. 4 IN PTR dual.{DEFAULT}"]),
        (f"portless.{DEFAULT}", "A", [f"portless.{DEFAULT} 4 IN A 10.3.0.77"]),
        ("cluster.local.", "NS", ["cluster.local. 4 IN NS ns.dns.cluster.local."]),
        ("ns.dns.cluster.local.", "A", ["ns.dns.cluster.local. 4 IN A 10.96.0.10"]),
    ],
)  # fmt: skip
async def test_records(resolver: Resolver, name: str, kind: str, answer: list[str]) -> None:
    message = await ask(resolver, name, kind)
    assert text(message.answer) == sorted(answer)
    assert dns.rcode.to_text(message.rcode()) == "NOERROR"
    assert "AA" in dns.flags.to_text(message.flags)


SOA = "cluster.local. 4 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1234 7200 1800 86400 4"


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        (f"kubernetes.{DEFAULT}", "AAAA", "NOERROR"),
        (f"kubernetes.{DEFAULT}", "MX", "NOERROR"),
        (f"kubernetes.{DEFAULT}", "SOA", "NOERROR"),
        (f"portless.{DEFAULT}", "SRV", "NOERROR"),
        ("cluster.local.", "A", "NOERROR"),
        ("svc.cluster.local.", "A", "NOERROR"),
        (DEFAULT, "A", "NOERROR"),
        ("default.pod.cluster.local.", "A", "NOERROR"),
        (f"nobody.{DEFAULT}", "A", "NXDOMAIN"),
        (f"empty.{DEFAULT}", "A", "NXDOMAIN"),
        (f"unready.{DEFAULT}", "A", "NXDOMAIN"),
        (f"address.{DEFAULT}", "A", "NXDOMAIN"),
        (f"x.foo.{DEFAULT}", "A", "NXDOMAIN"),
        (f"nobody.headless.{DEFAULT}", "A", "NXDOMAIN"),
        (f"_ftp._tcp.headless.{DEFAULT}", "SRV", "NXDOMAIN"),
        (f"_https._udp.headless.{DEFAULT}", "SRV", "NXDOMAIN"),
        (f"a.b.c.headless.{DEFAULT}", "A", "NXDOMAIN"),
        ("kubernetes.nowhere.svc.cluster.local.", "A", "NXDOMAIN"),
        ("1-2-3-4.nowhere.pod.cluster.local.", "A", "NXDOMAIN"),
        ("1-2-3.default.pod.cluster.local.", "A", "NXDOMAIN"),
        ("www.google.com.cluster.local.", "A", "NXDOMAIN"),
        ("\\226\\152\\131.default.svc.cluster.local.", "A", "NXDOMAIN"),
    ],
)
async def test_denials_have_the_zones_soa_record(
    resolver: Resolver, name: str, kind: str, rcode: str
) -> None:
    message = await ask(resolver, name, kind)
    assert (dns.rcode.to_text(message.rcode()), text(message.answer)) == (rcode, [])
    assert text(message.authority) == [SOA]


async def test_additional_addresses_of_srv_targets(resolver: Resolver) -> None:
    message = await ask(resolver, f"_https._tcp.headless.{DEFAULT}", "SRV")
    assert text(message.additional) == [
        f"10-3-0-2.headless.{DEFAULT} 4 IN A 10.3.0.2",
        f"10-3-0-3.headless.{DEFAULT} 4 IN A 10.3.0.3",
        f"2001-db8--3.headless.{DEFAULT} 4 IN AAAA 2001:db8::3",
        f"my-pet.headless.{DEFAULT} 4 IN A 10.3.0.100",
    ]


async def test_names_are_compared_without_case_and_given_back_as_they_came(resolver: Resolver) -> None:
    message = await ask(resolver, "KuBerNetes.DEFAULT.svc.Cluster.LOCAL.", "A")
    assert text(message.answer) == ["KuBerNetes.DEFAULT.svc.Cluster.LOCAL. 4 IN A 10.3.0.1"]


async def test_an_external_name_that_leads_to_itself(resolver: Resolver) -> None:
    message = await ask(resolver, f"loop.{DEFAULT}", "A")
    assert dns.rcode.to_text(message.rcode()) == "SERVFAIL"


async def test_reverse_names_that_are_nobodys_are_for_others(resolver: Resolver) -> None:
    """`fallthrough`; there is nobody else here."""
    message = await ask(resolver, "4.3.2.1.in-addr.arpa.", "PTR")
    assert dns.rcode.to_text(message.rcode()) == "REFUSED"


def test_small_objects_keep_what_names_need() -> None:
    made = slice_("headless", [("10.3.0.1", "a")], ports=[("x", "TCP", 1)])
    made["metadata"]["resourceVersion"] = "1"
    small = objects.endpoint_slice(made)
    assert small["endpoints"] == [("10.3.0.1", "a", "")]
    assert list(objects.by_service(small)) == ["default/headless"]
    assert objects.endpoint_slice({**made, "addressType": "FQDN"})["endpoints"] == []


def other(options: str) -> Resolver:
    """A resolver whose Corefile has other lines in the block of kubernetes, and nobody to ask besides."""
    corefile = f".:53 {{\n kubernetes cluster.local {{\n {options}\n }}\n}}\n"
    manifests = [
        *MANIFESTS,
        slice_("foo-pods", [("10.3.0.5", "")], ports=[("http", "TCP", 80)]),
        service("foo-pods", clusterIPs=["None"], clusterIP="None"),
    ]
    manifests[-2]["endpoints"][0]["targetRef"] = {"kind": "Pod", "name": "foo-0", "namespace": "default"}
    return Resolver(
        directives.load({"Corefile": corefile}), Objects(manifests), socket.socket, own=["10.96.0.10"],
        changed=lambda: 1234.0, clock=lambda: 0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "name", "answer"),
    [
        ("pods disabled", "172-17-0-3.default.pod.cluster.local.", []),
        ("ttl 0", f"kubernetes.{DEFAULT}", [f"kubernetes.{DEFAULT} 0 IN A 10.3.0.1"]),
        ("pods insecure", f"kubernetes.{DEFAULT}", [f"kubernetes.{DEFAULT} 5 IN A 10.3.0.1"]),
        ("endpoint_pod_names", f"foo-0.foo-pods.{DEFAULT}", [f"foo-0.foo-pods.{DEFAULT} 5 IN A 10.3.0.5"]),
        ("pods insecure", f"foo-0.foo-pods.{DEFAULT}", []),
        ("ignore empty_service", f"kubernetes.{DEFAULT}", []),
        ("namespaces other", f"kubernetes.{DEFAULT}", []),
        ("namespaces default other", f"kubernetes.{DEFAULT}", [f"kubernetes.{DEFAULT} 5 IN A 10.3.0.1"]),
    ],
)
async def test_options(options: str, name: str, answer: list[str]) -> None:
    message = await ask(other(options), name, "A")
    assert text(message.answer) == answer
    assert message.rcode() == (dns.rcode.NOERROR if answer else dns.rcode.NXDOMAIN)
