"""Local TLS: certificates of the cluster's own authority for Ingresses that ask for one by `sampan.io/tls: local`.

For the lab: `curl --cacert $(sampan ca)` works at once. Each entry of `spec.tls` gets the Secret that it names; an Ingress
that has none gets one for the hosts of its rules, named as `api.ingress_tls` says. A Secret that somebody else made is left
alone. Entries with one Secret have one certificate. Certificates are made anew when the hosts are others, or when less than
a third of their life is left, unless the authority ends with them.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import logging
from typing import TYPE_CHECKING

from sampan.api import ingress_tls
from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import INGRESSES, SECRETS
from sampan.client.informer import key_of
from sampan.controllers.controller import Context, Controller, deleting, split_key
from sampan.controllers.informers import LOCAL_TLS

if TYPE_CHECKING:
    from sampan.controllers.certificates.authority import Authority

log = logging.getLogger(__name__)
MADE_FOR = "sampan.io/tls-hosts"
"""Annotation of a Secret of ours: the hosts of its certificate, separated by commas."""
NOT_AFTER = "sampan.io/tls-not-after"
"""Annotation of a Secret of ours: when its certificate ends."""
_SECONDS = 365 * 24 * 3600
_USAGES = ("digital signature", "server auth")
_AGAIN = 24 * 3600.0
"""Seconds after which one that lasts as long as the authority does is looked at again: there may be another authority."""


class LocalTlsController(Controller):
    """`context.local_authority` signs; nothing is done where there is none."""

    name = "local-tls"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._authority = context.local_authority
        self._recorder = context.recorder("local-tls")
        self._told: dict[str, set[tuple[str, str]]] = {}
        """Of which Secrets that were there already an Ingress (its uid) was told."""
        self._ingresses = context.informers.of(INGRESSES)
        self._secrets = context.informers.of(SECRETS)
        self._ingresses.add_handler(self.enqueue_either)
        self._secrets.add_handler(self._secret_changed)

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:  # somebody else's may have been in the way
            for ingress in self._ingresses.by_index(LOCAL_TLS, key_of(old)):
                self.queue.add(key_of(ingress))
        for secret in (old, new):
            meta = (secret or {}).get("metadata") or {}
            for owner in meta.get("ownerReferences") or ():
                if owner.get("kind") == "Ingress":
                    self.queue.add(f"{meta['namespace']}/{owner['name']}")

    async def sync(self, key: str) -> None:
        ingress = self._ingresses.get(*split_key(key))
        if ingress is None or deleting(ingress) or self._authority is None:
            self.queue.not_later(key)
            self._told.pop(key, None)
            return
        if not ingress_tls.is_local(ingress):
            return
        # Entries may name one Secret, and it has one certificate.
        wanted: dict[str, dict[str, None]] = {}
        for hosts, name in ingress_tls.entries(ingress):
            wanted.setdefault(name, {}).update(dict.fromkeys(hosts))
        for name, together in wanted.items():
            if together:
                await self._ensure(self._authority, ingress, tuple(together), name)

    async def _ensure(self, authority: Authority, ingress: Object, hosts: tuple[str, ...], name: str) -> None:
        meta = ingress["metadata"]
        present = self._secrets.get(meta["namespace"], name)
        if present is not None and not _is_ours(present, ingress):
            told = self._told.setdefault(key_of(ingress), set())
            if (meta["uid"], name) not in told:
                told.add((meta["uid"], name))
                why = f"Secret {name} is there already and was not made for this Ingress; it stays as it is"
                self._recorder.event(ingress, "Warning", "SecretExists", why)
            return
        self._told.get(key_of(ingress), set()).discard((meta["uid"], name))
        now = datetime.datetime.now(datetime.UTC)
        if present is not None and (ends := _good_until(present, hosts)) is not None:
            left = (ends - now).total_seconds() - _SECONDS / 3
            if left <= 0 and ends >= await asyncio.to_thread(authority.ends):
                left = _AGAIN  # another one would end no later, and so be made anew at once, for ever
            if left > 0:
                self.queue.add_after(key_of(ingress), left)
                return
        # Making a key and signing take some milliseconds, and loading the library takes more.
        data, until = await asyncio.to_thread(_issue, authority, hosts)
        annotations = {MADE_FOR: ",".join(hosts), NOT_AFTER: until.isoformat()}
        if present is None:
            secret: Object = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": name,
                    "namespace": meta["namespace"],
                    "annotations": annotations,
                    "ownerReferences": [
                        {"apiVersion": INGRESSES.api_version, "kind": "Ingress", "name": meta["name"],
                         "uid": meta["uid"], "controller": True, "blockOwnerDeletion": False}
                    ],
                },
                "type": "kubernetes.io/tls",
                "data": data,
            }  # fmt: skip
            try:
                await self._client.create(SECRETS, secret)
            except StatusError as e:
                if e.reason != "AlreadyExists":
                    raise
                return  # The informer brings whoever was quicker.
        else:
            changed = deep_copy(present)
            changed["metadata"].setdefault("annotations", {}).update(annotations)
            changed["data"] = data
            await self._client.update(SECRETS, changed)
        self._recorder.event(
            ingress, "Normal", "CertificateIssued", f"Made a certificate of the local authority for {', '.join(hosts)} in Secret {name}"
        )  # fmt: skip


def _is_ours(secret: Object, ingress: Object) -> bool:
    meta = secret["metadata"]
    owners = meta.get("ownerReferences") or ()
    made = MADE_FOR in (meta.get("annotations") or {})
    return made and any(o.get("uid") == ingress["metadata"]["uid"] for o in owners)


def _good_until(secret: Object, hosts: tuple[str, ...]) -> datetime.datetime | None:
    """When the certificate for these hosts ends; None where it is none, or for others."""
    notes = secret["metadata"].get("annotations") or {}
    data = secret.get("data") or {}
    if notes.get(MADE_FOR) != ",".join(hosts) or not data.get("tls.crt") or not data.get("tls.key"):
        return None
    try:
        return datetime.datetime.fromisoformat(notes.get(NOT_AFTER) or "").astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def _issue(authority: Authority, hosts: tuple[str, ...]) -> tuple[dict[str, str], datetime.datetime]:
    """A new key and its certificate as a Secret's data, and when it ends."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    from sampan.api import certificate_requests

    key = ec.generate_private_key(ec.SECP256R1())
    # A common name has 64 characters at most, and nobody reads it where there are alternative names.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(h) for h in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    asked = certificate_requests.parse(base64.b64encode(request.public_bytes(s.Encoding.PEM)).decode())
    chain = authority.sign(asked, _USAGES, _SECONDS)
    private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    until = x509.load_pem_x509_certificate(chain).not_valid_after_utc
    return {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(private).decode()}, until
