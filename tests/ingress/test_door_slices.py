"""The control plane's half on a real API server core: the front door's Service and its endpoints, and what is told of a Gateway's certificates."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.front_doors import Terms, terms_of
from sampan.api.ingress_classes import CLASS_ANNOTATION
from sampan.api.resources import (
    ENDPOINTSLICES,
    EVENTS,
    GATEWAYCLASSES,
    GATEWAYS,
    INGRESSCLASSES,
    INGRESSES,
    NODES,
    SECRETS,
    SERVICES,
)
from sampan.apiserver.app import App
from sampan.apiserver.types import AUTHENTICATED, User
from sampan.client.types import MERGE_PATCH
from sampan.ingress import serving
from sampan.ingress.controller import IngressController
from sampan.ingress.door_slices import MADE_BY
from sampan.ingress.own_objects import NAMESPACE, SERVICE, ensure, ingress_class
from sampan.ingress.withdrawing import withdraw
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.controllers.conftest import api, running
from tests.ingress.test_certificates import make

__all__ = ["api"]
pytestmark = pytest.mark.timeout(60)


def node(name: str, *addresses: str, serving: bool = True, beat: str = "2026-01-01T00:00:00Z") -> Object:
    conditions = [
        {
            "type": kind,
            "status": "True" if on else "False",
            "reason": "r",
            "message": "m",
            "lastHeartbeatTime": beat,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for kind, on in (("Ready", True), ("IngressServing", serving))
    ]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {
            "conditions": conditions,
            "addresses": [{"type": "InternalIP", "address": a} for a in addresses],
        },
    }


async def have(api: Any, obj: Object) -> None:
    """Make a Node or change it, status included."""
    name = obj["metadata"]["name"]
    with contextlib.suppress(StatusError):
        await api.create(NODES, copy.deepcopy(obj))
    there = copy.deepcopy(await api.get(NODES, "", name))
    await api.update(NODES, {**there, "status": obj["status"]}, subresource="status")


async def addresses(api: Any, name: str = SERVICE) -> list[str]:
    try:
        found = await api.get(ENDPOINTSLICES, NAMESPACE, name)
    except StatusError:
        return []
    return [a for e in found.get("endpoints") or () for a in e["addresses"]]


async def until(done: Callable[[], Any]) -> None:
    async with asyncio.timeout(15):
        while not await done():
            await asyncio.sleep(0.01)


async def test_the_endpoints_are_the_nodes_that_serve(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await have(api, node("n1", "192.0.2.1"))
    await have(api, node("n2", "192.0.2.2", serving=False))
    async with running((controller := IngressController(api)).run()):

        async def are(*wanted: str) -> None:
            async def done() -> bool:
                return await addresses(api) == list(wanted)

            await until(done)

        await are("192.0.2.1")
        await have(api, node("n2", "192.0.2.2"))
        await are("192.0.2.1", "192.0.2.2")
        # Its heartbeat alone is nobody's business.
        added: list[str] = []
        beat = "2026-01-01T00:00:10Z"

        async def seen() -> bool:
            there = controller._slices._nodes.get("", "n2")
            return there is not None and there["status"]["conditions"][0]["lastHeartbeatTime"] == beat

        monkeypatch.setattr(controller._queue, "add", added.append)
        await have(api, node("n2", "192.0.2.2", beat=beat))
        await until(seen)
        monkeypatch.undo()
        assert added == []
        await have(api, node("n1", "192.0.2.1", serving=False))
        await are("192.0.2.2")
        # What somebody takes away or changes is there again.
        await api.delete(ENDPOINTSLICES, NAMESPACE, SERVICE)
        await are("192.0.2.2")
        odd = copy.deepcopy(await api.get(ENDPOINTSLICES, NAMESPACE, SERVICE))
        odd["endpoints"][0]["addresses"] = ["198.51.100.1"]
        await api.update(ENDPOINTSLICES, odd)
        await are("192.0.2.2")
        before = await api.get(SERVICES, NAMESPACE, SERVICE)
        await api.delete(SERVICES, NAMESPACE, SERVICE)

        async def made_again() -> bool:
            try:
                there = await api.get(SERVICES, NAMESPACE, SERVICE)
            except StatusError:
                return False
            return bool(there["metadata"]["uid"] != before["metadata"]["uid"])

        await until(made_again)
        await are("192.0.2.2")


@pytest.fixture
async def app() -> AsyncIterator[App]:
    made = App(MemoryStore(), config())
    await made.start()
    yield made
    await made.close()


async def test_nobody_is_led_to_whoever_takes_a_front_doors_name(app: App) -> None:
    """With a node's certificate that does not say that it is one: its first word of where it is ends it."""
    api = app.client()
    await have(api, node("n1", "192.0.2.1"))
    await have(api, node("n2", "192.0.2.2"))
    thief = app.client(User("system:node:n1", "", ("system:nodes", AUTHENTICATED)))
    async with running(IngressController(api).run()):

        async def both() -> bool:
            return await addresses(api) == ["192.0.2.1", "192.0.2.2"]

        async def the_other() -> bool:
            found = await addresses(api)
            assert "192.0.2.66" not in found
            return found == ["192.0.2.2"]

        await until(both)
        moved = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.66"}]}}
        await thief.patch(NODES, "", "n1", moved, content_type=MERGE_PATCH, subresource="status")
        await until(the_other)
        with pytest.raises(StatusError, match="it is no front door"):
            await serving.tell(thief, "n1", True, "")


