"""May this container run as the user that it would run as?"""

from __future__ import annotations

from sampan.node.images.types import ImageConfig
from sampan.node.runtime.types import ContainerConfig, RuntimeFailure, SandboxConfig


def check_non_root(config: ContainerConfig, image: ImageConfig, pod: SandboxConfig) -> None:
    """Raises RuntimeFailure CreateContainerConfigError where `run_as_non_root` forbids the user."""
    security = config.security
    if not security.run_as_non_root:
        return
    where = f'(pod: "{pod.name}_{pod.namespace}({pod.uid})", container: {config.name})'
    name = image.user.partition(":")[0]
    message = ""
    if security.user is not None:
        if security.user == 0:
            message = f"container's runAsUser breaks non-root policy {where}"
    elif name and not name.isdigit():
        message = (
            f"container has runAsNonRoot and image has non-numeric user ({name}), "
            f"cannot verify user is non-root {where}"
        )
    elif not name or int(name) == 0:
        message = f"container has runAsNonRoot and image will run as root {where}"
    if message:
        raise RuntimeFailure(message, "CreateContainerConfigError")
