"""`sampan node` without a command, and `sampan node reset`: what the user gave becomes wishes, all that is wrong with it is told
at once, and the machine joins, resumes or forgets."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sampan.cluster import join, joined, preflight
from sampan.cluster.errors import ClusterError
from sampan.cluster.join import JoinWishes
from sampan.cluster.joined import JoinedNode

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OWN_DOMAINS = ("kubernetes.io", "k8s.io")
_ALLOWED_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_ALLOWED_LABELS = frozenset(
    (
        "kubernetes.io/hostname",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    )
)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line of `sampan node`."""

    join: str
    token: str
    ca_hash: str
    name: str
    addresses: tuple[str, ...]
    labels: tuple[str, ...]
    taints: tuple[str, ...]
    ingress: bool | None = None
    """None leaves it as it is."""


def run(arguments: Arguments, say: Callable[[str], None]) -> None:
    """Join if need be, then be the node until told to stop. Raises ClusterError."""
    from sampan.cluster import join_process

    wishes, wrong = _wishes(arguments)
    with joined.held():
        present = joined.load()
        if present is not None:
            node, wishes = _resumed(present, wishes, arguments, wrong, say)
        else:
            if not arguments.join:
                raise ClusterError(
                    "this machine has not joined a cluster: `sampan token create`, where one runs, prints the command for it"
                )
            if wrong := [*join.problems(wishes), *wrong]:
                raise ClusterError("; ".join(wrong))
            node = None
        if node is None:
            join_process.check_machine(wishes.addresses)
            say(f"joining the cluster at {wishes.server} as {wishes.name}")
            node = asyncio.run(join.join(wishes, known=present is not None and _certified(present)))
            say(f"joined; node {node.name} runs until Ctrl-C, its containers longer")
        join_process.run(node)


def _resumed(
    present: JoinedNode,
    wishes: JoinWishes,
    arguments: Arguments,
    wrong: Sequence[str],
    say: Callable[[str], None],
) -> tuple[JoinedNode | None, JoinWishes]:
    """The node that this machine is already; or none, and with which wishes it has to join anew, with the token that was given, because
    its certificate has ended or does not say that it may be a front door. Raises ClusterError for what cannot be changed any more."""
    from sampan.node.certificate import held

    problems = [*wrong]
    asked = (
        ("--join", arguments.join.rstrip("/"), present.server),
        ("--name", arguments.name, present.name),
    )
    problems += [
        f"{flag} is {have} and cannot become {want}" for flag, want, have in asked if want not in ("", have)
    ]
    if wishes.taints and wishes.taints != present.taints:
        problems.append("--taint counts at the first registration alone: use `kubectl taint node`")
    if problems:
        raise ClusterError(
            f"this machine is node {present.name} of {present.server} already: {'; '.join(problems)}."
            " `sampan node` resumes it, `sampan node reset` makes it forget"
        )
    ingress = present.ingress if arguments.ingress is None else arguments.ingress
    certificate = held(present.client_certificate)
    lacking = arguments.ingress and (certificate is None or not certificate.front_door)
    if arguments.token and (lacking or not _certified(present)):
        if why := join.problems(wishes):
            raise ClusterError("; ".join(why))
        return None, dataclasses.replace(
            wishes,
            name=present.name,
            addresses=wishes.addresses or present.addresses,
            labels=wishes.labels or present.labels,
            taints=present.taints,
            ingress=ingress,
        )
    if lacking:
        raise ClusterError(
            f"--ingress: this machine joined by a token that did not allow a front door; {join.MAKE_FOR_FRONT_DOOR},"
            " and give it here: sampan node --join ... --token ... --ca-hash ... --ingress"
        )
    if arguments.token:
        say("this machine has joined already: the token is not needed")
    changed = dataclasses.replace(
        present,
        addresses=wishes.addresses or present.addresses,
        labels=wishes.labels or present.labels,
        ingress=ingress,
    )
    if changed != present:
        changed.save()
    return changed, wishes


def _certified(node: JoinedNode) -> bool:
    """Whether it has a certificate that is good still."""
    from sampan.node.certificate import held

    certificate = held(node.client_certificate)
    return certificate is not None and certificate.valid()


def reset(say: Callable[[str], None]) -> str:
    """Forget the node; what to say about it. Raises ClusterError while it runs."""
    from sampan.cluster import joined_end

    with joined.held():
        try:
            node = joined.load()
        except ClusterError:
            node = None
        there = joined_end.reset(node, say)
    if not there:
        return "this machine has not joined a cluster"
    if node is None:
        return "this machine is no node any more"
    return f"this machine is no node any more; where the cluster runs: kubectl delete node {node.name}"


def _wishes(arguments: Arguments) -> tuple[JoinWishes, list[str]]:
    """The wishes, and what is wrong with them that needs no look at the cluster's side of the command."""
    from sampan.api.validation.formats import dns1123_subdomain

    wrong: list[str] = []
    name = arguments.name or socket.gethostname().lower()
    if why := dns1123_subdomain(name):
        flag = (
            f"--name {name!r}" if arguments.name else f"the machine's name {name!r} (give another by --name)"
        )
        wrong.append(f"{flag}: {'; '.join(why)}")
    labels = dict(_label(text, wrong) for text in arguments.labels)
    taints = tuple(_taint(text, wrong) for text in arguments.taints)
    families = []
    for address in arguments.addresses:
        try:
            families.append(ipaddress.ip_address(address).version)
        except ValueError:
            wrong.append(f"--address {address!r} is not an address")
    if len(set(families)) < len(families):
        wrong.append("--address: allowed is one of each family")
    if arguments.ingress and not preflight.program("haproxy"):
        wrong.append("--ingress: haproxy is missing: apt-get install haproxy")
    return JoinWishes(
        server=arguments.join.rstrip("/"),
        token=arguments.token,
        ca_hash=arguments.ca_hash,
        name=name,
        addresses=arguments.addresses,
        labels=labels,
        taints=taints,
        ingress=bool(arguments.ingress),
    ), wrong


def _label(text: str, wrong: list[str]) -> tuple[str, str]:
    from sampan.api.validation.formats import label_value, qualified_name

    key, equals, value = text.partition("=")
    if not equals:
        wrong.append(f"--label {text!r}: expected KEY=VALUE")
    elif why := [*qualified_name(key), *label_value(value)]:
        wrong.append(f"--label {text!r}: {'; '.join(why)}")
    elif not _may_label(key):
        wrong.append(
            f"--label {text!r}: a node may not give itself this label of Kubernetes; `kubectl label node` may"
        )
    return key, value


def _may_label(key: str) -> bool:
    domain = key.rpartition("/")[0]
    if not any(domain == d or domain.endswith(f".{d}") for d in _OWN_DOMAINS):
        return True
    return key in _ALLOWED_LABELS or any(domain == d or domain.endswith(f".{d}") for d in _ALLOWED_DOMAINS)


def _taint(text: str, wrong: list[str]) -> dict[str, str]:
    from sampan.api.validation.formats import label_value, qualified_name

    rest, _, effect = text.rpartition(":")
    key, _, value = rest.partition("=")
    if effect not in _EFFECTS or not key:
        wrong.append(f"--taint {text!r}: expected KEY[=VALUE]:EFFECT, EFFECT one of {', '.join(_EFFECTS)}")
    elif why := [*qualified_name(key), *label_value(value)]:
        wrong.append(f"--taint {text!r}: {'; '.join(why)}")
    return {"key": key, "effect": effect, **({"value": value} if value else {})}
