"""What a cluster is: its name, addresses and nodes, kept in `cluster.json` of its state directory. What a new one gets is chosen in `wishes`."""

from __future__ import annotations

import dataclasses
import fcntl
import ipaddress
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.cluster import admission_plugins, ranges
from sampan.cluster.errors import ClusterError

STATE = Path(os.environ.get("SAMPAN_STATE", "/var/lib/sampan"))
RUN = Path(os.environ.get("SAMPAN_RUN", "/run/sampan"))
MOST_NODES = 20
"""How many nodes there may be on this machine."""
NODE_NAME = re.compile(r"node-[0-9]+")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Publication:
    """A port of this host that leads to a NodePort of the cluster."""

    address: str
    port: int
    node_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """One cluster on this machine. Ranges and addresses are text in CIDR or dotted form."""

    name: str
    number: int
    """Its place among the clusters of this machine; names the bridge and chooses the ranges."""
    api_port: int
    service_cidr: str
    pod_cidr: str
    node_subnet: str
    nodes: tuple[str, ...]
    service_cidr6: str = ""
    pod_cidr6: str = ""
    node_subnet6: str = ""
    """The IPv6 ranges of a dual-stack cluster, "" in one of IPv4 alone."""
    store: str = "sqlite"
    """Where its objects are: see `storage`."""
    etcd_port: int = 0
    """Port on loopback of an etcd of its own."""
    etcd_cafile: str = ""
    etcd_certfile: str = ""
    etcd_keyfile: str = ""
    """PEM files for an etcd that stands."""
    apiservers: int = 1
    """How many control planes there are behind the one address."""
    listen: str = "127.0.0.1"
    tls_sans: tuple[str, ...] = ()
    publish: tuple[Publication, ...] = ()
    nodeport_addresses: tuple[str, ...] = ()
    """Where nodes open NodePorts: see `nodeport_addresses`."""
    ingress_nodes: tuple[str, ...] = ("all",)
    """The nodes that have a front door: see `ingress_nodes`."""
    ingress_proxy_protocol: bool = False
    """Whether connections to the front door begin with a PROXY header."""
    lb_pool: tuple[str, ...] = ()
    """Ranges of load balancer addresses, () for those that it has by itself: see `lb_pools`."""
    authentication_config: str = ""
    """File that says which outside issuers of tokens are believed, "" for none."""
    token_auth_file: str = ""
    """File of bearer tokens, "" for none."""
    encryption_provider_config: str = ""
    """File that says what is sealed at rest, "" for nothing."""
    audit_policy_file: str = ""
    """File that says what is audited, "" for nothing."""
    audit_log_path: str = ""
    """Where audit events go; "" for `audit.log` among the cluster's logs."""
    enable_admission_plugins: tuple[str, ...] = ()
    """Admission plugins that run besides those that do by default."""
    disable_admission_plugins: tuple[str, ...] = ()
    """Those that run by default and do not here."""
    node_monitor_grace_period: float = 50.0
    """Seconds for which a node may be silent."""
    default_not_ready_toleration_seconds: int = 300
    default_unreachable_toleration_seconds: int = 300
    """How long pods bear a node that is not ready or out of reach."""
    disabled_versions: tuple[str, ...] = ()
    """API versions that are not served: see `runtime_config`."""
    logging_format: str = "text"
    """What the logs of the cluster's processes are: `text` or `json`."""
    kubeconfigs: tuple[str, ...] = ()
    """The users' kubeconfigs that its context was merged into, to be taken out of them again."""
    created: float = field(default_factory=time.time)

    @property
    def bridge(self) -> str:
        return f"sampan{self.number}"

    @property
    def bridge_address(self) -> str:
        return str(ipaddress.ip_network(self.node_subnet)[1])

    @property
    def bridge_networks(self) -> tuple[str, ...]:
        """The bridge's addresses with the length of their subnets (`172.29.0.1/24`)."""
        subnets = map(ipaddress.ip_network, self.node_subnets)
        return tuple(f"{subnet[1]}/{subnet.prefixlen}" for subnet in subnets)

    @property
    def families(self) -> tuple[str, ...]:
        """As in `ipFamilies`, the primary one first."""
        return ("IPv4", "IPv6") if self.service_cidr6 else ("IPv4",)

    @property
    def service_cidrs(self) -> tuple[str, ...]:
        """One a family, as all the plurals below."""
        return tuple(filter(None, (self.service_cidr, self.service_cidr6)))

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.pod_cidr, self.pod_cidr6)))

    @property
    def node_subnets(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.node_subnet, self.node_subnet6)))

    @property
    def dns_addresses(self) -> tuple[str, ...]:
        """Where the cluster's DNS answers: the tenth address of each Service range."""
        return tuple(str(ipaddress.ip_network(cidr)[10]) for cidr in self.service_cidrs)

    @property
    def masquerade_table(self) -> str:
        return f"sampan-{self.name}"

    @property
    def context(self) -> str:
        """The name of its context in a kubeconfig."""
        return "sampan" if self.name == "default" else f"sampan-{self.name}"

    @property
    def api_service_address(self) -> str:
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def advertise_address(self) -> str:
        """Where pods reach the API: pods of machines that joined do not reach the bridge."""
        given = ipaddress.ip_address(self.listen)
        if given.is_loopback or given.is_unspecified or given.version != 4:
            return self.bridge_address
        return self.listen

    @property
    def server(self) -> str:
        host = "127.0.0.1" if self.listen in ("127.0.0.1", "0.0.0.0") else self.listen
        return f"https://{host}:{self.api_port}"

    @property
    def directory(self) -> Path:
        return STATE / self.name

    @property
    def run_directory(self) -> Path:
        return RUN / self.name

    @property
    def images_directory(self) -> Path:
        """The image store that its nodes share."""
        return self.directory / "images"

    @property
    def registries_file(self) -> Path:
        """Mirrors and credentials, if the user wrote any: the cluster's own file, else the machine's."""
        own = self.directory / "registries.yaml"
        return own if own.exists() else Path("/etc/sampan/registries.yaml")

    def node_number(self, node: str) -> int:
        """What its addresses, ranges and links follow from: part of its name, so that it stays when other nodes go."""
        return int(node.removeprefix("node-")) - 1

    def node_address(self, node: str) -> str:
        return str(ipaddress.ip_network(self.node_subnet)[2 + self.node_number(node)])

    def node_addresses(self, node: str) -> tuple[str, ...]:
        number = self.node_number(node)
        return tuple(str(ipaddress.ip_network(subnet)[2 + number]) for subnet in self.node_subnets)

    def node_pod_cidrs(self, node: str) -> tuple[str, ...]:
        """A /24 and a /64 of the cluster's pod ranges."""
        first = self.node_pod_cidr(node)
        if not self.pod_cidr6:
            return (first,)
        pods = ipaddress.ip_network(self.pod_cidr6)
        bits = max(64, pods.prefixlen)
        start = int(pods.network_address) + self.node_number(node) * 2 ** (128 - bits)
        return first, f"{ipaddress.ip_address(start)}/{bits}"

    def node_pod_cidr(self, node: str) -> str:
        pods = ipaddress.ip_network(self.pod_cidr)
        bits = max(24, pods.prefixlen)
        start = int(pods.network_address) + self.node_number(node) * 2 ** (32 - bits)
        return f"{ipaddress.ip_address(start)}/{bits}"

    def node_netns(self, node: str) -> Path:
        return Path("/run/netns") / f"sampan-{self.name}-{node}"

    def node_mntns(self, node: str) -> Path:
        return self.run_directory / "ns" / node

    def node_host_link(self, node: str) -> str:
        return f"sampan{self.number}-{self.node_number(node)}"

    def node_directory(self, node: str) -> Path:
        return self.directory / "nodes" / node

    def node_cgroup(self, node: str) -> str:
        return f"sampan/{self.name}/{node}"

    def save(self) -> None:
        """Write `cluster.json`, whole or not at all."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.directory / "cluster.json"
        temporary = path.with_suffix(".new")
        with open(temporary, "w") as f:
            json.dump(dataclasses.asdict(self), f, indent=1)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)


_KNOWN = frozenset(f.name for f in dataclasses.fields(ClusterConfig))


def names() -> list[str]:
    """Every cluster that has a state directory on this machine."""
    return sorted(p.parent.name for p in STATE.glob("*/cluster.json"))


def load(name: str) -> ClusterConfig | None:
    """The cluster of that name, None if there is none. Raises ClusterError if its file cannot be read."""
    path = STATE / name / "cluster.json"
    try:
        raw = json.loads(path.read_text())
        if unknown := sorted(raw.keys() - _KNOWN):
            raise ClusterError(
                f"{path} is of another version of Sampan: this one does not know {', '.join(unknown)}; use that version"
            )
        return _read(raw)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise ClusterError(
            f"{path} is damaged ({e}); restore it from a copy, or remove the cluster with `sampan delete --name {name}`"
        ) from e


def _read(raw: dict[str, Any]) -> ClusterConfig:
    """The configuration in a file's content. Raises TypeError, KeyError, AttributeError."""
    raw["nodes"] = tuple(raw["nodes"])
    raw["tls_sans"] = tuple(raw.get("tls_sans", ()))
    for field_name in admission_plugins.FIELDS:
        raw[field_name] = tuple(raw.get(field_name, ()))
    raw["ingress_nodes"] = tuple(raw.get("ingress_nodes", ("all",)))
    raw["lb_pool"] = tuple(raw.get("lb_pool", ()))
    raw["nodeport_addresses"] = tuple(raw.get("nodeport_addresses", ()))
    raw["disabled_versions"] = tuple(raw.get("disabled_versions", ()))
    raw["kubeconfigs"] = tuple(raw.get("kubeconfigs", ()))
    raw["publish"] = tuple(Publication(**p) for p in raw.get("publish", ()))
    return ClusterConfig(**raw)


