"""Root CA: the certificates to trust the API by, as ConfigMap `kube-root-ca.crt` in every namespace.

Upstream: `pkg/controller/certificates/rootcacertpublisher`.
"""

from __future__ import annotations

from sampan.api.resources import CONFIGMAPS
from sampan.controllers.controller import Context
from sampan.controllers.per_namespace import PerNamespace

_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class RootCaController(PerNamespace):
    name = "root-ca"

    def __init__(self, context: Context) -> None:
        super().__init__(
            context,
            CONFIGMAPS,
            "kube-root-ca.crt",
            {"data": {"ca.crt": context.cluster_ca}},
            {"kubernetes.io/description": _DESCRIPTION},
        )
