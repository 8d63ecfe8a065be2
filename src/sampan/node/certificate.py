"""A node's certificates: asked for by CertificateSigningRequest, kept in one file each, renewed before they end.

The key is made here and leaves this machine never. A file (0600) holds the certificate and then its key, so that both change in
one step. Renewal comes at a moment drawn from 70 to 90 % of the certificate's life, so that not all nodes ask together.

Upstream: `client-go/util/certificate`, `pkg/kubelet/certificate`.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.api.certificate_requests import (
    FRONT_DOOR_CLIENT,
    KUBE_APISERVER_CLIENT_KUBELET,
    KUBELET_SERVING,
    SELF_FRONT_DOOR_CLIENT,
)
from sampan.api.errors import Object, StatusError
from sampan.api.front_doors import FRONT_DOORS
from sampan.api.objects import condition
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS, SELFSUBJECTACCESSREVIEWS
from sampan.client.types import Client, ConnectionLost

if TYPE_CHECKING:
    from cryptography import x509

log = logging.getLogger(__name__)

SIGN_SECONDS = 900.0
"""How long a request may wait to be approved and signed until another one is made."""
_EARLIEST, _LATEST = 0.7, 0.9
_FIRST_PAUSE, _MOST_PAUSE = 0.5, 60.0
_LONGEST_SLEEP = 6 * 3600.0
"""A machine may sleep, and its timers with it: the clock is looked at again after so long."""


class Refused(Exception):
    """A request was denied, or could not be signed, or nobody decided about it in time."""


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate that is there: when it begins and ends (seconds since the epoch), the names it serves under, and whether it has the
    rights of a front door."""

    begins: float
    ends: float
    names: frozenset[str]
    front_door: bool = False

    def valid(self, moment: float | None = None) -> bool:
        return self.ends > (time.time() if moment is None else moment)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: a client's certificate of `node`, or with `names` one to serve under these."""

    node: str
    names: tuple[str, ...] = ()
    seconds: int | None = None
    """How long it is to live; None leaves it to the signer."""
    front_door: bool = False
    """Whether, as a client, it is to have the rights of a front door."""


