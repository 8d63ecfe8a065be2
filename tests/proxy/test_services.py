"""What a Service means on a node: tables of cases, and any Service against a plain model."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.errors import Object
from sampan.proxy import services
from sampan.proxy.services import Place, targets
from sampan.proxy.types import Target

HERE = Place("n1", ("172.29.0.2", "fd00:29::2"), ("172.29.0.2", "fd00:29::2"), "z1")
IP, IP6, LB = "10.96.0.1", "fd00:96::1", "198.51.100.7"


def service(
    *ports: Object, ips: tuple[str, ...] = (IP,), lb: list[Object] | None = None, **spec: Any
) -> Object:
    made: Object = {
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {
            "clusterIP": ips[0],
            "clusterIPs": list(ips),
            "type": "ClusterIP",
            "ports": list(ports) or [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
            **spec,
        },
    }
    if lb is not None:
        made["status"] = {"loadBalancer": {"ingress": lb}}
    return made


def endpoint(address: str, node: str = "n1", **more: Any) -> Object:
    hints = {f"for{k.title()}s": [{"name": v}] for k, v in more.pop("hints", {}).items()}
    made: Object = {"addresses": [address], "conditions": {"ready": True, **more}, "nodeName": node}
    return {**made, "hints": hints} if hints else made


def slice_(*endpoints: Object, port: int = 8080, name: str = "", protocol: str = "TCP") -> Object:
    family = services.family_of(endpoints[0]["addresses"][0]) if endpoints else "IPv4"
    ports = [{"name": name, "port": port, "protocol": protocol}]
    return {"addressType": family, "ports": ports, "endpoints": list(endpoints)}


def shown(found: dict[Any, Target]) -> dict[str, str]:
    """Each frontend with its backends and what is special about it."""
    return {str(frontend): _words(target) for frontend, target in found.items()}


def _words(target: Target) -> str:
    words = [str(b) for b in target.backends]
    if target.inside is not None:
        words.append("inside[" + " ".join(map(str, target.inside)) + "]")
    words += ["keep-source"] if target.keep_source else []
    words += ["drop"] if target.drop else []
    words += [f"only {' '.join(target.sources)}"] if target.sources else []
    words += [f"affinity {target.affinity}"] if target.affinity else []
    return " ".join(words)


A, B, C = "10.244.0.2", "10.244.1.3", "10.244.1.4"
ENDING: Object = {"ready": False, "serving": True, "terminating": True}
NODE_PORT: Object = {"type": "NodePort"}
BALANCED: Object = {"type": "LoadBalancer", "lb": [{"ip": LB, "ipMode": "VIP"}]}
CASES: dict[str, tuple[Object, list[Object], dict[str, str]]] = {
    "headless": (service(ips=("None",)), [slice_(endpoint(A))], {}),
    "external name": (service(ips=("",), type="ExternalName"), [], {}),
    "nobody is ready: rejected": (
        service(), [slice_(endpoint(A, ready=False, serving=False))], {f"{IP}:80/TCP": ""},
    ),
    "who ends serves when nobody else does": (
        service(), [slice_(endpoint(A, **ENDING))], {f"{IP}:80/TCP": f"{A}:8080"},
    ),
    "who ends does not serve beside one that is ready": (
        service(), [slice_(endpoint(A, **ENDING), endpoint(B))], {f"{IP}:80/TCP": f"{B}:8080"},
    ),
    "conditions that are not told count as good": (
        service(),
        [slice_({"addresses": [A]}, {"addresses": [B], "conditions": {"ready": False, "terminating": True}})],
        {f"{IP}:80/TCP": f"{A}:8080"},
    ),
    "several ports by name and protocol": (
        service({"name": "a", "port": 1, "protocol": "TCP"}, {"name": "b", "port": 2, "protocol": "UDP"}),
        [slice_(endpoint(A), name="a", port=11), slice_(endpoint(A), name="b", port=22, protocol="UDP"),
         slice_(endpoint(A), name="b", port=23)],
        {f"{IP}:1/TCP": f"{A}:11", f"{IP}:2/UDP": f"{A}:22"},
    ),
    "a named port that differs by pod": (
        service(), [slice_(endpoint(A)), slice_(endpoint(B), port=9090)],
        {f"{IP}:80/TCP": f"{A}:8080 {B}:9090"},
    ),
    "one endpoint in two slices counts once, as the better of both": (
        service(), [slice_(endpoint(A, ready=False, serving=False)), slice_(endpoint(A))],
        {f"{IP}:80/TCP": f"{A}:8080"},
    ),
    "affinity": (
        service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 7}}),
        [slice_(endpoint(A))], {f"{IP}:80/TCP": f"{A}:8080 affinity 7"},
    ),
    "external addresses": (
        service(externalIPs=["192.0.2.1", "2001:db8::1"]), [slice_(endpoint(A))],
        {f"{IP}:80/TCP": f"{A}:8080", "192.0.2.1:80/TCP": f"{A}:8080"},
    ),
    "a node port is open at the node's address": (
        service(**NODE_PORT), [slice_(endpoint(B, "n2"))],
        {f"{IP}:80/TCP": f"{B}:8080", "172.29.0.2:30080/TCP": f"{B}:8080"},
    ),
    "a node port left over from another type is not": (
        service(), [slice_(endpoint(A))], {f"{IP}:80/TCP": f"{A}:8080"},
    ),
    "external Local: own endpoints outside, all of them inside": (
        service(**NODE_PORT, externalTrafficPolicy="Local"), [slice_(endpoint(A), endpoint(B, "n2"))],
        {f"{IP}:80/TCP": f"{A}:8080 {B}:8080",
         "172.29.0.2:30080/TCP": f"{A}:8080 inside[{A}:8080 {B}:8080] keep-source"},
    ),
    "external Local without own endpoints: dropped outside, served inside": (
        service(**NODE_PORT, externalTrafficPolicy="Local"), [slice_(endpoint(B, "n2"))],
        {f"{IP}:80/TCP": f"{B}:8080", "172.29.0.2:30080/TCP": f"inside[{B}:8080] keep-source drop"},
    ),
    "external Local without any endpoint: rejected": (
        service(**NODE_PORT, externalTrafficPolicy="Local"), [slice_(endpoint(B, "n2", ready=False, serving=False))],
        {f"{IP}:80/TCP": "", "172.29.0.2:30080/TCP": "keep-source"},
    ),
    "external Local: an own one that ends serves although another node has one that is ready": (
        service(**NODE_PORT, externalTrafficPolicy="Local"), [slice_(endpoint(A, **ENDING), endpoint(B, "n2"))],
        {f"{IP}:80/TCP": f"{B}:8080", "172.29.0.2:30080/TCP": f"{A}:8080 inside[{B}:8080] keep-source"},
    ),
    "internal Local": (
        service(internalTrafficPolicy="Local"), [slice_(endpoint(A), endpoint(B, "n2"))],
        {f"{IP}:80/TCP": f"{A}:8080"},
    ),
    "internal Local without own endpoints: dropped": (
        service(internalTrafficPolicy="Local"), [slice_(endpoint(B, "n2"))], {f"{IP}:80/TCP": "drop"},
    ),
    "internal Local without any: rejected": (
        service(internalTrafficPolicy="Local"), [], {f"{IP}:80/TCP": ""},
    ),
    "load balancer": (
        service(**BALANCED), [slice_(endpoint(A))],
        {f"{IP}:80/TCP": f"{A}:8080", "172.29.0.2:30080/TCP": f"{A}:8080", f"{LB}:80/TCP": f"{A}:8080"},
    ),
    "load balancer that is a proxy": (
        service(type="LoadBalancer", lb=[{"ip": LB, "ipMode": "Proxy"}, {"hostname": "lb.example"}]),
        [slice_(endpoint(A))], {f"{IP}:80/TCP": f"{A}:8080", "172.29.0.2:30080/TCP": f"{A}:8080"},
    ),
    "source ranges hold for the load balancer's address alone": (
        service(**BALANCED, loadBalancerSourceRanges=[" 203.0.113.0/24 ", "2001:db8::/32"]), [slice_(endpoint(A))],
        {f"{IP}:80/TCP": f"{A}:8080", "172.29.0.2:30080/TCP": f"{A}:8080",
         f"{LB}:80/TCP": f"{A}:8080 only 203.0.113.0/24"},
    ),
    "source ranges that the node is in: so is the balancer's own address": (
        service(**BALANCED, loadBalancerSourceRanges=["172.16.0.0/12"]), [],
        {f"{IP}:80/TCP": "", "172.29.0.2:30080/TCP": "", f"{LB}:80/TCP": f"only 172.16.0.0/12 {LB}/32"},
    ),
    "dual stack": (
        service(ips=(IP, IP6), type="NodePort"), [slice_(endpoint(A)), slice_(endpoint("FD00:244:0::2"))],
        {f"{IP}:80/TCP": f"{A}:8080", "172.29.0.2:30080/TCP": f"{A}:8080",
         f"[{IP6}]:80/TCP": "[fd00:244::2]:8080", "[fd00:29::2]:30080/TCP": "[fd00:244::2]:8080"},
    ),
    "IPv6 alone, however it is written": (
        service(ips=("fd00:96:0:0::1",)), [slice_(endpoint(A)), slice_(endpoint("fd00:244::2"))],
        {f"[{IP6}]:80/TCP": "[fd00:244::2]:8080"},
    ),
    "near: the zone": (
        service(), [slice_(endpoint(A, "n2", hints={"zone": "z1"}), endpoint(B, "n3", hints={"zone": "z2"}))],
        {f"{IP}:80/TCP": f"{A}:8080"},
    ),
    "near: the node before the zone": (
        service(),
        [slice_(endpoint(A, "n2", hints={"zone": "z1", "node": "n2"}), endpoint(B, hints={"zone": "z1", "node": "n1"}))],
        {f"{IP}:80/TCP": f"{B}:8080"},
    ),
    "near: nothing on this node, then the zone": (
        service(),
        [slice_(endpoint(A, "n2", hints={"zone": "z1", "node": "n2"}), endpoint(B, "n3", hints={"zone": "z2", "node": "n3"}))],
        {f"{IP}:80/TCP": f"{A}:8080"},
    ),
    "near: one without a hint, then all": (
        service(), [slice_(endpoint(A, "n2", hints={"zone": "z1"}), endpoint(B, "n3"))],
        {f"{IP}:80/TCP": f"{A}:8080 {B}:8080"},
    ),
    "near: nobody in the zone, then all": (
        service(), [slice_(endpoint(A, "n2", hints={"zone": "z3"}), endpoint(B, "n3", hints={"zone": "z2"}))],
        {f"{IP}:80/TCP": f"{A}:8080 {B}:8080"},
    ),
    "near: one that is not ready need have no hint": (
        service(),
        [slice_(endpoint(A, "n2", hints={"zone": "z1"}), endpoint(C, "n2", ready=False), endpoint(B, "n3", hints={"zone": "z2"}))],
        {f"{IP}:80/TCP": f"{A}:8080"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_targets(case: str) -> None:
    svc, slices, expected = CASES[case]
    assert shown(targets(svc, slices, HERE)) == expected


def test_slices_that_are_the_same_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    made = services._endpoint

    def noting(given: Object, port: int, node: str) -> services.Endpoint:
        seen.extend(given["addresses"])
        return made(given, port, node)

    monkeypatch.setattr(services, "_endpoint", noting)
    slices, read = [slice_(endpoint(A)), slice_(endpoint(B))], services.Read()
    first = targets(service(), slices, HERE, read)
    assert seen == [A, B]
    slices[1] = slice_(endpoint(C))
    assert shown(targets(service(), slices, HERE, read)) == {f"{IP}:80/TCP": f"{A}:8080 {C}:8080"}
    assert seen == [A, B, C]
    slices[1] = slice_(endpoint(B))
    assert targets(service(), slices, HERE, read) == first


def test_who_talks_by_udp_to_one_that_serves_goes_on_doing_so() -> None:
    slices = [
        slice_(endpoint(A), endpoint(B, **ENDING), endpoint(C, ready=False, serving=False), protocol="UDP")
    ]
    [target] = targets(service({"port": 53, "protocol": "UDP"}), slices, HERE).values()
    assert ([str(b) for b in target.backends], [str(b) for b in target.lingering]) == (
        [f"{A}:8080"],
        [f"{B}:8080"],
    )


def test_the_annotation_of_before_is_a_source_range() -> None:
    svc = service(**BALANCED)
    svc["metadata"]["annotations"] = {services.SOURCE_RANGES: "203.0.113.7/24, 192.0.2.0/24"}
    assert shown(targets(svc, [], HERE))[f"{LB}:80/TCP"] == "only 192.0.2.0/24 203.0.113.0/24"
    svc["spec"]["loadBalancerSourceRanges"] = ["10.0.0.0/8"]
    assert shown(targets(svc, [], HERE))[f"{LB}:80/TCP"] == "only 10.0.0.0/8"


def test_cluster_addresses_are_nobodys_external_ones() -> None:
    """Else whoever may write a Service had the cluster's DNS. A load balancer's address is the same."""
    place = dataclasses.replace(
        HERE, service_ranges=tuple(map(ip_network, ("10.96.0.0/16", "fd00:96::/112")))
    )
    external = ["10.96.0.10", "192.0.2.1", "fd00:96::a"]
    greedy = service(ips=(IP, IP6), externalIPs=external, lb=[{"ip": "10.96.0.11"}, {"ip": LB}])
    found = targets(greedy, [slice_(endpoint(A))], place)
    assert {f.address for f in found} == {IP, IP6, "192.0.2.1", LB}
    assert services.refused_addresses(greedy, place) == {"10.96.0.10", "10.96.0.11", "fd00:96::a"}


def test_node_ports_are_open_where_it_is_said() -> None:
    place = Place("n1", ("172.29.0.2",), ("172.29.0.2", "192.168.7.1"))
    found = shown(targets(service(**NODE_PORT), [slice_(endpoint(A))], place))
    assert set(found) == {f"{IP}:80/TCP", "172.29.0.2:30080/TCP", "192.168.7.1:30080/TCP"}
    nowhere = Place("n1", ("172.29.0.2",), ())
    assert set(shown(targets(service(**NODE_PORT), [slice_(endpoint(A))], nowhere))) == {f"{IP}:80/TCP"}


def test_ready_endpoints_of_this_node_are_counted_once_and_by_family() -> None:
    slices = [
        slice_(endpoint(A), endpoint(B, "n2"), endpoint(C, ready=False)),
        slice_(endpoint(A), port=9090, name="b"),
        slice_(endpoint("fd00::1"), endpoint("fd00::2")),
    ]
    assert services.local_ready(slices, "n1") == {"IPv4": 1, "IPv6": 2}


_conditions = st.tuples(st.booleans(), st.booleans(), st.booleans())
_endpoints = st.lists(
    st.tuples(
        st.integers(1, 6), st.sampled_from(["n1", "n2"]), _conditions,
        st.sampled_from([None, "z1", "z2"]), st.sampled_from([None, "n1", "n2"]),
    ),
    max_size=6, unique_by=lambda e: e[0],
)  # fmt: skip


@given(_endpoints, st.sampled_from(["Cluster", "Local"]), st.sampled_from(["Cluster", "Local"]))
def test_any_service_as_the_model_has_it(given_ones: list[Any], internal: str, external: str) -> None:
    made = []
    for number, node, (ready, serving, terminating), zone, for_node in given_ones:
        hints = {k: v for k, v in (("zone", zone), ("node", for_node)) if v}
        conditions = {"ready": ready, "serving": serving, "terminating": terminating}
        made.append(endpoint(f"10.244.0.{number}", node, hints=hints, **conditions))
    svc = service(**NODE_PORT, internalTrafficPolicy=internal, externalTrafficPolicy=external)
    inner, outer = targets(svc, [slice_(*made)], HERE).values()

    def backends(target: tuple[Any, ...] | None) -> list[int]:
        return [int(b.address.rsplit(".", 1)[1]) for b in target or ()]

    # The model: each rule in turn, over the tuples.
    everybody = [e for e in given_ones if e[2][0]]
    if everybody and all(e[4] for e in everybody) and any(e[4] == "n1" for e in everybody):
        cluster = [e[0] for e in everybody if e[4] == "n1"]
    elif everybody and all(e[3] for e in everybody) and any(e[3] == "z1" for e in everybody):
        cluster = [e[0] for e in everybody if e[3] == "z1"]
    else:
        cluster = [e[0] for e in everybody]
    ending = [e for e in given_ones if e[2] == (False, True, True)]
    if not everybody:
        cluster = [e[0] for e in ending]
    local = [e[0] for e in everybody if e[1] == "n1"] or [e[0] for e in ending if e[1] == "n1"]
    anywhere = bool(everybody or ending)
    for target, policy in ((inner, internal), (outer, external)):
        expected = local if policy == "Local" else cluster
        assert backends(target.backends) == expected
        assert target.drop == (policy == "Local" and not local and anywhere)
    assert backends(outer.backends if outer.inside is None else outer.inside) == cluster
    assert (inner.inside, inner.keep_source, outer.keep_source) == (None, False, external == "Local")
