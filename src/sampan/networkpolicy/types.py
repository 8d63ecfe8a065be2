"""What NetworkPolicies say and what is known of pods, as plain values (upstream: networking.k8s.io/v1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sampan.api.selectors import LabelSelector

Direction = Literal["ingress", "egress"]
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class PodSelection:
    """Pods by their labels: those of the one `namespace`, or where `namespaces` is given those of all namespaces with such
    labels. Pods of the node's own network are in none."""

    namespace: str
    namespaces: LabelSelector | None
    pods: LabelSelector

    def __str__(self) -> str:
        where = self.namespace if self.namespaces is None else f"namespaces({self.namespaces})"
        return f"{where}: {self.pods}"


@dataclass(frozen=True, slots=True)
class Block:
    """Addresses of a network without those of some parts of it."""

    cidr: Network
    excepts: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Ports:
    """A range of ports of one protocol, both ends included."""

    protocol: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class NamedPort:
    """The port that the pod which is connected to has under a name."""

    protocol: str
    name: str


Peer = PodSelection | Block
Port = Ports | NamedPort


@dataclass(frozen=True, slots=True)
class Rule:
    """Lets in (or out) what has one of the peers and one of the ports. None: whatever it has; (): nothing."""

    peers: tuple[Peer, ...] | None = None
    ports: tuple[Port, ...] | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A direction that is None is not restricted by this policy; () lets nothing pass."""

    key: str
    """`namespace/name`."""
    subject: PodSelection
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        return self.ingress if direction == "ingress" else self.egress


@dataclass(frozen=True, slots=True)
class Pod:
    """What matters of a pod that has a network of its own and runs, or is about to. `ports` are those with a name, as
    (protocol, name, number)."""

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()
    local: bool = False
    """Whether it is on this node."""
