"""What a cluster is: its name, addresses and nodes, kept in `cluster.json` of its state directory.

The first cluster gets the defaults; each further one takes the next free number, and with it the next API port,
bridge subnet, service and pod range. Only a value that the user gave can clash, and that is an error.
"""

from __future__ import annotations

import dataclasses
import fcntl
import ipaddress
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.cluster import admission_plugins, apiserver_files, logs, storage
from sampan.cluster.errors import ClusterError

STATE = Path(os.environ.get("SAMPAN_STATE", "/var/lib/sampan"))
RUN = Path(os.environ.get("SAMPAN_RUN", "/run/sampan"))
MOST_CLUSTERS = 60
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
        return self.nodes.index(node)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user asked for; None and 0 leave it to us."""

    name: str = "default"
    nodes: int | None = None
    store: str | None = None
    etcd_cafile: str = ""
    etcd_certfile: str = ""
    etcd_keyfile: str = ""
    apiservers: int | None = None
    api_port: int = 0
    service_cidr: str = ""
    pod_cidr: str = ""
    node_subnet: str = ""
    listen: str | None = None
    tls_sans: Sequence[str] = ()
    publish: Sequence[str] = ()
    authentication_config: str | None = None
    token_auth_file: str | None = None
    encryption_provider_config: str | None = None
    audit_policy_file: str | None = None
    audit_log_path: str | None = None
    enable_admission_plugins: Sequence[str] | None = None
    disable_admission_plugins: Sequence[str] | None = None
    logging_format: str | None = None


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
    raw["kubeconfigs"] = tuple(raw.get("kubeconfigs", ()))
    raw["publish"] = tuple(Publication(**p) for p in raw.get("publish", ()))
    return ClusterConfig(**raw)


def _others(name: str) -> list[ClusterConfig]:
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
    service, pods, subnet = _ranges(max(number, 0))
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


def parse_publish(text: str) -> Publication:
    """`[ADDR:]PORT:NODEPORT`; the address is loopback unless given. Raises ClusterError."""
    parts = text.rsplit(":", 2)
    try:
        if len(parts) == 2:
            parts.insert(0, "127.0.0.1")
        address, port, node_port = parts[0].strip("[]"), int(parts[1]), int(parts[2])
        ipaddress.ip_address(address)
        if not (0 < port < 65536 and 0 < node_port < 65536):
            raise ValueError
    except (ValueError, IndexError):
        raise ClusterError(
            f"--publish {text!r}: expected [ADDR:]PORT:NODEPORT, for example 8080:30080"
        ) from None
    return Publication(address, port, node_port)


def resolve(wishes: Wishes) -> tuple[ClusterConfig, bool]:
    """The cluster to start, and whether it is new. To be called under `locked()`. Raises ClusterError with every
    wish that cannot be had."""
    if not valid_name(wishes.name):
        raise ClusterError(
            f"--name {wishes.name!r}: a name is lower-case letters, digits and '-', at most 32, such as 'dev-2'"
        )
    present = load(wishes.name)
    if present is not None:
        return _resumed(present, wishes), False
    return _new(wishes), True


def _resumed(present: ClusterConfig, wishes: Wishes) -> ClusterConfig:
    fixed = {
        "--store": (storage.parse(wishes.store) if wishes.store else None, present.store),
        "--api-port": (wishes.api_port or None, present.api_port),
        "--service-cidr": (wishes.service_cidr or None, present.service_cidr),
        "--pod-cidr": (wishes.pod_cidr or None, present.pod_cidr),
        "--node-subnet": (wishes.node_subnet or None, present.node_subnet),
        "--nodes": (wishes.nodes, len(present.nodes)),
    }
    problems = [
        f"{flag} is {have} and cannot become {want}"
        for flag, (want, have) in fixed.items()
        if want not in (None, have)
    ]
    if problems:
        raise ClusterError(
            f"cluster {present.name!r} exists already: " + "; ".join(problems)
            + f". Use another --name, or `sampan delete --name {present.name}` first"
        )  # fmt: skip
    changes: dict[str, object] = {}
    if wishes.listen is not None:
        changes["listen"] = wishes.listen
    if wishes.tls_sans:
        changes["tls_sans"] = tuple(wishes.tls_sans)
    if wishes.publish:
        changes["publish"] = tuple(parse_publish(p) for p in wishes.publish)
    for name in ("etcd_cafile", "etcd_certfile", "etcd_keyfile"):
        if file := getattr(wishes, name):
            changes[name] = os.path.abspath(file)
    if wishes.apiservers is not None:
        changes["apiservers"] = wishes.apiservers
    changes |= apiserver_files.wished(wishes)
    changes |= admission_plugins.wished(wishes)
    if wishes.logging_format is not None:
        changes["logging_format"] = wishes.logging_format
    files = storage.problems(dataclasses.replace(wishes, store=present.store))
    wrong = [*files, *apiserver_files.problems(wishes, present), *admission_plugins.problems(wishes)]
    if wrong := [*wrong, *logs.problems(wishes.logging_format)]:
        raise ClusterError("; ".join(wrong))
    return dataclasses.replace(present, **changes) if changes else present  # type: ignore[arg-type]


def _new(wishes: Wishes) -> ClusterConfig:
    from sampan.network import host

    problems: list[str] = []
    publish: list[Publication] = []
    for text in wishes.publish:
        try:
            publish.append(parse_publish(text))
        except ClusterError as e:
            problems.append(str(e))
    listen = wishes.listen or "127.0.0.1"
    try:
        ipaddress.ip_address(listen)
    except ValueError:
        problems.append(f"--listen {listen!r} is not an address")
    count = 1 if wishes.nodes is None else wishes.nodes
    if not 1 <= count <= 20:
        problems.append(f"--nodes {count}: allowed are 1 to 20")
    problems += storage.problems(wishes)
    others = _others(wishes.name)
    given = {
        "--service-cidr": wishes.service_cidr,
        "--pod-cidr": wishes.pod_cidr,
        "--node-subnet": wishes.node_subnet,
    }
    for flag, cidr in given.items():
        problems += _cidr_problems(flag, cidr, others) if cidr else []
    clash = host.overlapping([c for c in given.values() if c and _is_network(c)])
    problems += [
        f"{flag} {cidr} overlaps the route {clash[cidr]} of this host"
        for flag, cidr in given.items()
        if cidr in clash
    ]
    if wishes.api_port and (why := _port_problem(listen, wishes.api_port)):
        problems.append(f"--api-port {wishes.api_port} {why}")
    problems += [
        f"--publish {p.address}:{p.port} {why}" for p in publish if (why := _port_problem(p.address, p.port))
    ]
    problems += apiserver_files.problems(wishes)
    problems += admission_plugins.problems(wishes)
    problems += logs.problems(wishes.logging_format)
    if problems:
        raise ClusterError("; ".join(problems))
    number = _free_number(wishes, listen, others)
    store = storage.parse(wishes.store or storage.SQLITE)
    return ClusterConfig(
        name=wishes.name,
        number=number,
        api_port=wishes.api_port or 6443 + number,
        service_cidr=wishes.service_cidr or _ranges(number)[0],
        pod_cidr=wishes.pod_cidr or _ranges(number)[1],
        node_subnet=wishes.node_subnet or _ranges(number)[2],
        nodes=tuple(f"node-{i + 1}" for i in range(count)),
        store=store,
        apiservers=wishes.apiservers or 1,
        etcd_port=_free_etcd_port(number, others) if store == storage.ETCD else 0,
        etcd_cafile=os.path.abspath(wishes.etcd_cafile) if wishes.etcd_cafile else "",
        etcd_certfile=os.path.abspath(wishes.etcd_certfile) if wishes.etcd_certfile else "",
        etcd_keyfile=os.path.abspath(wishes.etcd_keyfile) if wishes.etcd_keyfile else "",
        listen=listen,
        tls_sans=tuple(wishes.tls_sans),
        publish=tuple(publish),
        logging_format=wishes.logging_format or logs.FORMATS[0],
        **apiserver_files.wished(wishes),  # type: ignore[arg-type]
        **admission_plugins.wished(wishes),  # type: ignore[arg-type]
    )


def _ranges(number: int) -> tuple[str, str, str]:
    """Service range, pod range and node subnet of the cluster with this number."""
    pods = 244 if number == 0 else 159 + number
    return f"10.{96 + number}.0.0/16", f"10.{pods}.0.0/16", f"172.29.{number}.0/24"


def _free_number(wishes: Wishes, listen: str, others: Sequence[ClusterConfig]) -> int:
    from sampan.network import host

    taken = {c.number for c in others}
    ports = {c.api_port for c in others}
    used = [ipaddress.ip_network(n) for c in others for n in (c.service_cidr, c.pod_cidr, c.node_subnet)]
    for number in range(MOST_CLUSTERS):
        if number in taken or host.link_exists(f"sampan{number}"):
            continue
        if not wishes.api_port and (6443 + number in ports or _port_problem(listen, 6443 + number)):
            continue
        wanted = [
            default
            for default, wish in zip(
                _ranges(number), (wishes.service_cidr, wishes.pod_cidr, wishes.node_subnet), strict=True
            )
            if not wish
        ]
        if host.overlapping(wanted) or any(ipaddress.ip_network(w).overlaps(u) for w in wanted for u in used):
            continue
        return number
    raise ClusterError(
        f"no free place for a further cluster: {MOST_CLUSTERS} were tried; `sampan delete` one"
    )


def _free_etcd_port(number: int, others: Sequence[ClusterConfig]) -> int:
    """Beside etcd's usual 2379, which may well be taken."""
    taken = {c.etcd_port for c in others}
    ports = range(12379 + number, 12379 + 1000)
    return next(p for p in ports if p not in taken and not _port_problem("127.0.0.1", p))


