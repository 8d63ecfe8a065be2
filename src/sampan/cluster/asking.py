"""Commands that ask the API of a running cluster, as its administrator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from sampan.cluster.errors import ClusterError

if TYPE_CHECKING:
    from sampan.client.https import HttpsClient
    from sampan.cluster.config import ClusterConfig

T = TypeVar("T")


def ask(config: ClusterConfig, work: Callable[[HttpsClient], Awaitable[T]]) -> T:
    """Do `work` with a client of a cluster. Raises ClusterError where the cluster does not run or does not answer, and with
    the API's words where it refuses."""
    from sampan.api.errors import StatusError
    from sampan.client.https import HttpsClient
    from sampan.client.types import ConnectionLost
    from sampan.cluster import link

    if not link.answers(config.run_directory):
        flag = "" if config.name == "default" else f" --name {config.name}"
        raise ClusterError(f"cluster {config.name} does not run: start it with `sampan up{flag}`")

    async def asked() -> T:
        client = HttpsClient.from_kubeconfig(config.directory / "kubeconfig", user_agent="sampan")
        try:
            return await work(client)
        finally:
            await client.close()

    try:
        return asyncio.run(asked())
    except ConnectionLost as e:
        raise ClusterError(f"cluster {config.name} does not answer: {e}") from e
    except StatusError as e:
        raise ClusterError(e.message) from e
