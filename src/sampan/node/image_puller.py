"""Having a container's image: by its pull policy, with a growing pause between failed pulls.

Upstream: `pkg/kubelet/images/image_manager.go`.
"""

from __future__ import annotations

import base64
import json
import logging
import time

from sampan.api.errors import Object
from sampan.api.resources import SECRETS
from sampan.client.references import CacheTimeout
from sampan.node import pods
from sampan.node.context import NodeContext, StartFailure
from sampan.node.images.types import Credentials, Image, ImageError
from sampan.node.references import data_of

log = logging.getLogger(__name__)

ERROR_SHOWN_SECONDS = 2.0
"""How long ErrImagePull stands before it becomes ImagePullBackOff."""


def _show_duration(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    return f"{milliseconds}ms" if milliseconds < 1000 else f"{milliseconds / 1000:g}s"


class ImagePuller:
    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._failed: dict[str, tuple[float, str]] = {}

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._node.pulls.forget(uid + "_")
        for key in [k for k in self._failed if k.startswith(uid + "_")]:
            del self._failed[key]

    async def ensure(self, pod: Object, container: Object) -> Image:
        """The image of a container, pulled if need be. Raises StartFailure."""
        node, name, image_name = self._node, container["name"], container.get("image", "")
        policy = container.get("imagePullPolicy") or "IfNotPresent"
        try:
            present = await node.images.image_status(image_name)
        except ImageError as e:
            message = f'Failed to apply default image tag "{image_name}": {e}'
            node.container_event(pod, name, "Warning", "InspectFailed", message)
            raise StartFailure(e.reason, message) from None
        if present is not None and (policy != "Always" or present.pinned):
            message = (
                f'Container image "{image_name}" already present on machine and can be accessed by the pod'
            )
            if policy == "Always":
                message += "; it was loaded by hand and is not pulled again"
            node.container_event(pod, name, "Normal", "Pulled", message)
            return present
        if policy == "Never":
            message = f'Container image "{image_name}" is not present with pull policy of Never'
            node.container_event(pod, name, "Warning", "ErrImageNeverPull", message)
            raise StartFailure("ErrImageNeverPull", message)
        return await self._pull(pod, name, image_name)

    async def _pull(self, pod: Object, name: str, image_name: str) -> Image:
        node = self._node
        key = f"{pods.uid(pod)}_{image_name}"
        failed_at, failure = self._failed.get(key, (0.0, ""))
        wait = node.pulls.remaining(key, failed_at)
        if wait > 0:
            message = f'Back-off pulling image "{image_name}"'
            node.container_event(pod, name, "Normal", "BackOff", message)
            raise StartFailure("ImagePullBackOff", f"{message}: {failure}", wait)
        node.container_event(pod, name, "Normal", "Pulling", f'Pulling image "{image_name}"')
        began = time.monotonic()
        try:
            image = await node.images.pull_image(image_name, await self._credentials(pod))
        except ImageError as e:
            message = f'Failed to pull image "{image_name}": {e}'
            node.container_event(pod, name, "Warning", "Failed", message)
            now = node.pulls.clock()
            node.pulls.next(key, now)
            self._failed[key] = (now, f"{e.reason}: {e}")
            raise StartFailure(e.reason, str(e), ERROR_SHOWN_SECONDS) from None
        self._failed.pop(key, None)
        took = _show_duration(time.monotonic() - began)
        node.container_event(
            pod,
            name,
            "Normal",
            "Pulled",
            f'Successfully pulled image "{image_name}" in {took} ({took} including waiting). '
            f"Image size: {image.size} bytes.",
        )
        return image

    async def _credentials(self, pod: Object) -> list[Credentials]:
        out: list[Credentials] = []
        missing = []
        for ref in pod["spec"].get("imagePullSecrets") or ():
            name = ref.get("name", "")
            try:
                secret = await self._node.objects.get(
                    pods.uid(pod), SECRETS, pod["metadata"]["namespace"], name
                )
            except CacheTimeout:
                secret = None
            if secret is None:
                missing.append(name)
            else:
                out.extend(credentials_of(secret))
        if missing:
            self._node.pod_event(
                pod,
                "Warning",
                "FailedToRetrieveImagePullSecret",
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); attempting to pull the "
                "image may not succeed.",
            )
        return out


def credentials_of(secret: Object) -> list[Credentials]:
    """The registry credentials in a secret of type `kubernetes.io/dockerconfigjson` or `.../dockercfg`; none for
    another type or content that is no JSON."""
    data = data_of(secret, SECRETS)
    try:
        if secret.get("type") == "kubernetes.io/dockerconfigjson":
            entries = json.loads(data.get(".dockerconfigjson", b"{}")).get("auths") or {}
        elif secret.get("type") == "kubernetes.io/dockercfg":
            entries = json.loads(data.get(".dockercfg", b"{}"))
        else:
            return []
        out = []
        for registry, entry in entries.items():
            user, password = entry.get("username", ""), entry.get("password", "")
            if entry.get("auth"):
                user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
            out.append(Credentials(registry, user, password))
    except (ValueError, AttributeError) as e:
        log.warning("pull secret %s: %s", secret["metadata"]["name"], e)
        return []
    return out
