"""A pod from its binding to its end, on a runtime in memory."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace

from sampan.api.resources import CONFIGMAPS, PODS, SECRETS
from sampan.node.images.types import Credentials
from sampan.node.runtime.types import ContainerState, RuntimeFailure, SecurityContext
from tests.node.fakes import fake_image
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


async def test_an_image_loaded_by_hand_is_not_pulled_again(node: Node) -> None:
    node.images.images["loaded"] = replace(fake_image("loaded"), pinned=True)
    node.add(containers=[{"name": "c", "image": "loaded", "imagePullPolicy": "Always"}])
    await node.until_ready()
    assert node.images.pulls == []
    message = (
        'Container image "loaded" already present on machine and can be accessed by the pod; '
        "it was loaded by hand and is not pulled again"
    )
    assert ("Normal", "Pulled", message) in await node.events()


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


async def test_an_ephemeral_container_joins_and_is_not_restarted(node: Node) -> None:
    node.add()
    await node.until_ready()
    pod = dict(node.pod() or {})
    debug = {"name": "debug", "image": "busybox", "command": ["true"]}
    node.client.put(PODS, {**pod, "spec": {**pod["spec"], "ephemeralContainers": [debug]}})
    (status,) = await node.until(
        lambda: [s for s in node.status().get("ephemeralContainerStatuses", []) if "terminated" in s["state"]]
    )
    assert (status["name"], status["restartCount"]) == ("debug", 0)
    assert node.condition("Ready")["status"] == "True"
    assert node.status()["phase"] == "Running"


async def test_less_grace_hurries_a_pod_that_is_ending(node: Node) -> None:
    stopping, release = asyncio.Event(), asyncio.Event()
    stop = node.runtime.stop_container
    times: list[float] = []

    async def slow(container_id: str, timeout: float) -> None:
        times.append(timeout)
        stopping.set()
        if timeout > 5:
            await release.wait()
        await stop(container_id, timeout)
        release.set()

    node.runtime.stop_container = slow  # type: ignore[method-assign]
    node.add()
    await node.until_ready()
    node.client.graceful_delete("default", "web", 30)
    await stopping.wait()
    assert 29 < times[0] <= 30
    node.client.graceful_delete("default", "web", 1)
    await node.until(lambda: node.pod() is None)
    assert times[1] == 1


async def test_a_finished_pod_that_the_runtime_forgot_stays_as_it_was(node: Node) -> None:
    node.add(restartPolicy="Never", containers=[{"name": "c", "image": "busybox", "command": ["true"]}])
    await node.until(lambda: node.status().get("phase") == "Succeeded")
    before = node.container()
    await node.stop()
    for sandbox in await node.runtime.list_pod_sandboxes():
        await node.runtime.remove_pod_sandbox(sandbox.id)
    await node.start()
    node.client.graceful_delete("default", "web")
    await node.until(lambda: node.pod() is None)
    told = [w[3]["status"]["containerStatuses"] for w in node.client.writes if w[:2] == ("patch", "pods")]
    assert all(t[0]["state"] == before["state"] for t in told if "terminated" in t[0]["state"])


async def test_pull_secrets_reach_the_registry(node: Node) -> None:
    auths = {"auths": {"registry.example": {"auth": base64.b64encode(b"me:pw").decode()}}}
    data = {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()}
    meta = {"name": "pull", "namespace": "default"}
    node.client.put(SECRETS, {"metadata": meta, "type": "kubernetes.io/dockerconfigjson", "data": data})
    node.images.remote["registry.example/app"] = fake_image("app")
    node.add(
        imagePullSecrets=[{"name": "pull"}, {"name": "absent"}],
        containers=[{"name": "c", "image": "registry.example/app", "imagePullPolicy": "Always"}],
    )
    await node.until_ready()
    assert node.images.pulls == [("registry.example/app", [Credentials("registry.example", "me", "pw")])]
    events = await node.events()
    assert any(e[1] == "FailedToRetrieveImagePullSecret" and "absent" in e[2] for e in events)
    pulled = next(e[2] for e in events if e[1] == "Pulled")
    assert pulled.startswith('Successfully pulled image "registry.example/app" in ')
    assert pulled.endswith(" including waiting). Image size: 1234 bytes.")


async def test_what_a_container_runs_as(node: Node) -> None:
    node.add(
        securityContext={
            "runAsUser": 1000,
            "fsGroup": 2000,
            "supplementalGroups": [3000],
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        containers=[
            {
                "name": "c",
                "image": "nginx",
                "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}},
                "securityContext": {
                    "runAsGroup": 1001,
                    "readOnlyRootFilesystem": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]},
                },
            }
        ],
    )
    await node.until_ready()
    config = node.runtime.config((await node.running()).id)
    assert config.security == SecurityContext(
        user=1000,
        group=1001,
        supplemental_groups=(3000, 2000),
        readonly_rootfs=True,
        no_new_privileges=True,
        add_capabilities=("NET_ADMIN",),
        drop_capabilities=("ALL",),
        seccomp="RuntimeDefault",
    )
    assert (config.resources.cpu_shares, config.resources.memory_bytes) == (256, 64 << 20)
    assert node.status()["qosClass"] == "Burstable"


async def test_root_is_refused_where_it_must_not_be(node: Node) -> None:
    node.add(securityContext={"runAsNonRoot": True})
    waiting = await node.until_waiting("CreateContainerConfigError")
    assert waiting["message"].startswith("container has runAsNonRoot and image will run as root (pod: ")


async def test_a_pod_in_the_nodes_network(node: Node) -> None:
    node.add(hostNetwork=True)
    await node.until_ready()
    assert node.status()["podIP"] == "172.30.0.2"
    (sandbox,) = node.runtime.pod_configs.values()
    assert sandbox.network == "node"


async def test_streams(node: Node) -> None:
    node.add()
    await node.until_ready()
    streams = node.agent.streams
    record = await node.running()
    assert [p["metadata"]["name"] for p in streams.pods()] == ["web"]
    assert (streams.pod("default", "web") or {})["status"]["phase"] == "Running"
    assert streams.pod("default", "none") is None
    uid = (node.pod() or {})["metadata"]["uid"]
    assert await streams.log_path(record.id) == node.root / f"logs/pods/default_web_{uid}/c/0.log"
    waiting = asyncio.create_task(streams.wait_ended(record.id))
    await asyncio.sleep(0)
    assert not waiting.done()
    node.runtime.finish(record.id)
    await waiting
    await streams.wait_ended(record.id)
