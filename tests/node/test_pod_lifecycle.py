"""A pod from its binding to its end, on a runtime in memory."""

from __future__ import annotations

import asyncio

from sampan.api.resources import CONFIGMAPS, PODS
from sampan.node.runtime.types import ContainerState, RuntimeFailure
from tests.node.harness import Node


async def test_a_pod_becomes_ready(node: Node) -> None:
    pod = node.add(labels={"app": "web"})
    await node.until_ready()
    status = node.status()
    assert status["phase"] == "Running"
    assert status["hostIP"] == "172.30.0.2"
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert status["qosClass"] == "BestEffort"
    assert status["observedGeneration"] == 1
    container = node.container()
    assert container["ready"] is container["started"] is True
    assert container["restartCount"] == 0
    assert container["containerID"].startswith("sampan://")
    assert container["image"] == "docker.io/library/nginx:latest"
    assert set(container["state"]) == {"running"}
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }
    (sandbox,) = node.runtime.pod_configs.values()
    assert (sandbox.namespace, sandbox.name, sandbox.uid) == ("default", "web", pod["metadata"]["uid"])
    assert sandbox.hostname == "web"
    assert sandbox.labels["app"] == "web"
    events = await node.events()
    assert [e for e in events if e[1] in ("Pulled", "Created", "Started")] == [
        (
            "Normal",
            "Pulled",
            'Container image "nginx" already present on machine and can be accessed by the pod',
        ),
        ("Normal", "Created", "Container created"),
        ("Normal", "Started", "Container started"),
    ]


async def test_a_start_costs_one_status_write(node: Node) -> None:
    node.add(containers=[{"name": n, "image": "nginx"} for n in ("a", "b")])
    await node.until_ready()
    writes = [w for w in node.client.writes if w[:2] == ("patch", "pods")]
    assert len(writes) == 1