def others(name: str) -> list[ClusterConfig]:
    """The other clusters of this machine, to keep out of their ways. One of another version is understood as far as it
    goes; one whose file is damaged keeps nobody else from starting (a clash with it is found out by the host)."""
    found = []
    for other in names():
        if other == name:
            continue
        try:
            raw = json.loads((STATE / other / "cluster.json").read_text())
            found.append(_read({k: v for k, v in raw.items() if k in _KNOWN}))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            print(
                f"sampan: the cluster {other} is passed over, its cluster.json cannot be read: {e}",
                file=sys.stderr,
            )
    return found


def existing(name: str) -> ClusterConfig:
    """The cluster of that name. Raises ClusterError if there is none."""
    config = load(name)
    if config is None:
        others = names()
        known = f"; there are: {', '.join(others)}" if others else ""
        raise ClusterError(f"there is no cluster {name!r}{known}")
    return config


def valid_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def remains(name: str, nodes: dict[str, Path]) -> ClusterConfig:
    """Enough of a cluster to delete it, where its own file is damaged or gone: the bridge is the one that the links of
    its nodes, given with their network namespaces, are on."""
    from sampan.network import host

    found = (re.fullmatch(r"sampan([0-9]+)-[0-9]+", host.host_link_of(netns)) for netns in nodes.values())
    number = next((int(m[1]) for m in found if m), -1)
    service, pods, subnet = ranges.default(max(number, 0))
    return ClusterConfig(
        name=name,
        number=number,
        api_port=0,
        service_cidr=service,
        pod_cidr=pods,
        node_subnet=subnet,
        nodes=tuple(nodes),
    )


@contextmanager
def locked(say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Hold the machine-wide lock under which clusters are made and removed; `say` is told if that takes a wait. Where
    there is no cluster at the end, the lock's file goes as well."""
    lock = STATE / ".lock"
    while True:
        STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        with open(lock, "w") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another command that makes or removes a cluster")
                fcntl.flock(f, fcntl.LOCK_EX)
            # Whoever held it may have removed the file meanwhile: then others lock another one.
            if not lock.exists() or lock.stat().st_ino != os.fstat(f.fileno()).st_ino:
                continue
            try:
                yield
            finally:
                if not names():
                    lock.unlink(missing_ok=True)
                    for empty in (STATE, RUN):
                        with suppress(OSError):
                            empty.rmdir()
            return
