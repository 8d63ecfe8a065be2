"""Client certificates: the common name is the user, the organizations are the groups.

That the cluster's authority signed them was checked in the TLS handshake. Upstream:
`k8s.io/apiserver/pkg/authentication/request/x509`.
"""

from __future__ import annotations

from sampan.apiserver.authentication.verdicts import authenticated
from sampan.apiserver.tokens import EXTRA
from sampan.apiserver.types import User
from sampan.transport.types import PeerCertificate

_MOST = 1024


class Certificates:
    def __init__(self) -> None:
        self._users: dict[PeerCertificate | str, User] = {}

    def user(self, certificate: PeerCertificate, now: float) -> User | None:
        """Whom a certificate names; None where it names nobody or its time is over: a connection outlives the
        certificate that opened it."""
        if not certificate.common_name or certificate.not_after < now:
            return None
        key = certificate.fingerprint or certificate
        user = self._users.get(key)
        if user is None:
            extra = {}
            if certificate.fingerprint:
                extra[EXTRA + "credential-id"] = (f"X509SHA256={certificate.fingerprint}",)
            user = authenticated(
                User(certificate.common_name, certificate.uid, certificate.organizations, extra)
            )
            if len(self._users) >= _MOST:
                self._users.clear()
            self._users[key] = user
        return user
