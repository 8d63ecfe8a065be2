"""CSR approval: nodes that may get a client certificate get it without a person's word.

Who may is asked of the authorizer: the right to create `certificatesigningrequests/selfnodeclient` (to renew one's own)
or `certificatesigningrequests/nodeclient`. Upstream: `pkg/controller/certificates/approver`. Who asks to be a front door as well, which
reads every Secret of the type kubernetes.io/tls (`apiserver/authorization/node.py`), needs a second right besides, of ours: the
cluster's owner gives it to tokens, and to nodes that are one already (`cluster/join_objects.py`). Who has a right for any node has it for
nodes that are there, too, as upstream: docs/nodes.md says what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.api import certificate_requests
from sampan.api.certificate_requests import (
    FRONT_DOOR_CLIENT,
    KUBE_APISERVER_CLIENT_KUBELET,
    NODE_CLIENT,
    SELF_FRONT_DOOR_CLIENT,
    SELF_NODE_CLIENT,
    Request,
)
from sampan.api.errors import Object
from sampan.api.objects import deep_copy, now
from sampan.api.resources import (
    CERTIFICATESIGNINGREQUESTS,
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    SUBJECTACCESSREVIEWS,
)
from sampan.client.types import Client
from sampan.controllers.controller import Context, Controller, deleting


@dataclass(frozen=True, slots=True)
class _Right:
    """To be approved: the subresources that it is about, all of them, and what the approval says."""

    subresources: tuple[str, ...]
    message: str


_SELF = _Right(
    (SELF_NODE_CLIENT,), "Auto approving self kubelet client certificate after SubjectAccessReview."
)
_ANY = _Right((NODE_CLIENT,), "Auto approving kubelet client certificate after SubjectAccessReview.")
_SELF_DOOR = _Right(
    (SELF_NODE_CLIENT, SELF_FRONT_DOOR_CLIENT),
    "Auto approving self kubelet client certificate of a front door after SubjectAccessReview.",
)
_ANY_DOOR = _Right(
    (NODE_CLIENT, FRONT_DOOR_CLIENT),
    "Auto approving kubelet client certificate of a front door after SubjectAccessReview.",
)


class CSRApprovingController(Controller):
    name = "csrapproving"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._requests = context.informers.of(CERTIFICATESIGNINGREQUESTS)
        self._requests.add_handler(self._changed)
        for resource in (CLUSTERROLES, CLUSTERROLEBINDINGS):
            context.informers.of(resource).add_handler(self._rights_changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and undecided(new, KUBE_APISERVER_CLIENT_KUBELET):
            self.enqueue(new)

    def _rights_changed(self, old: Object | None, new: Object | None) -> None:
        """Who may be approved now may not have been so before."""
        for csr in self._requests.list():
            if undecided(csr, KUBE_APISERVER_CLIENT_KUBELET):
                self.enqueue(csr)

    async def sync(self, key: str) -> None:
        csr = self._requests.get("", key)
        if csr is None or not undecided(csr, KUBE_APISERVER_CLIENT_KUBELET):
            return
        request = certificate_requests.of(csr)
        if certificate_requests.kubelet_client_problem(request, csr["spec"].get("usages") or ()):
            return
        for right in _rights(csr, request):
            if await self._may(csr, right):
                await approve(self._client, csr, right.message)
                return

    async def _may(self, csr: Object, right: _Right) -> bool:
        return all([await self._may_create(csr, one) for one in right.subresources])

    async def _may_create(self, csr: Object, subresource: str) -> bool:
        spec = csr["spec"]
        review: Object = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.get("username") or "",
                "uid": spec.get("uid") or "",
                "groups": spec.get("groups") or [],
                "extra": spec.get("extra") or {},
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "resource": "certificatesigningrequests",
                    "verb": "create",
                    "subresource": subresource,
                },
            },
        }
        answer = await self._client.create(SUBJECTACCESSREVIEWS, review)
        return bool(answer["status"].get("allowed"))


async def approve(client: Client, csr: Object, message: str) -> None:
    """Approve a request. Raises StatusError."""
    changed = deep_copy(csr)
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": "AutoApproved",
        "message": message,
        "lastUpdateTime": now(),
    }
    changed.setdefault("status", {}).setdefault("conditions", []).append(condition)
    await client.update(CERTIFICATESIGNINGREQUESTS, changed, subresource="approval")


def undecided(csr: Object, signer: str) -> bool:
    """Whether a request is one for this signer and nobody has decided yet."""
    status = csr.get("status") or {}
    return (
        (csr.get("spec") or {}).get("signerName") == signer
        and not status.get("certificate")
        and not any(certificate_requests.has_condition(csr, kind) for kind in ("Approved", "Denied"))
        and not deleting(csr)
    )


def _rights(csr: Object, request: Request) -> tuple[_Right, ...]:
    own = csr["spec"].get("username") == request.common_name
    if certificate_requests.asks_for_front_door(request):
        return (_SELF_DOOR, _ANY_DOOR) if own else (_ANY_DOOR,)
    return (_SELF, _ANY) if own else (_ANY,)
