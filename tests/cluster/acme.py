"""An authority for tests; and a client of an ACME server (RFC 8555) that answers HTTP-01 challenges, in place of cert-manager. The server is
Pebble, see `pebble.py`.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import ssl
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

Json = dict[str, Any]
CHALLENGES = "/.well-known/acme-challenge/"


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compact(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


class Authority:
    """Issues certificates from a root of its own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = (
            self._builder(name, name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @staticmethod
    def _builder(
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey,
        until: datetime.datetime | None = None,
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=10))
            .not_valid_after(until or now + datetime.timedelta(days=10))
        )

    def issue(
        self, host: str, key: ec.EllipticCurvePublicKey, until: datetime.datetime | None = None
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        return (
            self._builder(subject, self.certificate.subject, key, until)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def pair(self, host: str, until: datetime.datetime | None = None) -> tuple[str, str]:
        """A certificate and its key as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        return pem(self.issue(host, key.public_key(), until)), private_pem(key)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(s.Encoding.PEM).decode()


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()


def jwk_of(key: ec.EllipticCurvePublicKey) -> Json:
    numbers = key.public_numbers()
    x, y = (encode(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def thumbprint(jwk: Json) -> str:
    """RFC 7638."""
    return encode(hashlib.sha256(compact({k: jwk[k] for k in ("crv", "kty", "x", "y")})).digest())


@dataclass(frozen=True)
class Challenge:
    """`path` is to be answered with `answer`."""

    host: str
    path: str
    answer: str
    url: str
    authorization: str
    order: str
    finalize: str


class AcmeClient:
    """An account at a server whose certificate is signed by the root in the file `trusted`."""

    def __init__(self, directory: str, trusted: Path) -> None:
        self._context = ssl.create_default_context(cafile=trusted)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._jwk = jwk_of(self._key.public_key())
        with urllib.request.urlopen(directory, context=self._context) as answer:
            self._urls = json.load(answer)
        self._account = ""
        self._nonce = ""
        _, self._account = self._post(self._urls["newAccount"], {"termsOfServiceAgreed": True})

    def order(self, host: str) -> Challenge:
        wanted = {"identifiers": [{"type": "dns", "value": host}]}
        order, where = self._post(self._urls["newOrder"], wanted)
        authorization, _ = self._post(order["authorizations"][0], None)
        challenge = next(c for c in authorization["challenges"] if c["type"] == "http-01")
        answer = f"{challenge['token']}.{thumbprint(self._jwk)}"
        path, url = CHALLENGES + challenge["token"], challenge["url"]
        return Challenge(host, path, answer, url, order["authorizations"][0], where, order["finalize"])

    def finish(self, challenge: Challenge) -> tuple[str, str]:
        """Chain and key, once the answer is in place."""
        self._post(challenge.url, {})
        self._until_valid(challenge.authorization)
        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(challenge.host)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        self._post(challenge.finalize, {"csr": encode(request.public_bytes(s.Encoding.DER))})
        chain, _ = self._post(self._until_valid(challenge.order)["certificate"], None, text=True)
        return chain, private_pem(key)

    def _until_valid(self, url: str) -> Json:
        deadline = time.monotonic() + 30
        while (said := self._post(url, None)[0])["status"] in ("pending", "processing", "ready"):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        assert said["status"] == "valid", said
        return dict(said)

    def _post(self, url: str, payload: Json | None, *, text: bool = False) -> tuple[Any, str]:
        """Answer and Location."""
        if not self._nonce:
            with urllib.request.urlopen(
                urllib.request.Request(self._urls["newNonce"], method="HEAD"), context=self._context
            ) as answer:
                self._nonce = answer.headers["Replay-Nonce"]
        who = {"kid": self._account} if self._account else {"jwk": self._jwk}
        protected = encode(compact({"alg": "ES256", "nonce": self._nonce, "url": url, **who}))
        body = encode(compact(payload)) if payload is not None else ""
        r, t = decode_dss_signature(self._key.sign(f"{protected}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
        signature = encode(r.to_bytes(32, "big") + t.to_bytes(32, "big"))
        data = compact({"protected": protected, "payload": body, "signature": signature})
        request = urllib.request.Request(url, data, {"Content-Type": "application/jose+json"})
        with urllib.request.urlopen(request, context=self._context) as answer:
            self._nonce = answer.headers["Replay-Nonce"]
            said = answer.read().decode()
            return (said if text else json.loads(said)), answer.headers.get("Location") or ""


def write(authority: Authority, file: Path) -> Path:
    """The root for `curl --cacert`."""
    file.write_text(pem(authority.certificate))
    return file
