"""The OCI runtime with real namespaces, conmon and crun (or runc)."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from sampan.node.images.types import ImageConfig
from sampan.node.runtime.oci import OciRuntime
from sampan.node.runtime.types import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    Mount,
    Resources,
    RuntimeFailure,
    SandboxState,
    SecurityContext,
)

from .conftest import Place
from .contract import container, started

pytestmark = pytest.mark.root


def shell(script: str, **more: Any) -> ContainerConfig:
    return container("sh", "-c", script, **more)


@pytest.fixture(params=["crun", "runc"])
async def runtime(place: Place, request: pytest.FixtureRequest) -> OciRuntime:
    return await place.runtime(request.param)


@pytest.fixture
async def sandbox_id(place: Place, runtime: OciRuntime) -> str:
    return (await runtime.run_pod_sandbox(place.sandbox())).id


async def ended(runtime: OciRuntime, id: str) -> ContainerStatus:
    async with asyncio.timeout(20):
        async for event in runtime.events():
            if event.id == id:
                break
    return await runtime.container_status(id)


def log(place: Place, name: str = "main", pod: str = "pod") -> list[str]:
    """The log's lines as `stdout F text`, without their time."""
    text = Path(place.directory, f"logs/{pod}/{name}/0.log").read_text()
    return [line.split(" ", 1)[1] for line in text.splitlines()]


async def output(runtime: OciRuntime, place: Place, sandbox_id: str, config: ContainerConfig) -> list[str]:
    """What a container writes until it ends."""
    id = await started(runtime, sandbox_id, config)
    await ended(runtime, id)
    text = ""
    for line in log(place, config.name):
        _, tag, content = line.split(" ", 2)
        text += content + ("\n" if tag == "F" else "")
    lines = text.splitlines()
    await runtime.remove_container(id)
    Path(place.directory, f"logs/pod/{config.name}/0.log").unlink()
    return lines


async def listening(runtime: OciRuntime, id: str, port: int) -> None:
    """Return when something listens in the pod's network."""
    wait = f"until grep -q ':{port:04X} .* 0A ' /proc/net/tcp /proc/net/tcp6; do usleep 10000; done"
    await runtime.exec_sync(id, ["sh", "-c", wait], timeout=10)


