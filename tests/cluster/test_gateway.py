"""The Gateway API on a real cluster, with kubectl alone: a Gateway has an address, routes attach, what is told of them is true."""

from __future__ import annotations

import json
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from functools import cached_property

import pytest

from sampan.api.errors import Object
from tests.cluster.front_door import NEEDED, FrontDoor, app, eventually, tls_secret, until
from tests.ingress.test_certificates import make
from tests.real_cluster import Kubectl, run

pytestmark = NEEDED

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec:
  gatewayClassName: sampan
  listeners:
  - {name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - name: tls
    port: 8443
    protocol: HTTPS
    hostname: safe.example.com
    tls: {certificateRefs: [{name: pair}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split}
spec:
  parentRefs: [{name: g}]
  hostnames: [split.example.com, safe.example.com]
  rules:
  - backendRefs: [{name: one, port: 80, weight: 3}, {name: two, port: 80, weight: 1}]
  - matches: [{headers: [{name: version, value: two}]}]
    backendRefs: [{name: two, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: far}
spec:
  parentRefs: [{name: g, sectionName: web}]
  hostnames: [far.example.com]
  rules: [{backendRefs: [{name: three, namespace: FAR, port: 80}]}]
"""
GUEST = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: HTTPRoute
metadata: {name: guest}
spec:
  parentRefs: [{name: g, namespace: HERE}]
  hostnames: ["*.guest.example.com"]
  rules: [{backendRefs: [{name: three, port: 80}]}]
"""
GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: visitors}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: HERE}]
  to: [{group: "", kind: Service}]
"""


class Gateway(FrontDoor):
    """The Gateway `g` of the module's namespace, and another namespace `far`."""

    def __init__(self, door: FrontDoor, far: FrontDoor) -> None:
        super().__init__(door.cluster, door.namespace)
        self.far = far

    @cached_property
    def address(self) -> str:
        return self.kubectl.value("gateway/g", ".status.addresses[0].value")

    def named(self, manifest: str) -> str:
        return manifest.replace("HERE", self.namespace).replace("FAR", self.far.namespace)


@pytest.fixture(scope="module")
def gateway(front_door: FrontDoor) -> Iterator[Gateway]:
    """Three applications, one of them in another namespace, and a Gateway with three routes."""
    cluster, far = front_door.cluster, FrontDoor(front_door.cluster, f"{front_door.namespace}-far")
    cluster.make_namespace(far.namespace)
    made = Gateway(front_door, far)
    made.apply(tls_secret("pair", *make("safe.example.com")))
    made.kubectl("apply", "-f", "-", stdin=made.named(GATEWAY))
    far.apply(*app("three"))
    made.run_apps("one", "two")
    far.kubectl("apply", "-f", "-", stdin=made.named(GUEST))
    far.kubectl.wait("deployment", "condition=Available", "--all")
    made.kubectl.wait("gateway/g", "condition=Programmed")
    yield made
    cluster.delete_namespace(far.namespace)
    cluster.wait_gone(far.namespace)


def wait_reason(kubectl: Kubectl, route: str, condition: str, reason: str) -> None:
    path = f'{{.status.parents[0].conditions[?(@.type=="{condition}")].reason}}'
    kubectl("wait", route, f"--for=jsonpath={path}={reason}", "--timeout=20s")


def test_class_and_gateway(gateway: Gateway, front_door: FrontDoor) -> None:
    kubectl, address = gateway.kubectl, gateway.address
    kubectl("wait", "gatewayclass/sampan", "--for=condition=Accepted", "--timeout=20s")
    assert "sampan   sampan.io/gateway-controller   True" in kubectl("get", "gatewayclass")
    assert f"g      sampan   {address}" in kubectl("get", "gateway")
    listeners = json.loads(kubectl("get", "gateway", "g", "-o", "json"))["status"]["listeners"]
    assert [(one["name"], one["attachedRoutes"]) for one in listeners] == [("web", 3), ("tls", 1)]
    assert address != front_door.address
    assert kubectl.value("service/sampan-gateway-g", ".metadata.ownerReferences[0].kind") == "Gateway"


def test_weights_and_headers(gateway: Gateway) -> None:
    wait_reason(gateway.kubectl, "httproute/split", "Accepted", "Accepted")
    gateway.until("split.example.com", "/", "200")
    seen = Counter(gateway.ask("split.example.com").app for _ in range(60))
    assert set(seen) == {"one", "two"}
    assert seen["one"] > seen["two"]
    asked = ("split.example.com", "/", "-H", "Version: two")
    assert {gateway.ask(*asked).app for _ in range(10)} == {"two"}
    assert gateway.ask("unknown.example.com").status == "404"


