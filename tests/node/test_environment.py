"""A container's environment and its name files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.api.resources import SERVICES
from sampan.node import hosts
from sampan.node.config import NodeConfig
from sampan.node.environment import EnvironmentFailure, container_environment, expand, service_variables
from sampan.node.hosts import hosts_file, resolv_conf
from tests.node.harness import Node

OBJECTS: dict[tuple[str, str], Object] = {
    ("configmaps", "cm"): {"kind": "ConfigMap", "data": {"a": "1", "b": "2", "1st": "x"}},
    ("secrets", "s"): {"kind": "Secret", "data": {"password": base64.b64encode(b"p").decode()}},
}
SERVICE = {
    "metadata": {"name": "my-db", "namespace": "default"},
    "spec": {
        "clusterIP": "10.96.1.2",
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
    },
}
KUBERNETES = {
    "metadata": {"name": "kubernetes", "namespace": "default"},
    "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]},
}


async def environment(container: Object, services: list[Object] | None = None, **spec: Any) -> dict[str, str]:
    async def lookup(resource: Any, name: str) -> Object | None:
        return OBJECTS.get((resource.plural, name))

    pod = {
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "annotations": {"x/y": "z"}},
        "spec": {"containers": [{"name": "c", **container}], "serviceAccountName": "sa", **spec},
    }
    return await container_environment(
        pod,
        {"name": "c", **container},
        lookup=lookup,
        services=services or [],
        node_name="node-1",
        host_ips=("172.30.0.2",),
        pod_ips=("10.244.0.5",),
        machine_cpus=2.0,
        machine_memory=1 << 30,
    )


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("$", "$"),
        ("$()", "$()"),
    ],
)
def test_expansion(text: str, out: str) -> None:
    assert expand(text, {"A": "1"}) == out


async def test_values_and_references() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(CM_a)-$(C)"},
        {"name": "C", "value": "late"},
        {"name": "EMPTY"},
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "b"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "x", "optional": True}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['x/y']"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    found = await environment({"env": env, "envFrom": [{"prefix": "CM_", "configMapRef": {"name": "cm"}}]})
    assert found == {
        "CM_a": "1",
        "CM_b": "2",
        "CM_1st": "x",
        "A": "1",
        "B": "1-1-$(C)",
        "C": "late",
        "EMPTY": "",
        "KEY": "2",
        "SECRET": "p",
        "IP": "10.244.0.5",
        "NODE": "node-1",
        "NOTE": "z",
        "CPU": "2",
    }


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "no"}}]}, 'configmap "no" not found'),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}}]},
            "couldn't find key x in Secret default/s",
        ),
    ],
)
async def test_what_is_missing(container: Object, message: str) -> None:
    with pytest.raises(EnvironmentFailure, match=message):
        await environment(container)


def test_service_variables_of_ipv6() -> None:
    """The primary address, in brackets where it stands before a port."""
    spec = {"clusterIP": "fd00:96::7", "clusterIPs": ["fd00:96::7", "10.96.1.2"], "ports": [{"port": 80}]}
    assert service_variables([{"metadata": {"name": "six"}, "spec": spec}]) == {
        "SIX_SERVICE_HOST": "fd00:96::7",
        "SIX_SERVICE_PORT": "80",
        "SIX_PORT": "tcp://[fd00:96::7]:80",
        "SIX_PORT_80_TCP": "tcp://[fd00:96::7]:80",
        "SIX_PORT_80_TCP_PROTO": "tcp",
        "SIX_PORT_80_TCP_PORT": "80",
        "SIX_PORT_80_TCP_ADDR": "fd00:96::7",
    }


async def test_service_variables() -> None:
    assert service_variables([SERVICE]) == {
        "MY_DB_SERVICE_HOST": "10.96.1.2",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_SQL": "5432",
        "MY_DB_PORT": "tcp://10.96.1.2:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.1.2:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.1.2",
        "MY_DB_PORT_53_UDP": "udp://10.96.1.2:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.1.2",
    }
    both = [SERVICE, KUBERNETES]
    own = await environment({"env": [{"name": "MY_DB_SERVICE_HOST", "value": "mine"}]}, both)
    assert own["MY_DB_SERVICE_HOST"] == "mine"
    assert own["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    without = await environment({}, both, enableServiceLinks=False)
    assert "MY_DB_SERVICE_HOST" not in without
    assert "KUBERNETES_SERVICE_PORT_HTTPS" in without


async def test_a_pod_gets_services_commands_and_files(node: Node) -> None:
    node.client.put(SERVICES, KUBERNETES)
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sleep"],
        "args": ["$(KUBERNETES_SERVICE_PORT)00"],
    }
    await node.until_true(lambda: node.agent._services.list())
    pod = node.add(containers=[container], hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}])
    await node.until_ready()
    config = node.runtime.config((await node.running()).id)
    assert list(config.args or ()) == ["44300"]
    assert {m.container_path for m in config.mounts} == {
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/dev/termination-log",
    }
    text = (node.root / "pods" / pod["metadata"]["uid"] / "etc-hosts").read_text()
    assert f"{node.status()['podIP']}\tweb\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")


def pod_with(**spec: Any) -> Object:
    return {"metadata": {"name": "web", "namespace": "ns", "uid": "u"}, "spec": spec}


def test_hosts_with_subdomain() -> None:
    text = hosts_file(pod_with(hostname="db", subdomain="sub"), ("10.1.1.1",), "cluster.local")
    assert "10.1.1.1\tdb.sub.ns.svc.cluster.local\tdb\n" in text


@pytest.mark.parametrize(
    ("spec", "servers", "out"),
    [
        ({}, (), "search lan\nnameserver 9.9.9.9\noptions edns0\n"),
        ({"dnsPolicy": "Default"}, ("10.96.0.10",), "search lan\nnameserver 9.9.9.9\noptions edns0\n"),
        (
            {},
            ("10.96.0.10",),
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan\n"
            "nameserver 10.96.0.10\noptions ndots:5\n",
        ),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["1.1.1.1"],
                    "searches": ["x"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
                },
            },
            ("10.96.0.10",),
            "search x\nnameserver 1.1.1.1\noptions ndots:2 rotate\n",
        ),
        ({"hostNetwork": True}, ("10.96.0.10",), "search lan\nnameserver 9.9.9.9\noptions edns0\n"),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            ("10.96.0.10", "fd00::a"),
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan\n"
            "nameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n",
        ),
    ],
)
def test_resolv_conf(spec: Object, servers: tuple[str, ...], out: str, tmp_path: Path) -> None:
    config = NodeConfig(name="n", ip="1.1.1.1", root=tmp_path, cluster_dns=servers)
    node = "# made by hand\nnameserver 9.9.9.9\nsearch lan\noptions edns0\n"
    assert resolv_conf(pod_with(**spec), config, node) == out


@pytest.mark.parametrize(
    ("node", "systemd", "servers"),
    [
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n", ["192.0.2.1"]),
        ("nameserver 127.0.0.53\n", "", ["10.96.0.10"]),
        ("nameserver ::1\n", "", ["10.96.0.10"]),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.2\n", "nameserver 192.0.2.1\n", ["192.0.2.2"]),
    ],
)
def test_name_servers_at_the_nodes_loopback_are_no_pods(
    node: str, systemd: str, servers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They answer in the node's network alone; what stands behind them, or the cluster's DNS, does so in their place."""
    (tmp_path / "node").write_text(node)
    if systemd:
        (tmp_path / "systemd").write_text(systemd)
    monkeypatch.setattr(hosts, "_SYSTEMD", str(tmp_path / "systemd"))
    config = NodeConfig(
        name="n",
        ip="10.0.0.1",
        root=tmp_path,
        cluster_dns=("10.96.0.10",),
        resolv_conf=str(tmp_path / "node"),
    )
    (tmp_path / "pods" / "u").mkdir(parents=True)
    hosts.write_pod_files(pod_with(dnsPolicy="Default"), config, ("10.1.1.1",))
    text = (tmp_path / "pods" / "u" / "resolv.conf").read_text()
    assert text.splitlines() == [f"nameserver {s}" for s in servers]
