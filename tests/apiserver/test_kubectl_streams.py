"""exec, attach, cp, logs and port-forward with the real kubectl, through the connector and the node's own server."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from tests.apiserver.node_fakes import Rig, pod, rig
from tests.programs import kubectl_problem

pytestmark = pytest.mark.skipif(bool(kubectl_problem()), reason=kubectl_problem())


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        made.add_pod(pod())
        yield made


class Kubectl:
    def __init__(self, cluster: Rig, home: Path) -> None:
        self.cluster = cluster
        self.environment = {**os.environ, "HOME": str(home), "KUBECONFIG": str(home / "none")}

    async def start(self, *arguments: str, spdy: bool = False) -> asyncio.subprocess.Process:
        environment = dict(self.environment)
        if spdy:
            environment |= {
                "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false",
                "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false",
            }
        return await asyncio.create_subprocess_exec(
            "kubectl",
            "--server",
            self.cluster.api,
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(
        self, *arguments: str, given: bytes | None = None, spdy: bool = False
    ) -> tuple[int, bytes, bytes]:
        process = await self.start(*arguments, spdy=spdy)
        out, err = await asyncio.wait_for(process.communicate(given), 30)
        return process.returncode or 0, out, err


@pytest.fixture
def kubectl(cluster: Rig, tmp_path: Path) -> Kubectl:
    return Kubectl(cluster, tmp_path)


SPDY = pytest.mark.parametrize("spdy", [False, True], ids=["websocket", "spdy"])


@SPDY
async def test_exec_output_and_exit_code(kubectl: Kubectl, cluster: Rig, spdy: bool) -> None:
    code, out, err = await kubectl(
        "exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3", spdy=spdy
    )
    assert (code, out) == (3, b"out\n")
    assert err == b"err\ncommand terminated with exit code 3\n"
    upgraded = [r for r in cluster.requests if "upgrade" in r.headers]
    assert len(upgraded) == 1
    assert ("spdy" in upgraded[0].headers["upgrade"].lower()) is spdy


@SPDY
async def test_exec_with_input_that_ends(kubectl: Kubectl, spdy: bool) -> None:
    given = os.urandom(3_000_000)
    code, out, err = await kubectl("exec", "-i", "web", "--", "cat", given=given, spdy=spdy)
    assert (code, err) == (0, b"")
    assert out == given


@SPDY
async def test_exec_of_a_command_that_reads_nothing(kubectl: Kubectl, spdy: bool) -> None:
    code, out, _ = await kubectl("exec", "-i", "web", "--", "echo", "hi", given=b"x" * 2_000_000, spdy=spdy)
    assert (code, out) == (0, b"hi\n")


@SPDY
async def test_exec_of_a_missing_program(kubectl: Kubectl, spdy: bool) -> None:
    code, _, err = await kubectl("exec", "web", "--", "no-such-program", spdy=spdy)
    assert code == 1
    assert b"Internal error occurred: error executing command in container" in err
    assert b"no-such-program" in err


@SPDY
async def test_killing_kubectl_ends_the_command(kubectl: Kubectl, cluster: Rig, spdy: bool) -> None:
    process = await kubectl.start("exec", "web", "--", "sh", "-c", "echo up; sleep 1000", spdy=spdy)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.kill()
    await process.communicate()
    started = cluster.node.processes[0]
    assert await asyncio.wait_for(started.wait(), 20) == -9


async def test_exec_on_a_terminal(kubectl: Kubectl, cluster: Rig) -> None:
    # `script` gives kubectl a terminal of 80 columns.
    if shutil.which("script") is None:
        pytest.skip("needs script")
    inner = f"stty cols 77 rows 33; kubectl --server {cluster.api} exec -it web -- sh -c 'stty size; tty -s && echo tty'"
    process = await asyncio.create_subprocess_exec(
        "script",
        "-qec",
        inner,
        "/dev/null",
        env=kubectl.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    out = await asyncio.wait_for(process.stdout.read(), 20)
    await process.wait()
    assert b"tty" in out
    assert cluster.node.processes[0].sizes[0] == (77, 33)


@SPDY
async def test_attach(kubectl: Kubectl, spdy: bool) -> None:
    code, out, _ = await kubectl("attach", "-i", "web", given=b"hello\n", spdy=spdy)
    assert (code, out) == (0, b"hello\n")


@SPDY
async def test_cp_both_ways(kubectl: Kubectl, tmp_path: Path, spdy: bool) -> None:
    source, there, back = tmp_path / "source", tmp_path / "there", tmp_path / "back"
    source.write_bytes(os.urandom(5_000_000))
    code, _, err = await kubectl("cp", str(source), f"web:{there}", spdy=spdy)
    assert (code, err) == (0, b"")
    code, _, err = await kubectl("cp", f"web:{there}", str(back), spdy=spdy)
    assert code == 0, err
    assert there.read_bytes() == back.read_bytes() == source.read_bytes()


async def test_errors_before_the_upgrade(kubectl: Kubectl, cluster: Rig) -> None:
    cluster.add_pod(pod("two", "a", "b"))
    cluster.add_pod(pod("pending", node=""))
    for arguments, told in (
        (("exec", "web", "-c", "nope", "--", "true"), b"container nope is not valid for pod web"),
        (("exec", "pending", "--", "true"), b"pod pending does not have a host assigned"),
    ):
        code, _, err = await kubectl(*arguments)
        assert code == 1
        assert told in err


def log_line(text: str, second: int = 0, stream: str = "stdout", tag: str = "F") -> str:
    return f"2026-01-01T00:00:{second:02d}.123456789Z {stream} {tag} {text}\n"


async def test_logs(kubectl: Kubectl, cluster: Rig, tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("".join(log_line(f"line {n}", n) for n in range(5)))
    cluster.node.logs["web-main"] = log
    assert await kubectl("logs", "web", "--tail=2") == (0, b"line 3\nline 4\n", b"")
    code, out, _ = await kubectl("logs", "web", "--timestamps", "--limit-bytes=33")
    assert (code, out) == (0, b"2026-01-01T00:00:00.123456789Z li")
    code, out, _ = await kubectl("logs", "web", "--since-time=2026-01-01T00:00:04Z")
    assert out == b"line 4\n"
    code, _, err = await kubectl("logs", "web", "--previous")
    assert code == 1
    assert b'previous terminated container "main" in pod "web" not found' in err


async def test_following_logs_to_the_end_of_the_container(
    kubectl: Kubectl, cluster: Rig, tmp_path: Path
) -> None:
    log = tmp_path / "0.log"
    log.write_text(log_line("first"))
    cluster.node.logs["web-main"] = log
    process = await kubectl.start("logs", "-f", "web")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"first\n"
    with log.open("a") as file:
        file.write(log_line("second"))
    assert await process.stdout.readline() == b"second\n"
    cluster.node.ended["web-main"].set()
    assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_logs_of_a_container_that_waits(kubectl: Kubectl, cluster: Rig) -> None:
    waiting = pod("slow")
    waiting["status"]["containerStatuses"][0] = {
        "name": "main",
        "state": {"waiting": {"reason": "ContainerCreating"}},
    }
    cluster.add_pod(waiting)
    code, _, err = await kubectl("logs", "slow")
    assert code == 1
    told = b'container "main" in pod "slow" is waiting to start: ContainerCreating'
    assert err == b"Error from server (BadRequest): " + told + b"\n"


@SPDY
async def test_port_forward(kubectl: Kubectl, cluster: Rig, spdy: bool) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()  # To the client's half-close.
        writer.write(data.upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await kubectl.start("port-forward", "web", f":{port}", "--address=127.0.0.1", spdy=spdy)
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    local = int(line.split()[2].rpartition(b":")[2])

    async def once(data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", local)
        writer.write(data)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    try:
        assert await once(b"hello") == b"HELLO"
        big = [bytes([97 + n]) * 1_000_000 for n in range(5)]
        async with asyncio.timeout(30):
            assert await asyncio.gather(*map(once, big)) == [b.upper() for b in big]
        server.close()
        await server.wait_closed()
        assert await once(b"nobody") == b""
        # A connection that failed is the end of the command, by client-go's own rule.
        _, told = await asyncio.wait_for(process.communicate(), 20)
        assert f"error forwarding port {port} to pod web_default".encode() in told
        assert b"error: lost connection to pod" in told
        assert process.returncode == 1
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()
    upgraded = [r for r in cluster.requests if "upgrade" in r.headers]
    assert ("spdy" in upgraded[0].headers["upgrade"].lower()) is spdy
    assert len(upgraded) == 1
