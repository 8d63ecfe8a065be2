"""From an Ingress to what it contributes to the routing (upstream: networking.k8s.io/v1, `pathType` and `host`).

What the API leaves to the implementation is decided so: an ImplementationSpecific path is a prefix, by path element, and one that
ends in `/*` is the prefix before the star; a rule without host is for all hosts, also for one that other rules name, where
none of those matches; a default backend gets what no rule matches, first for the hosts of its own rules, then for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from sampan.api.errors import Object
from sampan.api.ingress_classes import class_of
from sampan.api.validation import formats
from sampan.ingress import patterns
from sampan.ingress.endpoints import port_of
from sampan.ingress.external_names import inside_cluster
from sampan.ingress.route_options import NO_OPTIONS, Options, Rewrite
from sampan.ingress.types import (
    ANY_HOST,
    DEFAULT_POLICY,
    EVERY_PATH,
    INGRESS_SCOPE,
    Backend,
    Canary,
    Contribution,
    Host,
    Path,
    PathKind,
    Place,
    Policy,
    Problem,
    Route,
    ServicePort,
    Source,
    Target,
)

SERVICE_NOT_FOUND = "ServiceNotFound"
PORT_NOT_FOUND = "ServicePortNotFound"
NOT_SUPPORTED = "NotSupported"
INVALID = "Invalid"

H2C = "kubernetes.io/h2c"
"""The appProtocol of a Service's port whose pods speak HTTP/2 without TLS (Kubernetes' standard application protocols)."""
_LONGEST_PATH = 4096
_OF_PATTERNS = re.compile(r"[()\[\]{}|*+?^$\\]")
_GROUP = re.compile(r"\\([0-9])")
_PATH_SAFE = "/:@!$&'()*+,;=-._~%"

ServiceLookup = Callable[[str, str], Object | None]
"""The Service of that namespace and name, if there is one."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What an Ingress wants besides its rules (annotations), already read: the same for all its routes. With `regex` its
    ImplementationSpecific paths are regular expressions from the path's beginning on, and `rewrite` (`\\1` ... are their groups) is what the
    backend sees of them. With `protocol_said` the policy's protocol was asked for, and is not the Service's to say. A `closed` one is
    answered with 503: what was asked for its safety cannot be had."""

    options: Options = NO_OPTIONS
    policy: Policy = DEFAULT_POLICY
    protocol_said: bool = False
    regex: bool = False
    rewrite: str = ""
    canary: Canary | None = None
    closed: bool = False
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Reading:
    """One Ingress while it is read."""

    ingress: Object
    service: ServiceLookup
    wishes: Wishes
    routes: list[Route] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, source: Source, reason: str, message: str) -> None:
        self.problems.append(Problem(source, reason, f"{source.field}: {message}"))


def contribution(ingress: Object, service: ServiceLookup, wishes: Wishes | None = None) -> Contribution:
    """What an Ingress of ours asks for. `wishes` are those of its annotations."""
    reading = _Reading(ingress, service, wishes or Wishes())
    spec = ingress.get("spec") or {}
    hosts: dict[Host, None] = {}
    for i, rule in enumerate(spec.get("rules") or ()):
        host = _host(reading, rule.get("host") or "", f"spec.rules[{i}].host")
        if host is None:
            continue
        hosts[host] = None
        for j, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            source = _source(ingress, f"spec.rules[{i}].http.paths[{j}]")
            place = _place(reading, host, path, f"{source.field}.path")
            if place is not None:
                _add(reading, place, path.get("backend") or {}, source, (i, j))
    _tell_of_no_pattern(reading)
    default = spec.get("defaultBackend")
    if default is not None:
        source = _source(ingress, "spec.defaultBackend")
        for n, host in enumerate(dict.fromkeys((ANY_HOST, *hosts))):
            place = Place(INGRESS_SCOPE, host, EVERY_PATH, default=True)
            _add(reading, place, default, source, (len(spec.get("rules") or ()), n))
    problems = dict.fromkeys((*reading.problems, *reading.wishes.problems))
    return Contribution(routes=tuple(reading.routes), problems=tuple(problems))


def _place(reading: _Reading, host: Host, path: Object, where: str) -> Place | None:
    if reading.wishes.regex and path.get("pathType") == "ImplementationSpecific":
        pattern = (path.get("path") or "/").removeprefix("^")
        if why := patterns.problem(pattern):
            reading.problem(_source(reading.ingress, where), INVALID, f"{pattern!r}: {why}")
            return None
        _tell_of_no_group(reading, pattern, where)
        return Place(INGRESS_SCOPE, host, Path(PathKind.REGEX, f"^{pattern}"))
    if reading.wishes.regex and _OF_PATTERNS.search(path.get("path") or ""):
        why = f"{path['path']!r} is taken as it stands: regular expressions are of the type ImplementationSpecific, not {path['pathType']}"
        reading.problem(_source(reading.ingress, where), NOT_SUPPORTED, why)
    if len(canonical_path(path.get("path") or "/")) > _LONGEST_PATH:
        why = f"a path of more than {_LONGEST_PATH} characters is not supported"
        reading.problem(_source(reading.ingress, where), NOT_SUPPORTED, why)
        return None
    return Place(INGRESS_SCOPE, host, path_of(path))


def _tell_of_no_group(reading: _Reading, pattern: str, where: str) -> None:
    """A rewrite by a group that the pattern has not: as with nginx, nothing stands in its place."""
    rewrite = reading.wishes.rewrite
    most = max((int(number) for number in _GROUP.findall(rewrite)), default=0)
    if most > re.compile(pattern).groups:
        why = f'{pattern!r} has no group {most}: in the rewrite to "{rewrite}" nothing stands in its place'
        reading.problem(_source(reading.ingress, where), INVALID, why)


def _tell_of_no_pattern(reading: _Reading) -> None:
    """A rewrite by groups where no path can have any."""
    types = {
        p.get("pathType")
        for r in (reading.ingress.get("spec") or {}).get("rules") or ()
        for p in (r.get("http") or {}).get("paths") or ()
    }
    if reading.wishes.rewrite and "ImplementationSpecific" not in types:
        why = f'no path is of the type ImplementationSpecific: the rewrite to "{reading.wishes.rewrite}" has no effect'
        reading.problem(_source(reading.ingress, "spec.rules"), NOT_SUPPORTED, why)


def path_of(path: Object) -> Path:
    """The Path of an HTTPIngressPath."""
    kind, text = path.get("pathType"), canonical_path(path.get("path") or "/")
    if kind == "Exact":
        return Path(PathKind.EXACT, text)
    if kind != "Prefix" and text.endswith("/*"):
        text = text[:-1]
    return Path(PathKind.PREFIX, text.rstrip("/"))


def canonical_path(path: str) -> str:
    """A path as the proxy sees it in requests that it has normalised (RFC 3986, 6.2.2): what may not stand in a path is
    percent-encoded, what need not be encoded is not, and hexadecimal digits are upper-case."""
    encoded = quote(path.encode(errors="surrogatepass"), safe=_PATH_SAFE)
    out, i = [], 0
    while i < len(encoded):
        char, code = encoded[i], encoded[i + 1 : i + 3]
        if char != "%":
            out.append(char)
            i += 1
        elif len(code) == 2 and all(c in "0123456789abcdefABCDEF" for c in code):
            plain = chr(int(code, 16))
            unreserved = plain.isascii() and (plain.isalnum() or plain in "-._~")
            out.append(plain if unreserved else f"%{code.upper()}")
            i += 3
        else:
            out.append("%25")
            i += 1
    return "".join(out)


def service_port(service: Object, port: Object) -> int | None:
    """The number of the port of a Service that a ServiceBackendPort means; None if the Service has none such."""
    ports = (service.get("spec") or {}).get("ports") or ()
    if port.get("name"):
        return next((p["port"] for p in ports if p.get("name") == port["name"]), None)
    number: int | None = port.get("number")
    if (service.get("spec") or {}).get("type") == "ExternalName" and not ports:
        return number
    return number if any(p["port"] == number for p in ports) else None


def services_of(ingress: Object) -> Iterator[str]:
    """`namespace/name` of every Service that an Ingress refers to; for an index."""
    namespace = ingress["metadata"].get("namespace", "")
    spec = ingress.get("spec") or {}
    paths = [p for r in spec.get("rules") or () for p in (r.get("http") or {}).get("paths") or ()]
    backends = [spec.get("defaultBackend") or {}, *(p.get("backend") or {} for p in paths)]
    names = dict.fromkeys((b.get("service") or {}).get("name") for b in backends)
    return (f"{namespace}/{name}" for name in names if name)


def class_problems(ingress: Object, class_: Object | None) -> tuple[Problem, ...]:
    """What is asked for by the class of an Ingress and cannot be had."""
    parameters = ((class_ or {}).get("spec") or {}).get("parameters")
    if not parameters:
        return ()
    source = _source(ingress, "spec.ingressClassName")
    what = f"IngressClass {class_of(ingress)} has parameters, {parameters['kind']} {parameters['name']}"
    return (Problem(source, NOT_SUPPORTED, f"{source.field}: {what}: they are not supported"),)


def _source(ingress: Object, where: str) -> Source:
    meta = ingress["metadata"]
    return Source("Ingress", meta.get("namespace", ""), meta["name"], where)


def _host(reading: _Reading, text: str, where: str) -> Host | None:
    problems = formats.wildcard_subdomain(text) if "*" in text else formats.dns1123_subdomain(text)
    if text and problems:
        # Validation has refused it long before; no such text may come any further.
        reading.problem(_source(reading.ingress, where), INVALID, "; ".join(problems))
        return None
    return Host.of_ingress(text)


def _add(reading: _Reading, place: Place, backend: Object, source: Source, index: tuple[int, int]) -> None:
    meta = reading.ingress["metadata"]
    precedence = (meta.get("creationTimestamp") or "", meta.get("namespace", ""), meta["name"], *index)
    wishes = reading.wishes
    options = wishes.options
    if wishes.rewrite and place.path.kind is PathKind.REGEX:
        rewrite = replace(options.rewrite or Rewrite(), regex=place.path.value, replacement=wishes.rewrite)
        options = replace(options, rewrite=rewrite)
    said = wishes.policy if wishes.protocol_said else None
    route = Route(place, (), source, precedence, options=options, canary=wishes.canary, status=503, said=said)
    target = _target(reading, backend, source)
    if wishes.closed:
        route = replace(route, closed=True)  # what was asked for its safety is not there
    elif target is not None:
        route = replace(route, targets=(target,), status=0)
    elif options.redirect is not None:
        route = replace(route, status=0)
    reading.routes.append(route)


def _target(reading: _Reading, backend: Object, source: Source) -> Target | None:
    namespace = reading.ingress["metadata"].get("namespace", "")
    if backend.get("resource") is not None:
        kind, name = backend["resource"].get("kind"), backend["resource"].get("name")
        reading.problem(
            source, NOT_SUPPORTED, f"backend is the resource {kind} {name}: only Services are supported"
        )
        return None
    given = backend.get("service") or {}
    name, port = given.get("name") or "", given.get("port") or {}
    service = reading.service(namespace, name)
    if service is None:
        reading.problem(source, SERVICE_NOT_FOUND, f"there is no Service {namespace}/{name}")
        return None
    external = str((service.get("spec") or {}).get("externalName") or "")
    if (service.get("spec") or {}).get("type") == "ExternalName" and inside_cluster(external):
        message = f"Service {namespace}/{name} stands for {external}, which is inside of the cluster"
        reading.problem(source, NOT_SUPPORTED, message)
        return None
    number = service_port(service, port)
    if number is None:
        wanted = port.get("name") or port.get("number")
        there = ", ".join(_port_text(p) for p in (service.get("spec") or {}).get("ports") or ()) or "none"
        message = f"Service {namespace}/{name} has no port {wanted}; it has {there}"
        reading.problem(source, PORT_NOT_FOUND, message)
        return None
    policy = reading.wishes.policy
    if not reading.wishes.protocol_said and _app_protocol(service, number) == H2C:
        policy = replace(policy, protocol="h2c")
    return Target(Backend(ServicePort(namespace, name, number), policy))


def _app_protocol(service: Object, number: int) -> str:
    return str((port_of(service, number) or {}).get("appProtocol") or "")


def _port_text(port: Object) -> str:
    return f"{port['name']} ({port['port']})" if port.get("name") else str(port["port"])
