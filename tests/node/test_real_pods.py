"""Pods with real containers: the agent on the OCI runtime, below an API in memory."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from sampan.api.resources import CONFIGMAPS, SECRETS
from sampan.node.agent import NodeAgent
from sampan.node.config import NodeConfig
from sampan.node.images.types import Credentials, Image, ImageError
from sampan.node.runtime.oci import OciRuntime
from tests.node.harness import Node
from tests.node.runtime.conftest import Images, LoopbackNetwork, images, network, rootfs

__all__ = ["images", "network", "rootfs"]

pytestmark = pytest.mark.root


class ImageStore:
    """The runtime tests' images as an ImageService."""

    def __init__(self, images: Images) -> None:
        self.images = images

    async def image_status(self, name: str) -> Image | None:
        return await self.images.status(name)

    async def pull_image(self, name: str, credentials: Sequence[Credentials] = ()) -> Image:
        raise ImageError(f"{name}: not found")

    async def list_images(self) -> list[Image]:
        return list(self.images.images.values())

    async def remove_image(self, name: str) -> None: ...


class RealNode(Node):
    def __init__(self, root: Path, images: Images, network: LoopbackNetwork) -> None:
        super().__init__(root)
        self.store = images
        self.network = network
        self.cgroup = f"t-node-{secrets.token_hex(4)}"
        self.oci: OciRuntime

    async def start(self) -> None:
        self.oci = OciRuntime(
            state=f"{self.root}/state",
            run=f"{self.root}/run",
            images=self.store.status,
            network=self.network,
            cgroup_parent=self.cgroup,
        )
        config = NodeConfig(name="node-1", ip="127.0.0.1", root=self.root, cgroup_root=self.cgroup)
        self.agent = NodeAgent(self.client, self.oci, ImageStore(self.store), config)
        self._task = asyncio.create_task(self.agent.run())

    async def log(self, name: str = "c", pod: str = "web") -> str:
        """What a container has written so far, without the time stamps."""
        container_id = self.container(name, pod)["containerID"].removeprefix("sampan://")
        path = await self.agent.streams.log_path(container_id)
        parts = [line.split(" ", 3)[2:] for line in path.read_text().splitlines()]
        return "".join(text + ("\n" if tag == "F" else "") for tag, text in parts)

    def left(self) -> list[str]:
        found = [str(p) for p in (self.root / "pods").iterdir()] + [
            str(p) for p in (self.root / "logs" / "pods").iterdir()
        ]
        with open("/proc/self/mountinfo") as lines:
            found += [line for line in lines if str(self.root) in line]
        for directory, _, _ in os.walk("/sys/fs/cgroup"):
            if f"{self.cgroup}/" in directory and "/pod" in directory:
                found.append(directory)
        return found


@pytest.fixture
async def real(images: Images, network: LoopbackNetwork) -> AsyncIterator[RealNode]:
    with tempfile.TemporaryDirectory(prefix="t-node-") as directory:
        node = RealNode(Path(directory), images, network)
        await node.start()
        yield node
        for pod in list(node.client.objects["pods"].values()):
            node.client.graceful_delete("default", pod["metadata"]["name"], 1)
        await node.until(lambda: not node.client.objects["pods"], 20)
        await node.until_true(lambda: not list(node.agent.workers))
        await node.stop()
        node.oci.cgroups.remove(f"/{node.cgroup}")
        assert node.left() == []


def sh(script: str, name: str = "c", **more: object) -> dict[str, object]:
    return {"name": name, "image": "busybox", "command": ["sh", "-c", script], **more}


async def test_two_containers_share_a_volume(real: RealNode) -> None:
    mounts = [{"name": "html", "mountPath": "/html"}]
    real.add(
        volumes=[{"name": "html", "emptyDir": {}}],
        containers=[
            sh("echo hello > /html/index.html; exec sleep inf", "writer", volumeMounts=mounts),
            sh("until [ -s /html/index.html ]; do sleep 0.01; done; cat /html/index.html; hostname; exec sleep inf", "reader", volumeMounts=mounts),
        ],
        terminationGracePeriodSeconds=1,
    )  # fmt: skip
    await real.until_ready()
    async with asyncio.timeout(10):
        while await real.log("reader") != "hello\nweb\n":
            await asyncio.sleep(0)


