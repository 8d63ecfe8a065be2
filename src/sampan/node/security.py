"""Users and rights of a container: the pod's and the container's securityContext as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sampan.api.errors import Object
from sampan.node import pods
from sampan.node.context import StartFailure
from sampan.node.images.types import Image
from sampan.node.runtime.types import SecurityContext


def security_context(pod: Object, container: Object, image: Image, profiles: Path) -> SecurityContext:
    """`profiles` is the directory of seccomp profiles of type Localhost. Raises StartFailure where the container
    would run as root and must not, or names a profile outside of `profiles`."""
    of_pod = pods.security(pod)
    own: dict[str, Any] = container.get("securityContext") or {}
    user = own.get("runAsUser", of_pod.get("runAsUser"))
    group = own.get("runAsGroup", of_pod.get("runAsGroup"))
    non_root = bool(own.get("runAsNonRoot", of_pod.get("runAsNonRoot")))
    if non_root:
        _refuse_root(pod, container, image, user)
    groups = list(of_pod.get("supplementalGroups") or ())
    if of_pod.get("fsGroup") is not None:
        groups.append(of_pod["fsGroup"])
    capabilities = own.get("capabilities") or {}
    return SecurityContext(
        user=user,
        group=group,
        supplemental_groups=tuple(groups),
        run_as_non_root=non_root,
        privileged=bool(own.get("privileged")),
        readonly_rootfs=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        add_capabilities=tuple(_capability(c) for c in capabilities.get("add") or ()),
        drop_capabilities=tuple(_capability(c) for c in capabilities.get("drop") or ()),
        seccomp=_seccomp(own.get("seccompProfile") or of_pod.get("seccompProfile") or {}, profiles),
    )


def _seccomp(profile: dict[str, Any], profiles: Path) -> str:
    if profile.get("type") != "Localhost":
        return str(profile.get("type") or "")
    name = profile.get("localhostProfile") or ""
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise StartFailure("CreateContainerConfigError", f"invalid seccomp profile {name!r}")
    return f"localhost/{profiles / name}"


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _refuse_root(pod: Object, container: Object, image: Image, user: int | None) -> None:
    where = f'(pod: "{pods.full_name(pod)}", container: {container["name"]})'
    if user is not None:
        if user == 0:
            raise StartFailure(
                "CreateContainerConfigError", f"container's runAsUser breaks non-root policy {where}"
            )
        return
    named = image.config.user.partition(":")[0]
    if named in ("", "0", "root"):
        raise StartFailure(
            "CreateContainerConfigError",
            f"container has runAsNonRoot and image will run as root {where}",
        )
    if not named.isdigit():
        raise StartFailure(
            "CreateContainerConfigError",
            f"container has runAsNonRoot and image has non-numeric user ({named}), cannot verify user is non-root {where}",
        )
