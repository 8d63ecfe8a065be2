"""The supervisor: one small process a cluster that starts its parts, restarts them, and tells how they are.

It imports what the parts share and forks them before any thread or loop exists, so that their pages are shared and a
restart takes milliseconds. It never runs a loop of its own making threads, so it can fork at any time. When it is
killed, the parts go on; the control plane starts a new one, which adopts them (see `link`).

Wire: lines of JSON over `supervisor.sock`. A part says `{"op": "part", "name": N, "pid": P}` and then
`{"op": "ready", "ready": true}`; a client asks `{"op": "status" | "wait" | "stop"}`, or `{"op": "start" | "end", "part": N}`
for a part that comes or goes while the others run.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.cluster import processes

log = logging.getLogger(__name__)
_FIRST_PAUSE, _MOST_PAUSE, _STABLE_AFTER = 0.1, 10.0, 30.0
STOP_GRACE = 10.0


@dataclass(slots=True)
class Part:
    """One process of the cluster. `run` is called in the child and its return is the child's end. `prepare` is called
    in the supervisor before each start."""

    name: str
    run: Callable[[], None]
    prepare: Callable[[], None] = lambda: None
    sockets: list[socket.socket] = field(default_factory=list)
    """What it answers at, opened by `prepare`. They stay open while it starts anew, and nobody else has them: what comes meanwhile
    waits for it."""
    silent: bool = False
    """It is no program of ours and never says that it is ready; it counts as such while it runs. The others stand on
    it, so that it stops after them."""
    pid: int = 0
    started: str = ""
    since: float = 0.0
    pidfd: int = -1
    ready: bool = False
    restarts: int = 0
    failures: int = 0
    restart_at: float = 0.0
    problem: str = ""


@dataclass(slots=True)
class _Peer:
    sock: socket.socket
    part: Part | None = None
    waits: bool = False
    buffer: bytes = b""
    said: set[str] = field(default_factory=set)


class AlreadyRunning(Exception):
    """Another supervisor of this cluster lives."""


class Supervisor:
    """Runs `parts` in order until told to stop. The cluster is ready when all of the parts `leads` say so. `make` makes a
    part that is asked for later, by its name."""

    def __init__(
        self,
        run_directory: Path,
        log_directory: Path,
        parts: Sequence[Part],
        leads: Collection[str],
        make: Callable[[str], Part],
    ) -> None:
        self._directory = run_directory
        self._logs = log_directory
        self._parts = {p.name: p for p in parts}
        self._leads = leads
        self._make = make
        self._selector = selectors.DefaultSelector()
        self._peers: dict[int, _Peer] = {}
        self._stopping = False
        self._lock_fd = -1

    def run(self) -> None:
        """Until SIGTERM, SIGINT or a `stop`. Raises AlreadyRunning."""
        self._take_lock()
        listener = self._listen()
        wake_read, wake_write = socket.socketpair()
        for s in (wake_read, wake_write):
            s.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: wake_read.recv(64))
        self._adopt()
        gc.collect()
        gc.freeze()
        try:
            for part in self._parts.values():
                if not part.pid:
                    self._start(part)
            while not self._stopping:
                for key, _ in self._selector.select(self._next_timer()):
                    key.data()
                for part in list(self._parts.values()):
                    if part.restart_at and part.restart_at <= time.monotonic():
                        self._start(part)
        finally:
            self._stop_parts()
            listener.close()
            (self._directory / "supervisor.sock").unlink(missing_ok=True)
            (self._directory / "parts.json").unlink(missing_ok=True)
            (self._directory / "supervisor.pid").unlink(missing_ok=True)
            for peer in self._peers.values():
                peer.sock.close()

    def _take_lock(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = os.open(
            self._directory / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning from None
        (self._directory / "supervisor.pid").write_text(f"{os.getpid()}\n")

    def _listen(self) -> socket.socket:
        path = self._directory / "supervisor.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        # Bound under another name first: whoever sees the socket's name can connect to it.
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        listener.bind(str(temporary))
        os.chmod(temporary, 0o600)
        listener.listen(64)
        temporary.rename(path)
        self._listener = listener
        return listener

    def _adopt(self) -> None:
        """Take over parts that a supervisor before this one left running."""
        try:
            left = json.loads((self._directory / "parts.json").read_text())
        except (OSError, ValueError):
            return
        for name, entry in left.items():
            part = self._parts.get(name)
            if part is None or processes.start_time(entry["pid"]) != entry["started"]:
                continue
            part.pid, part.started = entry["pid"], entry["started"]
            part.since = time.monotonic()
            part.ready = part.silent
            self._follow(part)
            log.info("adopted %s, pid %d", name, part.pid)

    def _start(self, part: Part) -> None:
        part.restart_at = 0.0
        try:
            part.prepare()
        except Exception as e:  # whatever it is, `sampan up` shows it, and it is tried again
            log.exception("cannot prepare %s", part.name)
            part.problem = str(e)
            self._tell_waiting()
            self._restart_later(part)
            return
        pid = os.fork()
        if pid == 0:
            self._become(part)
        part.pid, part.since, part.ready = pid, time.monotonic(), part.silent
        part.started = processes.start_time(pid)
        self._follow(part)
        self._save()
        log.info("started %s, pid %d", part.name, pid)

    def _become(self, part: Part) -> None:
        """In the child: let go of what is the supervisor's, run the part, end."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            self._listener.close()
            self._selector.close()
            for peer in self._peers.values():
                peer.sock.close()
            os.close(self._lock_fd)
            for other in self._parts.values():
                if other is not part:
                    _close(other)
            redirect(self._logs / f"{part.name}.log")
            Path("/proc/self/comm").write_text(f"sampan-{part.name}"[:15])
            part.run()
            status = 0
        except BaseException:
            log.exception("%s ended", part.name)
        finally:
            logging.shutdown()
            os._exit(status)

    def _follow(self, part: Part) -> None:
        try:
            part.pidfd = os.pidfd_open(part.pid)
        except ProcessLookupError:
            self._ended(part)
            return
        self._selector.register(part.pidfd, selectors.EVENT_READ, lambda: self._ended(part))

    def _ended(self, part: Part) -> None:
        if part.pidfd >= 0:
            self._selector.unregister(part.pidfd)
            os.close(part.pidfd)
            part.pidfd = -1
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(part.pid, 0)
            log.warning("%s (pid %d) ended with %s", part.name, part.pid, os.waitstatus_to_exitcode(status))
        lived = time.monotonic() - part.since
        part.pid, part.ready = 0, False
        part.restarts += 1
        part.failures = 0 if lived > _STABLE_AFTER else part.failures + 1
        part.problem = _last_line(self._logs / f"{part.name}.log")
        self._tell_waiting()
        self._save()
        self._restart_later(part)

    def _restart_later(self, part: Part) -> None:
        pause = 0.0 if part.failures <= 1 else min(_FIRST_PAUSE * 2 ** (part.failures - 2), _MOST_PAUSE)
        part.restart_at = time.monotonic() + pause

    def _next_timer(self) -> float | None:
        due = [p.restart_at for p in self._parts.values() if p.restart_at]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _save(self) -> None:
        """The table of who runs, for whoever comes after us."""
        path = self._directory / "parts.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(
            json.dumps({p.name: {"pid": p.pid, "started": p.started} for p in self._parts.values() if p.pid})
        )
        temporary.replace(path)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = self._listener.accept()
            sock.setblocking(True)
            sock.settimeout(5)
            peer = _Peer(sock)
            self._peers[sock.fileno()] = peer
            self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(peer))

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        *lines, peer.buffer = (peer.buffer + data).split(b"\n")
        for line in lines:
            try:
                self._asked(peer, json.loads(line))
            except (ValueError, KeyError):
                log.exception("bad request on the supervisor's socket")

    def _asked(self, peer: _Peer, request: dict[str, Any]) -> None:
        match request["op"]:
            case "part":
                peer.part = self._parts.get(request["name"])
            case "ready":
                if peer.part is not None:
                    peer.part.ready = bool(request["ready"])
                    peer.part.problem = str(request.get("problem", ""))
                    self._tell_waiting()
            case "status":
                self._send(peer, self._status())
            case "wait":
                peer.waits = True
                self._tell_waiting()
            case "start":
                if request["part"] not in self._parts:
                    part = self._parts[request["part"]] = self._make(request["part"])
                    self._start(part)
                self._send(peer, {"started": True})
            case "end":
                self._end(request["part"])
                self._send(peer, {"ended": True})
            case "stop":
                self._stopping = True
                self._stop_parts()
                self._send(peer, {"stopped": True})

    def _status(self) -> dict[str, Any]:
        return {
            "ready": all(self._parts[name].ready for name in self._leads if name in self._parts),
            "pid": os.getpid(),
            "parts": [
                {"name": p.name, "pid": p.pid, "ready": p.ready, "restarts": p.restarts, "problem": p.problem}
                for p in self._parts.values()
            ],
        }

    def _tell_waiting(self) -> None:
        for peer in list(self._peers.values()):
            if not peer.waits:
                continue
            status = self._status()
            line = json.dumps(status)
            if line not in peer.said:
                peer.said.add(line)
                self._send(peer, status)
            if status["ready"]:
                peer.waits = False

    def _send(self, peer: _Peer, message: dict[str, Any]) -> None:
        try:
            peer.sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._drop(peer)

    def _drop(self, peer: _Peer) -> None:
        fd = peer.sock.fileno()
        if fd >= 0 and self._peers.pop(fd, None) is not None:
            self._selector.unregister(peer.sock)
            peer.sock.close()

    def _on_signal(self, number: int, frame: object) -> None:
        self._stopping = True

    def _end(self, name: str) -> None:
        """End a part for good and forget it."""
        part = self._parts.pop(name, None)
        if part is None:
            return
        _close(part)
        if part.pidfd >= 0:
            self._selector.unregister(part.pidfd)
            os.close(part.pidfd)
        if part.pid:
            processes.end([part.pid], grace=STOP_GRACE)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(part.pid, 0)
        self._save()
        log.info("ended %s", name)

    def _stop_parts(self) -> None:
        for silent in (False, True):
            pids = [p.pid for p in self._parts.values() if p.pid and p.silent is silent]
            processes.end(pids, grace=STOP_GRACE)
        for part in self._parts.values():
            part.pid, part.ready = 0, False


def _close(part: Part) -> None:
    for sock in part.sockets:
        sock.close()


def redirect(path: Path) -> None:
    """Send what is printed and logged to a file, nothing read from the terminal."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(null)
    os.close(fd)


def _last_line(path: Path) -> str:
    """What a part said last before it ended: the cause, in a traceback."""
    try:
        with open(path, "rb") as f:
            f.seek(0, os.SEEK_END)
            f.seek(max(0, f.tell() - 4096))
            lines = f.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
