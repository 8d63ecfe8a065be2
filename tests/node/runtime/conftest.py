"""A real runtime on directories of its own, and an image made from the host's static busybox."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sampan.linux.syscalls import (
    CLONE_FS,
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    mount,
    setns,
    unshare,
)
from sampan.network.types import PodAddresses
from sampan.node.images.types import Image, ImageConfig
from sampan.node.runtime.check import find_programs, hybrid_cgroups
from sampan.node.runtime.oci import OciRuntime
from sampan.node.runtime.pause import in_own_thread
from sampan.node.runtime.types import SandboxConfig


class LoopbackNetwork:
    """A PodNetwork that brings loopback up and nothing else."""

    def __init__(self) -> None:
        self.attached: dict[str, PodAddresses] = {}

    async def attach(self, sandbox_id: str, netns: str) -> PodAddresses:
        await in_own_thread(lambda: self._up(netns))
        self.attached[sandbox_id] = PodAddresses(("127.0.0.1",))
        return self.attached[sandbox_id]

    def _up(self, netns: str) -> None:
        descriptor = os.open(netns, os.O_RDONLY)
        setns(descriptor, CLONE_NEWNET)
        os.close(descriptor)
        subprocess.run(["/bin/busybox", "ip", "link", "set", "lo", "up"], check=True)

    async def detach(self, sandbox_id: str, netns: str) -> None:
        self.attached.pop(sandbox_id, None)

    async def addresses(self, sandbox_id: str) -> PodAddresses | None:
        return self.attached.get(sandbox_id)


class Images:
    """Images by id; `status` is what a runtime asks."""

    def __init__(self, rootfs: str) -> None:
        self.rootfs = rootfs
        self.images: dict[str, Image] = {}
        self.add("busybox", ImageConfig(cmd=("sleep", "inf")))

    def add(self, id: str, config: ImageConfig, *layers: str) -> str:
        self.images[id] = Image(
            id=id,
            tags=(f"docker.io/library/{id}:latest",),
            digests=(f"docker.io/library/{id}@sha256:0",),
            size=1,
            pinned=False,
            layers=(self.rootfs, *layers),
            config=config,
        )
        return id

    async def status(self, name: str) -> Image | None:
        return self.images.get(name)


@contextmanager
def own_mounts() -> Iterator[None]:
    """This thread, and what it starts, in a mount namespace of its own in which crun works, as a node's: without the
    hybrid layout's version 2. What is mounted elsewhere still arrives here."""
    home = os.getcwd()
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CLONE_NEWNS)
    try:
        mount("none", "/", flags=MS_REC | MS_SLAVE)
        if hybrid_cgroups():
            # Covered, not unmounted: crun makes empty directories there, which should not be the host's.
            mount("tmpfs", "/sys/fs/cgroup/unified", "tmpfs", data="mode=755,size=1m")
        mount("none", "/", flags=MS_REC | MS_SHARED)
        yield
    finally:
        # Not to stay here is what other tests rely on: a cluster that is deleted from here would leave its cgroups.
        unshare(CLONE_FS)
        setns(before, CLONE_NEWNS)
        os.close(before)
        os.chdir(home)


@pytest.fixture(scope="module")
def rootfs() -> Iterator[str]:
    if os.geteuid():
        pytest.skip("needs root")
    with own_mounts(), tempfile.TemporaryDirectory(prefix="t-runtime-image-") as root:
        for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev"):
            os.mkdir(f"{root}/{name}")
        shutil.copy2("/bin/busybox", f"{root}/bin/busybox")
        for applet in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
            if applet != "busybox":
                os.symlink("busybox", f"{root}/bin/{applet}")
        Path(f"{root}/etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv:/bin/sh\n")
        Path(f"{root}/etc/group").write_text("root:x:0:\nweb:x:44:\nlogs:x:55:web\n")
        os.chmod(f"{root}/tmp", 0o1777)
        os.chmod(root, 0o755)
        yield root


@pytest.fixture
def images(rootfs: str) -> Images:
    return Images(rootfs)


@pytest.fixture
def network() -> LoopbackNetwork:
    return LoopbackNetwork()


class Place:
    """Where a runtime lives; a second one on the same place takes up what the first left."""

    def __init__(self, directory: str, images: Images, network: LoopbackNetwork) -> None:
        self.directory = directory
        self.images = images
        self.network = network
        self.cgroup = f"/t-runtime-{secrets.token_hex(4)}"
        self.runtimes: list[OciRuntime] = []

    async def runtime(self, program: str = "") -> OciRuntime:
        """A started runtime, with crun or runc if one of them is given."""
        programs = find_programs()
        if program:
            programs = replace(programs, runtime=shutil.which(program) or pytest.skip(f"needs {program}"))
        runtime = OciRuntime(
            state=f"{self.directory}/state",
            run=f"{self.directory}/run",
            images=self.images.status,
            network=self.network,
            programs=programs,
            cgroup_parent=self.cgroup,
        )
        await runtime.start()
        self.runtimes.append(runtime)
        return runtime

    def sandbox(self, name: str = "pod", **more: object) -> SandboxConfig:
        return SandboxConfig(
            namespace="default",
            name=name,
            uid=f"uid-{name}",
            hostname=name,
            log_directory=f"{self.directory}/logs/{name}",
            **more,  # type: ignore[arg-type]
        )

    def left(self) -> list[str]:
        """What is still there and should not be when all has been removed."""
        found = []
        for kind in ("state/sandboxes", "state/containers", "run/exits", "run/netns", "run/shm", "run/exec"):
            found += [f"{kind}/{name}" for name in os.listdir(f"{self.directory}/{kind}")]
        with open("/proc/self/mountinfo") as file:
            found += [line for line in file if self.directory in line]
        for directory, _, _ in os.walk("/sys/fs/cgroup"):
            if f"{self.cgroup}/" in directory:
                found.append(directory)
        return found


@pytest.fixture
async def place(images: Images, network: LoopbackNetwork) -> AsyncIterator[Place]:
    # conmon leaves a file named `oom` where it is started when memory runs out.
    with tempfile.TemporaryDirectory(prefix="t-runtime-") as directory, chdir(directory):
        place = Place(directory, images, network)
        yield place
        for runtime in place.runtimes:
            await runtime.close()
        last = await place.runtime()
        async with asyncio.timeout(30):
            for sandbox in await last.list_pod_sandboxes():
                await last.remove_pod_sandbox(sandbox.id)
            await last.close()
        last.cgroups.remove(place.cgroup)
        assert place.left() == []