def test_tls(gateway: Gateway) -> None:
    gateway.until("safe.example.com:8443", "/", "200", "-k", scheme="https")
    shown = run(
        [
            "curl",
            "-kv",
            "-m",
            "5",
            "--resolve",
            f"safe.example.com:8443:{gateway.address}",
            "https://safe.example.com:8443/",
        ]
    )
    assert "CN=a.test" in shown.err


def test_other_namespaces(gateway: Gateway) -> None:
    """Routes of other namespaces attach where they are allowed; Services of others can be had with a grant, and as long as it is there."""
    kubectl, far = gateway.kubectl, gateway.far.kubectl
    gateway.until("a.b.guest.example.com", "/", "200 three ")
    wait_reason(kubectl, "httproute/far", "ResolvedRefs", "RefNotPermitted")
    gateway.until("far.example.com", "/", "500")
    far("apply", "-f", "-", stdin=gateway.named(GRANT))
    wait_reason(kubectl, "httproute/far", "ResolvedRefs", "ResolvedRefs")
    gateway.until("far.example.com", "/", "200 three ")
    far("delete", "-f", "-", stdin=gateway.named(GRANT))
    wait_reason(kubectl, "httproute/far", "ResolvedRefs", "RefNotPermitted")
    gateway.until("far.example.com", "/", "500")


