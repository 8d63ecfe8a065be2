"""Corefiles: what is understood, and how the rest is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.dns import corefile, directives, wire
from sampan.dns.rewriting import NameRule, rewritten

KUBEADM = """
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
"""


def zone(name: str) -> bytes:
    return wire.encode_name(name)


def test_kubeadms_own() -> None:
    read = directives.load({"Corefile": KUBEADM})
    assert (read.prometheus, read.health, read.ready) == (":9153", ":8080", ":8181")
    (server,) = read.servers
    assert server.kubernetes is not None
    assert server.kubernetes.ttl == 30
    assert server.kubernetes.pods
    assert server.kubernetes.primary == zone("cluster.local")
    assert server.forwards[0].targets == ("/etc/resolv.conf",)
    assert server.forwards[0].max_concurrent == 1000
    assert server.cache is not None
    assert (server.cache.success_ttl, server.cache.denial_ttl) == (30, 30)
    assert server.cache.no_denial == (zone("cluster.local"),)
    assert server.loadbalance
    (note,) = read.notes
    assert note.startswith("line 5: lameduck: ")


def test_the_default_takes_no_port_from_pods_in_the_nodes_network() -> None:
    read = directives.load({"Corefile": corefile.DEFAULT})
    assert (read.health, read.ready, read.notes) == ("", "", [])


def test_stub_domains_hosts_and_rewrites() -> None:
    text = """
    # a comment
    example.org example.com:53 10.0.0.0/24 {
        forward . 10.150.0.1 dns://10.150.0.2:5353 [2001:db8::1]:53 {
            except local.example.org
            policy sequential
        }
    }
    . {
        log
        hosts /etc/coredns/NodeHosts {
            10.0.0.1 "one.example"  1.example # trailing
            ttl 60
            fallthrough
        }
        rewrite name foo.example web.default.svc.cluster.local
        rewrite continue name suffix .old .new answer auto
        rewrite stop {
            name regex (.*)\\.in\\.example {1}.default.svc.cluster.local
            answer auto
        }
        autopath @kubernetes
    }
    """
    read = directives.load(
        {"Corefile": text, "NodeHosts": "192.0.2.1 node-1\n# no\n\n192.0.2.2 node-2 # x\n"}
    )
    stub, main = read.servers
    assert stub.zones == (zone("example.org"), zone("example.com"), zone("0.0.10.in-addr.arpa"))
    assert stub.forwards[0].targets == ("10.150.0.1:53", "10.150.0.2:5353", "[2001:db8::1]:53")
    assert stub.forwards[0].exceptions == (zone("local.example.org"),)
    assert main.hosts is not None
    assert main.hosts.addresses == {
        zone("node-1"): ("192.0.2.1",), zone("node-2"): ("192.0.2.2",),
        zone("one.example"): ("10.0.0.1",), zone("1.example"): ("10.0.0.1",),
    }  # fmt: skip
    assert main.hosts.names[zone("1.0.0.10.in-addr.arpa")] == (zone("one.example"), zone("1.example"))
    assert [r.kind for r in main.rewrites] == ["exact", "suffix", "regex"]
    assert main.autopath
    assert main.log


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("template IN A", "line 2: template is not supported"),
        ("erratic", "line 2: erratic is not supported"),
        ("import custom/*.override", "line 2: import is not supported"),
        ("cache 30 {\n prefetch 10\n}", "line 2: cache option prefetch 10 is not supported"),
        ("forward .", "line 2: forward is: forward ZONE ADDRESS..."),
        ("forward . tls://9.9.9.9", "line 2: forward to tls://9.9.9.9 is not supported: only plain DNS (dns://) is"),
        ("forward . 10.0.0.1 {\n tls\n}", "line 2: forward option tls is not supported"),
        ("forward . resolver.example", "line 2: forward to resolver.example: an address, address:port or a resolv.conf's path is wanted"),
        ("kubernetes {\n pods verified\n}", "line 2: kubernetes option pods verified is not supported, since every node would have to read all Pods; disabled and insecure are"),
        ("kubernetes {\n endpoint https://x\n}", "line 2: kubernetes option endpoint https://x is not supported"),
        ("kubernetes {\n ttl 4000\n}", "line 2: kubernetes 4000: a number from 0 to 3600 is wanted"),
        ("errors\n errors", "line 3: errors may be given once in a server"),
        ("errors {\n consolidate 5m x\n}", "line 2: errors takes no consolidate here"),
        ("loadbalance weighted x", "line 2: loadbalance takes no weighted x here"),
        ("hosts /etc/hosts", "line 2: hosts file /etc/hosts: files are keys of the ConfigMap, as /etc/coredns/KEY"),
        ("hosts {\n x y\n}", "line 2: hosts option x y is not supported"),
        ("rewrite type A AAAA", "line 2: rewrite type A AAAA is not supported; name is, and its answers are rewritten back"),
        ("rewrite name regex ( x", "line 2: rewrite ( is no regular expression: missing ), unterminated subpattern at position 0"),
        ("prometheus x", "line 2: prometheus x: an address is [IP]:PORT"),
        ("autopath", "line 2: autopath is: autopath @kubernetes"),
        ("log {", "line 1: its brace is never closed"),
        ("errors }", "line 2: a brace ends its line, a closing one stands alone"),
        ('log "x', "line 2: a quote is never closed"),
        ("forward . {$UPSTREAM}", "line 2: environment variables ({$UPSTREAM}) are not supported"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name_and_line(body: str, problem: str) -> None:
    with pytest.raises(corefile.CorefileError) as e:
        directives.load({"Corefile": f". {{\n {body}\n}}\n"})
    assert e.value.problems == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (".:5353 {\n}", "line 1: .:5353: only port 53 is served"),
        ("tls://. {\n}", "line 1: tls://.: only plain DNS (dns://) is served"),
        (". {\n}\n.:53 {\n}", "line 3: zone . has a server already, in line 1"),
        ("(snip) {\n}", "line 1: snippets ((snip)) are not supported"),
        ("", "there is no server in it"),
        ("errors\n", "line 1: a server is zones and an opening brace: . {"),
    ],
)
def test_servers(text: str, problem: str) -> None:
    with pytest.raises(corefile.CorefileError) as e:
        directives.load({"Corefile": text})
    assert e.value.problems == [problem]


def test_all_problems_at_once() -> None:
    with pytest.raises(corefile.CorefileError) as e:
        directives.load({"Corefile": ". {\n a\n b\n}\nx:1 {\n c\n}\n"})
    assert len(e.value.problems) == 4


@pytest.mark.parametrize(
    ("rule", "name", "other"),
    [
        (NameRule.make("exact", "Foo.example", "bar", False), "foo.example", "bar"),
        (NameRule.make("exact", "foo.example", "bar", False), "x.foo.example", "x.foo.example"),
        (NameRule.make("prefix", "old-", "new-", False), "old-a.example", "new-a.example"),
        (NameRule.make("suffix", ".old", ".new", False), "a.old", "a.new"),
        (NameRule.make("substring", "west", "east", False), "a.west.example", "a.east.example"),
        (NameRule.make("regex", r"(.*)-(us-west-1)\.example\.org", "{1}.service.{2}.consul", False), "ftp-us-west-1.example.org", "ftp.service.us-west-1.consul"),
        (NameRule.make("regex", "(.*)", "x..y", False), "a", "a"),
    ],
)  # fmt: skip
def test_rewritten_names(rule: NameRule, name: str, other: str) -> None:
    assert rewritten([rule], zone(name)) == zone(other)


def test_rules_in_turn() -> None:
    first = NameRule.make("substring", "a", "b", True)
    second = NameRule.make("substring", "b", "c", False)
    third = NameRule.make("substring", "c", "d", False)
    assert rewritten([first, second, third], zone("a.x")) == zone("c.x")


WORDS = st.sampled_from([
    ".", ".:53", "{", "}", "\n", "#", '"', "errors", "health", "ready", ":8080", "x:y", "9.9.9.9.9:1", "kubernetes", "cluster.local",
    "10.0.0.0/9", "10.0.0.0/24", "pods", "insecure", "ttl", "30", "-1", "fallthrough", "prometheus", "forward", "/etc/resolv.conf",
    "[::1]:53", "1.2.3.4", "policy", "random", "cache", "success", "denial", "servfail", "5s", "hosts", "/etc/coredns/x", "rewrite",
    "stop", "name", "regex", "(", "exact", "answer", "auto", "autopath", "@kubernetes", "log", "a" * 70, "a..b", "\u2603", "{$X}",
])  # fmt: skip


@given(st.lists(WORDS, max_size=30), st.sampled_from(["", ". {\n"]))
def test_any_text_is_read_or_refused(words: list[str], start: str) -> None:
    text = start + " ".join(words) + ("\n}\n" if start else "")
    with contextlib.suppress(corefile.CorefileError):
        assert directives.load({"Corefile": text}).servers


def test_braces_do_not_go_on_for_ever() -> None:
    with pytest.raises(corefile.CorefileError) as e:
        directives.load({"Corefile": "a {\n" * 5000})
    assert e.value.problems == ["line 3: braces within the braces of a directive are not supported"]
