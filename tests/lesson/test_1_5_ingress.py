"""1.5.4 Ingress, exactly as printed: foo.mydomain.com to foo, mydomain.com/bar/... to bar, everything else to other; one address."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import which

import pytest

from tests.lesson.manifests import AS_PRINTED, LESSON
from tests.real_cluster import Cluster, Kubectl, curl

pytestmark = pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed")


def app(name: str) -> str:
    """A Service at port 8080 whose pod says its name, whatever it is asked for."""
    answer = f"HTTP/1.0 200 OK\\r\\nContent-Length: {len(name) + 1}\\r\\n\\r\\n{name}\\n"
    serve = (
        "import socket\n"
        "listener = socket.create_server(('', 8080))\n"
        "while True:\n"
        "    c, _ = listener.accept()\n"
        "    with c:\n"
        "        c.recv(4096)\n"
        f"        c.sendall(b'{answer}')\n"
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "server",
                    "image": "training/webapp",
                    "command": ["python3", "-c", serve],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                }
            ],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 8080}]},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod, service]})


@pytest.mark.parametrize(
    "manifest", [AS_PRINTED / "my-ingress.yaml", LESSON / "my-ingress.yaml"], ids=["as printed", "put right"]
)
def test_one_address_for_three_services(kubectl: Kubectl, cluster: Cluster, manifest: Path) -> None:
    for name in ("foo", "bar", "other"):
        kubectl("apply", "-f", "-", stdin=app(name))
    done = kubectl.run("apply", "-f", manifest)
    assert done.code == 0, done.err
    assert ("use networking.k8s.io/v1 Ingress" in done.err) is (manifest == AS_PRINTED / "my-ingress.yaml")
    kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    kubectl(
        "wait", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "ingress/my-ingress", "--timeout=30s"
    )
    address = kubectl.value("ingress/my-ingress", ".status.loadBalancer.ingress[0].ip")

    def asked(host: str, path: str) -> str:
        return curl(
            f"http://{address}{path}",
            "-H",
            f"Host: {host}",
            "--retry",
            "20",
            "--retry-delay",
            "1",
            "--retry-all-errors",
            "--fail",
        ).out.strip()

    for host, path, who in (
        ("foo.mydomain.com", "/", "foo"),
        ("foo.mydomain.com", "/bar/x", "foo"),
        ("mydomain.com", "/bar/", "bar"),
        ("mydomain.com", "/bar/path", "bar"),
        ("mydomain.com", "/", "other"),
        ("mydomain.com", "/barn", "other"),
        ("elsewhere.org", "/bar/x", "other"),
    ):
        assert asked(host, path) == who, (host, path)
    row = kubectl("get", "ingress", "my-ingress", "--no-headers").split()
    assert row[:4] == ["my-ingress", "sampan", "foo.mydomain.com,mydomain.com", address]