def held(file: Path) -> Held | None:
    """The certificate in a file, None where there is none that can be read."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError):
        return None
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = {str(n.value) for n in found if isinstance(n, x509.DNSName | x509.IPAddress)}
    except x509.ExtensionNotFound:
        names = set()
    groups = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Held(
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        frozenset(names),
        any(g.value == FRONT_DOORS for g in groups),
    )


async def obtain(client: Client, wanted: Wanted, file: Path, timeout: float = SIGN_SECONDS) -> None:
    """Ask for a certificate and write it, with its new key, to `file`; one without the rights of a front door where these would not be
    approved. Raises Refused, StatusError, ConnectionLost."""
    if wanted.front_door and not await may_ask_for_front_door(client):
        log.warning("the cluster does not let this node be a front door any more")
        wanted = replace(wanted, front_door=False)
    key, request = await asyncio.to_thread(_request, wanted)
    signer = KUBELET_SERVING if wanted.names else KUBE_APISERVER_CLIENT_KUBELET
    spec: Object = {
        "request": base64.b64encode(request).decode(),
        "signerName": signer,
        "usages": ["digital signature", "server auth" if wanted.names else "client auth"],
    }
    if wanted.seconds is not None:
        spec["expirationSeconds"] = wanted.seconds
    asked = await client.create(
        CERTIFICATESIGNINGREQUESTS,
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "csr-"},
            "spec": spec,
        },
    )
    try:
        async with asyncio.timeout(timeout):
            certificate = await _signed(client, asked)
    except TimeoutError:
        raise Refused(
            f"request {asked['metadata']['name']} ({signer}) was not approved and signed within {timeout:.0f} s"
        ) from None
    _write(file, certificate + key)


async def may_ask_for_front_door(client: Client) -> bool:
    """Whether a request of whoever `client` is, for a certificate with the rights of a front door, would be approved. Raises StatusError,
    ConnectionLost."""
    for subresource in (SELF_FRONT_DOOR_CLIENT, FRONT_DOOR_CLIENT):
        review: Object = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "resource": "certificatesigningrequests",
                    "verb": "create",
                    "subresource": subresource,
                }
            },
        }
        if (await client.create(SELFSUBJECTACCESSREVIEWS, review))["status"].get("allowed"):
            return True
    return False


async def _signed(client: Client, asked: Object) -> bytes:
    """The certificate of a request, once there is one."""
    name = asked["metadata"]["name"]
    by_name = f"metadata.name={name}"
    while True:
        found = await client.list(CERTIFICATESIGNINGREQUESTS, field_selector=by_name)
        for csr in found.items:
            if made := _made(csr):
                return made
        if not found.items:
            raise Refused(f"request {name} is gone")
        watching = client.watch(
            CERTIFICATESIGNINGREQUESTS, resource_version=found.resource_version, field_selector=by_name
        )
        try:
            async for event in watching:
                if event.type == "DELETED":
                    raise Refused(f"request {name} was deleted")
                if event.type != "BOOKMARK" and (made := _made(event.object)):
                    return made
        except (ConnectionLost, StatusError) as e:
            log.info("request %s: %s", name, e)
            await asyncio.sleep(_FIRST_PAUSE)


def _made(csr: Object) -> bytes:
    """Raises Refused."""
    for kind in ("Denied", "Failed"):
        if (told := condition(csr, kind)) is not None:
            words = told.get("message") or told.get("reason") or ""
            raise Refused(f"request {csr['metadata']['name']} was {kind.lower()}: {words}")
    return base64.b64decode((csr.get("status") or {}).get("certificate") or "")


class NodeCertificate:
    """Keeps one certificate of a node. `ready` is set while a good one is in `file`; `renewed` is called after each that
    followed another."""

    def __init__(
        self,
        client: Client,
        wanted: Wanted,
        file: Path,
        *,
        renewed: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.ready = asyncio.Event()
        self._client = client
        self._wanted = wanted
        self._file = file
        self._renewed = renewed
        self._clock = clock
        self._draw = draw

    async def run(self) -> None:
        """Until cancelled. A request that fails is made again after a pause: while the old certificate lasts, nothing is
        lost."""
        while True:
            have = self._good()
            if have is not None:
                self.ready.set()
                due = have.begins + (have.ends - have.begins) * self._draw(_EARLIEST, _LATEST)
                # What is waited for is the time.
                while (left := due - self._clock()) > 0:  # noqa: ASYNC110
                    await asyncio.sleep(min(left, _LONGEST_SLEEP))
            await self._until_obtained()
            if have is not None and self._renewed is not None:
                await self._renewed()

    def _good(self) -> Held | None:
        have = held(self._file)
        if have is None or not have.valid(self._clock()) or not have.names >= set(self._wanted.names):
            return None
        return have

    async def _until_obtained(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await obtain(self._client, self._wanted, self._file)
                if self._good() is None:
                    raise Refused("what was signed does not fit")
                log.info("obtained a certificate: %s", self._file.name)
                return
            except (Refused, StatusError, ConnectionLost, OSError) as e:
                log.warning("no new certificate %s yet: %s", self._file.name, e)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MOST_PAUSE)


def _request(wanted: Wanted) -> tuple[bytes, bytes]:
    """A new key and a request signed with it, both PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    groups = ("system:nodes", FRONT_DOORS) if wanted.front_door else ("system:nodes",)
    subject = x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{wanted.node}"),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if wanted.names:
        names = x509.SubjectAlternativeName([_general(n) for n in wanted.names])
        builder = builder.add_extension(names, critical=False)
    request = builder.sign(key, hashes.SHA256()).public_bytes(s.Encoding.PEM)
    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()), request


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others in between."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as f:
        os.fchmod(f.fileno(), 0o600)
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)
