"""What is made for Gateways and written on what is theirs, on a real API server core: Services and their labels, finalizers of classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.resources import (
    GATEWAYCLASSES,
    GATEWAYS,
    HTTPROUTES,
    INGRESSCLASSES,
    INGRESSES,
    SERVICES,
)
from sampan.client.types import MERGE_PATCH
from sampan.ingress.controller import IngressController
from sampan.ingress.gateway_controller import IN_USE
from sampan.ingress.own_objects import gateway_class, ingress_class
from sampan.ingress.withdrawing import withdraw
from tests.controllers.conftest import api, running

from .test_door_slices import have, node, until

__all__ = ["api"]
pytestmark = pytest.mark.timeout(60)


def gateway(name: str, class_: str = "sampan", **spec: object) -> Object:
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"gatewayClassName": class_, "listeners": [listener], **spec},
    }


async def found(api: Any, resource: Any, namespace: str, name: str) -> Object | None:
    try:
        there: Object = await api.get(resource, namespace, name)
    except StatusError as e:
        if e.code != 404:
            raise
        return None
    return there


async def test_labels_that_a_gateway_asks_for_no_more_go(api: Any) -> None:
    """And those that others wrote stay, as do the node ports: GatewayInfrastructure, and its change."""
    await have(api, node("n1", "192.0.2.1"))

    async def service() -> Object | None:
        return await found(api, SERVICES, "default", "sampan-gateway-g")

    async def is_(
        labels: Mapping[str, str], annotations: Mapping[str, str], ports: Iterable[int] = (80,)
    ) -> None:
        async def done() -> bool:
            there = await service()
            if there is None:
                return False
            meta = there["metadata"]
            name = {"gateway.networking.k8s.io/gateway-name": "g"}
            return (
                meta.get("labels") == {**name, **labels}
                and (meta.get("annotations") or {}) == annotations
                and [p["port"] for p in there["spec"]["ports"]] == list(ports)
            )

        await until(done)

    async with running(IngressController(api).run()):
        infrastructure = {"labels": {"a": "1", "b": "1"}, "annotations": {"x/y": "1"}}
        await api.create(GATEWAYS, gateway("g", infrastructure=infrastructure))
        await is_({"a": "1", "b": "1"}, {"x/y": "1"})
        made = await service()
        assert made is not None
        theirs = {"metadata": {"labels": {"c": "theirs"}, "annotations": {"z": "theirs"}}}
        await api.patch(SERVICES, "default", "sampan-gateway-g", theirs, field_manager="somebody")
        changed = {"labels": {"a": "2", "b": None}, "annotations": {"x/y": None, "new": "1"}}
        await api.patch(GATEWAYS, "default", "g", {"spec": {"infrastructure": changed}})
        await is_({"a": "2", "c": "theirs"}, {"z": "theirs", "new": "1"})
        more = [
            {"name": "http", "port": 80, "protocol": "HTTP"},
            {"name": "more", "port": 8080, "protocol": "HTTP"},
        ]
        await api.patch(GATEWAYS, "default", "g", {"spec": {"infrastructure": None, "listeners": more}})
        await is_({"c": "theirs"}, {"z": "theirs"}, (80, 8080))
        there = await service()
        assert there is not None
        assert there["spec"]["ports"][0]["nodePort"] == made["spec"]["ports"][0]["nodePort"]


async def test_the_service_of_a_gateway_stays_one_that_can_be_reached(api: Any) -> None:
    await have(api, node("n1", "192.0.2.1"))

    async def reached() -> bool:
        there = await found(api, SERVICES, "default", "sampan-gateway-g")
        if there is None or not there["spec"]["ports"][0].get("nodePort"):
            return False
        spec = there["spec"]
        return (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")

    async with running(IngressController(api).run()):
        await api.create(GATEWAYS, gateway("g"))
        await until(reached)
        other = {"spec": {"type": "ClusterIP", "externalTrafficPolicy": None}}
        await api.patch(SERVICES, "default", "sampan-gateway-g", other, content_type=MERGE_PATCH)
        await until(reached)


async def test_what_is_told_is_told_again_where_somebody_took_it_away(api: Any) -> None:
    await have(api, node("n1", "192.0.2.1"))
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {"parentRefs": [{"name": "g"}]},
    }

    async def told() -> bool:
        gateway = (await api.get(GATEWAYS, "default", "g"))["status"]
        parents = ((await api.get(HTTPROUTES, "default", "r")).get("status") or {}).get("parents")
        return gateway["conditions"][0]["status"] == "True" and bool(parents)

    async with running(IngressController(api).run()):
        await api.create(GATEWAYS, gateway("g"))
        await api.create(HTTPROUTES, route)
        await until(told)
        for resource, name, nothing in ((GATEWAYS, "g", None), (HTTPROUTES, "r", {"parents": []})):
            wiped = {"status": nothing}
            await api.patch(resource, "default", name, wiped, content_type=MERGE_PATCH, subresource="status")
            await until(told)


async def test_a_class_stays_while_gateways_are_of_it(api: Any) -> None:
    """gateway-exists-finalizer, as the specification of GatewayClass asks for."""
    await have(api, node("n1", "192.0.2.1"))
    mine = {**gateway_class(), "metadata": {"name": "mine", "finalizers": ["example.com/mine"]}}
    foreign = {**mine, "metadata": {"name": "foreign"}, "spec": {"controllerName": "example.com/other"}}
    await api.create(GATEWAYCLASSES, mine)
    await api.create(GATEWAYCLASSES, foreign)

    async def finalizers(name: str) -> list[str] | None:
        there = await found(api, GATEWAYCLASSES, "", name)
        return None if there is None else there["metadata"].get("finalizers") or []

    async def are(name: str, wanted: list[str] | None) -> None:
        async def done() -> bool:
            return await finalizers(name) == wanted

        await until(done)

    async with running(IngressController(api).run()):
        for class_ in ("mine", "sampan", "foreign"):
            await api.create(GATEWAYS, gateway(class_, class_))
        await are("mine", ["example.com/mine", IN_USE])
        await are("sampan", [IN_USE])
        await api.delete(GATEWAYCLASSES, "", "mine")
        await api.patch(GATEWAYS, "default", "mine", {"spec": {"gatewayClassName": "sampan"}})
        await are("mine", ["example.com/mine"])  # what is not ours goes on keeping it
        assert await finalizers("foreign") == []
        # Our own one goes with its last Gateway, and is there again, used by none.
        await api.delete(GATEWAYCLASSES, "", "sampan")
        before = await found(api, GATEWAYCLASSES, "", "sampan")
        assert before is not None
        await api.delete(GATEWAYS, "default", "mine")
        await api.delete(GATEWAYS, "default", "sampan")

        async def new() -> bool:
            there = await found(api, GATEWAYCLASSES, "", "sampan")
            return there is not None and there["metadata"]["uid"] != before["metadata"]["uid"]

        await until(new)
        await are("sampan", [])
    # A class that lost its last Gateway while nobody looked.
    async with running(IngressController(api).run()):
        await api.create(GATEWAYS, gateway("g"))
        await are("sampan", [IN_USE])
    await api.delete(GATEWAYS, "default", "g")
    async with running(IngressController(api).run()):
        await are("sampan", [])


async def test_a_front_door_that_is_taken_away_keeps_no_class(api: Any) -> None:
    await have(api, node("n1", "192.0.2.1"))
    await api.create(GATEWAYCLASSES, {**gateway_class(), "metadata": {"name": "mine"}})

    async def kept() -> bool:
        there = [await found(api, GATEWAYCLASSES, "", name) for name in ("mine", "sampan")]
        return all(c is not None and c["metadata"].get("finalizers") == [IN_USE] for c in there)

    async def served() -> bool:
        made = [await found(api, SERVICES, "default", f"sampan-gateway-{name}") for name in "ab"]
        return all(made) and (await api.get(GATEWAYS, "default", "a"))["status"].get("listeners")

    async with running(IngressController(api).run()):
        await api.create(GATEWAYS, gateway("a", "mine"))
        await api.create(GATEWAYS, gateway("b"))
        await until(kept)
        await until(served)
    await api.create(GATEWAYCLASSES, {**gateway_class(), "metadata": {"name": "foreign"}, "spec": {"controllerName": "example.com/x"}})  # fmt: skip
    foreign = await api.create(GATEWAYS, gateway("c", "foreign"))
    theirs = {"status": {"addresses": [{"value": "192.0.2.9"}]}}
    await api.patch(GATEWAYS, "default", "c", theirs, content_type=MERGE_PATCH, subresource="status")
    async with running(withdraw(api)):

        async def gone() -> bool:
            return not (await api.list(INGRESSCLASSES)).items

        await until(gone)
    assert await found(api, GATEWAYCLASSES, "", "sampan") is None
    mine = await found(api, GATEWAYCLASSES, "", "mine")
    assert mine is not None
    assert not mine["metadata"].get("finalizers")
    # What is of a class that people made was served by the front door, too.
    for name in "ab":
        assert await found(api, SERVICES, "default", f"sampan-gateway-{name}") is None
        status = (await api.get(GATEWAYS, "default", name))["status"]
        assert status == foreign["status"], "as of one that nobody has looked at"
    assert (await api.get(GATEWAYS, "default", "c"))["status"]["addresses"][0]["value"] == "192.0.2.9"


async def test_ingresses_of_a_front_door_that_is_taken_away_have_no_addresses(api: Any) -> None:
    """Of its own class, and of one that people made for it; what is said of others stays."""
    classes = {"sampan": "sampan.io/ingress", "mine": "sampan.io/ingress", "foreign": "example.com/x"}
    addresses = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    for name, controller in classes.items():
        made = {**ingress_class(), "metadata": {"name": name}, "spec": {"controller": controller}}
        await api.create(INGRESSCLASSES, made)
        backend = {"service": {"name": "s", "port": {"number": 80}}}
        of_it = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"ingressClassName": name, "defaultBackend": backend},
        }
        await api.create(INGRESSES, of_it)
        await api.patch(INGRESSES, "default", name, addresses, content_type=MERGE_PATCH, subresource="status")
    async with running(withdraw(api)):

        async def gone() -> bool:
            return await found(api, INGRESSCLASSES, "", "sampan") is None

        await until(gone)
    left = {
        i["metadata"]["name"]: i["status"]["loadBalancer"].get("ingress")
        for i in (await api.list(INGRESSES)).items
    }
    assert left == {"sampan": None, "mine": None, "foreign": [{"ip": "192.0.2.1"}]}
    assert await found(api, INGRESSCLASSES, "", "mine") is not None
