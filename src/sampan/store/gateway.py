"""etcd's gRPC gateway: JSON over HTTP to whichever of several endpoints answers.

Bytes are base64 and 64-bit numbers are text, as protobuf's JSON has them; nothing here knows what requests mean.
"""

from __future__ import annotations

import json
import ssl
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.store.types import StoreError, StoreFull

_OUT_OF_RANGE = 11
"""gRPC's code for a revision that is compacted or not yet written."""


class OutOfRange(StoreError):
    """etcd's answer about a revision that it no longer has, or not yet."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files: who may sign the server's certificate, and what to show of ourselves."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Raises StoreError where a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as e:
            raise StoreError(f"the TLS files for etcd cannot be used: {e}") from e
        return context


class Gateway:
    """Requests to the endpoint that answered last, else to the others in turn. `timeout` in seconds."""

    def __init__(self, endpoints: Sequence[str], tls: Tls | None, timeout: float) -> None:
        import aiohttp  # only where an etcd is used: heavy

        if not endpoints:
            raise StoreError("no etcd endpoint given")
        self._endpoints = [e.rstrip("/") for e in endpoints]
        self._timeout = timeout
        connector = aiohttp.TCPConnector(limit=64, ssl=tls.context() if tls else True)
        self._session = aiohttp.ClientSession(connector=connector)

    @property
    def endpoints(self) -> str:
        return ", ".join(self._endpoints)

    async def call(self, method: str, body: dict[str, Any], *, again: bool = True) -> dict[str, Any]:
        """One request, its answer decoded. What must not be done twice (`again` False) goes to another endpoint only
        where no connection came about. Raises OutOfRange, StoreFull, StoreError."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._timeout)
        causes = []
        for endpoint in tuple(self._endpoints):
            try:
                async with self._session.post(
                    f"{endpoint}/v3/{method}", json=body, timeout=timeout
                ) as response:
                    answer = await response.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError, ValueError) as e:
                if not (again or isinstance(e, aiohttp.ClientConnectorError)):
                    raise StoreError(
                        f"etcd at {endpoint} was lost during a write, which may have taken effect: {e!r}"
                    ) from e
                causes.append(f"{endpoint}: {e!r}")
                self._put_last(endpoint)
                continue
            if isinstance(answer, dict) and "error" not in answer and response.status == 200:
                return answer
            raise refusal(endpoint, answer)
        raise StoreError(f"no etcd answers ({'; '.join(causes)})")

    async def stream(self, method: str, body: dict[str, Any]) -> AsyncGenerator[list[dict[str, Any]], None]:
        """The results of one long request from the first endpoint, in batches as they arrive. Raises StoreError when
        the connection is lost; the next stream then goes to another endpoint."""
        import aiohttp

        endpoint = self._endpoints[0]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout)
        try:
            async with self._session.post(f"{endpoint}/v3/{method}", json=body, timeout=timeout) as response:
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    results = []
                    for line in lines:
                        if line:
                            answer = json.loads(line)
                            if "result" not in answer:
                                raise refusal(endpoint, answer)
                            results.append(answer["result"])
                    if results:
                        yield results
        except (aiohttp.ClientError, TimeoutError, ValueError) as e:
            self._put_last(endpoint)
            raise StoreError(f"the watch of etcd at {endpoint} was lost: {e!r}") from e
        self._put_last(endpoint)
        raise StoreError(f"etcd at {endpoint} ended the watch")

    async def close(self) -> None:
        await self._session.close()

    def _put_last(self, endpoint: str) -> None:
        self._endpoints.remove(endpoint)
        self._endpoints.append(endpoint)


def refusal(endpoint: str, answer: Any) -> StoreError:
    """The error that an answer stands for."""
    detail = answer.get("error", answer) if isinstance(answer, dict) else answer
    code = answer.get("code") if isinstance(answer, dict) else None
    if isinstance(detail, dict):  # a stream's errors are one level deeper
        code = detail.get("grpc_code", detail.get("code", code))
        detail = detail.get("message", detail)
    message = f"etcd at {endpoint}: {detail}"
    if "space exceeded" in str(detail):
        return StoreFull(f"{message} (NOSPACE alarm: compact, defragment, disarm)")
    return OutOfRange(message) if code == _OUT_OF_RANGE else StoreError(message)


def encode(data: str | bytes) -> str:
    return b64encode(data.encode() if isinstance(data, str) else data).decode("ascii")


decode = b64decode