async def test_the_host_name_can_be_overridden(real: RealNode) -> None:
    real.add(
        containers=[sh("hostname; cat /etc/hostname; exec sleep inf")],
        hostnameOverride="db.example.org",
        hostname="ignored",
        subdomain="ignored-too",
        terminationGracePeriodSeconds=1,
    )
    await real.until_ready()
    async with asyncio.timeout(10):
        while await real.log("c") != "db.example.org\ndb.example.org\n":
            await asyncio.sleep(0)


async def test_configuration_reaches_the_container(real: RealNode) -> None:
    meta = {"namespace": "default"}
    real.client.put(
        CONFIGMAPS, {"metadata": {**meta, "name": "cm"}, "data": {"nginx.conf": "conf", "b": "2"}}
    )
    real.client.put(SECRETS, {"metadata": {**meta, "name": "s"}, "data": {"key": "aGlkZGVu"}})
    real.add(
        restartPolicy="Never",
        volumes=[
            {"name": "cm", "configMap": {"name": "cm"}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
        containers=[
            sh(
                "cat /etc/nginx.conf /s/key /t/token; echo; echo $B $HOSTNAME; grep web /etc/hosts | wc -l;"
                "stat -L -c %a /s/key; touch /cm/x 2>&1; echo -n done > /dev/termination-log",
                env=[{"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "b"}}}],
                volumeMounts=[
                    {"name": "cm", "mountPath": "/etc/nginx.conf", "subPath": "nginx.conf"},
                    {"name": "cm", "mountPath": "/cm"},
                    {"name": "s", "mountPath": "/s"},
                    {"name": "t", "mountPath": "/t"},
                ],
            )
        ],
    )
    await real.until(lambda: real.status().get("phase") == "Succeeded", 10)
    assert await real.log() == ("confhiddentoken-1\n2 web\n1\n400\ntouch: /cm/x: Read-only file system\n")
    assert real.container()["state"]["terminated"]["message"] == "done"


async def test_a_restart_keeps_the_volume_and_a_new_pod_does_not(real: RealNode) -> None:
    spec = {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [
            sh(
                "echo x >> /v/f; wc -l < /v/f; exec sleep inf",
                volumeMounts=[{"name": "v", "mountPath": "/v"}],
            )
        ],
        "terminationGracePeriodSeconds": 1,
    }
    real.add(**spec)
    await real.until_ready()
    async with asyncio.timeout(10):
        while await real.log() != "1\n":  # it runs; that its first command has run too is another matter
            await asyncio.sleep(0)
    container_id = real.container()["containerID"].removeprefix("sampan://")
    await real.oci.stop_container(container_id, 0)
    await real.until(lambda: real.container().get("restartCount") == 1 and real.container()["ready"], 10)
    async with asyncio.timeout(10):
        while await real.log() != "2\n":
            await asyncio.sleep(0)
    assert real.container()["lastState"]["terminated"]["exitCode"] == 137
    real.client.graceful_delete("default", "web", 1)
    await real.until(lambda: real.pod() is None, 10)
    real.add(**spec)
    await real.until_ready()
    async with asyncio.timeout(10):
        while await real.log() != "1\n":
            await asyncio.sleep(0)


async def test_a_dead_pause_gives_a_new_sandbox(real: RealNode) -> None:
    real.add(containers=[sh("exec sleep inf")], terminationGracePeriodSeconds=1)
    await real.until_ready()
    (sandbox,) = await real.oci.list_pod_sandboxes()
    os.kill(sandbox.pid, 9)
    await real.until(lambda: real.container().get("restartCount") == 1 and real.container()["ready"], 10)
    message = "Pod sandbox changed, it will be killed and re-created."
    assert ("Normal", "SandboxChanged", message) in await real.events()


async def test_the_agent_restarts_over_real_containers(real: RealNode) -> None:
    real.add(containers=[sh("exec sleep inf")], terminationGracePeriodSeconds=1)
    await real.until_ready()
    before = real.container()
    await real.stop()
    await real.start()
    real.add("second", containers=[sh("exec sleep inf")], terminationGracePeriodSeconds=1)
    await real.until_ready("second")
    assert real.container() == before


async def test_what_a_user_sees_of_a_wrong_command(real: RealNode) -> None:
    real.add(containers=[{"name": "c", "image": "busybox", "command": ["/nonesuch"]}])
    waiting = await real.until_waiting("CrashLoopBackOff")
    assert "restarting failed container=c" in waiting["message"]
    last = real.container()["lastState"]["terminated"]
    assert "/nonesuch" in last["message"]
    assert any(e[1] == "Failed" and "/nonesuch" in e[2] for e in await real.events())