async def test_since_when_a_front_door_serves(api: Any) -> None:
    """Another message alone is no transition."""
    await have(api, node("n1", "192.0.2.1"))

    async def told(serves: bool, why: str) -> Object:
        await serving.tell(api, "n1", serves, why)
        conditions = (await api.get(NODES, "", "n1"))["status"]["conditions"]
        found: Object = next(c for c in conditions if c["type"] == "IngressServing")
        return found

    before = "2026-01-01T00:00:00Z"
    still = await told(True, "a port is taken")
    assert (still["message"], still["lastTransitionTime"]) == ("HAProxy serves, but a port is taken", before)
    assert (await told(False, "it ended"))["lastTransitionTime"] > before


async def test_who_names_a_class_that_does_not_come_is_told(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampan.ingress.controller._CLASS_WITHIN", 0.3)

    def ingress(name: str, class_: str, **annotations: str) -> Object:
        spec: Object = {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}
        if class_:
            spec["ingressClassName"] = class_
        meta = {"name": name, "namespace": "default", "annotations": annotations}
        return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}

    async with running(IngressController(api).run()):

        async def told() -> dict[str, str]:
            found = (await api.list(EVENTS, "default")).items
            return {
                e["involvedObject"]["name"]: e["message"]
                for e in found
                if e["reason"].endswith("ClassNotFound")
            }

        async def classes() -> bool:
            return bool((await api.list(INGRESSCLASSES)).items)

        await until(classes)
        await api.create(INGRESSES, ingress("far", "nginx-example"))
        await api.create(INGRESSES, ingress("near", "sampam"))
        listener = {"name": "http", "port": 80, "protocol": "HTTP"}
        gateway = {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "gate", "namespace": "default"},
        }
        await api.create(
            GATEWAYS, {**gateway, "spec": {"gatewayClassName": "acme-lb", "listeners": [listener]}}
        )
        await api.create(INGRESSES, ingress("old", "", **{CLASS_ANNOTATION: "traefik"}))
        await api.create(INGRESSES, ingress("before-its-class", "late"))
        await api.create(
            INGRESSCLASSES,
            {**ingress_class(), "metadata": {"name": "late"}, "spec": {"controller": "example.com/x"}},
        )

        async def all_told() -> bool:
            return len(await told()) >= 3

        await until(all_told)
        assert await told() == {
            "far": 'spec.ingressClassName: there is no IngressClass "nginx-example"; there are: late, sampan',
            "gate": 'spec.gatewayClassName: there is no GatewayClass "acme-lb"; there are: sampan',
            "near": 'spec.ingressClassName: there is no IngressClass "sampam"; did you mean "sampan"?',
        }


async def test_what_is_taken_away_with_the_front_door(api: Any) -> None:
    """Its own things and those of its Gateways; what somebody wrote a label on stays."""

    def slice_(name: str, labels: dict[str, str], **meta: object) -> Object:
        metadata = {
            "name": name,
            "namespace": "default",
            "labels": {MADE_BY[0]: MADE_BY[1], **labels},
            **meta,
        }
        kind = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "endpoints": [],
        }
        return {**kind, "metadata": metadata, "ports": []}

    def service(name: str, **meta: object) -> Object:
        metadata = {"name": name, "namespace": "default", **meta}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"port": 80}]},
        }

    await api.create(INGRESSCLASSES, ingress_class())
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    gateway = await api.create(
        GATEWAYS,
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "g", "namespace": "default"},
            "spec": {"gatewayClassName": "sampan", "listeners": [listener]},
        },
    )
    owner = {
        "apiVersion": gateway["apiVersion"],
        "kind": "Gateway",
        "name": "g",
        "uid": gateway["metadata"]["uid"],
    }
    await api.create(SERVICES, service("sampan-gateway-g", ownerReferences=[owner]))
    await api.create(ENDPOINTSLICES, slice_("sampan-gateway-g", {}, ownerReferences=[owner]))
    await api.create(SERVICES, service("web"))
    await api.create(ENDPOINTSLICES, slice_("of-web", {"kubernetes.io/service-name": "web"}))
    await api.create(ENDPOINTSLICES, slice_("of-nothing", {}))
    async with running(withdraw(api)):

        async def gone() -> bool:
            return not (await api.list(INGRESSCLASSES)).items

        await until(gone)
    left = [o["metadata"]["name"] for o in (await api.list(ENDPOINTSLICES, "default")).items]
    assert sorted(n for n in left if n != "kubernetes") == ["of-nothing", "of-web"]
    left = [o["metadata"]["name"] for o in (await api.list(SERVICES, "default")).items]
    assert sorted(n for n in left if n != "kubernetes") == ["web"]


