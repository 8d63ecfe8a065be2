"""ServiceCIDRs: ready at once, gone when no address needs them."""

from __future__ import annotations

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition
from sampan.api.resources import IPADDRESSES, SERVICECIDRS, SERVICES
from sampan.controllers import service_cidr
from tests.controllers.conftest import Cluster, service

FINALIZER = "networking.k8s.io/service-cidr-finalizer"


def cidr(name: str, *ranges: str) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": name},
        "spec": {"cidrs": list(ranges)},
    }


def ready(found: list[Object], name: str, status: str = "True") -> bool:
    return any(
        c["metadata"]["name"] == name and (condition(c, "Ready") or {}).get("status") == status for c in found
    )


def names(found: list[Object]) -> set[str]:
    return {c["metadata"]["name"] for c in found}


async def make(cluster: Cluster, name: str, *ranges: str) -> Object:
    await cluster.client.create(SERVICECIDRS, cidr(name, *ranges))
    found = await cluster.until(SERVICECIDRS, lambda all_: ready(all_, name), "")
    return next(c for c in found if c["metadata"]["name"] == name)


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_cidr, "GRACE_SECONDS", 0.0)


async def test_a_new_range_is_kept_and_ready(cluster: Cluster) -> None:
    made = await make(cluster, "more", "10.200.0.0/24")
    assert made["metadata"]["finalizers"] == [FINALIZER]
    told = condition(made, "Ready") or {}
    assert (told["message"], told["reason"]) == ("Kubernetes Service CIDR is ready", "")
    found = await cluster.until(
        SERVICECIDRS, lambda all_: all(c["metadata"].get("finalizers") for c in all_), ""
    )
    default = next(c for c in found if c["metadata"]["name"] == "kubernetes")
    assert default["metadata"]["finalizers"] == [FINALIZER]
    assert (condition(default, "Ready") or {})["message"] == "Kubernetes default Service CIDR is ready"


async def test_a_range_goes_when_its_last_address_does(cluster: Cluster) -> None:
    await make(cluster, "more", "10.200.0.0/24")
    wanted = service("far", clusterIP="10.200.0.9", clusterIPs=["10.200.0.9"])
    await cluster.client.create(SERVICES, wanted)
    await cluster.client.delete(SERVICECIDRS, "", "more")
    found = await cluster.until(SERVICECIDRS, lambda all_: ready(all_, "more", "False"), "")
    told = condition(next(c for c in found if c["metadata"]["name"] == "more"), "Ready") or {}
    assert (told["reason"], told["message"]) == (
        "Terminating",
        "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
    )
    second = service("second", clusterIP="10.200.0.10", clusterIPs=["10.200.0.10"])
    with pytest.raises(StatusError, match="the provided network does not match the current range"):
        await cluster.client.create(SERVICES, second)
    await cluster.client.delete(SERVICES, "default", "far")
    await cluster.until(SERVICECIDRS, lambda all_: names(all_) == {"kubernetes"}, "")
    assert names(await cluster.all(IPADDRESSES, "")) == {"10.96.0.1"}


async def test_a_range_within_another_may_go_at_any_time(cluster: Cluster) -> None:
    await make(cluster, "small", "10.200.0.0/24")
    await cluster.client.create(SERVICES, service("far", clusterIP="10.200.0.9", clusterIPs=["10.200.0.9"]))
    await cluster.client.delete(SERVICECIDRS, "", "small")
    await cluster.until(SERVICECIDRS, lambda all_: ready(all_, "small", "False"), "")
    await make(cluster, "large", "10.200.0.0/16")
    await cluster.until(SERVICECIDRS, lambda all_: names(all_) == {"kubernetes", "large"}, "")


async def test_the_default_range_goes_only_with_the_service_of_the_api(cluster: Cluster) -> None:
    await cluster.until(SERVICECIDRS, lambda all_: all_ and all_[0]["metadata"].get("finalizers"), "")
    await cluster.client.delete(SERVICECIDRS, "", "kubernetes")
    await cluster.until(SERVICECIDRS, lambda all_: ready(all_, "kubernetes", "False"), "")
