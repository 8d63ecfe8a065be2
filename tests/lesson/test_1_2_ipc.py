"""1.2 The containers of a Pod share an IPC namespace; two Pods do not."""

from __future__ import annotations

from tests.lesson.manifests import LESSON, with_fault
from tests.real_cluster import Kubectl

WAIT = """
$| = 1;
my $id = semget(4711, 1, 0600 | 01000) // die "semget: $!";
print "waiting\\n";
semop($id, pack("s!3", 0, -1, 0)) or die "semop: $!";
print "passed\\n";
"""
RELEASE = """
my $id = semget(4711, 1, 0600) // die "semget: $!";
semop($id, pack("s!3", 0, 1, 0)) or die "semop: $!";
"""
WRITE = """
import os
f = os.open("/dev/shm/lesson", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(f, 4096)
os.pwrite(f, b"hello", 0)
"""
"""What shm_open(3) does: a POSIX shared memory object is a file below /dev/shm. (The image's small Python has no mmap.)"""
READ = """
import os
f = os.open("/dev/shm/lesson", os.O_RDONLY)
print(os.pread(f, 5, 0).decode())
"""


def test_systemv_semaphore_between_containers(kubectl: Kubectl) -> None:
    """One container waits at the semaphore until the other lets it pass."""
    kubectl.apply(LESSON / "ipc.yaml")
    kubectl.wait_ready("ipc")
    with kubectl.start("exec", "ipc", "-c", "1st", "--", "perl", "-e", WAIT) as lines:
        assert lines.readline() == "waiting\n"
        shown = kubectl("exec", "ipc", "-c", "2nd", "--", "ipcs", "--semaphores")
        assert "0x00001267" in shown
        kubectl("exec", "ipc", "-c", "2nd", "--", "perl", "-e", RELEASE)
        assert lines.readline() == "passed\n"


def test_posix_shared_memory_between_containers(kubectl: Kubectl) -> None:
    kubectl.apply(LESSON / "ipc.yaml")
    kubectl.wait_ready("ipc")
    kubectl("exec", "ipc", "-c", "1st", "--", "python3", "-c", WRITE)
    assert kubectl("exec", "ipc", "-c", "2nd", "--", "python3", "-c", READ) == "hello\n"


def test_not_between_two_pods(kubectl: Kubectl) -> None:
    kubectl.apply(LESSON / "ipc.yaml")
    kubectl("apply", "-f", "-", stdin=with_fault("ipc.yaml", "  name: ipc\n", "  name: other\n"))
    kubectl.wait_ready("ipc", "other")
    kubectl("exec", "ipc", "-c", "1st", "--", "ipcmk", "--semaphore", "1")
    kubectl("exec", "ipc", "-c", "1st", "--", "python3", "-c", WRITE)
    assert "0x" in kubectl("exec", "ipc", "-c", "2nd", "--", "ipcs", "--semaphores")
    assert "0x" not in kubectl("exec", "other", "-c", "1st", "--", "ipcs", "--semaphores")
    refused = kubectl.run("exec", "other", "-c", "1st", "--", "python3", "-c", READ)
    assert refused.code == 1
    assert "No such file or directory: '/dev/shm/lesson'" in refused.err
