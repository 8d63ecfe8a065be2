"""1.6 port, nodePort, targetPort and containerPort."""

from __future__ import annotations

from tests.lesson.manifests import LESSON
from tests.real_cluster import Cluster, Kubectl, curl, fetch

CONNECTION_REFUSED = 7


def test_all_four_lead_to_the_container(kubectl: Kubectl, cluster: Cluster) -> None:
    """nodePort 30001 and port 8080 are the Service's; targetPort is the name of containerPort 5000."""
    kubectl.apply(LESSON / "web-30001.yaml")
    kubectl.wait_endpoints("web", 1)
    assert fetch(f"http://{cluster.node_address}:30001/") == "Hello world!"
    address = kubectl.value("service/web", ".spec.clusterIP")
    assert fetch(f"http://{address}:8080/") == "Hello world!"
    pod = kubectl.value("pods", ".items[0].status.podIP")
    assert fetch(f"http://{pod}:5000/") == "Hello world!"
    assert kubectl.value("endpointslices", ".items[0].ports[0].port") == "5000"
    for closed in (f"{address}:30001", f"{address}:5000", f"{cluster.node_address}:8080", f"{pod}:8080"):
        assert curl(f"http://{closed}/").code == CONNECTION_REFUSED, closed


def test_database_on_33306_inside_only(kubectl: Kubectl, cluster: Cluster) -> None:
    kubectl.apply(LESSON / "mysql.yaml")
    kubectl.wait_endpoints("mysql-service", 1)
    address = kubectl.value("service/mysql-service", ".spec.clusterIP")
    fetch(f"http://{address}:33306/")
    kubectl("run", "client", "--image=busybox", "--restart=Never", "--",
            "wget", "-q", "-O", "-", f"http://{address}:33306/")  # fmt: skip
    kubectl.wait("pod/client", "jsonpath={.status.phase}=Succeeded")
    assert kubectl("logs", "client") == "Hello from the database!"
    assert kubectl.value("service/mysql-service", ".spec.ports[0].nodePort") == ""
    assert kubectl("get", "svc", "mysql-service", "--no-headers").split()[4] == "33306/TCP"
    for port in (33306, 3306):
        assert curl(f"http://{cluster.node_address}:{port}/").code == CONNECTION_REFUSED
    assert curl(f"http://{address}:3306/").code == CONNECTION_REFUSED, (
        "the Service's port is 33306, not the Pod's"
    )
