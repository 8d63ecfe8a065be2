"""The certificates of a Gateway's listeners as values: which may be had, and which is shown to whom. The objects are our own; upstream's
conformance cases are named at each."""

from __future__ import annotations

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from sampan.api.errors import Object
from sampan.ingress import certificates, gateways
from tests.ingress.gateway_objects import cluster, grant, said, tls, tls_secret, web


def test_certificates() -> None:
    """GatewaySecretReferenceGrantSpecific, GatewaySecretMissingReferenceGrant, GatewayInvalidTLSConfiguration, HTTPRouteHTTPSListener."""
    there = {"certificateRefs": [{"name": "pair", "namespace": "other"}]}
    world = cluster(tls(hostname="a.example.com", tls=there))
    state = world.state()
    assert (state.listeners[0].resolved.reason, state.ports) == ("RefNotPermitted", ())
    assert said(world.status()["listeners"][0]["conditions"])["Programmed"] == "False Invalid"
    world.grants.append(grant("Gateway", "infra", "Secret"))
    assert world.state().listeners[0].resolved.reason == "InvalidCertificateRef"
    world.secrets.append(tls_secret("other", "pair", "a.example.com"))
    state = world.state()
    assert state.listeners[0].resolved.status
    service = {"spec": {"ports": [{"port": 443, "nodePort": 31000}]}}
    found = gateways.contribution(state, service)
    (listener,) = found.listeners
    assert (listener.port, listener.public_port, listener.tls, listener.scope) == (
        31000,
        443,
        True,
        "infra/g:443",
    )
    assert [(c.scope, str(c.host)) for c in found.certificates] == [
        ("infra/g:443", "a.example.com"),
        ("infra/g:443", "*"),  # for who asks for none of its hosts
    ]
    world.gateways[0]["spec"]["listeners"][0]["tls"]["options"] = {"example.com/a": "b"}
    assert said(world.status()["listeners"][0]["conditions"])["Accepted"] == "False Invalid"
    world.secrets[0]["data"]["tls.key"] = "bm9uZQ=="
    assert said(world.status()["listeners"][0]["conditions"])["ResolvedRefs"] == "False InvalidCertificateRef"


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ({"name": "good"}, "True ResolvedRefs"),
        ({"name": "nothing"}, "False InvalidCertificateRef"),
        ({"name": "good", "group": "example.com"}, "False InvalidCertificateRef"),
        ({"name": "good", "kind": "Certificate"}, "False InvalidCertificateRef"),
        ({"name": "torn"}, "False InvalidCertificateRef"),
        ({"name": "opaque"}, "False InvalidCertificateRef"),
        ({"name": "good", "namespace": "infra"}, "True ResolvedRefs"),
        ({"name": "good", "namespace": "other"}, "False RefNotPermitted"),
        ({"name": "nothing", "namespace": "other"}, "False RefNotPermitted"),
    ],
)
def test_references_to_certificates(ref: Object, expected: str) -> None:
    """GatewayInvalidTLSConfiguration, GatewaySecretMissingReferenceGrant, GatewaySecretMissingReferencedSecret."""
    world = cluster(web(), tls(tls={"certificateRefs": [ref]}))
    world.secrets += [tls_secret(where, "good", "a.example.com") for where in ("infra", "other")]
    torn, opaque = tls_secret("infra", "torn", "a"), tls_secret("infra", "opaque", "a")
    torn["data"]["tls.crt"], opaque["type"] = "Tm8gUEVNLg==", "Opaque"
    world.secrets += [torn, opaque]
    status = world.status()
    _, found = (said(one["conditions"]) for one in status["listeners"])
    assert (found["Accepted"], found["ResolvedRefs"]) == ("True Accepted", expected)
    assert found["Programmed"] == ("True Programmed" if expected.startswith("True") else "False Invalid")
    assert said(status["conditions"]) == {"Accepted": "True Accepted", "Programmed": "True Programmed"}
    # One that is good beside it is shown all the same.
    refs = world.gateways[0]["spec"]["listeners"][1]["tls"]["certificateRefs"]
    refs.append({"name": "good", "kind": "Secret", "group": ""})
    found = said(world.status()["listeners"][1]["conditions"])
    assert (found["Programmed"], found["ResolvedRefs"]) == ("True Programmed", expected)


def _odd_grant(end: str, **given: str) -> Object:
    made = grant("Gateway", "infra", "Secret", "pair")
    made["spec"][end][0] |= given
    return made


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (grant("Gateway", "infra", "Secret", "pair"), True),
        (grant("Gateway", "infra", "Secret"), True),
        (_odd_grant("to", name=""), True),
        (grant("Gateway", "infra", "Secret", "pair", in_="third"), False),
        (_odd_grant("from", group="example.com"), False),
        (_odd_grant("from", kind="HTTPRoute"), False),
        (_odd_grant("from", namespace="third"), False),
        (_odd_grant("to", group="example.com"), False),
        (_odd_grant("to", kind="Service"), False),
        (_odd_grant("to", name="another"), False),
    ],
)
def test_grants_for_secrets(given: Object, allowed: bool) -> None:
    """GatewaySecretReferenceGrantSpecific, GatewaySecretReferenceGrantAllInNamespace, GatewaySecretInvalidReferenceGrant."""
    world = cluster(tls(tls={"certificateRefs": [{"name": "pair", "namespace": "other"}]}))
    world.secrets.append(tls_secret("other", "pair", "a.example.com"))
    world.grants.append(given)
    (listener,) = world.status()["listeners"]
    expected = "True ResolvedRefs" if allowed else "False RefNotPermitted"
    assert said(listener["conditions"])["ResolvedRefs"] == expected


