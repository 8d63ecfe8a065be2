"""AlwaysPullImages: every container's image is pulled at each start, so that its registry is asked who may have it.

Upstream: `plugin/pkg/admission/alwayspullimages`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api.errors import Object, invalid, not_supported
from sampan.apiserver.admission.plugin import WRITES, Plugin
from sampan.apiserver.types import Attributes

_KINDS = ("initContainers", "containers", "ephemeralContainers")


class AlwaysPullImages(Plugin):
    resources = frozenset(("pods",))
    operations = WRITES

    async def mutate(self, attributes: Attributes) -> None:
        for _, container in _changed(attributes):
            container["imagePullPolicy"] = "Always"

    async def validate(self, attributes: Attributes) -> None:
        problems = [
            not_supported(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), ("Always",))
            for path, container in _changed(attributes)
            if container.get("imagePullPolicy") != "Always"
        ]
        if problems:
            raise invalid("Pod", attributes.name, problems)


def _changed(attributes: Attributes) -> Iterator[tuple[str, Object]]:
    """The containers of a new pod, or those of an update that brings another image."""
    pod, old = attributes.obj, attributes.old
    if pod is None or attributes.subresource not in ("", "ephemeralcontainers"):
        return
    before = {c["name"]: c.get("image") for k in _KINDS for c in (old or {}).get("spec", {}).get(k) or ()}
    for kind in _KINDS:
        for i, container in enumerate(pod["spec"].get(kind) or ()):
            if old is None or before.get(container["name"]) != container.get("image"):
                yield f"spec.{kind}[{i}]", container