async def test_the_log_has_the_form_of_cri(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    id = await started(runtime, sandbox_id, shell("hostname; echo wrong >&2; printf part"))
    assert (await ended(runtime, id)).exit_code == 0
    assert sorted(log(place)) == ["stderr F wrong", "stdout F pod", "stdout P part"]


async def test_containers_of_a_pod_share_localhost_and_memory(
    place: Place, runtime: OciRuntime, sandbox_id: str
) -> None:
    server = await started(
        runtime,
        sandbox_id,
        shell("echo kept > /dev/shm/note; exec nc -l -p 8080 -e cat", name="server"),
    )
    client = await started(runtime, sandbox_id, container("sleep", "1000", name="client"))
    await listening(runtime, client, 8080)
    script = "echo over localhost | nc 127.0.0.1 8080"
    result = await runtime.exec_sync(client, ["sh", "-c", script], timeout=10)
    assert result.stdout == b"over localhost\n"
    assert (await runtime.exec_sync(client, ["cat", "/dev/shm/note"])).stdout == b"kept\n"
    status = await runtime.container_status(server)
    for kind, shared in (("net", True), ("ipc", True), ("uts", True), ("pid", False), ("mnt", False)):
        ours = os.readlink(f"/proc/{(await runtime.container_status(client)).pid}/ns/{kind}")
        pause = (await runtime.pod_sandbox_status(sandbox_id)).pid
        assert (ours == os.readlink(f"/proc/{pause}/ns/{kind}")) is shared
    assert status.state in (ContainerState.RUNNING, ContainerState.EXITED)


async def test_a_shared_pid_namespace(place: Place, runtime: OciRuntime) -> None:
    sandbox = await runtime.run_pod_sandbox(place.sandbox(pid="pod"))
    id = await started(runtime, sandbox.id, shell("sleep 1000 & exec sleep 2000"))
    result = await runtime.exec_sync(id, ["ps", "-o", "pid,args"])
    assert b"catatonit" in result.stdout.splitlines()[1]
    other = await started(runtime, sandbox.id, container("sleep", "3000", name="other"))
    seen = (await runtime.exec_sync(other, ["ps", "-o", "args"])).stdout
    assert b"sleep 1000" in seen
    # A process whose parent is gone is the pause process's to bury: wait until its pid is free.
    orphan = "pid=$(sh -c 'true & echo $!'); until ! [ -e /proc/$pid ]; do usleep 1000; done; echo gone"
    assert (await runtime.exec_sync(other, ["sh", "-c", orphan], timeout=10)).stdout == b"gone\n"
    await runtime.stop_container(id, 0)
    seen = (await runtime.exec_sync(other, ["ps", "-o", "args"])).stdout
    assert b"sleep 1000" not in seen, "what the ended container had started went with it"


async def test_the_nodes_namespaces(place: Place, runtime: OciRuntime) -> None:
    sandbox = await runtime.run_pod_sandbox(place.sandbox(network="node", ipc="node", pid="node"))
    id = await started(runtime, sandbox.id, container("sleep", "1000"))
    pid = (await runtime.container_status(id)).pid
    for kind in ("net", "ipc", "uts", "pid"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")


async def test_sysctls_of_the_pod(place: Place, runtime: OciRuntime) -> None:
    config = place.sandbox(sysctls={"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shmmni": "123"})
    sandbox = await runtime.run_pod_sandbox(config)
    id = await started(runtime, sandbox.id, container("sleep", "1000"))
    read = ["cat", "/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/kernel/shmmni"]
    assert (await runtime.exec_sync(id, read)).stdout.split() == [b"2000", b"3000", b"123"]


async def test_a_sandbox_that_cannot_be_made_leaves_nothing(place: Place, runtime: OciRuntime) -> None:
    with pytest.raises(RuntimeFailure, match="failed to create pod sandbox"):
        await runtime.run_pod_sandbox(place.sandbox(sysctls={"net.none": "1"}))
    assert await runtime.list_pod_sandboxes() == []
    assert place.left() == []


async def test_the_user_of_the_image_and_of_the_pod(
    place: Place, runtime: OciRuntime, sandbox_id: str
) -> None:
    place.images.add("web", ImageConfig(user="web"))
    config = {
        "name": "main",
        "attempt": 0,
        "log_path": "main/0.log",
        "command": ["sh", "-c", "id; echo $HOME"],
    }

    async def ids(image: str, **security: Any) -> list[str]:
        made = ContainerConfig(image=image, security=SecurityContext(**security), **config)  # type: ignore[arg-type]
        return await output(runtime, place, sandbox_id, made)

    assert await ids("web") == ["uid=33(web) gid=44(web) groups=44(web),55(logs)", "/srv"]
    assert await ids("web", user=0) == ["uid=0(root) gid=0(root) groups=0(root)", "/root"]
    assert (await ids("busybox", user=1000, group=2000, supplemental_groups=(3000,)))[0] == (
        "uid=1000 gid=2000 groups=2000,3000"
    )


async def test_non_root_is_checked(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    place.images.add("web", ImageConfig(user="web"))
    place.images.add("number", ImageConfig(user="1000:1000", cmd=("true",)))
    for image, user, message in (
        ("busybox", None, "container has runAsNonRoot and image will run as root"),
        ("busybox", 0, "container's runAsUser breaks non-root policy"),
        ("web", None, "image has non-numeric user \\(web\\), cannot verify user is non-root"),
    ):
        config = ContainerConfig(
            name="main",
            attempt=0,
            image=image,
            log_path="x",
            security=SecurityContext(run_as_non_root=True, user=user),
        )
        with pytest.raises(RuntimeFailure, match=message) as caught:
            await runtime.create_container(sandbox_id, config)
        assert caught.value.reason == "CreateContainerConfigError"
    config = ContainerConfig(
        name="main",
        attempt=0,
        image="number",
        log_path="x",
        security=SecurityContext(run_as_non_root=True),
    )
    await runtime.create_container(sandbox_id, config)


async def test_command_arguments_environment_and_directory(
    place: Place, runtime: OciRuntime, sandbox_id: str
) -> None:
    image = ImageConfig(
        entrypoint=("sh", "-c"),
        cmd=("pwd; echo $A $B $HOSTNAME",),
        env=(("A", "image"), ("B", "image")),
        working_dir="/not/there/yet",
        volumes=("/data",),
    )
    place.images.add("full", image)
    base = {"name": "main", "attempt": 0, "image": "full", "log_path": "main/0.log"}
    made = ContainerConfig(env=[("B", "pod")], **base)  # type: ignore[arg-type]
    assert await output(runtime, place, sandbox_id, made) == ["/not/there/yet", "image pod pod"]
    made = ContainerConfig(args=["ls -d /data"], **base)  # type: ignore[arg-type]
    assert await output(runtime, place, sandbox_id, made) == ["/data"]
    made = ContainerConfig(command=["echo"], **base)  # type: ignore[arg-type]
    assert await output(runtime, place, sandbox_id, made) == [""]


async def test_rights(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    script = "grep -E 'CapEff|NoNewPrivs' /proc/self/status | tr -d '\\t'; touch /x 2>&1; cat /proc/interrupts | wc -c"

    async def rights(**security: Any) -> list[str]:
        return await output(runtime, place, sandbox_id, shell(script, security=SecurityContext(**security)))

    assert await rights() == ["CapEff:00000000a80425fb", "NoNewPrivs:0", "0"]
    assert (await rights(drop_capabilities=("ALL",), add_capabilities=("NET_BIND_SERVICE",)))[0] == (
        "CapEff:0000000000000400"
    )
    lines = await rights(readonly_rootfs=True, no_new_privileges=True)
    assert lines[1:3] == ["NoNewPrivs:1", "touch: /x: Read-only file system"]


async def test_seccomp(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    script = "grep Seccomp: /proc/self/status | tr -d '\\t'; unshare -m true 2>/dev/null; echo $?"

    async def filtered(profile: str, *capabilities: str) -> list[str]:
        security = SecurityContext(seccomp=profile, add_capabilities=capabilities)
        return await output(runtime, place, sandbox_id, shell(script, security=security))

    assert await filtered("", "SYS_ADMIN") == ["Seccomp:0", "0"]
    assert await filtered("RuntimeDefault", "SYS_ADMIN") == ["Seccomp:2", "0"]
    assert await filtered("RuntimeDefault") == ["Seccomp:2", "1"]
    file = Path(place.directory, "profile.json")
    rule = {"names": ["unshare"], "action": "SCMP_ACT_ERRNO"}
    file.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    assert await filtered(f"localhost/{file}", "SYS_ADMIN") == ["Seccomp:2", "1"]
    with pytest.raises(RuntimeFailure, match="cannot load seccomp profile"):
        await filtered("localhost//none")


RAW_CALLS = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
for call in sys.argv[1:]:
    number, *arguments = (int(n) for n in call.split(","))
    done = libc.syscall(number, *(ctypes.c_long(a) for a in arguments))
    print("done" if done >= 0 else errno.errorcode[ctypes.get_errno()])
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the calls are this architecture's")
async def test_what_the_default_profile_answers(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    calls = {
        "getpid": "39",
        "personality that asks": f"135,{0xFFFFFFFF}",
        "personality without random addresses": "135,262144",
        "clone of a user namespace": "56,268435456",
        "clone3": "435,0,0",
        "unshare": "272,131072",
        "keyctl": "250,0,0,0",
        "io_uring_setup": "425,1,0",
        "bpf": "321,0,0,0",
        "kcmp": "312,1,1,0,0,0",
        "socket": "41,2,1,0",
        "socket to the hypervisor": "41,40,1,0",
        "a call of the future": "1000",
    }

    async def answers(*capabilities: str) -> dict[str, str]:
        config = shell(
            f"chroot /host {sys.executable} -c '{RAW_CALLS}' {' '.join(calls.values())}",
            mounts=[Mount("/host", "/", readonly=True)],
            security=SecurityContext(seccomp="RuntimeDefault", add_capabilities=capabilities),
        )
        return dict(zip(calls, await output(runtime, place, sandbox_id, config), strict=True))

    expected = dict.fromkeys(calls, "EPERM") | {
        "getpid": "done",
        "personality that asks": "done",
        "personality without random addresses": "ENOSYS",
        "clone3": "ENOSYS",
        "socket": "done",
        "a call of the future": "ENOSYS",
    }
    assert await answers() == expected
    assert (await answers("SYS_PTRACE"))["kcmp"] == "done"


async def test_privileged(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    script = "mount -t tmpfs none /mnt && ls /dev/null /dev/kmsg && echo 1 > /proc/sys/net/ipv4/ip_forward; echo $?"
    config = shell(f"mkdir /mnt; {script}", security=SecurityContext(privileged=True))
    assert await output(runtime, place, sandbox_id, config) == ["/dev/kmsg", "/dev/null", "0"]


async def test_mounts(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    shared, file = Path(place.directory, "shared"), Path(place.directory, "file")
    shared.mkdir()
    file.write_text("content")
    config = shell(
        "echo written > /a/b/from-container; cat /etc/app/key; echo; echo x > /etc/app/key",
        mounts=[
            Mount("/a/b", str(shared)),
            Mount("/etc/app/key", str(file), readonly=True),
            Mount("/etc/hosts", str(file)),
        ],
    )
    lines = await output(runtime, place, sandbox_id, config)
    assert lines == ["content", "sh: can't create /etc/app/key: Read-only file system"]
    assert (shared / "from-container").read_text() == "written\n"


async def test_a_mount_that_is_not_there(runtime: OciRuntime, sandbox_id: str) -> None:
    id = await runtime.create_container(sandbox_id, container("true", mounts=[Mount("/a", "/not/there")]))
    with pytest.raises(RuntimeFailure, match="/not/there") as caught:
        await runtime.start_container(id)
    assert caught.value.reason == "RunContainerError"
    assert (await runtime.container_status(id)).reason == "StartError"


async def test_programs_that_cannot_be_run(runtime: OciRuntime, sandbox_id: str) -> None:
    for program, message in (
        ("/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ):
        id = await runtime.create_container(sandbox_id, container(program))
        with pytest.raises(RuntimeFailure, match=message):
            await runtime.start_container(id)
        await runtime.remove_container(id)


async def test_many_layers(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    layers = []
    for number in range(126):
        layer = Path(place.directory, "a-rather-long-name-for-the-directory-of-a-layer", f"{number}")
        layer.mkdir(parents=True)
        (layer / f"file{number}").write_text("")
        (layer / "top").write_text(str(number))
        layers.append(str(layer))
    place.images.add("deep", ImageConfig(cmd=("sh", "-c", "ls -d /file* | wc -l; cat /top; echo")), *layers)
    config = ContainerConfig(name="main", attempt=0, image="deep", log_path="main/0.log")
    assert await output(runtime, place, sandbox_id, config) == ["126", "125"]


async def test_an_image_cannot_lead_out(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    secret = Path(place.directory, "passwd")
    secret.write_text("web:x:777:777::/:/bin/sh\n")
    layer = Path(place.directory, "evil")
    (layer / "etc").mkdir(parents=True)
    (layer / "etc/passwd").symlink_to(secret)
    (layer / "out").symlink_to(place.directory)
    place.images.add("evil", ImageConfig(user="web", cmd=("true",)), str(layer))
    config = ContainerConfig(name="main", attempt=0, image="evil", log_path="x")
    with pytest.raises(RuntimeFailure, match="unable to find user web") as caught:
        await runtime.create_container(sandbox_id, config)
    assert caught.value.reason == "CreateContainerError"
    place.images.add("evil", ImageConfig(volumes=("/out/made",), cmd=("true",)), str(layer))
    with pytest.raises(RuntimeFailure):
        await runtime.create_container(sandbox_id, config)
    assert not Path(place.directory, "made").exists()


async def test_a_terminal(runtime: OciRuntime, sandbox_id: str) -> None:
    id = await started(runtime, sandbox_id, container("sh", stdin=True, tty=True))
    process = await runtime.attach(id)
    assert process.stdin
    assert process.stdout
    assert process.stderr is None
    process.resize(123, 45)
    process.stdin.write(b"stty size; echo $TERM; exit 4\n")
    async with asyncio.timeout(10):
        read = await process.stdout.read()
        assert b"45 123" in read
        assert b"xterm" in read
        assert await process.wait() == 4
    await process.close()


async def test_exec_with_a_terminal(runtime: OciRuntime, sandbox_id: str) -> None:
    id = await started(runtime, sandbox_id, container("sleep", "1000"))
    process = await runtime.exec(id, ["sh"], stdin=True, tty=True)
    assert process.stdin
    assert process.stdout
    async with asyncio.timeout(10):
        await process.stdout.readuntil(b"# ")
        for columns, rows in ((80, 24), (100, 50)):
            process.resize(columns, rows)
            # runc passes the size on in its own time.
            process.stdin.write(b"until stty size | grep '%d %d'; do usleep 9; done\n" % (rows, columns))
            await process.stdout.readuntil(b"done")
            await process.stdout.readuntil(b"%d %d" % (rows, columns))
        process.stdin.write(b"exit 5\n")
        assert await process.wait() == 5
        await process.stdout.read()
    await process.close()


async def test_exec_copies_much_without_holding_it(runtime: OciRuntime, sandbox_id: str) -> None:
    id = await started(runtime, sandbox_id, container("sleep", "1000"))
    process = await runtime.exec(id, ["head", "-c", "50000000", "/dev/zero"], stdin=False, tty=False)
    assert process.stdout
    total = 0
    async with asyncio.timeout(20):
        while data := await process.stdout.read(65536):
            total += len(data)
        assert await process.wait() == 0
    assert total == 50_000_000
    await process.close()


async def test_exec_that_outlives_its_time_is_killed_inside(runtime: OciRuntime, sandbox_id: str) -> None:
    id = await started(runtime, sandbox_id, container("sleep", "1000"))
    with pytest.raises(TimeoutError):
        await runtime.exec_sync(id, ["sleep", "4321"], timeout=0.3)
    assert b"4321" not in (await runtime.exec_sync(id, ["ps"])).stdout


async def test_a_port_of_the_pod(runtime: OciRuntime, sandbox_id: str) -> None:
    id = await started(runtime, sandbox_id, container("nc", "-l", "-p", "80", "-e", "cat"))
    await listening(runtime, id, 80)
    reader, writer = await runtime.open_port(sandbox_id, 80)
    writer.write(b"ping\n")
    assert await reader.readline() == b"ping\n"
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await runtime.open_port(sandbox_id, 81)


async def test_out_of_memory(runtime: OciRuntime, sandbox_id: str) -> None:
    config = container("tail", "/dev/zero", resources=Resources(memory_bytes=16 << 20))
    id = await started(runtime, sandbox_id, config)
    status = await ended(runtime, id)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


async def test_limits(runtime: OciRuntime, sandbox_id: str) -> None:
    resources = Resources(
        cpu_shares=512, cpu_quota=50_000, memory_bytes=64 << 20, pids=99, oom_score_adj=-997
    )
    id = await started(runtime, sandbox_id, container("sleep", "1000", resources=resources))
    cgroups = runtime.cgroups
    pid = (await runtime.container_status(id)).pid

    def value(controller: str, old: str, new: str) -> str:
        text = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        path = next(line.split(":", 2)[2] for line in text if controller in line.split(":")[1].split(","))
        return (
            Path(cgroups.directory(path, controller), old if cgroups.version == 1 else new)
            .read_text()
            .strip()
        )

    if cgroups.version == 1:
        assert value("cpu", "cpu.shares", "") == "512"
        assert value("cpu", "cpu.cfs_quota_us", "") == "50000"
        assert value("memory", "memory.limit_in_bytes", "") == str(64 << 20)
        assert value("pids", "pids.max", "") == "99"
    await runtime.update_container_resources(id, Resources(cpu_shares=256, memory_bytes=128 << 20))
    if cgroups.version == 1:
        assert value("cpu", "cpu.shares", "") == "256"
        assert value("memory", "memory.limit_in_bytes", "") == str(128 << 20)


async def test_stop_asks_first(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    script = "trap 'echo asked; exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    id = await started(runtime, sandbox_id, shell(script, stop_signal="SIGUSR1"))
    process = await runtime.attach(id)
    assert process.stdout
    await runtime.exec_sync(
        id, ["sh", "-c", "until grep -q 'SigCgt:.*2' /proc/1/status; do usleep 10000; done"]
    )
    await runtime.stop_container(id, 20)
    assert (await runtime.container_status(id)).exit_code == 9
    assert "stdout F asked" in log(place)
    await process.close()


async def test_stop_kills_after_its_time(runtime: OciRuntime, sandbox_id: str) -> None:
    id = await started(runtime, sandbox_id, container("sleep", "1000"))  # as pid 1 it ignores SIGTERM
    await runtime.stop_container(id, 0.2)
    assert (await runtime.container_status(id)).exit_code == 137


async def test_the_log_can_be_rotated(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    id = await started(runtime, sandbox_id, container("cat", stdin=True))
    process = await runtime.attach(id)
    assert process.stdin
    assert process.stdout
    path = Path(place.directory, "logs/pod/main/0.log")
    process.stdin.write(b"one\n")
    await process.stdout.readline()
    path.rename(f"{path}.old")
    await runtime.reopen_container_log(id)
    # conmon reads its control pipe and the container's output in any order: write until the new file is there.
    async with asyncio.timeout(10):
        while not path.exists() or not path.read_text():
            process.stdin.write(b"two\n")
            await process.stdout.readline()
    assert log(place)[-1] == "stdout F two"
    await process.close()


async def test_a_dead_sandbox_is_told(runtime: OciRuntime, sandbox_id: str) -> None:
    os.kill((await runtime.pod_sandbox_status(sandbox_id)).pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        event = await anext(runtime.events())
    assert (event.kind, event.id) == ("sandbox-died", sandbox_id)
    assert (await runtime.pod_sandbox_status(sandbox_id)).state is SandboxState.NOT_READY


async def test_a_cancelled_start_is_not_half_done(place: Place, runtime: OciRuntime, sandbox_id: str) -> None:
    id = await runtime.create_container(sandbox_id, container("sleep", "1000"))
    task = asyncio.create_task(runtime.start_container(id))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await runtime.container_status(id)).state is ContainerState.RUNNING
    await runtime.remove_container(id)
    assert len(place.left()) == len([line for line in place.left() if sandbox_id in line or "poduid" in line])


async def test_twenty_pods_at_once(place: Place, runtime: OciRuntime) -> None:
    async def pod(number: int) -> None:
        sandbox = await runtime.run_pod_sandbox(place.sandbox(f"pod{number}"))
        await started(runtime, sandbox.id, container("sleep", "1000"))

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(pod(number))
    assert {one.state for one in await runtime.list_containers()} == {ContainerState.RUNNING}
    async with asyncio.TaskGroup() as group:
        for sandbox in await runtime.list_pod_sandboxes():
            group.create_task(runtime.remove_pod_sandbox(sandbox.id))
