"""Room that was promised: pods for which others are made to leave a node, until they are there."""

from __future__ import annotations

from sampan.scheduler.cache import NodeInfo, PodInfo


class Nominations:
    """Which waiting pod was promised room on which node."""

    def __init__(self) -> None:
        self._by_node: dict[str, dict[str, PodInfo]] = {}
        self._node_of: dict[str, str] = {}

    def add(self, pod: PodInfo, node: str) -> None:
        self.remove(pod.key)
        self._node_of[pod.key] = node
        self._by_node.setdefault(node, {})[pod.key] = pod

    def remove(self, key: str) -> bool:
        """Take a promise back, or forget it because it was kept. Whether there was one."""
        node = self._node_of.pop(key, None)
        if node is None:
            return False
        pods = self._by_node[node]
        del pods[key]
        if not pods:
            del self._by_node[node]
        return True

    def on(self, node: NodeInfo, pod: PodInfo) -> NodeInfo | None:
        """The node as it is for `pod` once those who were promised room there, and do not give way to it, have come;
        None where there are none. It is about room only: whom they like for company counts when they are there."""
        coming = [
            p
            for p in self._by_node.get(node.name, {}).values()
            if p.key != pod.key and p.priority >= pod.priority
        ]
        if not coming:
            return None
        filled = node.copy()
        for other in coming:
            filled.add(other)
        return filled

    def lower(self, node: str, priority: int) -> list[PodInfo]:
        """The pods of lower priority that were promised room on a node."""
        return [p for p in self._by_node.get(node, {}).values() if p.priority < priority]
