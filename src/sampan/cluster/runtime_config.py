"""API versions that `sampan up` is asked not to serve, under the name of kube-apiserver's flag: `--runtime-config
extensions/v1beta1=false`. Those that can be left out are Ingress' old ones, which upstream took away with v1.22."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.cluster.wishes import Wishes

_VALUES = {"true": True, "false": False}


def problems(wishes: Wishes) -> list[str]:
    """What is wrong with what was given."""
    from sampan.api.resources import OPTIONAL_VERSIONS

    out = []
    for text in wishes.runtime_config or ():
        for pair in filter(None, (p.strip() for p in text.split(","))):
            version, _, value = pair.partition("=")
            if version not in OPTIONAL_VERSIONS:
                near = difflib.get_close_matches(version, OPTIONAL_VERSIONS, 1)
                meant = f" (did you mean {near[0]}?)" if near else ""
                allowed = " and ".join(OPTIONAL_VERSIONS)
                out.append(f"--runtime-config {pair}: only {allowed} can be turned on and off{meant}")
            elif value not in _VALUES:
                out.append(f"--runtime-config {pair}: expected {version}=true or {version}=false")
    return out


def wished(wishes: Wishes) -> dict[str, tuple[str, ...]]:
    """The versions not to serve, if something was said about them."""
    if wishes.runtime_config is None:
        return {}
    return {"disabled_versions": tuple(sorted(_disabled(wishes.runtime_config)))}


def _disabled(given: Iterable[str]) -> set[str]:
    pairs = (p.strip().partition("=") for text in given for p in text.split(",") if p.strip())
    last = {version: value for version, _, value in pairs}
    return {version for version, value in last.items() if not _VALUES.get(value, True)}
