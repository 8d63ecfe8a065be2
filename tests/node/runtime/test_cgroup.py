"""Both layouts of the cgroup filesystem, each on a hierarchy of this host."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.linux.syscalls import mount, unmount
from sampan.node.runtime.cgroup import Cgroups

pytestmark = pytest.mark.root


@pytest.fixture(params=[1, 2])
def cgroups(request: pytest.FixtureRequest, rootfs: str) -> Iterator[Cgroups]:
    host = Cgroups()
    if host.version == request.param:
        yield host
    elif host.version == 1:
        with tempfile.TemporaryDirectory(prefix="t-runtime-cgroup2-") as root:
            mount("none", root, "cgroup2")
            yield Cgroups(root)
            unmount(root)
    else:
        pytest.skip("this host has version 2 only")


def test_life(cgroups: Cgroups) -> None:
    pod = f"/t-runtime-{secrets.token_hex(4)}/n1/pod1"
    cgroups.create(pod)
    cgroups.create(pod)
    assert all(os.path.isdir(directory) for directory in cgroups.directories(pod))
    assert cgroups.processes(pod) == []
    sleeper = subprocess.Popen(["/bin/sleep", "1000"])
    below = f"{pod}/container"
    if cgroups.version == 1:
        cgroups.create(below)
    for directory in cgroups.directories(pod):
        # In version 2 only a cgroup that passes no controllers on may have processes: not one that `create` made.
        os.makedirs(f"{directory}/container", exist_ok=True)
        Path(directory, "container", "cgroup.procs").write_text(str(sleeper.pid))
    assert cgroups.processes(pod) == [sleeper.pid]
    cgroups.remove(pod)
    assert cgroups.processes(pod) == [sleeper.pid], "what is in use stays"
    assert not cgroups.out_of_memory(pod)
    cgroups.kill(pod)
    assert sleeper.wait(10) == -signal.SIGKILL
    cgroups.remove(pod.rsplit("/", 2)[0])
    assert not any(os.path.exists(directory) for directory in cgroups.directories(pod))
    cgroups.kill(pod)
    cgroups.remove(pod)
