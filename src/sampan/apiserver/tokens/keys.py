"""Keys that sign and verify JWTs: RFC 7515 (JWS) in its compact form and RFC 7517 (JWK), on `cryptography`.

The cluster's own key signs ServiceAccount tokens; keys of OIDC issuers come as JSON Web Keys.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.api.errors import Object
from sampan.apiserver.tokens import InvalidToken

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

    PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey
    PublicKey = EllipticCurvePublicKey | RSAPublicKey

_CURVES = {"secp256r1": ("ES256", 32, "P-256"), "secp384r1": ("ES384", 48, "P-384"), "secp521r1": ("ES512", 66, "P-521")}  # fmt: skip
"""Algorithm, bytes of a coordinate and JOSE name of each curve that can sign JWTs."""
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS = frozenset((*_RSA, *(algorithm for algorithm, _, _ in _CURVES.values())))
_LEAST_RSA_BITS = 1024


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A JWT taken apart. Nothing in it is to be believed before `VerifyingKey.verify` has seen it."""

    header: Object
    claims: Object
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, token: str) -> SignedToken:
        """Raises InvalidToken for what is no JWT at all."""
        try:
            head, body, signature = token.split(".")
            header, claims = json.loads(_unb64(head)), json.loads(_unb64(body))
            raw = _unb64(signature)
        except (ValueError, RecursionError) as e:
            raise InvalidToken("not a JWT") from e
        if not isinstance(header, dict) or not isinstance(claims, dict):
            raise InvalidToken("not a JWT")
        return cls(header, claims, f"{head}.{body}".encode(), raw)


class VerifyingKey:
    """A public key. `id` is its `kid`."""

    def __init__(self, public: PublicKey, key_id: str = "") -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        self._public: PublicKey = public
        self._size = 0
        self._curve = ""
        if isinstance(public, ec.EllipticCurvePublicKey):
            if public.curve.name not in _CURVES:
                raise ValueError(f"the key's curve {public.curve.name} cannot sign JWTs")
            self.algorithm, self._size, self._curve = _CURVES[public.curve.name]
            self.algorithms: tuple[str, ...] = (self.algorithm,)
        else:
            if public.key_size < _LEAST_RSA_BITS:
                raise ValueError(f"an RSA key of {public.key_size} bits is too short")
            self.algorithm = "RS256"
            self.algorithms = _RSA
        self.id = key_id
        if not key_id:
            der = public.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            self.id = _b64(hashlib.sha256(der).digest())

    @classmethod
    def from_jwk(cls, jwk: Object) -> VerifyingKey:
        """Raises ValueError for a key of another kind, or a broken one."""
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        def number(name: str) -> int:
            text = jwk.get(name)
            if not isinstance(text, str):
                raise ValueError(f"the JSON Web Key has no {name!r}")
            return int.from_bytes(_unb64(text), "big")

        key_id = str(jwk.get("kid") or "")
        if jwk.get("kty") == "RSA":
            key = cls(rsa.RSAPublicNumbers(number("e"), number("n")).public_key(), key_id)
        elif jwk.get("kty") == "EC":
            curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
            curve = curves.get(str(jwk.get("crv")))
            if curve is None:
                raise ValueError(f"a JSON Web Key's curve {jwk.get('crv')!r} is not supported")
            numbers = ec.EllipticCurvePublicNumbers(number("x"), number("y"), curve)
            key = cls(numbers.public_key(), key_id)
        else:
            raise ValueError(f"a JSON Web Key of kind {jwk.get('kty')!r} is not supported")
        if (algorithm := jwk.get("alg")) is not None:
            key.algorithms = tuple(a for a in key.algorithms if a == algorithm)
        return key

    def verify(self, token: SignedToken) -> None:
        """Raises InvalidToken unless this key signed the token."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        algorithm, signature = token.header.get("alg"), token.signature
        if algorithm not in self.algorithms:
            raise InvalidToken("signed by an unknown key")
        try:
            if isinstance(self._public, rsa.RSAPublicKey):
                digest = _hash(algorithm)
                pad: Any = padding.PKCS1v15()
                if algorithm.startswith("PS"):
                    pad = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
                self._public.verify(signature, token.signed, pad, digest)
                return
            if len(signature) != 2 * self._size:
                raise InvalidToken("bad signature")
            # A JWT carries the two numbers side by side, at full width, not DER.
            r = int.from_bytes(signature[: self._size], "big")
            s = int.from_bytes(signature[self._size :], "big")
            self._public.verify(encode_dss_signature(r, s), token.signed, ec.ECDSA(_hash(algorithm)))
        except InvalidSignature as e:
            raise InvalidToken("bad signature") from e

    def jwk(self) -> Object:
        """The key as a JSON Web Key."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        head: Object = {"use": "sig", "kid": self.id, "alg": self.algorithm}
        if isinstance(self._public, rsa.RSAPublicKey):
            numbers = self._public.public_numbers()
            return {**head, "kty": "RSA", "n": _b64_int(numbers.n), "e": _b64_int(numbers.e)}
        point = self._public.public_numbers()
        x, y = (_b64(n.to_bytes(self._size, "big")) for n in (point.x, point.y))
        return {**head, "kty": "EC", "crv": self._curve, "x": x, "y": y}


class SigningKey(VerifyingKey):
    """A private key, PEM, and its public half."""

    def __init__(self, pem: bytes, key_id: str = "") -> None:
        # Imported late: a server that is asked for no token need not carry the library's weight at start.
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        private = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError("the ServiceAccount key must be an EC or RSA private key")
        self._private: PrivateKey = private
        super().__init__(private.public_key(), key_id)

    def sign(self, claims: Object) -> str:
        header = {"alg": self.algorithm, "kid": self.id}
        signed = f"{_b64(_json(header))}.{_b64(_json(claims))}"
        return f"{signed}.{_b64(self._signature(signed.encode()))}"

    def _signature(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        digest = _hash(self.algorithm)
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(message, padding.PKCS1v15(), digest)
        r, s = decode_dss_signature(self._private.sign(message, ec.ECDSA(digest)))
        return r.to_bytes(self._size, "big") + s.to_bytes(self._size, "big")


@functools.lru_cache(maxsize=4)
def signing_key(pem: bytes) -> SigningKey:
    """The key, made ready once."""
    return SigningKey(pem)


def _hash(algorithm: str) -> Any:
    from cryptography.hazmat.primitives import hashes

    return {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[algorithm[2:]]


def _json(value: Object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _b64_int(number: int) -> str:
    return _b64(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _unb64(text: str) -> bytes:
    if not text.isascii() or set("+/=") & set(text):
        raise ValueError("not base64url")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
