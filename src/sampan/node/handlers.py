"""The actions that probes and life cycle hooks are made of: HTTP GET, TCP connect, and their wording.

They run in the node's network namespace, against the pod's address. Upstream: `pkg/probe/{http,tcp}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from sampan.api.errors import Object

MAX_BODY = 10 * 1024
MAX_REDIRECTS = 10

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_URL = "/%?:@!$&'()*+,;=~-._"
"""What stays as it is in a probe's path and query; the rest is percent-encoded."""
_ERRNO_WORDS = {111: "connect: connection refused", 113: "connect: no route to host", 110: "i/o timeout"}


class HandlerFailure(Exception):
    """The action did not succeed; the message is what a probe's event shows."""


class UnknownPort(Exception):
    """A handler names a port that the container does not have."""


def port_of(container: Object, port: Any) -> int:
    """A handler's port, which may be the name of one of the container's. Raises UnknownPort."""
    if isinstance(port, int):
        return port
    for declared in container.get("ports") or ():
        if declared.get("name") == port:
            return int(declared["containerPort"])
    if str(port).isdigit():
        return int(port)
    raise UnknownPort(f"couldn't find port: {port!r}")


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _connect_words(host: str, port: int, error: OSError) -> str:
    number = error.errno or 0
    words = _ERRNO_WORDS.get(number) or str(error)
    return f"dial tcp {_host(host)}:{port}: {words}"


async def tcp_connect(host: str, port: int, timeout: float) -> None:
    """Raises HandlerFailure."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise HandlerFailure(f"dial tcp {_host(host)}:{port}: i/o timeout") from None
    except OSError as e:
        raise HandlerFailure(_connect_words(host, port, e)) from None
    writer.close()


async def http_get(container: Object, action: Object, pod_ip: str, timeout: float, agent: str) -> str:
    """Follow an `httpGet` action; gives the body (its beginning). Raises HandlerFailure for a failed request or a
    code outside 200-399, UnknownPort."""
    scheme = (action.get("scheme") or "HTTP").lower()
    host = action.get("host") or pod_ip
    port = port_of(container, action["port"])
    path = action.get("path") or "/"
    path = quote(path if path.startswith("/") else "/" + path, safe=_URL)
    url = f"{scheme}://{_host(host)}:{port}{path}"
    headers = {"User-Agent": agent, "Accept": "*/*"}
    for header in action.get("httpHeaders") or ():
        name, value = header["name"].title(), header.get("value", "")
        if _CONTROL.search(value):  # it would end the header, and begin something else
            raise HandlerFailure(f'Get "{url}": net/http: invalid header field value for "{name}"')
        headers[name] = value
    try:
        async with asyncio.timeout(timeout):
            return await _follow(url, headers)
    except TimeoutError:
        raise HandlerFailure(
            f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        ) from None


async def _follow(url: str, headers: dict[str, str]) -> str:
    first = urlsplit(url).hostname
    for _ in range(MAX_REDIRECTS):
        code, location, body = await _request(url, headers)
        if 300 <= code < 400 and location:
            url = urljoin(url, location)
            if urlsplit(url).hostname != first:
                # As upstream: a redirect to elsewhere is not followed and counts as an answer.
                return body
            continue
        if 200 <= code < 400:
            return body
        raise HandlerFailure(f"HTTP probe failed with statuscode: {code}")
    raise HandlerFailure(f'Get "{url}": stopped after {MAX_REDIRECTS} redirects')


async def _request(url: str, headers: dict[str, str]) -> tuple[int, str, str]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    context = None
    if parts.scheme == "https":
        # A probe looks whether someone answers, not who.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except OSError as e:
        raise HandlerFailure(f'Get "{url}": {_connect_words(host, port, e)}') from None
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {target} HTTP/1.1"]
        if not any(name.lower() == "host" for name in headers):
            lines.append(f"Host: {parts.netloc}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode())
        status = (await reader.readline()).decode("latin-1").split(" ", 2)
        if len(status) < 2 or not status[0].startswith("HTTP/") or not status[1][:3].isdigit():
            raise HandlerFailure(f'Get "{url}": {"EOF" if status == [""] else "malformed HTTP response"}')
        location = ""
        while (line := await reader.readline()).strip():
            name, _, value = line.decode("latin-1").partition(":")
            if name.strip().lower() == "location":
                location = value.strip()
        body = b""
        while len(body) < MAX_BODY and (more := await reader.read(MAX_BODY - len(body))):
            body += more
    except (OSError, asyncio.IncompleteReadError, ValueError) as e:
        raise HandlerFailure(f'Get "{url}": {e}') from None
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            writer.transport.abort()
    return int(status[1][:3]), location, body.decode(errors="replace")
