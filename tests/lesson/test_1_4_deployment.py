"""1.4 A Deployment of two, reached from outside by a NodePort Service."""

from __future__ import annotations

import json
import re

import pytest

from tests.lesson.manifests import LESSON
from tests.real_cluster import Cluster, Kubectl, curl, fetch

CONNECTION_REFUSED = 7
POD_NAME = r"nginx-deployment-[a-z0-9]+-[a-z0-9]{5}"


@pytest.fixture
def deployed(kubectl: Kubectl) -> Kubectl:
    assert kubectl("create", "-f", LESSON / "nginx.yaml") == "deployment.apps/nginx-deployment created\n"
    kubectl.wait("deployment/nginx-deployment", "condition=Available")
    assert kubectl.apply(LESSON / "nginx-svc.yml") == "service/nginx-svc created\n"
    kubectl.wait_endpoints("nginx-svc", 2)
    return kubectl


def pods(kubectl: Kubectl) -> list[str]:
    return kubectl("get", "pods", "-l", "app=nginx", "-o", "jsonpath={.items[*].metadata.name}").split()


def say_who_answers(kubectl: Kubectl) -> list[str]:
    """Give each pod a page with its name."""
    names = pods(kubectl)
    for pod in names:
        kubectl("exec", pod, "--", "sh", "-c", "hostname > /usr/share/nginx/html/index.html")
    return names


def answers(url: str, count: int = 40) -> set[str]:
    """Who answers so many connections from outside."""
    fetch(url)
    done = curl(url, *[url] * (count - 1), "--header", "Connection: close")
    assert done.code == 0, done.err
    return set(done.out.split())


def test_get(deployed: Kubectl) -> None:
    header, row = deployed("get", "service", "nginx-svc").splitlines()
    assert header.split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    address = deployed.value("service/nginx-svc", ".spec.clusterIP")
    assert row.split()[:5] == ["nginx-svc", "NodePort", address, "<none>", "8080:31844/TCP"]
    assert deployed("get", "deployment", "nginx-deployment", "--no-headers").split()[1:4] == ["2/2", "2", "2"]
    listed = deployed("get", "pods", "--no-headers").splitlines()
    assert len(listed) == 2
    for line in listed:
        assert re.match(rf"{POD_NAME} +1/1 +Running +0 ", line)


def test_describe(deployed: Kubectl) -> None:
    described = deployed("describe", "service", "nginx-svc")
    addresses = deployed("get", "pods", "-o", "jsonpath={.items[*].status.podIP}").split()
    for line in (
        "Type: NodePort",
        "Port: <unset> 8080/TCP",
        "TargetPort: 80/TCP",
        "NodePort: <unset> 31844/TCP",
    ):
        assert line in re.sub(" +", " ", described)
    (endpoints,) = re.findall(r"^Endpoints: +(.*)$", described, re.MULTILINE)
    assert sorted(endpoints.split(",")) == sorted(f"{a}:80" for a in addresses)
    described = re.sub(" +", " ", deployed("describe", "deployment", "nginx-deployment"))
    assert "Replicas: 2 desired | 2 updated | 2 total | 2 available | 0 unavailable" in described
    assert re.search(
        r"Normal ScalingReplicaSet .* deployment-controller Scaled up replica set nginx-deployment-[a-z0-9]+ from 0 to 2",
        described,
    )


def test_both_pods_are_reached_from_outside_and_inside(deployed: Kubectl, cluster: Cluster) -> None:
    names = say_who_answers(deployed)
    assert answers(f"http://{cluster.node_address}:31844/") == set(names)
    address = deployed.value("service/nginx-svc", ".spec.clusterIP")
    loop = f"for i in $(seq 40); do wget -q -O - http://{address}:8080/; done"
    deployed("run", "inside", "--image=busybox", "--restart=Never", "--", "sh", "-c", loop)
    deployed.wait("pod/inside", "jsonpath={.status.phase}=Succeeded")
    assert set(deployed("logs", "inside").split()) == set(names)


def test_scale_to_none_and_back(deployed: Kubectl, cluster: Cluster) -> None:
    url = f"http://{cluster.node_address}:31844/"
    before = pods(deployed)
    assert (
        deployed("scale", "deployment/nginx-deployment", "--replicas=0")
        == "deployment.apps/nginx-deployment scaled\n"
    )
    deployed("wait", "--for=delete", *(f"pod/{p}" for p in before), "--timeout=60s")
    deployed.wait_endpoints("nginx-svc", 0)
    assert curl(url).code == CONNECTION_REFUSED
    assert re.search(r"^Endpoints: +(<none>)?$", deployed("describe", "service", "nginx-svc"), re.MULTILINE)
    deployed("scale", "deployment/nginx-deployment", "--replicas=2")
    deployed("rollout", "status", "deployment/nginx-deployment", "--timeout=60s")
    deployed.wait_endpoints("nginx-svc", 2)
    names = say_who_answers(deployed)
    assert answers(url) == set(names)


def test_a_deleted_pod_is_replaced(deployed: Kubectl) -> None:
    gone, _ = pods(deployed)
    deployed("delete", "pod", gone, "--grace-period=1")
    deployed("rollout", "status", "deployment/nginx-deployment", "--timeout=60s")
    deployed.wait_endpoints("nginx-svc", 2)
    assert gone not in pods(deployed)
    assert len(pods(deployed)) == 2


def test_expose_instead_of_a_file(kubectl: Kubectl, cluster: Cluster) -> None:
    """The lesson's second way. The port comes from the Deployment's containers."""
    kubectl("create", "-f", LESSON / "nginx.yaml")
    said = kubectl("expose", "deployment", "nginx-deployment", "--type=NodePort", "--name=exposed")
    assert said == "service/exposed exposed\n"
    kubectl.wait_endpoints("exposed", 2)
    spec = json.loads(kubectl("get", "service", "exposed", "-o", "json"))["spec"]
    assert spec["selector"] == {"app": "nginx"}
    assert (spec["ports"][0]["port"], spec["ports"][0]["targetPort"]) == (80, 80)
    assert "Welcome to nginx!" in fetch(f"http://{cluster.node_address}:{spec['ports'][0]['nodePort']}/")
