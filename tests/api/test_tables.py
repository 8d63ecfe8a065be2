from __future__ import annotations

from typing import Any

import pytest

from sampan.api import resources, tables

NOW = 1767225600.0  # 2026-01-01T00:00:00Z
HOUR_AGO = "2025-12-31T23:00:00Z"


def table(resource: resources.Resource, obj: Any, **options: Any) -> Any:
    obj.setdefault("metadata", {}).setdefault("name", "x")
    obj["metadata"].setdefault("creationTimestamp", HOUR_AGO)
    return tables.render(resource, [obj], now=NOW, **options)


def cells(resource: resources.Resource, obj: Any) -> list[Any]:
    made = table(resource, obj)
    (row,) = made["rows"]
    assert len(row["cells"]) == len(made["columnDefinitions"])
    return row["cells"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (599, "9m59s"),
        (600, "10m"), (10_799, "179m"), (10_800, "3h"), (10_860, "3h1m"), (28_800, "8h"), (172_799, "47h"),
        (172_800, "2d"), (176_400, "2d1h"), (8 * 86400, "8d"), (729 * 86400, "729d"), (730 * 86400, "2y"),
        (731 * 86400, "2y1d"), (2920 * 86400, "8y"),
    ],
)  # fmt: skip
def test_human_duration(seconds: float, text: str) -> None:
    assert tables.human_duration(seconds) == text


def pod(*statuses: Any, phase: str = "Running", init: Any = (), init_statuses: Any = (), **more: Any) -> Any:
    names = [s.get("name", f"c{i}") for i, s in enumerate(statuses)] or ["c0"]
    return {
        "metadata": more.pop("metadata", {}),
        "spec": {
            "containers": [{"name": n} for n in names],
            "initContainers": list(init),
            **more.pop("spec", {}),
        },
        "status": {
            "phase": phase,
            "containerStatuses": list(statuses),
            "initContainerStatuses": list(init_statuses),
            **more,
        },
    }


RUNNING = {"ready": True, "state": {"running": {}}}
NOT_READY = {"ready": False, "state": {"running": {}}}


def waiting(reason: str, **more: Any) -> Any:
    return {"ready": False, "state": {"waiting": {"reason": reason}}, **more}


def terminated(**of: Any) -> Any:
    return {"ready": False, "state": {"terminated": of}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (pod(phase="Pending"), ["0/1", "Pending", "0"]),
        (pod(RUNNING, NOT_READY), ["1/2", "Running", "0"]),
        (pod(waiting("ContainerCreating"), phase="Pending"), ["0/1", "ContainerCreating", "0"]),
        (
            pod(
                waiting(
                    "CrashLoopBackOff",
                    restartCount=3,
                    lastState={"terminated": {"finishedAt": "2025-12-31T23:55:00Z"}},
                )
            ),
            ["0/1", "CrashLoopBackOff", "3 (5m ago)"],
        ),
        (
            pod(terminated(exitCode=0, reason="Completed"), phase="Succeeded"),
            ["0/1", "Completed", "0"],
        ),
        (pod(terminated(exitCode=2)), ["0/1", "ExitCode:2", "0"]),
        (pod(terminated(exitCode=137, signal=9)), ["0/1", "Signal:9", "0"]),
        (
            pod(terminated(exitCode=0, reason="Completed"), RUNNING),
            ["1/2", "NotReady", "0"],
        ),
        (
            pod(
                terminated(exitCode=0, reason="Completed"),
                RUNNING,
                conditions=[{"type": "Ready", "status": "True"}],
            ),
            ["1/2", "Running", "0"],
        ),
        (pod(RUNNING, metadata={"deletionTimestamp": HOUR_AGO}), ["1/1", "Terminating", "0"]),
        (
            pod(RUNNING, metadata={"deletionTimestamp": HOUR_AGO}, reason="NodeLost"),
            ["1/1", "Unknown", "0"],
        ),
        (pod(phase="Failed", reason="Evicted"), ["0/1", "Evicted", "0"]),
        (
            pod(phase="Pending", conditions=[{"type": "PodScheduled", "reason": "SchedulingGated"}]),
            ["0/1", "SchedulingGated", "0"],
        ),
        (
            pod(
                waiting("PodInitializing"),
                phase="Pending",
                init=[{"name": "i"}, {"name": "j"}],
                init_statuses=[
                    {"name": "i", **terminated(exitCode=0)},
                    {"name": "j", "state": {"running": {}}},
                ],
            ),
            ["0/1", "Init:1/2", "0"],
        ),
        (
            pod(
                waiting("PodInitializing"),
                phase="Pending",
                init=[{"name": "i"}],
                init_statuses=[{"name": "i", "restartCount": 2, **terminated(exitCode=1)}],
            ),
            ["0/1", "Init:ExitCode:1", "2"],
        ),
        (
            pod(
                waiting("PodInitializing"),
                phase="Pending",
                init=[{"name": "i"}],
                init_statuses=[{"name": "i", **waiting("CrashLoopBackOff")}],
            ),
            ["0/1", "Init:CrashLoopBackOff", "0"],
        ),
        (
            pod(
                RUNNING,
                init=[{"name": "side", "restartPolicy": "Always"}],
                init_statuses=[{"name": "side", "started": True, **RUNNING}],
            ),
            ["2/2", "Running", "0"],
        ),
    ],
)
def test_pods(obj: Any, expected: list[str]) -> None:
    assert cells(resources.PODS, obj)[1:4] == expected


