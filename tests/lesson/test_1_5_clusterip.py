"""1.5.1 ClusterIP: an address inside the cluster, in front of three Pods; `kubectl proxy` leads to it from outside."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

import pytest

from tests.lesson.manifests import LESSON
from tests.real_cluster import Cluster, Kubectl, curl, fetch

CANNOT_RESOLVE = 6
CONNECTION_REFUSED = 7


@pytest.fixture
def served(kubectl: Kubectl) -> Kubectl:
    kubectl.apply(LESSON / "my-app.yaml", LESSON / "my-internal-service.yaml")
    kubectl.wait_endpoints("my-internal-service", 3)
    return kubectl


def pods(kubectl: Kubectl) -> set[str]:
    return set(kubectl("get", "pods", "-l", "app=my-app", "-o", "jsonpath={.items[*].metadata.name}").split())


def ask_from_a_pod(kubectl: Kubectl, url: str, count: int) -> list[str]:
    """Who answered, out of a Pod of its own."""
    loop = f"for i in $(seq {count}); do wget -q -O - {url}; echo; done"
    kubectl("run", "client", "--image=busybox", "--restart=Never", "--", "sh", "-c", loop)
    kubectl.wait("pod/client", "jsonpath={.status.phase}=Succeeded")
    return re.findall(r"Hello (\S+)!", kubectl("logs", "client"))


def test_its_address_is_not_of_the_pod_network(served: Kubectl, cluster: Cluster) -> None:
    address = ip_address(served.value("service/my-internal-service", ".spec.clusterIP"))
    assert address in ip_network(cluster.config.service_cidr)
    assert address not in ip_network(cluster.config.pod_cidr)
    addresses = served("get", "pods", "-o", "jsonpath={.items[*].status.podIP}").split()
    assert all(ip_address(a) in ip_network(cluster.config.pod_cidr) for a in addresses)
    assert served("get", "svc", "my-internal-service", "--no-headers").split()[1:5] == [
        "ClusterIP", str(address), "<none>", "80/TCP",
    ]  # fmt: skip


def test_spread_over_three_pods(served: Kubectl) -> None:
    address = served.value("service/my-internal-service", ".spec.clusterIP")
    answers = ask_from_a_pod(served, f"http://{address}/", 60)
    assert len(answers) == 60
    assert set(answers) == pods(served)


def test_a_pod_whose_label_is_changed_gets_nothing(served: Kubectl) -> None:
    served("delete", "deployment", "my-app", "--cascade=orphan")
    served("delete", "replicaset", "--all", "--cascade=orphan")
    gone, *_ = sorted(pods(served))
    served("label", "pod", gone, "app=other", "--overwrite")
    served.wait_endpoints("my-internal-service", 2)
    address = served.value("service/my-internal-service", ".spec.clusterIP")
    answers = ask_from_a_pod(served, f"http://{address}/", 40)
    assert set(answers) == pods(served)
    assert gone not in answers


def test_not_reachable_by_name_from_outside(served: Kubectl) -> None:
    for name in ("my-internal-service", f"my-internal-service.{served.namespace}.svc.cluster.local"):
        assert curl(f"http://{name}/").code == CANNOT_RESOLVE


def test_reachable_by_name_from_a_pod(served: Kubectl) -> None:
    assert set(ask_from_a_pod(served, "http://my-internal-service/", 40)) == pods(served)


def test_without_endpoints_refused_at_once(kubectl: Kubectl) -> None:
    kubectl.apply(LESSON / "my-internal-service.yaml")
    address = kubectl.value("service/my-internal-service", ".spec.clusterIP")
    refused = curl(f"http://{address}/", "--max-time", "3")
    assert refused.code == CONNECTION_REFUSED, refused.err


def test_session_affinity(served: Kubectl) -> None:
    served.apply(LESSON / "my-affine-service.yaml")
    served.wait_endpoints("my-affine-service", 3)
    address = served.value("service/my-affine-service", ".spec.clusterIP")
    answers = ask_from_a_pod(served, f"http://{address}/", 30)
    assert len(answers) == 30
    assert len(set(answers)) == 1
    assert "Session Affinity:         ClientIP" in served("describe", "svc", "my-affine-service")


def test_kubectl_proxy(served: Kubectl) -> None:
    """Both forms of the URL: today's, and the lesson's old one, which upstream took away with 1.10."""
    names = {f"Hello {p}!" for p in pods(served)}
    with served.start("proxy", "--port=0") as lines:
        (address,) = re.findall(r"^Starting to serve on (\S+)$", lines.readline())
        service = f"namespaces/{served.namespace}/services/my-internal-service:http"
        assert fetch(f"http://{address}/api/v1/{service}/proxy/") in names
        assert fetch(f"http://{address}/api/v1/proxy/{service}/") in names
        missing = curl(
            f"http://{address}/api/v1/namespaces/{served.namespace}/services/nobody:http/proxy/", "--no-fail"
        )
        assert 'services \\"nobody\\" not found' in missing.out


def test_the_kernel_has_it_in_rules_that_a_person_can_read(served: Kubectl, cluster: Cluster) -> None:
    """The lesson says iptables; here the same is done by nftables."""
    address = served.value("service/my-internal-service", ".spec.clusterIP")
    rules = cluster.in_node("nft", "list", "table", "ip", "sampan").out
    assert f"{served.namespace}/my-internal-service" in rules
    for found in (address, *served("get", "pods", "-o", "jsonpath={.items[*].status.podIP}").split()):
        assert found in rules