CERTIFICATES = {
    "xyz": ["*.xyz.example.com"], "test": ["*.test.example.com"], "wide": ["*.example.com"],
    "deep": ["A.b.example.com"], "odd": ["*", "*.*.example.com", "a_b.example.com", "good.example.com"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("listeners", "shown"),
    [
        # HTTPSListenerMultiTLSCertsLongestMatchingSNI
        (
            [("*.example.com", "xyz test wide")],
            {"*.xyz.example.com": "xyz", "*.test.example.com": "test", "*.example.com": "wide", "": "wide"},
        ),
        # A wildcard of a listener stands for several labels: for none of these is the node's own shown.
        ([("*.example.com", "wide")], {"*.example.com": "wide", "": "wide"}),
        ([("*.example.com", "deep")], {"a.b.example.com": "deep", "*.example.com": "deep", "": "deep"}),
        # The first that is for the host, or else the first.
        ([("a.example.com", "test wide")], {"a.example.com": "wide", "": "wide"}),
        ([("example.org", "test wide")], {"example.org": "test", "": "test"}),
        # Of a name that another listener is more like its certificates go first.
        (
            [("*.example.com", "wide"), ("", "deep"), ("a.b.example.com", "test")],
            {"*.example.com": "wide", "a.b.example.com": "test", "": "deep"},
        ),
        (
            [("", "xyz"), ("*.example.com", "wide")],
            {"*.example.com": "wide", "": "xyz"},
        ),
        ([("", "deep")], {"a.b.example.com": "deep", "": "deep"}),
        # Names that cannot be asked for.
        ([("", "odd")], {"good.example.com": "odd", "": "odd"}),
    ],
)  # fmt: skip
def test_which_certificate_is_shown(listeners: list[tuple[str, str]], shown: dict[str, str]) -> None:
    given = [
        tls(f"l{i}", tls={"certificateRefs": [{"name": n} for n in names.split()]})
        | ({"hostname": host} if host else {})
        for i, (host, names) in enumerate(listeners)
    ]
    world = cluster(*given)
    world.secrets += [tls_secret("infra", name, *names) for name, names in CERTIFICATES.items()]
    found = gateways.contribution(world.state(), {"spec": {"ports": [{"port": 443, "nodePort": 31000}]}})
    chains = {certificates.pair(s)[0]: s["metadata"]["name"] for s in world.secrets}
    assert {c.host.name: chains[c.chain] for c in found.certificates} == shown


def _name(labels: list[str]) -> str:
    return ".".join([*labels, "test"])


LABELS = st.sampled_from(["a", "b", "c"])
HOSTS = st.lists(LABELS, min_size=1, max_size=3).map(_name)
NAMES = [_name([first, *rest]) for first in "*ab" for rest in ([], ["a"], ["b"], ["a", "b"])]
POOL = {name: tls_secret("infra", name.replace("*", "star"), name) for name in NAMES}
WILD = st.lists(LABELS, max_size=2).map(lambda rest: _name(["*", *rest]))
LISTENER = st.tuples(
    st.one_of(st.just(""), HOSTS, WILD), st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
)


def _covers(wild: str, host: str, labels: int) -> bool:
    """Whether a name is for a host, its star for as many labels at most."""
    if not wild.startswith("*."):
        return wild in ("", host)
    left = host.removesuffix(wild[1:])
    return left != host and left.count(".") < labels


@settings(max_examples=200, deadline=None)
@drawn(st.lists(LISTENER, min_size=1, max_size=4, unique_by=lambda one: one[0]), HOSTS)
def test_each_host_is_shown_a_certificate_of_its_listener_that_is_for_it(
    listeners: list[tuple[str, list[str]]], host: str
) -> None:
    """If its listener has one. HAProxy looks for the name itself, then for a star in place of its first label, then for ""."""
    world = cluster(
        *(
            tls(f"l{i}", tls={"certificateRefs": [{"name": n.replace("*", "star")} for n in names]})
            | ({"hostname": where} if where else {})
            for i, (where, names) in enumerate(listeners)
        )
    )
    world.secrets = list(POOL.values())
    found = gateways.contribution(world.state(), {"spec": {"ports": [{"port": 443, "nodePort": 31000}]}})
    shown = {c.host.name: certificates.names_of(c.chain)[0] for c in found.certificates}
    got = next(shown[key] for key in (host, f"*.{host.partition('.')[2]}", "") if key in shown)
    fitting = [one for one in listeners if _covers(one[0], host, 7)]
    if not fitting:
        return
    where, names = max(fitting, key=lambda one: (one[0] == host, len(one[0])))
    good = [n for n in names if _covers(n, host, 1)]
    if good:
        assert got == (host if host in good else good[0])
    elif where == host:
        assert got == names[0]
