"""What an API server must be told; made by `cluster` (or the command line of a part run alone)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sampan.api.front_doors import EVERY_NODE, Terms
from sampan.apiserver.types import User


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of one API server. Keys and certificates are PEM."""

    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    """Where Services get their addresses from: one range a family, the primary one first."""
    node_port_range: tuple[int, int] = (30000, 32767)
    """First and last port, both included."""
    issuer: str = "https://kubernetes.default.svc.cluster.local"
    service_account_key: bytes
    """Private EC or RSA key that signs ServiceAccount tokens; its public half verifies them."""
    cluster_ca: bytes
    """Certificate of the authority that signed our serving certificate (published as kube-root-ca.crt)."""
    advertise_address: str
    """Where pods reach this server: the endpoint of Service default/kubernetes."""
    advertise_port: int = 6443
    static_tokens: Mapping[str, User] = field(default_factory=dict)
    """Bearer tokens known from the start, by token."""
    token_auth_file: Path | None = None
    """More of them, as lines `token,user,uid,"group,group"`."""
    authentication_config: Path | None = None
    """An AuthenticationConfiguration: outside issuers of tokens, and who may come without any."""
    enable_admission_plugins: tuple[str, ...] = ()
    """Admission plugins that run besides those that do by default."""
    disable_admission_plugins: tuple[str, ...] = ()
    """Those that run by default and are not to."""
    disabled_versions: frozenset[str] = frozenset()
    """API versions that are not served, of those that one can do without (`resources.OPTIONAL_VERSIONS`)."""
    default_not_ready_toleration_seconds: int = 300
    """How long a pod that does not say so itself bears a node that is not ready."""
    default_unreachable_toleration_seconds: int = 300
    """And one that is out of reach."""
    max_requests_inflight: int = 600
    """Seats that the priority levels share: how many requests may be under way at once."""
    request_timeout: float = 60.0
    """Seconds that a request may take; a watch or a connection goes on for as long as it likes."""
    audit_policy_file: Path | None = None
    """A Policy of audit.k8s.io; nothing is audited without one."""
    audit_log_path: Path | None = None
    """Where audit events go, one a line; needs a policy."""
    encryption_config: Path | None = None
    """An EncryptionConfiguration: what is stored sealed, and how."""
    front_doors: Terms = EVERY_NODE
    """Which of the nodes whose certificates say that they may be front doors are."""
    node_client_certificate: Path | None = None
    node_client_key: Path | None = None
    """What we show to a node's own server (logs, exec, ...)."""
    node_port: int = 10250
    """Port of every node's own server, unless its status says otherwise."""
