"""How long one user's requests take while another floods the server, with priority and fairness and without.

Two ServiceAccounts: `loud` lists 500 ConfigMaps on many connections (wrk), `quiet` gets one ConfigMap after the other on one
connection. Without fairness means: a FlowSchema puts all requests into the level `exempt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench import cluster
from bench.api import Api, Target, connect, options
from bench.figures import quantile

_NAMESPACE = "bench-fairness"
_CORE = f"/api/v1/namespaces/{_NAMESPACE}"
_RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{_NAMESPACE}"
_FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"
_OBJECTS = 500


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the quiet user's requests: how many were answered, p50 and p99 in seconds, and how many were refused (429)."""

    answered: int
    p50: float
    p99: float
    refused: int


@dataclass(frozen=True, slots=True)
class Fairness:
    """The quiet user alone, beside the flood, and beside the flood with nothing that keeps it back."""

    alone: Latency
    fair: Latency
    unfair: Latency


async def measure(target: Target, *, connections: int = 256, seconds: int = 4, query: str = "") -> Fairness:
    """Needs wrk. Leaves nothing behind."""
    async with connect(target) as admin, _setting(admin) as (loud, quiet):
        alone = await _quiet(Target(target.server, quiet), seconds)
        async with _flood(Target(target.server, loud), connections, seconds + 2, query):
            fair = await _quiet(Target(target.server, quiet), seconds)
        async with _exempt(admin), _flood(Target(target.server, loud), connections, seconds + 2, query):
            unfair = await _quiet(Target(target.server, quiet), seconds)
    return Fairness(alone, fair, unfair)


@asynccontextmanager
async def _setting(admin: Api) -> AsyncIterator[tuple[str, str]]:
    """The objects, the two accounts and their rights; the accounts' tokens."""
    await admin.create("/api/v1/namespaces", {"metadata": {"name": _NAMESPACE}})
    try:
        for i in range(_OBJECTS):
            await admin.create(
                f"{_CORE}/configmaps", {"metadata": {"name": f"c{i}"}, "data": {"k": "v" * 100}}
            )
        rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}
        await admin.create(f"{_RBAC}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
        tokens = []
        for name in ("loud", "quiet"):
            await admin.create(f"{_CORE}/serviceaccounts", {"metadata": {"name": name}})
            binding: dict[str, Any] = {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": _NAMESPACE}],
            }
            await admin.create(f"{_RBAC}/rolebindings", binding)
            made = await admin.create(f"{_CORE}/serviceaccounts/{name}/token", {"spec": {}})
            tokens.append(made["status"]["token"])
        yield tokens[0], tokens[1]
    finally:
        await admin.delete(f"/api/v1/namespaces/{_NAMESPACE}")


@asynccontextmanager
async def _exempt(admin: Api) -> AsyncIterator[None]:
    every = {
        "verbs": ["*"],
        "apiGroups": ["*"],
        "resources": ["*"],
        "namespaces": ["*"],
        "clusterScope": True,
    }
    rule = {
        "subjects": [{"kind": "Group", "group": {"name": "system:authenticated"}}],
        "resourceRules": [every],
    }
    spec = {"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 3, "rules": [rule]}
    await admin.create(f"{_FLOWS}/flowschemas", {"metadata": {"name": _NAMESPACE}, "spec": spec})
    try:
        yield
    finally:
        await admin.delete(f"{_FLOWS}/flowschemas/{_NAMESPACE}")


@asynccontextmanager
async def _flood(target: Target, connections: int, seconds: int, query: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-H", f"Authorization: Bearer {target.token}",
        f"{target.server}{_CORE}/configmaps{query}",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await _flooded(target)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _flooded(target: Target) -> None:
    """Return once the flood can be felt: some requests of the loud user have been answered in the meantime."""
    async with connect(target) as api:
        for _ in range(5):
            with contextlib.suppress(AssertionError):
                await api.get_bytes(f"{_CORE}/configmaps", limit="1")


async def _quiet(target: Target, seconds: float) -> Latency:
    took: list[float] = []
    refused = 0
    ssl_off = aiohttp.TCPConnector(ssl=False, limit=1)
    headers = {"Authorization": f"Bearer {target.token}"}
    async with aiohttp.ClientSession(headers=headers, connector=ssl_off) as session:
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            async with session.get(f"{target.server}{_CORE}/configmaps/c0") as answer:
                await answer.read()
            if answer.status == 200:
                took.append(time.monotonic() - began)
            else:
                refused += 1
    return Latency(len(took), quantile(took, 0.5), quantile(took, 0.99), refused)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--query", default="", help="of the flood's lists, such as ?limit=50")
    for action in parser._actions:
        action.required = False
    o = parser.parse_args()
    if o.server:
        _print(
            asyncio.run(
                measure(
                    Target(o.server, o.token), connections=o.connections, seconds=o.seconds, query=o.query
                )
            )
        )
        return
    with cluster.empty() as config:
        _print(
            asyncio.run(
                measure(cluster.target(config), connections=o.connections, seconds=o.seconds, query=o.query)
            )
        )


def _print(found: Fairness) -> None:
    for name in ("alone", "fair", "unfair"):
        latency: Latency = getattr(found, name)
        print(
            f"quiet user, {name:6}: {latency.answered:5} requests, p50 {latency.p50 * 1e3:.2f} ms, "
            f"p99 {latency.p99 * 1e3:.2f} ms, refused {latency.refused}"
        )


if __name__ == "__main__":
    main()
