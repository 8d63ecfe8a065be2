"""Several API servers on one etcd: the one that does the work is killed under load, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.resources import CONFIGMAPS, DEPLOYMENTS, LEASES, PODS, REPLICASETS, SERVICES
from sampan.client.https import HttpsClient
from sampan.client.informer import Informer
from sampan.client.leaderelection import LEASE_SECONDS
from sampan.client.types import ConnectionLost
from tests import real_cluster
from tests.cluster.test_etcd import pids
from tests.cluster.test_lifecycle import Owner, owner  # noqa: F401

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed"),
]
T = TypeVar("T")
SERVERS = ("control-plane", "control-plane-2")


@asynccontextmanager
async def connected(name: str) -> AsyncIterator[HttpsClient]:
    client = HttpsClient.from_kubeconfig(Path("/var/lib/sampan", name, "kubeconfig"))
    try:
        yield client
    finally:
        await client.close()


async def sure(attempt: Callable[[], Awaitable[T]]) -> T:
    """Do what may safely be done again until a server answers."""
    while True:
        try:
            return await attempt()
        except ConnectionLost:
            continue
        except StatusError as e:
            if e.code not in (500, 503, 504):
                raise


class Writer:
    """Counts up a ConfigMap of its own; each step is sure before the next. What was acknowledged must be there."""

    def __init__(self, client: HttpsClient, number: int) -> None:
        self.client = client
        self.name = f"counter-{number}"
        self.count = 0
        self.unsure = 0

    async def run(self, stop: asyncio.Event) -> None:
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}, "data": {"n": "0"}}
        await self.client.create(CONFIGMAPS, made, namespace="default")
        while not stop.is_set():
            present = await self._read()
            assert int(present["data"]["n"]) == self.count, (
                "a write that was acknowledged is gone, or came twice"
            )
            present["data"]["n"] = str(self.count + 1)
            try:
                await self.client.update(CONFIGMAPS, present)
            except (ConnectionLost, StatusError) as e:
                # 409: aiohttp sends a PUT once more by itself where the connection that it had kept breaks; then the
                # second is answered, and the first may have taken effect. The next read tells.
                if isinstance(e, StatusError) and e.code not in (409, 500, 503, 504):
                    raise
                # With the same resourceVersion it can take effect once at most.
                self.unsure += 1
                await self._settle(present)
            self.count += 1

    async def _settle(self, wanted: Object) -> None:
        try:
            await sure(lambda: self.client.update(CONFIGMAPS, wanted))
        except StatusError as e:
            if e.reason != "Conflict":  # which says that the first one has
                raise

    async def _read(self) -> Object:
        return await sure(lambda: self.client.get(CONFIGMAPS, "default", self.name))


def deployment(name: str, replicas: int) -> Object:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                # No node takes them: what is counted is what controllers do, not how fast containers start.
                "spec": {"nodeSelector": {"none": "such"}, "containers": [{"name": "c", "image": "busybox"}]},
            },
        },
    }


class Pods:
    """All that were ever made, as a client sees it that follows over whatever server there is."""

    def __init__(self, client: HttpsClient) -> None:
        self.informer = Informer(client, PODS, "default")
        self.informer.add_handler(self._told)
        self.made: set[str] = set()
        self._changed = asyncio.Condition()

    def _told(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.made.add(new["metadata"]["uid"])
        asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def alive(self) -> int:
        return sum("deletionTimestamp" not in p["metadata"] for p in self.informer.list())

    async def until(self, holds: Callable[[], bool]) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(holds), 60)


async def scale(client: HttpsClient, replicas: int) -> None:
    patch = {"spec": {"replicas": replicas}}
    await sure(lambda: client.patch(DEPLOYMENTS, "default", "load", patch, subresource="scale"))


async def holder(client: HttpsClient, lease: str) -> str:
    found = await sure(lambda: client.get(LEASES, "kube-system", lease))
    return str(found["spec"]["holderIdentity"])


def leader_part(name: str, identity: str) -> str:
    """The part that said that it leads."""
    logs = Path("/var/lib/sampan", name, "logs")
    (part,) = [s for s in SERVERS if f"{identity} leads" in (logs / f"{s}.log").read_text()]
    return part


async def under_load(name: str, kill: Callable[[str], None]) -> None:
    async with connected(name) as client:
        writers = [Writer(client, n) for n in range(8)]
        stop = asyncio.Event()
        pods = Pods(client)
        following = asyncio.create_task(pods.informer.run())
        await client.create(DEPLOYMENTS, deployment("load", 3))
        expected = 3
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.run(stop))
            await pods.until(lambda: pods.alive() == 3)
            for up, down in ((20, 3),):
                leader = await holder(client, "kube-controller-manager")
                part = leader_part(name, leader)
                before = len(pods.made)
                expected += up - pods.alive()
                await scale(client, up)
                await pods.until(lambda before=before: len(pods.made) > before + 3)  # type: ignore[misc]
                kill(part)
                began = time.monotonic()
                await pods.until(lambda up=up: pods.alive() == up)  # type: ignore[misc]
                # Besides the lease: 17 pods, on a machine that has other things to do.
                assert time.monotonic() - began < LEASE_SECONDS + 15
                await scale(client, down)
                await pods.until(lambda down=down: pods.alive() == down)  # type: ignore[misc]
                assert await holder(client, "kube-controller-manager") != leader
            stop.set()
        # nothing lost, nothing twice
        for writer in writers:
            found = await client.get(CONFIGMAPS, "default", writer.name)
            assert int(found["data"]["n"]) == writer.count
        assert sum(w.count for w in writers) > 200
        sets = (await client.list(REPLICASETS, "default")).items
        assert [s["spec"]["replicas"] for s in sets] == [3]
        assert len(pods.made) == expected, "a pod was made twice"
        assert len((await client.list(PODS, "default")).items) == 3
        following.cancel()


def test_the_active_one_is_killed_under_load(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    owner.run("up", "--name", name, "--store", "etcd", "--apiservers", "2")
    assert set(SERVERS) < set(pids(name))
    refused = owner.run("up", "--name", name, "--apiservers", "1", check=False)
    assert (
        refused.stderr == f"sampan: cluster {name} runs with 2 API servers: stop it to have another number\n"
    )

    def kill(part: str) -> None:
        os.kill(pids(name)[part], signal.SIGKILL)

    asyncio.run(under_load(name, kill))
    asyncio.run(services_made_at_once(name))
    owner.run("stop", "--name", name)
    owner.run("up", "--name", name)
    assert set(SERVERS) < set(pids(name))
    owner.run("stop", "--name", name)
    owner.run("up", "--name", name, "--apiservers", "1")
    assert SERVERS[1] not in pids(name)


async def services_made_at_once(name: str) -> None:
    """Through every server, on connections of their own: no address and no port is given to two."""

    async def make(client: HttpsClient, number: int) -> None:
        obj = {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{number}", "namespace": "default"},
            "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}},
        }  # fmt: skip
        await client.create(SERVICES, obj)

    clients = [HttpsClient.from_kubeconfig(Path("/var/lib/sampan", name, "kubeconfig")) for _ in range(8)]
    await asyncio.gather(*(make(clients[i % 8], i) for i in range(80)))
    made = [
        s for s in (await clients[0].list(SERVICES, "default")).items if s["metadata"]["name"] != "kubernetes"
    ]
    assert len(made) == 80
    assert len({s["spec"]["clusterIP"] for s in made}) == 80
    assert len({s["spec"]["ports"][0]["nodePort"] for s in made}) == 80
    # what one has acknowledged, all show
    for number in range(40):
        writer, reader = clients[number % 8], clients[(number + 3) % 8]
        obj = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"seen-{number}", "namespace": "default"},
        }
        await writer.create(CONFIGMAPS, obj)
        assert (await reader.get(CONFIGMAPS, "default", f"seen-{number}"))["metadata"][
            "name"
        ] == f"seen-{number}"
        await reader.delete(CONFIGMAPS, "default", f"seen-{number}")
        with pytest.raises(StatusError):
            await writer.get(CONFIGMAPS, "default", f"seen-{number}")
    for client in clients:
        await client.close()


def test_one_is_refused_without_a_shared_store(owner: Owner) -> None:  # noqa: F811
    for arguments, said in (
        (("--apiservers", "2"), "--apiservers 2 needs a store that they can share: --store etcd"),
        (("--apiservers", "4", "--store", "etcd"), "--apiservers 4: allowed are 1 to 3"),
    ):
        done = owner.run("up", "--name", owner.name(), *arguments, check=False)
        assert (done.returncode, done.stderr) == (1, f"sampan: {said}\n")