KINDS_OF_SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: one}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: sliced}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sliced, labels: {kubernetes.io/service-name: sliced}}
addressType: IPv4
endpoints: [{addresses: [POD], conditions: {ready: true}}]
ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: mirrored}
spec: {clusterIP: None, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: mirrored}
subsets: [{addresses: [{ip: POD}], ports: [{name: http, port: 8080}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: kinds}
spec:
  parentRefs: [{name: g}]
  hostnames: [kinds.example.com]
  rules:
  - {matches: [{path: {value: /headless}}], backendRefs: [{name: headless, port: 80}]}
  - {matches: [{path: {value: /sliced}}], backendRefs: [{name: sliced, port: 80}]}
  - {matches: [{path: {value: /mirrored}}], backendRefs: [{name: mirrored, port: 80}]}
"""


def test_kinds_of_services(gateway: Gateway) -> None:
    """HTTPRouteServiceTypes: headless, with a slice of one's own, with Endpoints of one's own."""
    pod = gateway.kubectl("get", "pod", "-l", "app=one", "-o", "jsonpath={.items[0].status.podIP}")
    gateway.kubectl("apply", "-f", "-", stdin=KINDS_OF_SERVICES.replace("POD", pod))
    wait_reason(gateway.kubectl, "httproute/kinds", "ResolvedRefs", "ResolvedRefs")
    for name in ("headless", "sliced", "mirrored"):
        gateway.until("kinds.example.com", f"/{name}", "200 one ")


CHANGING = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: changing}
spec:
  gatewayClassName: sampan
  listeners: [{name: a, port: 80, protocol: HTTP, hostname: a.example.com}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: changing}
spec:
  parentRefs: [{name: changing}]
  rules: [{backendRefs: [{name: one, port: 80}]}]
"""


def test_listeners_come_change_and_go(gateway: Gateway) -> None:
    """GatewayModifyListeners, GatewayUpdateListenerHostname, GatewayObservedGenerationBump, HTTPRouteObservedGenerationBump,
    GatewayWithAttachedRoutes."""
    kubectl = gateway.kubectl

    def patch(*listeners: Object) -> None:
        kubectl(
            "patch",
            "gateway",
            "changing",
            "--type=merge",
            "-p",
            json.dumps({"spec": {"listeners": listeners}}),
        )

    def routes() -> dict[str, int]:
        """How many are attached to each listener, once what is said is of today."""
        obj = json.loads(kubectl("get", "gateway", "changing", "-o", "json"))
        listeners = obj["status"].get("listeners") or []
        said = [*obj["status"]["conditions"], *(c for one in listeners for c in one["conditions"])]
        if any(c.get("observedGeneration") != obj["metadata"]["generation"] for c in said):
            return {}
        return {one["name"]: one["attachedRoutes"] for one in listeners}

    def listener(name: str, host: str, port: int = 80) -> Object:
        return {"name": name, "port": port, "protocol": "HTTP", "hostname": host}

    kubectl("apply", "-f", "-", stdin=CHANGING)
    kubectl.wait("gateway/changing", "condition=Programmed")
    address = kubectl.value("gateway/changing", ".status.addresses[0].value")
    until(address, "a.example.com", "/", "200 one ")
    eventually(routes, {"a": 1}.__eq__)

    patch(listener("a", "c.example.com"), listener("b", "b.example.com", 8081))
    eventually(routes, {"a": 1, "b": 1}.__eq__)
    until(address, "c.example.com", "/", "200 one ")
    until(address, "a.example.com", "/", "404")
    until(address, "b.example.com:8081", "/", "200 one ")

    spec = {
        "parentRefs": [{"name": "changing", "sectionName": "a"}],
        "rules": [{"backendRefs": [{"name": "two", "port": 80}]}],
    }
    kubectl("patch", "httproute", "changing", "--type=merge", "-p", json.dumps({"spec": spec}))
    eventually(routes, {"a": 1, "b": 0}.__eq__)
    until(address, "c.example.com", "/", "200 two ")
    until(address, "b.example.com:8081", "/", "404")
    generation = kubectl.value("httproute/changing", ".metadata.generation")
    where = ".status.parents[0].conditions[*].observedGeneration"
    eventually(lambda: set(kubectl.value("httproute/changing", where).split()), {generation}.__eq__)

    patch(listener("a", "c.example.com"))
    eventually(routes, {"a": 1}.__eq__)
    until(address, "b.example.com:8081", "/", "000")
    assert gateway.ask("split.example.com").status == "200", "nobody else is touched"


def test_an_address_that_is_asked_for(gateway: Gateway) -> None:
    """GatewayStaticAddresses."""
    kubectl, subnet = gateway.kubectl, gateway.address.rpartition(".")[0]
    first, second = f"{subnet}.247", f"{subnet}.248"

    def ask_for(*addresses: str, type_: str = "IPAddress") -> None:
        asked = [{"type": type_, "value": one} for one in addresses]
        kubectl("patch", "gateway", "fixed", "--type=merge", "-p", json.dumps({"spec": {"addresses": asked}}))

    def said() -> dict[str, str]:
        obj = json.loads(kubectl("get", "gateway", "fixed", "-o", "json"))
        return {c["type"]: c["reason"] for c in obj["status"]["conditions"]}

    kubectl("apply", "-f", "-", stdin=CHANGING.split("---")[0].replace("changing", "fixed"))
    ask_for("somewhere", type_="example.com/rack")
    eventually(said, {"Accepted": "UnsupportedAddress", "Programmed": "Invalid"}.__eq__)
    ask_for("203.0.113.9", first)
    eventually(said, {"Accepted": "Accepted", "Programmed": "AddressNotUsable"}.__eq__)
    for address in (first, second):
        ask_for(address)
        eventually(said, {"Accepted": "Accepted", "Programmed": "Programmed"}.__eq__)
        eventually(lambda: kubectl.value("gateway/fixed", ".status.addresses[*].value"), address.__eq__)
        until(address, "a.example.com", "/", "404")


def test_a_service_of_somebody_else(gateway: Gateway) -> None:
    """It is neither changed nor listened for, and the Gateway says so; once it is gone there is one of the Gateway's own, for as long as
    its class is ours."""
    kubectl = gateway.kubectl
    name = "sampan-gateway-squatted"
    kubectl("create", "service", "nodeport", name, "--tcp=80")
    before = kubectl("get", "service", name, "-o", "json")
    kubectl("apply", "-f", "-", stdin=CHANGING.split("---")[0].replace("changing", "squatted"))
    kubectl.wait(
        "gateway/squatted", 'jsonpath={.status.conditions[?(@.type=="Programmed")].reason}=NoResources'
    )
    message = kubectl.value("gateway/squatted", '.status.conditions[?(@.type=="Programmed")].message')
    assert message == f"Service {gateway.namespace}/{name} is there and not this Gateway's"
    assert kubectl("get", "service", name, "-o", "json") == before
    kubectl("delete", "service", name)
    kubectl.wait("gateway/squatted", "condition=Programmed")
    theirs = f"{gateway.namespace}-theirs"
    kubectl("apply", "-f", "-", stdin=CLASS.replace("NAME", theirs))
    try:
        change = {"spec": {"gatewayClassName": theirs}}
        kubectl("patch", "gateway", "squatted", "--type=merge", "-p", json.dumps(change))
        kubectl.wait(f"service/{name}", "delete")
    finally:
        kubectl("delete", "gatewayclass", theirs)


CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: NAME}
spec: {controllerName: example.com/controller}
"""
LONG = "long-" + 248 * "g"
SHOWN = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {LONG}}}
spec:
  gatewayClassName: sampan
  infrastructure: {{labels: {{tier: front}}, annotations: {{example.com/note: kept}}}}
  listeners:
  - {{name: web, port: 80, protocol: HTTP, hostname: before.example.com}}
  - name: tls
    port: 443
    protocol: HTTPS
    hostname: "*.example.com"
    tls: {{certificateRefs: [{{name: narrow}}, {{name: wide}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shown}}
spec:
  parentRefs: [{{name: {LONG}, sectionName: web}}]
  hostnames: [after.example.com]
  rules: [{{backendRefs: [{{name: one, port: 80}}]}}]
"""
FOREIGN = {
    "type": "example.com/Checked",
    "status": "True",
    "reason": "Seen",
    "message": "",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def test_what_others_say_stays(gateway: Gateway) -> None:
    """GatewayPreserveForeignConditions, GatewayUpdateListenerHostname, GatewayNameMaximumLength, GatewayInfrastructure,
    GatewayClassObservedGenerationBump, HTTPSListenerMultiTLSCertsLongestMatchingSNI."""
    kubectl, name = gateway.kubectl, f"gateway/{LONG}"
    certificates = {"narrow": make("*.test.example.com"), "wide": make("*.example.com", "a.b.example.com")}
    gateway.apply(*(tls_secret(which, *pair) for which, pair in certificates.items()))
    kubectl("apply", "-f", "-", stdin=SHOWN)
    kubectl.wait(name, "condition=Programmed")
    wait_reason(kubectl, "httproute/shown", "Accepted", "NoMatchingListenerHostname")
    (made,) = json.loads(kubectl("get", "services", "-l", "tier=front", "-o", "json"))["items"]
    assert made["metadata"]["annotations"]["example.com/note"] == "kept"
    assert LONG.startswith(made["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"])

    where = ("/status/conditions/-", "/status/listeners/0/conditions/-")
    added = json.dumps([{"op": "add", "path": path, "value": FOREIGN} for path in where])
    kubectl("patch", name, "--subresource=status", "--type=json", "-p", added)
    host = [{"op": "replace", "path": "/spec/listeners/0/hostname", "value": "after.example.com"}]
    kubectl("patch", name, "--type=json", "-p", json.dumps(host))
    wait_reason(kubectl, "httproute/shown", "Accepted", "Accepted")
    address = kubectl.value(name, ".status.addresses[0].value")
    until(address, "after.example.com", "/", "200 one ")

    def ours_are_of_today(obj: Object) -> bool:
        listeners = obj["status"]["listeners"]
        said = [*obj["status"]["conditions"], *(c for one in listeners for c in one["conditions"])]
        ours = {c["observedGeneration"] for c in said if c != FOREIGN}
        counts = [one["attachedRoutes"] for one in listeners]
        return said.count(FOREIGN) == 2 and ours == {obj["metadata"]["generation"]} and counts == [1, 0]

    eventually(lambda: json.loads(kubectl("get", name, "-o", "json")), ours_are_of_today)

    for asked, which in (
        ("x.test.example.com", "narrow"),
        ("x.example.com", "wide"),
        ("a.b.example.com", "wide"),
        ("c.d.example.com", "wide"),  # no certificate is for it: not the node's own, for all that
        (None, "wide"),
    ):
        shown = eventually(lambda asked=asked: certificate_shown(address, asked), bool)  # type: ignore[misc]
        assert shown == ssl.PEM_cert_to_DER_cert(certificates[which][0]), asked

    note = {"spec": {"description": "as it is today"}}
    kubectl("patch", "gatewayclass", "sampan", "--type=merge", "-p", json.dumps(note))
    generation = kubectl.value("gatewayclass/sampan", ".metadata.generation")
    seen = ".status.conditions[*].observedGeneration"
    eventually(lambda: set(kubectl.value("gatewayclass/sampan", seen).split()), {generation}.__eq__)


def certificate_shown(address: str, name: str | None) -> bytes | None:
    """What is shown to who asks for a name; None where nobody answers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((address, 443), 5) as plain:
            with context.wrap_socket(plain, server_hostname=name) as secure:
                return secure.getpeercert(binary_form=True)
    except OSError:
        return None


MIRROR = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mirror}
spec:
  parentRefs: [{name: g}]
  hostnames: [mirror.example.com]
  rules:
  - backendRefs: [{name: one, port: 80}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: two, port: 80}}}]
"""


def test_a_mirror_gets_copies(gateway: Gateway) -> None:
    gateway.kubectl("apply", "-f", "-", stdin=MIRROR)
    wait_reason(gateway.kubectl, "httproute/mirror", "ResolvedRefs", "ResolvedRefs")
    gateway.until("mirror.example.com", "/copied", "200 one ", "-H", "X-Log: yes")
    for who in ("one", "two"):
        eventually(
            lambda who=who: gateway.kubectl("logs", f"deployment/{who}"),  # type: ignore[misc]
            lambda log: "GET mirror.example.com /copied" in log,
        )


def test_a_gateway_goes(gateway: Gateway) -> None:
    """With it go its Service and what was said of its routes."""
    kubectl = gateway.kubectl
    kubectl("delete", "gateway", "g")
    kubectl("wait", "service/sampan-gateway-g", "--for=delete", "--timeout=20s")
    eventually(lambda: kubectl.value("httproute/split", ".status.parents"), "[]".__eq__)
