"""How long a node may be silent, and how long pods bear that: flags of kube-controller-manager's and kube-apiserver's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.cluster.wishes import Wishes

SHORTEST = 2.0
"""Seconds of silence below which a node that is merely busy would be given up."""
LEASE_SECONDS = 40
"""What upstream's nodes promise: they renew their leases in a quarter of that."""
_TOLERATIONS = ("default_not_ready_toleration_seconds", "default_unreachable_toleration_seconds")


def problems(wishes: Wishes) -> list[str]:
    """What is wrong with what was given."""
    out = []
    if wishes.node_monitor_grace_period is not None:
        try:
            seconds = _seconds(wishes.node_monitor_grace_period)
        except ValueError as e:
            out.append(f"--node-monitor-grace-period: {e}; expected a duration such as 50s or 1m30s")
        else:
            if seconds < SHORTEST:
                given = wishes.node_monitor_grace_period
                out.append(f"--node-monitor-grace-period {given}: at least {SHORTEST:.0f}s")
    for name in _TOLERATIONS:
        number = getattr(wishes, name)
        if number is not None and number < 0:
            out.append(f"--{name.replace('_', '-')} {number}: must not be negative")
    return out


def wished(wishes: Wishes) -> dict[str, Any]:
    """The fields of the cluster's configuration that something was said about."""
    found: dict[str, Any] = {n: getattr(wishes, n) for n in _TOLERATIONS if getattr(wishes, n) is not None}
    if wishes.node_monitor_grace_period is not None:
        found["node_monitor_grace_period"] = _seconds(wishes.node_monitor_grace_period)
    return found


def lease_seconds(grace: float) -> int:
    """What the nodes of `sampan up` promise, so that several renewals fit into the time that they are given."""
    return max(1, min(LEASE_SECONDS, int(grace * 0.8)))


def _seconds(text: str) -> float:
    """A duration as Go writes it. Raises ValueError in Go's words."""
    from sampan.apiserver.request_timeout import duration

    return duration(text)
