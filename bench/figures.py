"""A measured figure, what it is compared with, and the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `target` 0 means that there is none; `kubernetes` is what Kubernetes 1.36.2 (etcd 3.4,
    containerd 1.6, runc 1.1, kube-proxy in nftables mode) took on a machine of the same kind, as text."""

    what: str
    value: float
    unit: str
    target: float = 0.0
    kubernetes: str = "-"
    more_is_better: bool = False

    @property
    def verdict(self) -> str:
        if not self.target:
            return ""
        ratio = self.target / self.value if self.more_is_better else self.value / self.target
        return "met" if ratio <= 1.0 else f"missed, x {ratio:.2f}"


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table, aligned to be read as text too."""
    rows = [("what", "Kubernetes 1.36.2", "target", "Sampan", "")]
    for f in figures:
        target = f"{f.target:g} {f.unit}" if f.target else "-"
        rows.append((f.what, f.kubernetes, target, f"{_short(f.value)} {f.unit}", f.verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which the share `q` of `values` lies. Raises ValueError if there are none."""
    if not values:
        raise ValueError("nothing was measured")
    return (
        statistics.median(values) if q == 0.5 else sorted(values)[min(int(len(values) * q), len(values) - 1)]
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