def with_store(present: ClusterConfig, wishes: Wishes) -> ClusterConfig:
    """The cluster on another store. Raises ClusterError."""
    if problems := storage.problems(wishes):
        raise ClusterError("; ".join(problems))
    store = storage.parse(wishes.store or "")
    others = _others(present.name)
    return dataclasses.replace(
        present,
        store=store,
        etcd_port=_free_etcd_port(present.number, others) if store == storage.ETCD else 0,
        etcd_cafile=os.path.abspath(wishes.etcd_cafile) if wishes.etcd_cafile else "",
        etcd_certfile=os.path.abspath(wishes.etcd_certfile) if wishes.etcd_certfile else "",
        etcd_keyfile=os.path.abspath(wishes.etcd_keyfile) if wishes.etcd_keyfile else "",
    )


def _is_network(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        return False
    return True


def _cidr_problems(flag: str, cidr: str, others: Sequence[ClusterConfig]) -> list[str]:
    if not _is_network(cidr):
        return [f"{flag} {cidr!r} is not an IPv4 network such as 10.96.0.0/16"]
    network = ipaddress.ip_network(cidr)
    if network.prefixlen > 24:
        return [f"{flag} {cidr} is too small: at least a /24"]
    return [
        f"{flag} {cidr} overlaps {taken} of cluster {c.name!r}"
        for c in others
        for taken in (c.service_cidr, c.pod_cidr, c.node_subnet)
        if network.overlaps(ipaddress.ip_network(taken))
    ]


def busy_ports(config: ClusterConfig) -> list[str]:
    """Why the ports of a cluster that is to be started cannot be had, one line each."""
    wanted = [(config.listen, config.api_port), ("127.0.0.1", config.api_port)]
    wanted += [("127.0.0.1", config.etcd_port)] if config.etcd_port else []
    wanted += [(p.address, p.port) for p in config.publish]
    return [
        f"port {port} {why}"
        for address, port in dict.fromkeys(wanted)
        if (why := _port_problem(address, port))
    ]


def _port_problem(address: str, port: int) -> str:
    """Why a port cannot be listened on, or ""."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError as e:
            return f"is not free on {address}: {os.strerror(e.errno or 0)}"
    return ""
