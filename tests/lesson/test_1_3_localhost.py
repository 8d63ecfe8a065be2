"""1.3 The containers of a Pod share one network: nginx finds the web application on localhost."""

from __future__ import annotations

import re

import pytest

from tests.lesson.manifests import LESSON, with_fault
from tests.real_cluster import Cluster, Kubectl, curl, fetch

CONNECTION_REFUSED = 7


@pytest.fixture
def mc3(kubectl: Kubectl) -> Kubectl:
    """Steps 1 and 2 of the lesson are done."""
    said = kubectl.apply(LESSON / "mc3-nginx-conf.yaml", LESSON / "mc3.yaml")
    assert said == "configmap/mc3-nginx-conf created\npod/mc3 created\n"
    kubectl.wait_ready("mc3")
    return kubectl


def test_configuration_comes_from_the_config_map_by_sub_path(mc3: Kubectl) -> None:
    given = mc3.value("configmap/mc3-nginx-conf", r".data.nginx\.conf")
    assert mc3("exec", "mc3", "-c", "nginx", "--", "cat", "/etc/nginx/nginx.conf") == given
    assert "mime.types" in mc3("exec", "mc3", "-c", "nginx", "--", "ls", "/etc/nginx"), (
        "the one file is mounted, the rest of the directory is the image's"
    )


def test_localhost_leads_to_the_other_container(mc3: Kubectl) -> None:
    for port in ("5000", "80"):
        said = mc3("exec", "mc3", "-c", "nginx", "--", "wget", "-q", "-O", "-", f"http://localhost:{port}/")
        assert said == "Hello world!"


@pytest.mark.parametrize("container", ["webapp", "nginx"])
def test_netstat_shows_both_ports_in_either_container(mc3: Kubectl, container: str) -> None:
    shown = mc3("exec", "mc3", "-c", container, "--", "netstat", "-lntp")
    assert set(re.findall(r"0\.0\.0\.0:(\d+) .* LISTEN", shown)) == {"80", "5000"}, shown


def test_hostname_is_the_name_of_the_pod(mc3: Kubectl) -> None:
    for container in ("webapp", "nginx"):
        assert mc3("exec", "mc3", "-c", container, "--", "hostname") == "mc3\n"
        assert "\tmc3\n" in mc3("exec", "mc3", "-c", container, "--", "cat", "/etc/hosts")


def test_the_pause_container_holds_what_the_containers_share(mc3: Kubectl) -> None:
    """Network, IPC and host name are one and the same; files and processes are each container's own."""

    def namespaces(container: str) -> dict[str, str]:
        names = ("net", "ipc", "uts", "mnt", "pid")
        paths = [f"/proc/self/ns/{n}" for n in names]
        shown = mc3(
            "exec",
            "mc3",
            "-c",
            container,
            "--",
            "sh",
            "-c",
            f"for f in {' '.join(paths)}; do readlink $f; done",
        )
        return dict(zip(names, shown.split(), strict=True))

    webapp, nginx = namespaces("webapp"), namespaces("nginx")
    assert {n for n in webapp if webapp[n] == nginx[n]} == {"net", "ipc", "uts"}
    # The network outlives every container of the Pod, for it is not theirs.
    mc3("exec", "mc3", "-c", "nginx", "--", "sh", "-c", "kill -QUIT 1")
    mc3.wait_container("mc3", "nginx", "restartCount", "1")
    mc3.wait_ready("mc3")
    assert namespaces("nginx")["net"] == webapp["net"]


def test_two_containers_cannot_have_one_port(kubectl: Kubectl) -> None:
    kubectl.apply(LESSON / "port-clash.yaml")
    kubectl.wait_container("port-clash", "clash", "state.waiting.reason", "CrashLoopBackOff")
    assert "Address already in use" in kubectl("logs", "port-clash", "-c", "clash")
    assert kubectl.value("pod/port-clash", ".status.containerStatuses[?(@.name=='webapp')].ready") == "true"


