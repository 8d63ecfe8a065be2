"""The records of a cluster's Services and Pods (the Kubernetes DNS specification, version 1.1.0).

What it leaves open is as CoreDNS' plugin of the same name has it: which names exist, the weights of SRV records, the SOA record,
the names of endpoints without a hostname.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sampan.api.errors import Object
from sampan.dns import settings, wire
from sampan.dns.objects import SERVICE_NAME
from sampan.dns.wire import Record

SCHEMA_VERSION = b"1.1.0"
_VERSION_TTL = 28800
_ARPA = b"\4arpa\0"


class Objects(Protocol):
    """The cluster's objects, small (see `objects`)."""

    def service(self, namespace: str, name: str) -> Object | None: ...
    def slices(self, namespace: str, name: str) -> Sequence[Object]: ...
    def services_at(self, address: str) -> Sequence[Object]: ...
    def slices_with(self, address: str) -> Sequence[Object]: ...
    def has_namespace(self, name: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What there is at a name: records, or the name that stands for it."""

    answer: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)
    alias: bytes = b""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One address and port that a name means. `name` is whose address it is."""

    address: str
    port: int
    name: bytes


class NoSuchName(Exception):
    """NXDOMAIN, where nobody else is to be asked."""


class Zone:
    """Answers for the zones of one `kubernetes` directive. `changed` is when the objects last changed, as the SOA's serial."""

    def __init__(
        self, objects: Objects, configuration: settings.Kubernetes, addresses: Sequence[str],
        changed: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.configuration = configuration
        self._objects = objects
        self._addresses = addresses
        self._changed = changed
        self._primary = configuration.primary

    def zone_of(self, key: bytes) -> bytes | None:
        """Which of its zones a name is in."""
        zones = [z for z in self.configuration.zones if wire.is_below(key, z)]
        return max(zones, key=len) if zones else None

    def group(self, key: bytes, zone: bytes) -> tuple[str, ...]:
        """What the answer about a name hangs on: (namespace, Service), (namespace), (reverse name) or nothing that changes."""
        if zone.endswith(_ARPA):
            return (key.decode("latin-1"),)
        labels = _labels(key, zone)
        if labels is None or len(labels) < 2 or labels[-1] not in ("svc", "pod"):
            return ()
        if len(labels) == 2 or labels[-1] == "pod":
            return (labels[-2],)
        return (labels[-2], labels[-3])

    def lookup(self, key: bytes, kind: int, zone: bytes) -> Found:
        """All records of a name and type; no records where the name has none of this type. Raises NoSuchName."""
        if zone.endswith(_ARPA):
            return self._reverse(key, kind)
        labels = _labels(key, zone)
        if labels is None:
            raise NoSuchName
        match labels:
            case []:
                return self._top(key, kind, zone)
            case ["dns-version"]:
                text = bytes([len(SCHEMA_VERSION)]) + SCHEMA_VERSION
                return Found([Record(key, wire.TXT, _VERSION_TTL, text)] if kind == wire.TXT else [])
            case ["dns"]:
                return Found()
            case ["ns", "dns"]:
                return Found([r for r in self._own(key) if r.type == kind])
            case ["svc" | "pod"]:
                return Found()
            case [namespace, "svc" | "pod"] if self._seen(namespace):
                return Found()
            case [name, namespace, "pod"] if self._seen(namespace):
                return self._pod(key, name, kind)
            case [name, namespace, "svc"] if self._seen(namespace):
                return self._service(key, kind, namespace, name, zone)
            case [endpoint, name, namespace, "svc"] if self._seen(namespace):
                return self._service(key, kind, namespace, name, zone, endpoint=endpoint)
            case [port, protocol, name, namespace, "svc"] if self._seen(namespace):
                port, protocol = port.removeprefix("_"), protocol.removeprefix("_")
                return self._service(key, kind, namespace, name, zone, port=port, protocol=protocol)
        raise NoSuchName

    def soa(self, zone: bytes) -> Record:
        ttl = self.configuration.ttl
        data = b"\2ns\3dns" + zone + b"\x0ahostmaster" + zone
        numbers = struct.pack("!5I", int(self._changed()) & 0xFFFFFFFF, 7200, 1800, 86400, ttl)
        return Record(zone, wire.SOA, min(ttl, 300), data + numbers)

    def _seen(self, namespace: str) -> bool:
        only = self.configuration.namespaces
        return (not only or namespace in only) and self._objects.has_namespace(namespace)

    def _top(self, key: bytes, kind: int, zone: bytes) -> Found:
        if kind == wire.SOA:
            return Found([self.soa(zone)])
        if kind == wire.NS:
            server = b"\2ns\3dns" + zone
            return Found([Record(key, wire.NS, self.configuration.ttl, server)], list(self._own(server)))
        return Found()

    def _own(self, owner: bytes) -> Iterator[Record]:
        for address in self._addresses:
            yield address_record(owner, address, self.configuration.ttl)

    def _pod(self, key: bytes, name: str, kind: int) -> Found:
        if not self.configuration.pods:
            raise NoSuchName
        text = name.replace("-", "." if name.count("-") == 3 and "--" not in name else ":")
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise NoSuchName from None
        record = address_record(key, str(address), self.configuration.ttl)
        return Found([record] if record.type == kind else [])

    def _service(
        self, key: bytes, kind: int, namespace: str, name: str, zone: bytes,
        *, endpoint: str = "", port: str = "", protocol: str = "",
    ) -> Found:  # fmt: skip
        service = self._objects.service(namespace, name)
        if service is None:
            raise NoSuchName
        spec = service["spec"]
        own = wire.encode_name(f"{name}.{namespace}.svc")[:-1] + zone
        if "externalName" in spec:
            return self._external(spec["externalName"], endpoint or port)
        if endpoint or not spec["clusterIPs"]:
            slices = self._objects.slices(namespace, name)
            entries = list(self._endpoints(slices, own, endpoint, port, protocol))
        else:
            if self.configuration.ignore_empty_service and not any(
                s["endpoints"] for s in self._objects.slices(namespace, name)
            ):
                raise NoSuchName
            entries = [
                _Entry(address, number, own)
                for port_name, port_protocol, number in spec["ports"]
                if _same(port, port_name) and _same(protocol, port_protocol)
                for address in spec["clusterIPs"]
            ]
        if not entries:
            raise NoSuchName
        ttl = self.configuration.ttl
        if kind == wire.SRV:
            return _srv(key, entries, ttl)
        if kind not in (wire.A, wire.AAAA):
            return Found()
        addresses = dict.fromkeys(e.address for e in entries)
        records = (address_record(key, a, ttl) for a in addresses)
        return Found([r for r in records if r.type == kind])

    def _external(self, target: str, below: str) -> Found:
        if below or not target or _is_address(target):
            raise NoSuchName
        try:
            return Found(alias=wire.encode_name(target).lower())
        except ValueError:
            raise NoSuchName from None

    def _endpoints(
        self, slices: Iterable[Object], service: bytes, endpoint: str, port: str, protocol: str
    ) -> Iterator[_Entry]:
        for one in slices:
            # Number -1 says that there is an address, yet no port that an SRV record could name.
            ports = one["ports"] or [("", "", -1)]
            for address, hostname, pod in one["endpoints"]:
                label = self._label(address, hostname, pod)
                if endpoint and endpoint != label.lower():
                    continue
                for name, port_protocol, number in ports:
                    if _same(port, name) and _same(protocol, port_protocol):
                        yield _Entry(address, number, bytes([len(label)]) + label.encode() + service)

    def _label(self, address: str, hostname: str, pod: str) -> str:
        if hostname:
            return hostname
        if self.configuration.endpoint_pod_names and pod and "." not in pod and len(pod) < 64:
            return pod
        return address.replace(".", "-").replace(":", "-")

    def _reverse(self, key: bytes, kind: int) -> Found:
        address = _address_of(key)
        if not address:
            raise NoSuchName
        names = list(dict.fromkeys(self._names_of(address)))
        if not names:
            raise NoSuchName
        ttl = self.configuration.ttl
        return Found([Record(key, wire.PTR, ttl, n) for n in names] if kind == wire.PTR else [])

    def _names_of(self, address: str) -> Iterator[bytes]:
        for service in self._objects.services_at(address):
            meta = service["metadata"]
            if self._seen(meta["namespace"]):
                yield self._service_name(meta["namespace"], meta["name"])
                return
        for one in self._objects.slices_with(address):
            meta = one["metadata"]
            owner = (meta.get("labels") or {}).get(SERVICE_NAME)
            if not owner or not self._seen(meta["namespace"]):
                continue
            for at, hostname, pod in one["endpoints"]:
                if at == address:
                    label = self._label(at, hostname, pod).encode()
                    yield bytes([len(label)]) + label + self._service_name(meta["namespace"], owner)

    def _service_name(self, namespace: str, name: str) -> bytes:
        return wire.encode_name(f"{name}.{namespace}.svc")[:-1] + self._primary


def _srv(key: bytes, entries: Sequence[_Entry], ttl: int) -> Found:
    """Weights are equal and add up to 100, as far as whole numbers do."""
    weight = max(1, 100 // len(entries))
    usable = [e for e in entries if e.port >= 0]
    targets = dict.fromkeys((e.name, e.port) for e in usable)
    answer = [
        Record(key, wire.SRV, ttl, struct.pack("!3H", 0, weight, port) + name) for name, port in targets
    ]
    return Found(
        answer,
        [address_record(name, a, ttl) for name, a in dict.fromkeys((e.name, e.address) for e in usable)],
    )


def address_record(owner: bytes, address: str, ttl: int) -> Record:
    if ":" in address:
        return Record(owner, wire.AAAA, ttl, socket.inet_pton(socket.AF_INET6, address))
    return Record(owner, wire.A, ttl, socket.inet_aton(address))


def changed_names(old: Iterable[str], new: Iterable[str]) -> set[tuple[str, ...]]:
    """The groups of reverse names whose address came or went."""
    return {(wire.reverse_name(a).decode("latin-1"),) for a in set(old) ^ set(new)}


def _same(asked: str, there: str) -> bool:
    return not asked or asked == there.lower()


def _labels(key: bytes, zone: bytes) -> list[str] | None:
    """Those before the zone; None where one is no text that a name of Kubernetes could be."""
    try:
        return [label.decode("ascii") for label in wire.labels(key[: len(key) - len(zone)] + b"\0")]
    except UnicodeDecodeError:
        return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _address_of(key: bytes) -> str:
    """Of a whole reverse name; "" for any other."""
    labels = wire.labels(key)
    try:
        if labels[-2:] == [b"in-addr", b"arpa"] and len(labels) == 6:
            return str(ipaddress.IPv4Address(b".".join(labels[3::-1]).decode("ascii")))
        if labels[-2:] == [b"ip6", b"arpa"] and len(labels) == 34 and all(len(n) == 1 for n in labels[:32]):
            return str(ipaddress.IPv6Address(int(b"".join(labels[31::-1]).decode("ascii"), 16)))
    except ValueError:
        pass
    return ""