def test_pods_wide() -> None:
    made = cells(
        resources.PODS,
        pod(
            RUNNING,
            podIPs=[{"ip": "10.0.0.1"}],
            spec={"nodeName": "n", "readinessGates": [{"conditionType": "a"}]},
        ),
    )
    assert made == ["x", "1/1", "Running", "0", "60m", "10.0.0.1", "n", "<none>", "0/1"]
    assert cells(resources.PODS, pod(RUNNING))[5:] == ["<none>"] * 4
    done = table(resources.PODS, pod(phase="Succeeded"))["rows"][0]
    assert done["conditions"][0]["type"] == "Completed"


ROWS: list[tuple[resources.Resource, Any, list[Any]]] = [
    (
        resources.NODES,
        {
            "metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"},
            },
        },
        [
            "x", "Ready,SchedulingDisabled", "control-plane,edge", "60m", "v1.36.0", "10.0.0.2", "<none>", "Debian",
            "<unknown>", "<unknown>",
        ],
    ),
    (resources.NAMESPACES, {"status": {"phase": "Active"}}, ["x", "Active", "60m"]),
    (
        resources.SERVICES,
        {
            "spec": {
                "type": "NodePort",
                "clusterIP": "10.96.0.5",
                "clusterIPs": ["10.96.0.5"],
                "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                "selector": {"b": "2", "a": "1"},
            }
        },
        ["x", "NodePort", "10.96.0.5", "<none>", "80:30001/TCP,53/UDP", "60m", "a=1,b=2"],
    ),
    (
        resources.SERVICES,
        {"spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.5"]}},
        ["x", "LoadBalancer", "10.96.0.5", "<pending>", "<none>", "60m", "<none>"],
    ),
    (
        resources.SERVICES,
        {
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.5"], "externalIPs": ["1.2.3.4"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}]}},
        },
        ["x", "LoadBalancer", "10.96.0.5", "9.9.9.9,1.2.3.4", "<none>", "60m", "<none>"],
    ),
    (
        resources.SERVICES,
        {"spec": {"type": "ExternalName", "externalName": "example.com"}},
        ["x", "ExternalName", "<none>", "example.com", "<none>", "60m", "<none>"],
    ),
    (
        resources.ENDPOINTS,
        {"subsets": [{"addresses": [{"ip": f"10.0.0.{i}"} for i in range(1, 6)], "ports": [{"port": 80}]}]},
        ["x", "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...", "60m"],
    ),
    (resources.ENDPOINTS, {}, ["x", "<none>", "60m"]),
    (
        resources.ENDPOINTSLICES,
        {"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}]},
        ["x", "IPv4", "80", "10.0.0.1", "60m"],
    ),
    (resources.ENDPOINTSLICES, {"addressType": "IPv6"}, ["x", "IPv6", "<unset>", "<unset>", "60m"]),
    (resources.CONFIGMAPS, {"data": {"a": "b"}, "binaryData": {"c": "d"}}, ["x", 2, "60m"]),
    (resources.SECRETS, {"type": "Opaque", "data": {"a": "b"}}, ["x", "Opaque", 1, "60m"]),
    (resources.SERVICEACCOUNTS, {}, ["x", 0, "60m"]),
    (
        resources.EVENTS,
        {
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "source": {"component": "kubelet", "host": "n"},
            "type": "Normal",
            "reason": "Pulled",
            "message": "ok\n",
            "count": 3,
            "firstTimestamp": HOUR_AGO,
            "lastTimestamp": "2025-12-31T23:59:30Z",
        },
        ["30s", "Normal", "Pulled", "pod/p", "spec.containers{c}", "kubelet, n", "ok", "60m", 3, "x"],
    ),
    (
        resources.EVENTS_V1,
        {
            "regarding": {"kind": "Pod", "name": "p"},
            "reportingController": "sched",
            "type": "Normal",
            "reason": "Scheduled",
            "note": "ok",
            "eventTime": HOUR_AGO,
            "series": {"count": 2, "lastObservedTime": "2025-12-31T23:59:59.000001Z"},
        },
        ["0s", "Normal", "Scheduled", "pod/p", "", "sched", "ok", "60m", 2, "x"],
    ),
    (
        resources.DEPLOYMENTS,
        {
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}},
            },
            "status": {"readyReplicas": 1, "updatedReplicas": 2},
        },
        ["x", "1/3", 2, 0, "60m", "a,b", "i,j", "app=web"],
    ),
    (
        resources.REPLICASETS,
        {"spec": {"replicas": 2}, "status": {"replicas": 2}},
        ["x", 2, 2, 0, "60m", "", "", "<none>"],
    ),
    (resources.LEASES, {"spec": {"holderIdentity": "me"}}, ["x", "me", "60m"]),
    (
        resources.INGRESSES,
        {"spec": {"rules": [{"host": "a"}, {"host": "b"}], "tls": [{}]}},
        ["x", "<none>", "a,b", "", "80, 443", "60m"],
    ),
    (
        resources.INGRESSES,
        {
            "spec": {"ingressClassName": "haproxy", "rules": [{}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}]}},
        },
        ["x", "haproxy", "*", "9.9.9.9", "80", "60m"],
    ),
    (
        resources.INGRESSCLASSES,
        {"spec": {"controller": "c", "parameters": {"kind": "K", "apiGroup": "g", "name": "n"}}},
        ["x", "c", "K.g/n", "60m"],
    ),
    (resources.ROLES, {}, ["x", HOUR_AGO]),
    (
        resources.CLUSTERROLEBINDINGS,
        {
            "roleRef": {"kind": "ClusterRole", "name": "admin"},
            "subjects": [
                {"kind": "User", "name": "u"},
                {"kind": "User", "name": "v"},
                {"kind": "ServiceAccount", "namespace": "ns", "name": "s"},
            ],
        },
        ["x", "ClusterRole/admin", "60m", "u, v", "", "ns/s"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "expected"), ROWS, ids=lambda v: getattr(v, "plural", None))
def test_rows(resource: resources.Resource, obj: Any, expected: list[Any]) -> None:
    assert cells(resource, obj) == expected


def test_what_a_row_carries() -> None:
    obj = {"metadata": {"name": "c"}, "data": {}}
    whole = table(resources.CONFIGMAPS, obj)
    assert (whole["kind"], whole["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert whole["columnDefinitions"][0] | {"description": ""} == {
        "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0,
    }  # fmt: skip
    assert whole["rows"][0]["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }
    assert "object" not in table(resources.CONFIGMAPS, obj, include="None")["rows"][0]
    assert table(resources.CONFIGMAPS, obj, include="Object")["rows"][0]["object"] is obj


def test_every_kind_has_a_table() -> None:
    for resource in resources.RESOURCES:
        assert cells(resource, {})
        assert tables.columns(resource)[0].priority == 0