def test_expose_describe_and_curl(mc3: Kubectl, cluster: Cluster) -> None:
    """Steps 3 and 4, and the answer."""
    assert mc3("expose", "pod", "mc3", "--type=NodePort", "--port=80") == "service/mc3 exposed\n"
    mc3.wait_endpoints("mc3", 1)
    port = mc3.value("service/mc3", ".spec.ports[0].nodePort")
    described = dict(re.findall(r"^(\S[^:]*):[ \t]*(.*)$", mc3("describe", "svc", "mc3"), re.MULTILINE))
    pod = mc3.value("pod/mc3", ".status.podIP")
    expected = {
        "Name": "mc3",
        "Namespace": mc3.namespace,
        "Labels": "app=mc3",
        "Selector": "app=mc3",
        "Type": "NodePort",
        "IP": mc3.value("service/mc3", ".spec.clusterIP"),
        "Port": "<unset>  80/TCP",
        "TargetPort": "80/TCP",
        "NodePort": f"<unset>  {port}/TCP",
        "Endpoints": f"{pod}:80",
        "Session Affinity": "None",
        "External Traffic Policy": "Cluster",
        "Events": "<none>",
    }
    assert expected.items() <= described.items()
    assert 30000 <= int(port) <= 32767
    assert fetch(f"http://{cluster.node_address}:{port}/") == "Hello world!"


def test_port_5000_is_not_offered_by_the_service(mc3: Kubectl, cluster: Cluster) -> None:
    mc3.apply(LESSON / "mc3-service.yaml")
    mc3.wait_endpoints("mc3", 1)
    address = mc3.value("service/mc3", ".spec.clusterIP")
    assert fetch(f"http://{address}/") == "Hello world!"
    assert curl(f"http://{address}:5000/").code == CONNECTION_REFUSED
    assert curl(f"http://{cluster.node_address}:5000/").code == CONNECTION_REFUSED


def test_port_5000_of_the_pod_does_answer_from_outside_of_it(mc3: Kubectl) -> None:
    """Where the lesson errs: containerPort is information. What listens on the Pod's address can be reached there."""
    address = mc3.value("pod/mc3", ".status.podIP")
    mc3(
        "run",
        "outside",
        "--image=busybox",
        "--restart=Never",
        "--",
        "wget",
        "-q",
        "-O",
        "-",
        f"http://{address}:5000/",
    )
    mc3.wait("pod/outside", "jsonpath={.status.phase}=Succeeded")
    assert mc3("logs", "outside") == "Hello world!"


def test_misspelt_worker_connections(kubectl: Kubectl) -> None:
    """nginx refuses its configuration: its words are in the log, the reason in the Pod's status."""
    manifest = with_fault("mc3-nginx-conf.yaml", "worker_connections", "worker_conections")
    kubectl("apply", "-f", "-", stdin=manifest)
    kubectl.apply(LESSON / "mc3.yaml")
    kubectl.wait_container("mc3", "nginx", "state.waiting.reason", "CrashLoopBackOff")
    said = kubectl("logs", "mc3", "-c", "nginx")
    assert 'unknown directive "worker_conections" in /etc/nginx/nginx.conf:' in said
    assert "CrashLoopBackOff" in kubectl("get", "pod", "mc3") or "Error" in kubectl("get", "pod", "mc3")
    assert (
        kubectl.value(
            "pod/mc3", ".status.containerStatuses[?(@.name=='nginx')].lastState.terminated.exitCode"
        )
        == "1"
    )


def test_configuration_without_a_server(kubectl: Kubectl, cluster: Cluster) -> None:
    """The lesson's nginx.conf, its spelling put right, still has no `server` block: nginx runs and listens nowhere."""
    text = (LESSON / "mc3-nginx-conf.yaml").read_text()
    start = text.index("      server {\n")
    end = text.rindex("    }")
    kubectl("apply", "-f", "-", stdin=text[:start] + text[end:])
    kubectl.apply(LESSON / "mc3.yaml", LESSON / "mc3-service.yaml")
    kubectl.wait_ready("mc3")
    kubectl.wait_endpoints("mc3", 1)
    shown = kubectl("exec", "mc3", "-c", "nginx", "--", "netstat", "-lnt")
    assert re.findall(r":(\d+) .* LISTEN", shown) == ["5000"]
    port = kubectl.value("service/mc3", ".spec.ports[0].nodePort")
    assert curl(f"http://{cluster.node_address}:{port}/").code == CONNECTION_REFUSED
