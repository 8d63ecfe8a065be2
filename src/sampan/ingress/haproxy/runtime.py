"""HAProxy's Runtime API (its management guide, section 9.3): operations as commands, over the worker's socket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from sampan.ingress.haproxy import certificates
from sampan.ingress.haproxy.certificates import RemoveCertificate, SetCertificate
from sampan.ingress.haproxy.content import (
    AddServer,
    DeleteEntry,
    Operation,
    RemoveServer,
    SetEntry,
    SetServer,
)
from sampan.ingress.haproxy.files import Files

_SPECIAL = re.compile(r"[\\; ]")
_TIMEOUT = 5.0
_READ = 1 << 16


MapOrServer = SetEntry | DeleteEntry | AddServer | SetServer | RemoveServer


class NoAnswer(Exception):
    """HAProxy could not be asked."""


_DEFAULTS = "pool-purge-delay 5s pool-max-conn -1"
"""What a server of the configuration has by itself and one that is added does not, at least in 2.6: without these each request is
a connection of its own."""


def command(op: MapOrServer, files: Files) -> str:
    """The command for an operation. Raises ValueError for text that no command may hold."""
    match op:
        case SetEntry(name, key, value, new):
            return f"{'add' if new else 'set'} map {files.map(name)} {_word(key)} {_word(value)}"
        case DeleteEntry(name, key):
            return f"del map {files.map(name)} {_word(key)}"
        case AddServer(backend, server, what):
            return f"add server {backend}/{server} {what} {_DEFAULTS}"
        case SetServer(backend, server, state):
            return f"set server {backend}/{server} state {state}"
        case RemoveServer(backend, server):
            return f"del server {backend}/{server}"


def _word(text: str) -> str:
    """One word of a command line, however it is made."""
    if not text or any(c <= " " or c == "\x7f" for c in text) or text.startswith("<<"):
        raise ValueError(f"{text!r} cannot be in a map")
    return _SPECIAL.sub(r"\\\g<0>", text)


_GOOD = re.compile(
    r"New server registered\.|Server deleted\.|Success!|New empty certificate store .*|Transaction (created|updated) for .*|Committing .*|"
    r"Inserting certificate .*|Entry .* deleted in crtlist .*|Certificate .* deleted!|"
)
_PROMPT, _MORE = "\n> ", "+ "
"""Before a command and before a line of what goes with it; no answer of these commands holds either."""


async def perform(operations: Sequence[Operation], files: Files) -> list[str]:
    """Do all operations in order, on one connection: HAProxy has the next before it has answered. Returns a line for each one that was
    refused. Raises NoAnswer where nobody answers, or no more."""
    commands: list[tuple[str, bool]] = []
    """What is sent, and whether it matters what the answer is."""
    for op in operations:
        if isinstance(op, SetCertificate | RemoveCertificate):
            commands += [(line, True) for line in certificates.commands(op, files)]
            # Nothing else can be changed while this is half done.
            commands.append((f"abort ssl cert {files.certificate(op.name)}", False))
        else:
            commands.append((command(op, files), True))
    if not commands:
        return []
    lines = ["prompt", *(line for line, _ in commands), "quit"]
    answer = await _converse("".join(f"{line}\n" for line in lines), files.admin_socket)
    _, *answers = answer.split(_PROMPT)
    if len(answers) <= len(commands):
        raise NoAnswer(f"{files.admin_socket}: {len(answers)} answers to {len(commands)} commands")
    return [
        line
        for text, (_, matters) in zip(answers, commands, strict=False)
        if matters
        for line in text.replace(_MORE, "").strip().split("\n")
        if not _GOOD.fullmatch(line.strip())
    ]


async def _converse(text: str, socket: Path) -> str:
    """Send all of it and return all that is answered, however long that takes as long as something comes. Raises NoAnswer."""
    found = []
    try:
        async with asyncio.timeout(_TIMEOUT) as limit:
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=_READ)
            try:
                writer.write(text.encode())
                while data := await reader.read(_READ):
                    found.append(data)
                    limit.reschedule(asyncio.get_running_loop().time() + _TIMEOUT)
            finally:
                writer.close()
    except (OSError, TimeoutError) as e:
        raise NoAnswer(f"{socket}: {e}") from e
    return b"".join(found).decode(errors="replace")


async def ask(line: str, socket: Path) -> str:
    """Send one line of commands and return all that is answered. Raises NoAnswer."""
    return await _converse(f"{line}\n", socket)
