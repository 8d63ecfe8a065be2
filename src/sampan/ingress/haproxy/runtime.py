"""HAProxy's Runtime API (its management guide, section 9.3): operations as commands, over the worker's socket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from sampan.ingress.haproxy import certificates
from sampan.ingress.haproxy.certificates import CertificateOperation, RemoveCertificate, SetCertificate
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
_MOST = 12000
"""Bytes of commands in one line; HAProxy's buffer holds 16 kB."""
_TIMEOUT = 5.0


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


async def perform(operations: Sequence[Operation], files: Files) -> list[str]:
    """Do all operations in order. Returns a line for each one that was refused. Raises NoAnswer where nobody answers."""
    refused: list[str] = []
    batch: list[str] = []
    size = 0
    for op in operations:
        certificate = isinstance(op, SetCertificate | RemoveCertificate)
        line = "" if isinstance(op, SetCertificate | RemoveCertificate) else command(op, files)
        if batch and (certificate or size + len(line) > _MOST):
            refused += await _batch(batch, files.admin_socket)
            batch, size = [], 0
        if isinstance(op, SetCertificate | RemoveCertificate):
            refused += await _certificate(op, files)
            continue
        batch.append(line)
        size += len(line) + 1
    if batch:
        refused += await _batch(batch, files.admin_socket)
    return refused


async def _certificate(op: CertificateOperation, files: Files) -> list[str]:
    for line in certificates.commands(op, files):
        if refused := await _batch([line], files.admin_socket):
            # Nothing else can be changed while this is half done.
            await ask(f"abort ssl cert {files.certificate(op.name)}", files.admin_socket)
            return refused
    return []


async def _batch(commands: Sequence[str], socket: Path) -> list[str]:
    answer = await ask(";".join(commands), socket)
    # Each command's answer ends with an empty line; an answer of ours never holds one.
    answers = [a.strip() for a in answer.split("\n\n")] if answer.strip() else []
    return [a for a in (line for answer in answers for line in answer.split("\n")) if not _GOOD.fullmatch(a)]


async def ask(line: str, socket: Path) -> str:
    """Send one line of commands and return all that is answered. Raises NoAnswer."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(line.encode() + b"\n")
                return (await reader.read(-1)).decode(errors="replace")
            finally:
                writer.close()
    except (OSError, TimeoutError) as e:
        raise NoAnswer(f"{socket}: {e}") from e
