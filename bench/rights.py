"""What it costs to find out who asks and whether they may, with many bindings about: nanoseconds a request.

In this process and without sockets, on a real API server core whose store is in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sampan.api.errors import Object
from sampan.api.resources import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, SERVICEACCOUNTS
from sampan.apiserver import authentication, authorization, requestinfo
from sampan.apiserver.app import App
from sampan.apiserver.config import Config
from sampan.apiserver.types import User
from sampan.client.types import Client
from sampan.store.memory import MemoryStore
from sampan.transport.types import PeerCertificate, Request

_GROUP = "rbac.authorization.k8s.io"
_ROUNDS = 5


def nanoseconds(work: Callable[[int], object], times: int) -> int:
    """Of the best of a few rounds, for one call; `work` is told its number."""
    rounds = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter_ns()
        for i in range(times):
            work(i)
        rounds.append((time.perf_counter_ns() - begun) / times)
    return round(min(rounds))


async def measure(bindings: int) -> dict[str, int]:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    app = App(MemoryStore(), Config(service_account_key=key, cluster_ca=b"", advertise_address="10.0.0.1"))
    await app.start()
    client = app.client()
    for i in range(bindings):
        await _bind(client, i)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "u0", "namespace": "default"}}  # fmt: skip
    await client.create(SERVICEACCOUNTS, account)
    made = await client.create(SERVICEACCOUNTS, {}, namespace="default", name="u0", subresource="token")
    authenticator = authentication.build(app.config, app.cache)
    authorizer = authorization.build(app.config, app.cache)
    target = "/api/v1/namespaces/default/pods/web"
    bearing = Request("GET", target, {"authorization": f"Bearer {made['status']['token']}"})
    certified = Request("GET", target, {}, certificate=PeerCertificate("u1", ("g",), 9e9, "00"))
    info = requestinfo.parse(bearing)
    user = authenticator.authenticate(bearing)
    assert authorizer.authorize(user, info).allowed
    others = [User(f"u{i}", "", ("g", "system:authenticated")) for i in range(bindings)]

    def fresh(i: int) -> None:
        authorizer.rbac.forget()
        authorizer.authorize(others[i], info)

    figures = {
        "token": nanoseconds(lambda i: authenticator.authenticate(bearing), 20_000),
        "certificate": nanoseconds(lambda i: authenticator.authenticate(certified), 20_000),
        "decision": nanoseconds(lambda i: authorizer.authorize(user, info), 50_000),
        "first_decision": nanoseconds(fresh, bindings),
    }
    await app.close()
    return figures


async def _bind(client: Client, number: int) -> None:
    name = f"b{number}"
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    subject: Object = {"kind": "User", "name": f"u{number}", "apiGroup": _GROUP}
    if number == 0:
        subject = {"kind": "ServiceAccount", "name": "u0", "namespace": "default"}
    ref = {"apiGroup": _GROUP, "kind": "ClusterRole", "name": name}
    api = f"{_GROUP}/v1"
    role = {"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]}
    await client.create(CLUSTERROLES, role)
    binding = {"apiVersion": api, "kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": ref, "subjects": [subject]}  # fmt: skip
    await client.create(CLUSTERROLEBINDINGS, binding)
    local = {**binding, "kind": "RoleBinding", "metadata": {"name": name, "namespace": "default"}}
    await client.create(ROLEBINDINGS, local)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bindings", type=int, default=1000)
    o = parser.parse_args()
    print(json.dumps({"bindings": o.bindings, "nanoseconds": asyncio.run(measure(o.bindings))}, indent=1))


if __name__ == "__main__":
    main()
