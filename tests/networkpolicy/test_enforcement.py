"""A node's part follows the API: on a real API server core, with a table that is only written down."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable

import pytest

from sampan.api.errors import Object
from sampan.api.resources import NAMESPACES, NETWORKPOLICIES, PODS, SERVICEACCOUNTS
from sampan.apiserver.app import App
from sampan.network.nftables import Family
from sampan.networkpolicy.content import Content, Item, packed
from sampan.networkpolicy.desired import Desired
from sampan.networkpolicy.enforcement import NetworkPolicies
from sampan.networkpolicy.fake import FakeTable
from sampan.networkpolicy.reading import pod_of, policy_of, trimmed
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.controllers.conftest import Cluster, running

HERE, OTHER = "10.244.0.5", "10.244.1.7"


class Told(FakeTable):
    """A table that says when it was written to, and may refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Event()
        self.refusals = 0

    def apply(self, before: Content, after: Content) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EINVAL, "refused")
        super().apply(before, after)
        self.changed.set()

    def rebuild(self, content: Content) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EINVAL, "refused")
        super().rebuild(content)
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def keeps(self, address: str) -> bool:
        return Item("element", Family.IP, "ingress", packed(address)) in self.content


class Scene:
    """The part of the node `n1`, and the API that it follows."""

    def __init__(self, app: App) -> None:
        self.client = app.client()
        self.cluster = Cluster(self.client)
        self.table = Told()
        self.part = self.another()

    def another(self) -> NetworkPolicies:
        return NetworkPolicies(self.client, node_name="n1", table=self.table)

    async def policy(self, name: str = "deny", **spec: object) -> None:
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"podSelector": {}, **spec}}
        await self.client.create(
            NETWORKPOLICIES, {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", **body}
        )

    async def pod(self, name: str, node: str = "n1", **labels: str) -> Object:
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
        meta = {"name": name, "namespace": "default", "labels": labels}
        return await self.client.create(
            PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        )


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    app = App(MemoryStore(), config())
    await app.start()
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}  # fmt: skip
    made = Scene(app)
    await made.client.create(SERVICEACCOUNTS, account)
    yield made
    await app.close()


async def test_without_policies_pods_start_at_once_and_nothing_is_made(scene: Scene) -> None:
    pod = await scene.pod("a")
    async with running(scene.part.run()):
        # Nobody told what runs already, and no list of pods is there: none is needed.
        await scene.part.admit(pod, (HERE,))
        assert scene.table.content == {}
        assert scene.table.transactions == []


async def test_a_pod_is_kept_when_it_is_admitted_whatever_its_status_says(scene: Scene) -> None:
    await scene.policy()
    scene.part.taken_up({})
    async with running(scene.part.run()):
        pod = await scene.pod("a")
        await scene.part.admit(pod, (HERE,))
        assert scene.table.keeps(HERE)
        await scene.cluster.run(pod, ip="10.244.0.99")
        await scene.policy("more", ingress=[{}])
        await scene.table.until(lambda: any(i.kind == "chain" and v for i, v in scene.table.content.items()))
        assert scene.table.keeps(HERE), "a status may be that of an earlier sandbox"
        assert not scene.table.keeps("10.244.0.99")
        scene.part.released(pod["metadata"]["uid"])
        await scene.table.until(lambda: not scene.table.keeps(HERE))


async def test_what_still_runs_is_kept_though_its_pod_is_gone_or_has_ended(scene: Scene) -> None:
    """A pod deleted by force, or one that failed, has its address until its sandbox has none."""
    await scene.policy(podSelector={"matchLabels": {"app": "kept"}})
    scene.part.taken_up({})
    async with running(scene.part.run()):
        pods = [await scene.pod(name, app="kept") for name in ("forced", "failed")]
        addresses = [HERE, "10.244.0.6"]
        for pod, address in zip(pods, addresses, strict=True):
            await scene.part.admit(pod, (address,))
        await scene.cluster.run(pods[1], ip=addresses[1])
        failed = await scene.client.get(PODS, "default", "failed")
        failed["status"]["phase"] = "Failed"
        await scene.client.update(PODS, failed, subresource="status")
        await scene.client.delete(PODS, "default", "forced", grace_period_seconds=0)
        # With the same name, and before the one before it ended.
        again = await scene.pod("forced")
        await scene.part.admit(again, ("10.244.0.7",))
        await scene.policy("last", podSelector={"matchLabels": {"app": "kept"}}, ingress=[{}])
        await scene.table.until(lambda: any(i.kind == "chain" and v for i, v in scene.table.content.items()))
        assert all(map(scene.table.keeps, addresses))
        for pod in pods:
            scene.part.released(pod["metadata"]["uid"])
        await scene.table.until(lambda: not any(map(scene.table.keeps, addresses)))


async def test_a_status_gives_no_pod_of_this_node_the_address_of_another(scene: Scene) -> None:
    await scene.policy("open", podSelector={"matchLabels": {"app": "kept"}}, ingress=[{}])
    await scene.policy("deny", podSelector={"matchLabels": {"app": "shut"}})
    scene.part.taken_up({})
    async with running(scene.part.run()):
        old, new = await scene.pod("old", app="kept"), await scene.pod("new", app="shut")
        await scene.part.admit(old, (HERE,))
        await scene.cluster.run(old, ip=HERE)
        scene.part.released(old["metadata"]["uid"])
        await scene.part.admit(new, (HERE,))
        told = await scene.client.get(PODS, "default", "old")
        told["metadata"]["labels"]["more"] = "yes"
        await scene.client.update(PODS, told)
        async with asyncio.timeout(10):
            while (
                "more"
                not in (scene.part._pods.get("default", "old") or {"metadata": {"labels": ()}})["metadata"][
                    "labels"
                ]
            ):
                await asyncio.sleep(0)
        await scene.part.admit(await scene.pod("third", app="shut"), ("10.244.0.6",))
        assert not scene.table.passes(OTHER, HERE, "TCP", 80)


