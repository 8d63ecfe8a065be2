"""OwnerReferencesPermissionEnforcement: who says that an object has an owner may delete the object; who says that its
owner waits for it may set the owner's finalizers.

For otherwise they could have things deleted, or kept, that are not theirs. Upstream: `plugin/pkg/admission/gc`.
"""

from __future__ import annotations

from sampan.api import resources
from sampan.api.errors import Object
from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.admission.rights import ask
from sampan.apiserver.types import Attributes, Authorizer

_IN_STATUS = frozenset((("pods", "status"), ("nodes", "status")))
"""What cannot change owners, so that nodes need no further rights."""


class OwnerReferencesPermissionEnforcement(Plugin):
    operations = WRITES

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, attributes: Attributes) -> None:
        resource, sub = attributes.resource, attributes.subresource
        if attributes.obj is None or (resource.key_stem, sub) in _IN_STATUS:
            return
        new, old = _owners(attributes.obj), _owners(attributes.old)
        if new == old:
            return
        decision = ask(
            self._authorizer, attributes.user, "delete", resource, attributes.namespace, attributes.name, sub
        )
        # Whoever creates an object under a name that is not known yet must be able to delete all.
        if not decision.allowed:
            why = f"cannot set an ownerRef on a resource you can't delete: {decision.reason}, <nil>"
            raise refuse(attributes, why)
        blocked = {o.get("uid") for o in old if o.get("blockOwnerDeletion")}
        for owner in new:
            if owner.get("blockOwnerDeletion") and owner.get("uid") not in blocked:
                self._check_owner(attributes, owner)

    def _check_owner(self, attributes: Attributes, owner: Object) -> None:
        kind, version = owner.get("kind") or "", owner.get("apiVersion") or ""
        resource = resources.by_kind(version, kind)
        if resource is None:
            why = (
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for "
                f"APIVersion {version} Kind {kind}"
            )
            raise refuse(attributes, why)
        namespace = attributes.namespace if resource.namespaced else ""
        name = owner.get("name") or ""
        decision = ask(
            self._authorizer, attributes.user, "update", resource, namespace, name, "finalizers"
        )  # fmt: skip
        if not decision.allowed:
            why = (
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: "
                f"{decision.reason}, <nil>"
            )
            raise refuse(attributes, why)


def _owners(obj: Object | None) -> list[Object]:
    return ((obj or {}).get("metadata") or {}).get("ownerReferences") or []