async def test_graceful_deletion(node: Node) -> None:
    node.add()
    await node.until_ready()
    uid = node.pod()["metadata"]["uid"]  # type: ignore[index]
    assert (node.root / "pods" / uid).exists()
    node.client.graceful_delete("default", "web")
    await node.until(lambda: node.pod() is None)
    calls = [c[0] for c in node.runtime.calls]
    assert calls.index("stop_container") < calls.index("stop_pod_sandbox")
    last = [w for w in node.client.writes if w[:2] == ("patch", "pods")][-1][3]["status"]
    assert last["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
    assert last["phase"] == "Failed"
    assert ("delete", "pods", "web", 0) in node.client.writes
    assert ("Normal", "Killing", "Stopping container c") in await node.events()
    await node.until_left(uid)
    assert not (node.root / "pods" / uid).exists()


async def test_a_pod_removed_by_force_is_ended(node: Node) -> None:
    node.add()
    await node.until_ready()
    uid = node.pod()["metadata"]["uid"]  # type: ignore[index]
    worker = node.agent.workers.get(uid)
    node.client.remove(PODS, "default", "web")
    await node.until_left(uid)
    assert worker is not None
    assert await node.runtime.list_pod_sandboxes() == []


async def test_a_crashing_container_backs_off(node: Node) -> None:
    pod = node.add(containers=[{"name": "c", "image": "busybox", "command": ["false"]}])
    waiting = await node.until_waiting("CrashLoopBackOff")
    who = f"web_default({pod['metadata']['uid']})"
    assert waiting["message"] == f"back-off 10s restarting failed container=c pod={who}"
    container = node.container()
    assert container["restartCount"] == 1
    assert container["lastState"]["terminated"]["exitCode"] == 1
    assert node.status()["phase"] == "Running"
    assert node.condition("Ready")["reason"] == "ContainersNotReady"
    assert node.condition("Ready")["message"] == "containers with unready status: [c]"
    assert (
        "Warning",
        "BackOff",
        f"Back-off restarting failed container c in pod {who}",
    ) in await node.events()
    # The pause is over: one more try, and a pause twice as long.
    node.now += 11
    worker = node.agent.workers.get(pod["metadata"]["uid"])
    assert worker is not None
    worker.objects_changed()
    await node.until(
        lambda: "back-off 20s" in node.container()["state"].get("waiting", {}).get("message", "")
    )
    assert node.container()["restartCount"] == 2
    assert len(await node.runtime.list_containers()) == 2


async def test_restart_policy_never(node: Node) -> None:
    node.add(
        "good", restartPolicy="Never", containers=[{"name": "c", "image": "busybox", "command": ["true"]}]
    )
    node.add(
        "bad", restartPolicy="Never", containers=[{"name": "c", "image": "busybox", "command": ["false"]}]
    )
    await node.until(lambda: node.status("good").get("phase") == "Succeeded")
    await node.until(lambda: node.status("bad").get("phase") == "Failed")
    assert node.condition("Ready", "good")["reason"] == "PodCompleted"
    assert node.condition("Ready", "bad")["reason"] == "PodFailed"
    assert node.container(pod="good")["state"]["terminated"]["reason"] == "Completed"
    node.client.graceful_delete("default", "good")
    await node.until(lambda: node.pod("good") is None)


async def test_init_containers_run_in_order(node: Node) -> None:
    gates = {}

    async def gated(call):  # type: ignore[no-untyped-def]
        gates[call.args[1]] = asyncio.Event()
        node.client.wake()
        await gates[call.args[1]].wait()
        return 0

    node.runtime.programs["gated"] = gated
    node.add(
        initContainers=[
            {"name": "i1", "image": "busybox", "command": ["gated", "1"]},
            {"name": "i2", "image": "busybox", "command": ["gated", "2"]},
        ]
    )
    await node.until(lambda: "1" in gates)
    await node.until(lambda: "running" in node.container("i1").get("state", {}))
    assert node.status()["phase"] == "Pending"
    assert node.container()["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert node.condition("Initialized")["message"] == "containers with incomplete status: [i1 i2]"
    gates["1"].set()
    await node.until(lambda: "2" in gates)
    gates["2"].set()
    await node.until_ready()
    assert node.container("i2")["ready"] is True


async def test_a_failing_init_container_fails_a_pod_that_never_restarts(node: Node) -> None:
    node.add(restartPolicy="Never", initContainers=[{"name": "i", "image": "busybox", "command": ["false"]}])
    await node.until(lambda: node.status().get("phase") == "Failed")
    assert node.container()["state"].keys() == {"terminated"} or node.container()["state"].keys() == {
        "waiting"
    }


async def test_a_sidecar_starts_before_and_ends_after(node: Node) -> None:
    node.add(
        restartPolicy="Never",
        initContainers=[{"name": "side", "image": "busybox", "restartPolicy": "Always"}],
        containers=[{"name": "c", "image": "busybox"}],
    )
    await node.until_ready()
    created = [c[1] for c in node.runtime.calls if c[0] == "create_container"]
    assert created == ["side", "c"]
    assert node.container("side")["ready"] is True
    node.runtime.finish((await node.running("c")).id)
    await node.until(lambda: node.status().get("phase") == "Succeeded")
    assert "terminated" in node.container("side")["state"]


async def test_missing_image(node: Node) -> None:
    node.add(containers=[{"name": "c", "image": "nowhere"}])
    waiting = await node.until_waiting("ErrImagePull")
    assert waiting["message"] == "no such image: nowhere"
    waiting = await node.until_waiting("ImagePullBackOff")
    assert waiting["message"] == 'Back-off pulling image "nowhere": ErrImagePull: no such image: nowhere'
    events = await node.events()
    assert ("Warning", "Failed", 'Failed to pull image "nowhere": no such image: nowhere') in events
    assert ("Warning", "Failed", "Error: ErrImagePull") in events
    assert ("Normal", "BackOff", 'Back-off pulling image "nowhere"') in events
    assert node.status()["phase"] == "Pending"


async def test_image_never_pulled(node: Node) -> None:
    node.add(containers=[{"name": "c", "image": "nowhere", "imagePullPolicy": "Never"}])
    waiting = await node.until_waiting("ErrImageNeverPull")
    assert waiting["message"] == 'Container image "nowhere" is not present with pull policy of Never'


async def test_invalid_image_name(node: Node) -> None:
    node.add(containers=[{"name": "c", "image": "NGINX"}])
    await node.until_waiting("InvalidImageName")


async def test_missing_config_map_in_environment(node: Node) -> None:
    reference = {"configMapKeyRef": {"name": "settings", "key": "mode"}}
    node.add(containers=[{"name": "c", "image": "nginx", "env": [{"name": "MODE", "valueFrom": reference}]}])
    waiting = await node.until_waiting("CreateContainerConfigError")
    assert waiting["message"] == 'configmap "settings" not found'
    node.client.put(
        CONFIGMAPS, {"metadata": {"name": "settings", "namespace": "default"}, "data": {"x": "1"}}
    )
    await node.until(
        lambda: (
            node.container()["state"].get("waiting", {}).get("message")
            == "couldn't find key mode in ConfigMap default/settings"
        )
    )
    node.client.put(
        CONFIGMAPS, {"metadata": {"name": "settings", "namespace": "default"}, "data": {"mode": "a"}}
    )
    await node.until_ready()
    config = node.runtime.config((await node.running()).id)
    assert ("MODE", "a") in config.env


async def test_missing_config_map_volume(node: Node) -> None:
    node.add(
        volumes=[{"name": "v", "configMap": {"name": "settings"}}],
        containers=[{"name": "c", "image": "nginx", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
    )
    await node.until(
        lambda: any(e["reason"] == "FailedMount" for e in node.client.objects["events"].values())
    )
    message = 'MountVolume.SetUp failed for volume "v" : configmap "settings" not found'
    assert ("Warning", "FailedMount", message) in await node.events()
    await node.until_waiting("ContainerCreating")
    node.client.put(
        CONFIGMAPS, {"metadata": {"name": "settings", "namespace": "default"}, "data": {"x": "1"}}
    )
    await node.until_ready()


async def test_create_and_run_errors(node: Node) -> None:
    node.runtime.fail_next("create_container", RuntimeFailure("no space", "CreateContainerError"))
    node.add("a")
    waiting = await node.until_waiting("CreateContainerError", pod="a")
    assert waiting["message"] == "no space"
    node.add("b", containers=[{"name": "c", "image": "busybox", "command": ["nonesuch"]}])
    await node.until_waiting("CrashLoopBackOff", pod="b")
    assert node.container(pod="b")["lastState"]["terminated"]["reason"] == "StartError"


async def test_a_dead_sandbox_is_replaced(node: Node) -> None:
    node.add()
    await node.until_ready()
    (sandbox,) = await node.runtime.list_pod_sandboxes()
    node.runtime.kill_sandbox(sandbox.id)
    await node.until(lambda: node.container().get("restartCount") == 1 and node.container()["ready"])
    assert node.status()["podIP"] != sandbox.ips[0]
    assert node.status()["podIPs"] == [{"ip": node.status()["podIP"]}]
    message = "Pod sandbox changed, it will be killed and re-created."
    assert ("Normal", "SandboxChanged", message) in await node.events()


async def test_a_sandbox_that_fails_is_tried_again(node: Node) -> None:
    node.runtime.fail_next("run_pod_sandbox", RuntimeFailure("no address left"))
    node.add()
    await node.until_ready()
    message = "Failed to create pod sandbox: no address left"
    assert ("Warning", "FailedCreatePodSandBox", message) in await node.events()


async def test_active_deadline(node: Node) -> None:
    node.add(activeDeadlineSeconds=1)
    await node.until(lambda: node.status().get("phase") == "Failed")
    assert node.status()["reason"] == "DeadlineExceeded"
    assert "terminated" in node.container()["state"]


async def test_the_agent_restarts_and_nothing_else_does(node: Node) -> None:
    node.add()
    node.add("gone")
    node.add("deleted")
    for name in ("web", "gone", "deleted"):
        await node.until_ready(name)
    before = node.container()["containerID"]
    await node.stop()
    node.client.remove(PODS, "default", "gone")
    node.client.graceful_delete("default", "deleted")
    calls = len(node.runtime.calls)
    orphan = node.root / "pods" / "orphan" / "volumes"
    orphan.mkdir(parents=True)
    await node.start()
    await node.until(lambda: node.pod("deleted") is None)
    while len(node.runtime._sandboxes) > 1:
        await asyncio.sleep(0)
    assert node.container()["containerID"] == before
    assert node.condition("Ready")["status"] == "True"
    assert not [c for c in node.runtime.calls[calls:] if c[0] in ("run_pod_sandbox", "create_container")]
    assert not orphan.parent.exists()
    (left,) = await node.runtime.list_containers()
    assert left.state is ContainerState.RUNNING


async def test_the_api_goes_away_for_a_while(node: Node) -> None:
    node.add(containers=[{"name": "c", "image": "busybox"}])
    await node.until_ready()
    node.client.away = True
    node.client.wake()
    node.runtime.finish((await node.running()).id, 1)
    while (await node.runtime.list_containers())[-1].attempt != 1:
        await asyncio.sleep(0)
    node.client.away = False
    await node.until(lambda: node.container().get("restartCount") == 1)


async def test_a_burst_of_pods(node: Node) -> None:
    for n in range(20):
        node.add(f"p{n}")
    for n in range(20):
        await node.until_ready(f"p{n}")