async def test_who_waits_to_start_while_the_first_policy_comes_is_kept(scene: Scene) -> None:
    async with running(scene.part.run()):
        first = await scene.pod("first")
        await scene.part.admit(first, (HERE,))
        await scene.policy()
        # `taken_up` is the last thing that is waited for.
        scene.part.taken_up({})
        await scene.table.until(lambda: scene.table.keeps(HERE))
        await scene.part.admit(await scene.pod("second"), ("10.244.0.6",))
        assert scene.table.keeps("10.244.0.6")


async def test_a_start_finds_what_holds_and_changes_only_what_differs(scene: Scene) -> None:
    await scene.policy()
    pods = [await scene.pod(name) for name in ("a", "b")]
    uids = [p["metadata"]["uid"] for p in pods]
    taken_up = {uids[0]: (HERE,), uids[1]: ("10.244.0.6",)}
    scene.part.taken_up(taken_up)
    async with running(scene.part.run()):
        await scene.table.until(lambda: scene.table.keeps(HERE))
    before, count = dict(scene.table.content), len(scene.table.transactions)
    again = scene.another()
    again.taken_up(taken_up)
    async with running(again.run()):
        await again.admit(pods[0], (HERE,))
        assert scene.table.content == before
        assert len(scene.table.transactions) == count, (
            "their status has no address yet, and still nothing differs"
        )
    await scene.client.delete(NETWORKPOLICIES, "default", "deny")
    last = scene.another()
    async with running(last.run()):
        await scene.table.until(lambda: scene.table.content == {})


async def test_an_address_passes_from_one_pod_to_another(scene: Scene) -> None:
    await scene.policy(podSelector={"matchLabels": {"app": "kept"}})
    scene.part.taken_up({})
    async with running(scene.part.run()):
        old = await scene.pod("old", app="kept")
        await scene.part.admit(old, (HERE,))
        assert scene.table.keeps(HERE)
        await scene.part.admit(await scene.pod("new", app="free"), (HERE,))
        assert not scene.table.keeps(HERE)
        scene.part.released(old["metadata"]["uid"])
        await scene.part.admit(await scene.pod("third", app="kept"), ("10.244.0.6",))
        assert not scene.table.keeps(HERE)


async def test_what_the_kernel_refuses_is_compared_whole_and_then_made_anew(scene: Scene) -> None:
    await scene.policy()
    scene.part.taken_up({})
    async with running(scene.part.run()):
        await scene.part.admit(await scene.pod("a"), (HERE,))
        scene.table.content.pop(Item("element", Family.IP, "ingress", packed(HERE)))
        scene.table.refusals = 2
        await scene.part.admit(await scene.pod("b"), ("10.244.0.6",))
        assert scene.table.keeps(HERE)
        assert scene.table.keeps("10.244.0.6")
        scene.table.refusals = 3
        with pytest.raises(OSError, match="refused"):
            await scene.part.admit(await scene.pod("c"), ("10.244.0.7",))


async def test_namespaces_and_pods_elsewhere_are_followed(scene: Scene) -> None:
    await scene.policy(ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}])
    scene.part.taken_up({})
    async with running(scene.part.run()):
        await scene.part.admit(await scene.pod("a"), (HERE,))
        other = await scene.pod("other", node="n2")
        await scene.cluster.run(other, ip=OTHER)
        namespace = await scene.client.get(NAMESPACES, "", "default")

        def passes() -> bool:
            return scene.table.passes(OTHER, HERE, "TCP", 80)

        assert not passes()
        changed = {**namespace, "metadata": {**namespace["metadata"], "labels": {"team": "a"}}}
        await scene.client.update(NAMESPACES, changed)
        await scene.table.until(passes)
        await scene.client.delete(PODS, "default", "other", grace_period_seconds=0)
        await scene.table.until(lambda: not passes())


def test_one_pods_change_touches_its_own_elements_alone() -> None:
    """Whatever else there is: a thousand policies and pods that it has nothing to do with."""
    desired = Desired()
    desired.set_namespace("default", {})

    def pod(number: int, **labels: str) -> Object:
        meta = {"name": f"p{number}", "namespace": "default", "uid": f"u{number}", "labels": labels}
        address = f"10.244.{number // 250}.{number % 250}"
        status = {"phase": "Running", "podIPs": [{"ip": address}]}
        return {"metadata": meta, "spec": {"nodeName": "n1" if number < 50 else "n2"}, "status": status}

    for number in range(1000):
        peers = [{"podSelector": {"matchLabels": {"client": f"c{number}"}}}]
        spec = {"podSelector": {"matchLabels": {"app": f"a{number}"}}, "policyTypes": ["Ingress"], "ingress": [{"from": peers}]}  # fmt: skip
        policy = {"metadata": {"name": f"p{number}", "namespace": "default"}, "spec": spec}
        desired.set_policy(f"default/p{number}", policy_of(policy))
        desired.set_pod(f"u{number}", pod_of(trimmed(pod(number, app=f"a{number}")), "n1"))
    desired.take()
    desired.set_pod("u900", pod_of(trimmed(pod(900, app="a900", client="c7")), "n1"))
    before, after = desired.take()
    assert before == {}
    assert [(i.kind, i.name.partition("-")[0], i.key) for i in after] == [
        ("element", "pods", packed("10.244.3.150"))
    ]
    desired.set_pod("u900", pod_of(trimmed(pod(900, app="a901", client="c7", more="x")), "n1"))
    assert desired.take() == ({}, {}), "a label that no policy of this node asks for"
