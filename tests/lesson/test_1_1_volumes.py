"""1.1 Containers of a Pod share a volume, which lives as long as the Pod."""

from __future__ import annotations

import json
from pathlib import Path

from tests.lesson.manifests import AS_PRINTED, LESSON, with_fault
from tests.real_cluster import Kubectl, fetch

FIRST_LINE = ("sh", "-c", 'tail -n +1 -F "$0" 2>/dev/null | head -n 1')
"""The first line of a file that need not be there yet."""


def test_both_containers_see_the_file(kubectl: Kubectl) -> None:
    assert kubectl.apply(LESSON / "mc1.yaml") == "pod/mc1 created\n"
    kubectl.wait_ready("mc1")
    written = kubectl("exec", "mc1", "-c", "2nd", "--", *FIRST_LINE, "/html/index.html")
    assert written.strip()
    seen = kubectl("exec", "mc1", "-c", "1st", "--", *FIRST_LINE, "/usr/share/nginx/html/index.html")
    assert seen == written
    served = fetch(f"http://{kubectl.value('pod/mc1', '.status.podIP')}/")
    assert served.startswith(written)


def test_volume_survives_a_container_restart(kubectl: Kubectl) -> None:
    kubectl.apply(LESSON / "mc1.yaml")
    kubectl.wait_ready("mc1")
    kubectl("exec", "mc1", "-c", "1st", "--", "touch", "/usr/share/nginx/html/kept", "/gone")
    kubectl("exec", "mc1", "-c", "1st", "--", "sh", "-c", "kill -QUIT 1")
    kubectl.wait_container("mc1", "1st", "restartCount", "1")
    kubectl.wait_ready("mc1")
    kept = kubectl("exec", "mc1", "-c", "1st", "--", "ls", "/usr/share/nginx/html", "/")
    assert "kept" in kept.split(), "the volume lives with the Pod"
    assert "gone" not in kept.split(), "the container's own files do not"
    assert kubectl.value("pod/mc1", ".status.containerStatuses[?(@.name=='2nd')].restartCount") == "0"


def test_same_pod_again_has_a_new_volume(kubectl: Kubectl) -> None:
    kubectl.apply(LESSON / "mc1.yaml")
    kubectl.wait_ready("mc1")
    kubectl("exec", "mc1", "-c", "2nd", "--", "touch", "/html/kept")
    first = kubectl.value("pod/mc1", ".metadata.uid")
    assert kubectl("delete", "pod", "mc1", "--grace-period=1").startswith('pod "mc1" deleted')
    kubectl.apply(LESSON / "mc1.yaml")
    kubectl.wait_ready("mc1")
    assert kubectl.value("pod/mc1", ".metadata.uid") != first
    assert "kept" not in kubectl("exec", "mc1", "-c", "2nd", "--", "ls", "/html").split()


def requests(kubectl: Kubectl, count: int) -> list[str]:
    """The first lines that the sidecar passes on. (Before the file is there, tail says so.)"""
    with kubectl.start("logs", "--follow", "log-sidecar", "-c", "sidecar") as lines:
        passed = (line for line in lines if not line.startswith("tail:"))
        return [next(passed) for _ in range(count)]


def test_sidecar_reads_the_log_in_a_directory_of_the_node(kubectl: Kubectl, tmp_path: Path) -> None:
    directory = tmp_path / "log"
    manifest = with_fault("log-sidecar.yaml", "/var/log/sampan-lesson", str(directory))
    kubectl("apply", "-f", "-", stdin=manifest)
    kubectl.wait_ready("log-sidecar")
    assert requests(kubectl, 2) == ["request 1\n", "request 2\n"]
    kubectl("delete", "pod", "log-sidecar")
    before = (directory / "app.log").read_text()
    assert before.startswith("request 1\nrequest 2\n"), "hostPath outlives the Pod"
    kubectl("apply", "-f", "-", stdin=manifest)
    kubectl.wait_ready("log-sidecar")
    count = len(before.splitlines()) + 1
    seen = requests(kubectl, count)
    assert seen == [*before.splitlines(keepends=True), "request 1\n"]


def test_debian_without_a_command_as_printed(kubectl: Kubectl) -> None:
    """Its shell finds no input and ends: started again and again, ever more slowly."""
    kubectl.apply(AS_PRINTED / "mc1.yaml")
    kubectl.wait_container("mc1", "2nd", "state.waiting.reason", "CrashLoopBackOff")
    statuses = json.loads(kubectl("get", "pod", "mc1", "-o", "json"))["status"]["containerStatuses"]
    status = next(s for s in statuses if s["name"] == "2nd")
    ended = status["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("Completed", 0)
    assert "restarting failed container=2nd pod=mc1_" in status["state"]["waiting"]["message"]
    kubectl.wait_container("mc1", "1st", "ready", "true")
    row = kubectl("get", "pod", "mc1", "--no-headers").split()
    assert row[1] == "1/2"
    described = kubectl("describe", "pod", "mc1")
    assert "CrashLoopBackOff" in described
    assert "Back-off restarting failed container 2nd in pod mc1_" in described
