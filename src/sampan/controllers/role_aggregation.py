"""ClusterRole aggregation: the rules of a role with an aggregationRule are those of the roles it selects.

Upstream: `pkg/controller/clusterroleaggregation`.
"""

from __future__ import annotations

from sampan.api import selectors
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import CLUSTERROLES
from sampan.controllers.controller import Context, Controller


class ClusterRoleAggregationController(Controller):
    name = "clusterrole-aggregation"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._roles = context.informers.of(CLUSTERROLES)
        self._aggregated: set[str] = set()
        self._roles.add_handler(self._role_changed)

    def _role_changed(self, old: Object | None, new: Object | None) -> None:
        role = new if new is not None else old
        assert role is not None
        name = role["metadata"]["name"]
        if new is not None and new.get("aggregationRule"):
            self._aggregated.add(name)
        else:
            self._aggregated.discard(name)
        for aggregated in self._aggregated:
            self.queue.add(aggregated)

    async def sync(self, key: str) -> None:
        role = self._roles.get("", key)
        if role is None or not role.get("aggregationRule"):
            return
        wanted = [selectors.from_object(s) for s in role["aggregationRule"].get("clusterRoleSelectors") or ()]
        rules: list[Object] = []
        for selector in wanted:
            for other in sorted(self._roles.list(), key=lambda r: r["metadata"]["name"]):
                if other["metadata"]["name"] == key or not selector.matches(other["metadata"].get("labels")):
                    continue
                rules += [r for r in other.get("rules") or () if r not in rules]
        if rules == (role.get("rules") or []):
            return
        changed = deep_copy(role)
        changed["rules"] = rules
        await self._client.update(CLUSTERROLES, changed)
