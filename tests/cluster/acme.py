"""A small ACME server (RFC 8555) that issues after an HTTP-01 challenge, and a client for it: the two sides of cert-manager's work.

The server checks what a real one does: nonces, signatures (ES256), the account's key, the answer to the challenge, the names in
the request. It knows hosts by `resolve` in place of DNS.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import http.client
import json
import secrets
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
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


class Server(ThreadingHTTPServer):
    """Orders by number; each has one host and one challenge."""

    daemon_threads = True

    def __init__(self, resolve: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.authority = Authority()
        self.resolve = resolve
        self.nonces: set[str] = set()
        self.accounts: list[Json] = []
        self.orders: list[Json] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def directory(self) -> str:
        return f"{self.url}/directory"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        names = ("newNonce", "newAccount", "newOrder")
        self._answer(200, {n: f"{self.server.url}/{n}" for n in names} if self.path == "/directory" else {})

    do_HEAD = do_GET

    def _answer(self, status: int, body: Json | str, location: str = "") -> None:
        data = body.encode() if isinstance(body, str) else compact(body)
        nonce = secrets.token_urlsafe(12)
        self.server.nonces.add(nonce)
        self.send_response(status)
        self.send_header("Replay-Nonce", nonce)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        signed = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            self._answer(*self._do(*self._verified(signed)))
        except Exception as e:
            self._answer(400, {"type": "urn:ietf:params:acme:error:malformed", "detail": repr(e)})

    def _verified(self, signed: Json) -> tuple[Json, Json]:
        """The account's key and the payload."""
        protected = json.loads(decode(signed["protected"]))
        self.server.nonces.remove(protected["nonce"])
        if protected["url"] != self.server.url + self.path or protected["alg"] != "ES256":
            raise ValueError(protected)
        jwk = protected.get("jwk") or self.server.accounts[int(protected["kid"].rpartition("/")[2])]
        x, y = (int.from_bytes(decode(jwk[k]), "big") for k in "xy")
        raw = decode(signed["signature"])
        signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key().verify(
            signature, f"{signed['protected']}.{signed['payload']}".encode(), ec.ECDSA(hashes.SHA256())
        )
        return jwk, json.loads(decode(signed["payload"]) or b"{}")

    def _do(self, jwk: Json, payload: Json) -> tuple[int, Json | str, str]:
        server = self.server
        what, _, number = self.path[1:].partition("/")
        if what == "newAccount":
            server.accounts.append(jwk)
            return 201, {"status": "valid"}, f"{server.url}/account/{len(server.accounts) - 1}"
        if what == "newOrder":
            n = len(server.orders)
            server.orders.append(
                {
                    "status": "pending",
                    "identifiers": payload["identifiers"],
                    "authorizations": [f"{server.url}/authorization/{n}"],
                    "finalize": f"{server.url}/finalize/{n}",
                    "token": secrets.token_urlsafe(24),
                }
            )
            return 201, server.orders[n], f"{server.url}/order/{n}"
        order = server.orders[int(number)]
        host = order["identifiers"][0]["value"]
        challenge = {"type": "http-01", "url": f"{server.url}/challenge/{number}", "token": order["token"]}
        if what == "authorization":
            return 200, {"identifier": order["identifiers"][0], "challenges": [challenge]}, ""
        if what == "challenge":
            wanted = f"{order['token']}.{thumbprint(jwk)}"
            if (got := self._fetch(host, order["token"])) != wanted:
                raise ValueError(f"unauthorized: {got!r}")
            order["status"] = "ready"
            return 200, {**challenge, "status": "valid"}, ""
        if what == "finalize" and order["status"] == "ready":
            request = x509.load_der_x509_csr(decode(payload["csr"]))
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            key = request.public_key()
            if names.get_values_for_type(x509.DNSName) != [host] or not isinstance(
                key, ec.EllipticCurvePublicKey
            ):
                raise ValueError("badCSR")
            order["chain"] = pem(server.authority.issue(host, key)) + pem(server.authority.certificate)
            order |= {"status": "valid", "certificate": f"{server.url}/certificate/{number}"}
            return 200, {k: order[k] for k in ("status", "certificate")}, ""
        if what == "certificate":
            return 200, order["chain"], ""
        raise ValueError(self.path)

    def _fetch(self, host: str, token: str) -> str:
        """What the host answers, by HTTP at port 80."""
        connection = http.client.HTTPConnection(self.server.resolve[host], 80, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", CHALLENGES + token, headers={"Host": host})
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == 200 else f"status {answer.status}"


@contextlib.contextmanager
def server(resolve: Mapping[str, str]) -> Iterator[Server]:
    one = Server(resolve)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    try:
        yield one
    finally:
        one.shutdown()
        one.server_close()


@dataclass(frozen=True)
class Challenge:
    """`path` is to be answered with `answer`."""

    host: str
    path: str
    answer: str
    url: str
    finalize: str


class AcmeClient:
    """An account at a server."""

    def __init__(self, directory: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._jwk = jwk_of(self._key.public_key())
        with urllib.request.urlopen(directory) as answer:
            self._urls = json.load(answer)
        self._account = ""
        self._nonce = ""
        _, self._account = self._post(self._urls["newAccount"], {"termsOfServiceAgreed": True})

    def order(self, host: str) -> Challenge:
        order, _ = self._post(self._urls["newOrder"], {"identifiers": [{"type": "dns", "value": host}]})
        authorization, _ = self._post(order["authorizations"][0], None)
        challenge = next(c for c in authorization["challenges"] if c["type"] == "http-01")
        answer = f"{challenge['token']}.{thumbprint(self._jwk)}"
        return Challenge(host, CHALLENGES + challenge["token"], answer, challenge["url"], order["finalize"])

    def finish(self, challenge: Challenge) -> tuple[str, str]:
        """Chain and key, once the answer is in place."""
        self._post(challenge.url, {})
        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(challenge.host)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        order, _ = self._post(challenge.finalize, {"csr": encode(request.public_bytes(s.Encoding.DER))})
        chain, _ = self._post(order["certificate"], None, text=True)
        return chain, private_pem(key)

    def _post(self, url: str, payload: Json | None, *, text: bool = False) -> tuple[Any, str]:
        """Answer and Location."""
        if not self._nonce:
            with urllib.request.urlopen(
                urllib.request.Request(self._urls["newNonce"], method="HEAD")
            ) as answer:
                self._nonce = answer.headers["Replay-Nonce"]
        who = {"kid": self._account} if self._account else {"jwk": self._jwk}
        protected = encode(compact({"alg": "ES256", "nonce": self._nonce, "url": url, **who}))
        body = encode(compact(payload)) if payload is not None else ""
        r, t = decode_dss_signature(self._key.sign(f"{protected}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
        signature = encode(r.to_bytes(32, "big") + t.to_bytes(32, "big"))
        data = compact({"protected": protected, "payload": body, "signature": signature})
        request = urllib.request.Request(url, data, {"Content-Type": "application/jose+json"})
        with urllib.request.urlopen(request) as answer:
            self._nonce = answer.headers["Replay-Nonce"]
            said = answer.read().decode()
            return (said if text else json.loads(said)), answer.headers.get("Location") or ""


def write(authority: Authority, file: Path) -> Path:
    """The root for `curl --cacert`."""
    file.write_text(pem(authority.certificate))
    return file