async def test_only_chosen_nodes_count_and_the_class_tells_them(api: Any) -> None:
    """Also of a class that was made when others were chosen; what people wrote into it stays."""
    for number in (1, 2):
        await have(api, node(f"n{number}", f"192.0.2.{number}"))
    await api.create(INGRESSCLASSES, ingress_class())
    await api.patch(INGRESSCLASSES, "", "sampan", {"metadata": {"annotations": {"example.com/a": "b"}}})
    terms = Terms(("n2", "n3"), proxy_protocol=True)
    async with running(IngressController(api, terms).run()):

        async def only_the_second() -> bool:
            return await addresses(api) == ["192.0.2.2"]

        await until(only_the_second)
        told = await api.get(INGRESSCLASSES, "", "sampan")
        assert terms_of(told) == terms
        assert told["metadata"]["annotations"]["example.com/a"] == "b"


class _Forbidden:
    """A client of an API with a policy against GatewayClasses."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def create(self, resource: Any, obj: Object, **more: Any) -> Object:
        if resource is GATEWAYCLASSES:
            raise StatusError(403, "Forbidden", "no")
        made: Object = await self._client.create(resource, obj, **more)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


async def test_one_object_that_cannot_be_made_keeps_no_other_from_being_made(api: Any) -> None:
    await api.create(INGRESSCLASSES, ingress_class())
    terms = Terms(("n1",))
    with pytest.raises(StatusError, match="no"):
        await ensure(_Forbidden(api), terms)  # type: ignore[arg-type]
    assert terms_of(await api.get(INGRESSCLASSES, "", "sampan")) == terms
    assert await api.get(SERVICES, NAMESPACE, SERVICE)


async def test_a_slice_of_that_name_that_cannot_be_made_right_is_replaced(api: Any) -> None:
    await have(api, node("n1", "192.0.2.1"))
    meta = {"name": SERVICE, "namespace": NAMESPACE}
    kind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv6"}
    await api.create(
        ENDPOINTSLICES, {**kind, "metadata": meta, "endpoints": [{"addresses": ["2001:db8::1"]}], "ports": []}
    )
    async with running(IngressController(api).run()):

        async def replaced() -> bool:
            return await addresses(api) == ["192.0.2.1"]

        await until(replaced)


async def test_classes_that_are_taken_away_are_there_again(api: Any) -> None:
    """And what nodes on other machines are told is what was chosen, whoever writes something else."""
    terms = Terms(("n2", "n3"))
    async with running(IngressController(api, terms).run()):

        async def told() -> bool:
            try:
                there = await api.get(INGRESSCLASSES, "", "sampan")
                await api.get(GATEWAYCLASSES, "", "sampan")
            except StatusError:
                return False
            return terms_of(there) == terms

        await until(told)
        for resource in (INGRESSCLASSES, GATEWAYCLASSES):
            await api.delete(resource, "", "sampan")
            await until(told)
        await api.patch(
            INGRESSCLASSES, "", "sampan", {"metadata": {"annotations": Terms(("n1",)).annotations()}}
        )
        await until(told)


async def test_a_gateways_certificate_that_is_no_good_is_told(api: Any) -> None:
    await have(api, node("n1", "192.0.2.1"))
    chain, key = make("old.test", days=-1)
    await api.create(
        SECRETS,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "pair", "namespace": "default"},
            "stringData": {"tls.crt": chain, "tls.key": key},
        },
    )
    listener = {
        "name": "tls",
        "port": 443,
        "protocol": "HTTPS",
        "hostname": "new.test",
        "tls": {"certificateRefs": [{"name": "pair"}]},
    }
    async with running(IngressController(api).run()):
        await api.create(
            GATEWAYS,
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"gatewayClassName": "sampan", "listeners": [listener]},
            },
        )

        async def told() -> bool:
            found = (await api.list(EVENTS, "default")).items
            reasons = {e["reason"] for e in found if e["involvedObject"]["name"] == "web"}
            return reasons >= {"CertificateExpired", "CertificateOfAnotherHost"}

        await until(told)
