"""The admission plugins that `sampan up` is asked to turn on or off, under the names of kube-apiserver's flags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.cluster.wishes import Wishes

FIELDS = ("enable_admission_plugins", "disable_admission_plugins")
"""Fields of `Wishes` and of the cluster's configuration."""


def problems(wishes: Wishes) -> list[str]:
    """What is wrong with the names that were given."""
    given = wished(wishes)
    if not any(given.values()):
        return []
    from sampan.apiserver import admission

    return [f"--{f.replace('_', '-')}: {p}" for f, names in given.items() for p in admission.problems(names)]


def wished(wishes: Wishes) -> dict[str, tuple[str, ...]]:
    """The names for each field that something was said about; none for one that is no longer wanted."""
    given = {field: getattr(wishes, field) for field in FIELDS}
    return {field: split(names) for field, names in given.items() if names is not None}


def split(names: Iterable[str]) -> tuple[str, ...]:
    """Names that were given one by one, or several with commas."""
    return tuple(dict.fromkeys(n for text in names for n in (t.strip() for t in text.split(",")) if n))
