"""The condition of a Node that says whether its front door is open. Only the addresses of nodes that say so get requests."""

from __future__ import annotations

import time

from sampan.api.errors import Object
from sampan.api.front_doors import CONDITION as CONDITION
from sampan.api.objects import format_time
from sampan.api.resources import NODES
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client


async def tell(client: Client, node_name: str, serving: bool, why: str) -> None:
    """Write it into the Node: why it does not serve, or what is wrong though it does. Raises StatusError, ConnectionLost."""
    now = since = format_time(time.time())
    status = "True" if serving else "False"
    node = await client.get(NODES, "", node_name)
    for there in (node.get("status") or {}).get("conditions") or ():
        if (there["type"], there["status"]) == (CONDITION, status):
            since = there.get("lastTransitionTime") or now
    condition = {
        "type": CONDITION,
        "status": status,
        "reason": "HAProxyServing" if serving else "HAProxyNotServing",
        "message": ("HAProxy serves" + (f", but {why}" if why else "") if serving else why)[:1024],
        "lastHeartbeatTime": now,
        "lastTransitionTime": since,
    }
    await _patch(client, node_name, condition)


async def take_back(client: Client, node: Object) -> None:
    """Of a node that has no front door any more. Raises StatusError, ConnectionLost."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    if any(c["type"] == CONDITION for c in conditions):
        await _patch(client, node["metadata"]["name"], {"$patch": "delete", "type": CONDITION})


async def _patch(client: Client, node_name: str, condition: Object) -> None:
    await client.patch(
        NODES,
        "",
        node_name,
        {"status": {"conditions": [condition]}},
        content_type=STRATEGIC_MERGE_PATCH,
        subresource="status",
    )
