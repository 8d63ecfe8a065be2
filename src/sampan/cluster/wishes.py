"""What the user asked for, and the cluster that comes of it.

The first cluster gets the defaults; each further one takes the next free number, and with it the next API port,
bridge subnet, service and pod range. Only a value that the user gave can clash, and that is an error.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass

from sampan.cluster import (
    admission_plugins,
    apiserver_files,
    ingress_nodes,
    lb_pools,
    logs,
    node_monitoring,
    nodeport_addresses,
    ports,
    ranges,
    runtime_config,
    storage,
)
from sampan.cluster.config import MOST_NODES, ClusterConfig, Publication, load, others, valid_name
from sampan.cluster.errors import ClusterError

MOST_CLUSTERS = 60


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
    ip_families: str = ""
    service_cidr: str = ""
    pod_cidr: str = ""
    node_subnet: str = ""
    """Ranges, `A` or `A,B` with one of each family."""
    listen: str | None = None
    tls_sans: Sequence[str] = ()
    publish: Sequence[str] = ()
    ingress: bool = True
    ingress_nodes: str | None = None
    ingress_proxy_protocol: bool | None = None
    lb_pool: Sequence[str] | None = None
    nodeport_addresses: Sequence[str] | None = None
    authentication_config: str | None = None
    token_auth_file: str | None = None
    encryption_provider_config: str | None = None
    audit_policy_file: str | None = None
    audit_log_path: str | None = None
    enable_admission_plugins: Sequence[str] | None = None
    disable_admission_plugins: Sequence[str] | None = None
    runtime_config: Sequence[str] | None = None
    node_monitor_grace_period: str | None = None
    default_not_ready_toleration_seconds: int | None = None
    default_unreachable_toleration_seconds: int | None = None
    logging_format: str | None = None


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
    config = _new(wishes) if present is None else _resumed(present, wishes)
    lb_pools.check(config, others(wishes.name))
    return config, present is None


def _resumed(present: ClusterConfig, wishes: Wishes) -> ClusterConfig:
    asked = ranges.given(wishes, len(present.nodes))
    fixed = {
        "--store": (storage.parse(wishes.store) if wishes.store else None, present.store),
        "--api-port": (wishes.api_port or None, present.api_port),
        "--ip-families": (wishes.ip_families.replace(" ", "") or None, ",".join(present.families)),
        **{
            f"{ranges.flag_of(name)}{' (IPv6)' if name.endswith('6') else ''}": (
                cidr,
                getattr(present, name) or "none",
            )
            for name, cidr in asked.cidrs.items()
        },
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
    changes |= runtime_config.wished(wishes)
    changes |= lb_pools.wished(wishes)
    changes |= ingress_nodes.wished(wishes)
    changes |= nodeport_addresses.wished(wishes)
    changes |= node_monitoring.wished(wishes)
    if wishes.logging_format is not None:
        changes["logging_format"] = wishes.logging_format
    files = storage.problems(dataclasses.replace(wishes, store=present.store))
    wrong = [*files, *apiserver_files.problems(wishes, present), *admission_plugins.problems(wishes)]
    wrong += [*runtime_config.problems(wishes), *node_monitoring.problems(wishes)]
    wrong += [*lb_pools.problems(wishes), *nodeport_addresses.problems(wishes)]
    wrong += ingress_nodes.problems(wishes, present.nodes, new=False)
    if wrong := [*wrong, *logs.problems(wishes.logging_format)]:
        raise ClusterError("; ".join(wrong))
    return dataclasses.replace(present, **changes) if changes else present  # type: ignore[arg-type]


def _new(wishes: Wishes) -> ClusterConfig:
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
    if not 1 <= count <= MOST_NODES:
        problems.append(f"--nodes {count}: allowed are 1 to {MOST_NODES}")
    problems += storage.problems(wishes)
    present = others(wishes.name)
    asked = ranges.given(wishes, count)
    problems += [*asked.problems, *ranges.clashes(asked.cidrs, present)]
    if wishes.api_port and (why := ports.problem(listen, wishes.api_port)):
        problems.append(f"--api-port {wishes.api_port} {why}")
    problems += [
        f"--publish {p.address}:{p.port} {why}" for p in publish if (why := ports.problem(p.address, p.port))
    ]
    problems += apiserver_files.problems(wishes)
    problems += admission_plugins.problems(wishes)
    problems += [*runtime_config.problems(wishes), *node_monitoring.problems(wishes)]
    problems += [*lb_pools.problems(wishes), *nodeport_addresses.problems(wishes)]
    problems += ingress_nodes.problems(wishes, tuple(f"node-{i + 1}" for i in range(count)))
    problems += logs.problems(wishes.logging_format)
    if problems:
        raise ClusterError("; ".join(problems))
    number = _free_number(wishes, listen, present, asked)
    store = storage.parse(wishes.store or storage.SQLITE)
    return ClusterConfig(
        name=wishes.name,
        number=number,
        api_port=wishes.api_port or 6443 + number,
        **{**ranges.defaults(number, dual=asked.dual), **asked.cidrs},  # type: ignore[arg-type]
        nodes=tuple(f"node-{i + 1}" for i in range(count)),
        store=store,
        apiservers=wishes.apiservers or 1,
        etcd_port=ports.free_for_etcd(number, present) if store == storage.ETCD else 0,
        etcd_cafile=os.path.abspath(wishes.etcd_cafile) if wishes.etcd_cafile else "",
        etcd_certfile=os.path.abspath(wishes.etcd_certfile) if wishes.etcd_certfile else "",
        etcd_keyfile=os.path.abspath(wishes.etcd_keyfile) if wishes.etcd_keyfile else "",
        listen=listen,
        tls_sans=tuple(wishes.tls_sans),
        publish=tuple(publish),
        logging_format=wishes.logging_format or logs.FORMATS[0],
        **apiserver_files.wished(wishes),  # type: ignore[arg-type]
        **admission_plugins.wished(wishes),  # type: ignore[arg-type]
        **runtime_config.wished(wishes),  # type: ignore[arg-type]
        **ingress_nodes.wished(wishes),  # type: ignore[arg-type]
        **lb_pools.wished(wishes),  # type: ignore[arg-type]
        **nodeport_addresses.wished(wishes),  # type: ignore[arg-type]
        **node_monitoring.wished(wishes),
    )


def _free_number(wishes: Wishes, listen: str, present: Sequence[ClusterConfig], asked: ranges.Given) -> int:
    from sampan.network import host

    taken = {c.number for c in present}
    api_ports = {c.api_port for c in present}
    for number in range(MOST_CLUSTERS):
        if number in taken or host.link_exists(f"sampan{number}"):
            continue
        if not wishes.api_port and (6443 + number in api_ports or ports.problem(listen, 6443 + number)):
            continue
        wanted = {**ranges.defaults(number, dual=asked.dual), **asked.cidrs}
        if ranges.clashes(wanted, present):
            continue
        return number
    raise ClusterError(
        f"no free place for a further cluster: {MOST_CLUSTERS} were tried; `sampan delete` one"
    )


def with_store(present: ClusterConfig, wishes: Wishes) -> ClusterConfig:
    """The cluster on another store. Raises ClusterError."""
    if problems := storage.problems(wishes):
        raise ClusterError("; ".join(problems))
    store = storage.parse(wishes.store or "")
    return dataclasses.replace(
        present,
        store=store,
        etcd_port=ports.free_for_etcd(present.number, others(present.name)) if store == storage.ETCD else 0,
        etcd_cafile=os.path.abspath(wishes.etcd_cafile) if wishes.etcd_cafile else "",
        etcd_certfile=os.path.abspath(wishes.etcd_certfile) if wishes.etcd_certfile else "",
        etcd_keyfile=os.path.abspath(wishes.etcd_keyfile) if wishes.etcd_keyfile else "",
    )
