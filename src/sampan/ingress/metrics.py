"""What a node's front door did, by Ingress and Service, in Prometheus' text format.

HAProxy counts by itself, in a table with bounds; it is read when somebody asks, so that counting costs nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import dataclass

from sampan.ingress.haproxy.configuration import BUCKETS
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.runtime import NoAnswer, ask
from sampan.transport.http import HttpServer
from sampan.transport.types import Request, Response

PORT = 9145
_KIND = "text/plain; version=0.0.4; charset=utf-8"
_FIELD = re.compile(r"(\w+)=(\S+)")
_COUNTERS = (
    ("requests_total", "Requests that were sent to a backend.", "http_req_cnt"),
    ("client_errors_total", "Answers with a status of 4xx.", "http_err_cnt"),
    ("server_errors_total", "Answers with a status of 5xx.", "http_fail_cnt"),
    ("sent_bytes_total", "Bytes sent to clients.", "bytes_out_cnt"),
)


@dataclass(frozen=True, slots=True)
class Measure:
    """What the table has under one key; `labels` as they stand in the text."""

    labels: str
    fields: dict[str, int]


def parse(table: str) -> list[Measure]:
    """The entries of `show table`."""
    found = []
    for line in table.splitlines():
        fields = dict(_FIELD.findall(line))
        if "key" not in fields:
            continue
        source, _, service = fields["key"].replace("\\", "").partition("|")
        kind, _, name = source.partition("/")
        namespace, _, name = name.partition("/")
        port = service.removeprefix(f"{namespace}/")  # of another namespace with that, or two would be one
        labels = f'namespace="{namespace}",kind="{kind}",name="{name}",service="{port}"'
        found.append(Measure(labels, {k: int(v) for k, v in fields.items() if v.isdigit()}))
    return sorted(found, key=lambda m: m.labels)


def text(measures: list[Measure]) -> str:
    lines = []
    for name, help_, field in _COUNTERS:
        lines += [f"# HELP sampan_ingress_{name} {help_}", f"# TYPE sampan_ingress_{name} counter"]
        lines += [f"sampan_ingress_{name}{{{m.labels}}} {m.fields.get(field, 0)}" for m in measures]
    name = "sampan_ingress_answers_within_seconds_total"
    lines += [f"# HELP {name} Answers whose head came within so many seconds.", f"# TYPE {name} counter"]
    for m in measures:
        for i, most in enumerate(BUCKETS):
            lines.append(f'{name}{{{m.labels},seconds="{most / 1000:g}"}} {m.fields.get(f"gpc{i}", 0)}')
    return "\n".join(lines) + "\n"


class MetricsServer:
    """Serves `/metrics` at an address of the node."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._http = HttpServer(self._answer, max_body=0, name="ingress metrics")

    async def start(self, host: str, port: int = PORT) -> int:
        """Returns the port. Raises OSError."""
        return (await self._http.listen(host, port))[1]

    async def close(self) -> None:
        await self._http.close(0)

    def _answer(self, request: Request) -> Response | Awaitable[Response]:
        if request.path != "/metrics":
            return Response(404, b"404 page not found\n", "text/plain; charset=utf-8")
        return self._metrics()

    async def _metrics(self) -> Response:
        try:
            shown = await ask("show table measures", self._files.admin_socket)
        except NoAnswer as e:
            return Response(503, f"{e}\n".encode(), "text/plain; charset=utf-8")
        return Response(200, text(parse(shown)).encode(), _KIND)
