"""LimitRanger, through the API."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.errors import Object

from .conftest import Api

PODS = "/api/v1/namespaces/default/pods"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"


@pytest.fixture(autouse=True)
async def _account(api: Api) -> None:
    await api.ok_or_exists(
        "POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}}
    )


async def limit(api: Api, *limits: Object, name: str = "limits") -> None:
    body = {"metadata": {"name": name}, "spec": {"limits": list(limits)}}
    await api.ok("POST", "/api/v1/namespaces/default/limitranges", body)


def pod(name: str = "web", /, **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": [container("c")], **spec}}


def container(name: str, requests: Object | None = None, limits: Object | None = None, **more: Any) -> Object:
    resources = {"requests": requests, "limits": limits}
    given = {part: amounts for part, amounts in resources.items() if amounts}
    return {"name": name, "image": "nginx", "resources": given, **more}


def claim(name: str, storage: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
    return {"metadata": {"name": name}, "spec": spec}


async def refused(api: Api, target: str, body: Object) -> str:
    reply = await api("POST", target, body)
    assert reply.status == 403, reply.body
    message: str = reply.json["message"]
    start = f'"{body["metadata"]["name"]}" is forbidden: '
    assert start in message
    return message.partition(start)[2]


async def test_containers_get_defaults_and_the_pod_says_so(api: Api) -> None:
    await limit(
        api,
        {
            "type": "Container",
            "default": {"cpu": "500m", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m", "memory": "256Mi"},
        },
    )
    body = pod(
        containers=[container("a"), container("b", {"cpu": "10m"}, {"cpu": "20m"})],
        initContainers=[container("i"), container("side", restartPolicy="Always")],
    )
    made = await api.ok("POST", PODS, body)
    whole = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "500m", "memory": "1Gi"}}
    a, b = made["spec"]["containers"]
    assert a["resources"] == whole
    assert b["resources"] == {
        "requests": {"cpu": "10m", "memory": "256Mi"},
        "limits": {"cpu": "20m", "memory": "1Gi"},
    }
    assert [i["resources"] for i in made["spec"]["initContainers"]] == [whole, whole]
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; "
        "memory request for container b; memory limit for container b; "
        "cpu, memory request for init container i; cpu, memory limit for init container i; "
        "cpu, memory request for init container side; cpu, memory limit for init container side"
    )
    assert made["status"]["qosClass"] == "Burstable"


async def test_without_limit_ranges_nothing_is_added(api: Api) -> None:
    made = await api.ok("POST", PODS, pod())
    assert made["spec"]["containers"][0]["resources"] == {}
    assert "annotations" not in made["metadata"]


@pytest.mark.parametrize(
    ("limits", "requests", "most", "message"),
    [
        ({"min": {"cpu": "100m"}}, {"cpu": "10m"}, {}, "minimum cpu usage per Container is 100m, but request is 10m"),
        (
            {"min": {"cpu": "100m"}, "defaultRequest": {"cpu": "1"}},
            {"cpu": "99m"},
            {"cpu": "99m"},
            "minimum cpu usage per Container is 100m, but request is 99m",
        ),
        (
            {"max": {"memory": "1Gi"}},
            {"memory": "1Gi"},
            {"memory": "2Gi"},
            "maximum memory usage per Container is 1Gi, but limit is 2Gi",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"cpu": "100m"},
            {"cpu": "500m"},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 5.000000",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {},
            {},
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"cpu": "1"},
            {},
            "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
        ),
        (
            {"max": {"cpu": "1", "memory": "1Gi"}},
            {},
            {"cpu": "2", "memory": "1500Mi"},
            "[maximum cpu usage per Container is 1, but limit is 2, "
            "maximum memory usage per Container is 1Gi, but limit is 1500Mi]",
        ),
    ],
)  # fmt: skip
async def test_a_container_is_held_to_its_bounds(
    api: Api, limits: Object, requests: Object, most: Object, message: str
) -> None:
    await limit(api, {"type": "Container", **limits})
    body = pod(containers=[container("c", requests, most)])
    assert await refused(api, PODS, body) == message
    body = pod(initContainers=[container("i", requests, most)], containers=[container("c", {"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"})])  # fmt: skip
    assert await refused(api, PODS, body) == message


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max": {"cpu": "2"}}, "maximum cpu usage per Pod is 2, but limit is 2500m"),
        ({"min": {"cpu": "3"}}, "minimum cpu usage per Pod is 3, but request is 2500m"),
        ({"min": {"memory": "1"}}, "minimum memory usage per Pod is 1.  No request is specified"),
        ({"max": {"memory": "1"}}, "maximum memory usage per Pod is 1.  No limit is specified"),
    ],
)
async def test_a_pod_is_held_to_the_sum_of_its_containers_with_sidecars(
    api: Api, limits: Object, message: str
) -> None:
    await limit(api, {"type": "Pod", **limits})
    one, half = {"cpu": "1"}, {"cpu": "500m"}
    body = pod(
        containers=[container("a", one, one), container("b", one, one)],
        initContainers=[container("i", one, one), container("s", half, half, restartPolicy="Always")],
    )
    assert await refused(api, PODS, body) == message


async def test_an_init_container_counts_by_itself(api: Api) -> None:
    await limit(api, {"type": "Pod", "max": {"cpu": "2"}})
    body = pod(
        containers=[container("a", {"cpu": "1"}, {"cpu": "1"})],
        initContainers=[container("i", {"cpu": "3"}, {"cpu": "3"})],
    )
    assert await refused(api, PODS, body) == "maximum cpu usage per Pod is 2, but limit is 3"


async def test_a_claim_asks_for_neither_too_little_nor_too_much(api: Api) -> None:
    await limit(api, {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "10Gi"}})
    assert await refused(api, CLAIMS, claim("a", "1Mi")) == (
        "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"
    )
    assert await refused(api, CLAIMS, claim("a", "11Gi")) == (
        "maximum storage usage per PersistentVolumeClaim is 10Gi, but request is 11Gi"
    )
    await api.ok("POST", CLAIMS, claim("a", "2Gi"))


async def test_every_limit_range_counts_and_an_update_of_a_pod_is_let_be(api: Api) -> None:
    await limit(api, {"type": "Container", "max": {"cpu": "2"}}, name="a")
    made = await api.ok("POST", PODS, pod(containers=[container("c", {"cpu": "2"}, {"cpu": "2"})]))
    await limit(api, {"type": "Container", "max": {"cpu": "1"}}, name="b")
    assert await refused(api, PODS, pod("other", containers=[container("c", {"cpu": "1"}, {"cpu": "2"})])) == (
        "maximum cpu usage per Container is 1, but limit is 2"
    )  # fmt: skip
    made["metadata"]["labels"] = {"a": "b"}
    await api.ok("PUT", f"{PODS}/web", made)


async def test_a_resize_is_held_to_the_bounds(api: Api) -> None:
    await limit(api, {"type": "Container", "max": {"cpu": "2"}})
    made = await api.ok("POST", PODS, pod(containers=[container("c", {"cpu": "1"}, {"cpu": "1"})]))
    for part in ("requests", "limits"):
        made["spec"]["containers"][0]["resources"][part]["cpu"] = "3"
    reply = await api("PUT", f"{PODS}/web/resize", made)
    assert (reply.status, reply.json["message"]) == (
        403,
        'pods "web" is forbidden: maximum cpu usage per Container is 2, but limit is 3',
    )
