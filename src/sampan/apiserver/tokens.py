"""ServiceAccount tokens: signed claims about a ServiceAccount and the object that a token lives and dies with.

`TokenRequest` makes them, `authentication` believes them. A token is a JWT signed by the cluster's key (ES256, ES384,
ES512 or RS256, by the key's kind). Its signature says who issued it; whether it is *still* good depends on the
objects it names, which are looked up on every use: a deleted pod's token is refused at once.

Upstream: `pkg/serviceaccount` (claims, key ids, OpenID discovery) and `pkg/registry/core/serviceaccount/storage`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.api import errors, resources
from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy, format_time, new_uid, parse_time
from sampan.apiserver.config import Config
from sampan.apiserver.types import ReadCache, User
from sampan.transport.types import Request, Response

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

    PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey
    PublicKey = EllipticCurvePublicKey | RSAPublicKey

USER_PREFIX = "system:serviceaccount:"
GROUP = "system:serviceaccounts"
NODE_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"
_PRIVATE = "kubernetes.io"
_EXTRA = "authentication.kubernetes.io/"
DEFAULT_SECONDS = 3600
MINIMUM_SECONDS = 600
MAXIMUM_SECONDS = 1 << 32
_MOUNTED_SECONDS = 3607
"""What the ServiceAccount admission plugin asks for. Upstream marks such a token by this odd number and lets it live
for a year, warning after the hour: programs that read the mounted file only once go on working."""
_EXTENDED_SECONDS = 365 * 24 * 3600
_LEEWAY_SECONDS = 60
"""Clocks of hosts differ; tokens are dated, and believed, with this much room."""
JWKS_PATH = "/openid/v1/jwks"
CONFIGURATION_PATH = "/.well-known/openid-configuration"
_CURVES = {"secp256r1": ("ES256", 32, "P-256"), "secp384r1": ("ES384", 48, "P-384"), "secp521r1": ("ES512", 66, "P-521")}  # fmt: skip


class InvalidToken(Exception):
    """A token that is not to be believed; the message says why and is for logs and TokenReviews."""


@dataclass(frozen=True, slots=True)
class Binding:
    """An object that a token names, and the uid it had then."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says, of the objects at the time it was issued."""

    namespace: str
    account: str
    uid: str
    audiences: tuple[str, ...]
    expires: float
    """Seconds since the epoch, as every time here."""
    not_before: float
    token_id: str
    bindings: tuple[Binding, ...]
    warn_after: float = 0.0


# ---- keys


class Key:
    """The cluster's signing key, ready for use."""

    def __init__(self, pem: bytes) -> None:
        # Imported late: a server that is asked for no token need not carry the library's weight at start.
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        private = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError("the ServiceAccount key must be an EC or RSA private key")
        self._private: PrivateKey = private
        self._public: PublicKey = private.public_key()
        self._size = 0
        self._curve = ""
        if isinstance(private, ec.EllipticCurvePrivateKey):
            if private.curve.name not in _CURVES:
                raise ValueError(f"the ServiceAccount key's curve {private.curve.name} cannot sign JWTs")
            self.algorithm, self._size, self._curve = _CURVES[private.curve.name]
        else:
            self.algorithm = "RS256"
        der = self._public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.id = _b64(hashlib.sha256(der).digest())

    def sign(self, claims: Object) -> str:
        header = {"alg": self.algorithm, "kid": self.id}
        signed = f"{_b64(_json(header))}.{_b64(_json(claims))}"
        return f"{signed}.{_b64(self._signature(signed.encode()))}"

    def verify(self, token: str) -> Object:
        """The claims of a token that this key signed. Raises InvalidToken."""
        try:
            head, body, signature = token.split(".")
            header, claims = json.loads(_unb64(head)), json.loads(_unb64(body))
            raw = _unb64(signature)
        except ValueError as e:
            raise InvalidToken("not a JWT") from e
        if not isinstance(header, dict) or not isinstance(claims, dict):
            raise InvalidToken("not a JWT")
        if header.get("alg") != self.algorithm or header.get("kid", self.id) != self.id:
            raise InvalidToken("signed by an unknown key")
        self._check(raw, f"{head}.{body}".encode())
        return claims

    def _hash(self) -> Any:
        from cryptography.hazmat.primitives import hashes

        return {"ES384": hashes.SHA384, "ES512": hashes.SHA512}.get(self.algorithm, hashes.SHA256)()

    def _signature(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(message, padding.PKCS1v15(), self._hash())
        # A JWT carries the two numbers side by side, at full width, not DER.
        r, s = decode_dss_signature(self._private.sign(message, ec.ECDSA(self._hash())))
        return r.to_bytes(self._size, "big") + s.to_bytes(self._size, "big")

    def _check(self, signature: bytes, message: bytes) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        try:
            if isinstance(self._public, rsa.RSAPublicKey):
                self._public.verify(signature, message, padding.PKCS1v15(), self._hash())
                return
            if len(signature) != 2 * self._size:
                raise InvalidToken("bad signature")
            r = int.from_bytes(signature[: self._size], "big")
            s = int.from_bytes(signature[self._size :], "big")
            self._public.verify(encode_dss_signature(r, s), message, ec.ECDSA(self._hash()))
        except InvalidSignature as e:
            raise InvalidToken("bad signature") from e

    def jwk(self) -> Object:
        """The public half as a JSON Web Key."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        head: Object = {"use": "sig", "kid": self.id, "alg": self.algorithm}
        if isinstance(self._public, rsa.RSAPublicKey):
            numbers = self._public.public_numbers()
            return {**head, "kty": "RSA", "n": _b64_int(numbers.n), "e": _b64_int(numbers.e)}
        point = self._public.public_numbers()
        x, y = (_b64(n.to_bytes(self._size, "big")) for n in (point.x, point.y))
        return {**head, "kty": "EC", "crv": self._curve, "x": x, "y": y}


@functools.lru_cache(maxsize=4)
def _key(pem: bytes) -> Key:
    return Key(pem)


def key(config: Config) -> Key:
    return _key(config.service_account_key)


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


# ---- believing a token


def parse(config: Config, token: str) -> Claims:
    """The claims of a token that this cluster issued, whatever its age. Raises InvalidToken."""
    raw = key(config).verify(token)
    if raw.get("iss") != config.issuer:
        raise InvalidToken("issued by another cluster")
    private = raw.get(_PRIVATE)
    audiences = raw.get("aud") or ()
    if isinstance(audiences, str):
        audiences = (audiences,)
    try:
        account = private["serviceaccount"]  # type: ignore[index]
        bindings = tuple(
            Binding(kind, private[kind]["name"], private[kind]["uid"])  # type: ignore[index]
            for kind in ("pod", "secret", "node")
            if kind in private  # type: ignore[operator]
        )
        claims = Claims(
            namespace=private["namespace"],  # type: ignore[index]
            account=account["name"],
            uid=account["uid"],
            audiences=tuple(audiences),
            expires=float(raw["exp"]),
            not_before=float(raw.get("nbf", 0)),
            token_id=str(raw.get("jti", "")),
            bindings=bindings,
            warn_after=float(private.get("warnafter", 0)),  # type: ignore[union-attr]
        )
    except (KeyError, TypeError, ValueError) as e:
        raise InvalidToken("a claim is missing") from e
    if raw.get("sub") != f"{USER_PREFIX}{claims.namespace}:{claims.account}":
        raise InvalidToken("the subject is not the ServiceAccount")
    return claims


def check(cache: ReadCache, claims: Claims, audiences: Sequence[str], now: float) -> User:
    """The user that a token stands for at `now`: it is of its time, meant for one of `audiences`, and all it names is
    still there. Raises InvalidToken."""
    if now > claims.expires + _LEEWAY_SECONDS:
        raise InvalidToken("service account token has expired")
    if now < claims.not_before - _LEEWAY_SECONDS:
        raise InvalidToken("service account token is not valid yet")
    if not set(claims.audiences) & set(audiences):
        raise InvalidToken("token audiences are not for this server")
    account = cache.get(resources.SERVICEACCOUNTS, claims.namespace, claims.account)
    _check_there(account, "ServiceAccount", claims.account, claims.uid, now)
    extra: dict[str, Sequence[str]] = {}
    if claims.token_id:
        extra[_EXTRA + "credential-id"] = (f"JTI={claims.token_id}",)
    pod_bound = any(b.kind == "pod" for b in claims.bindings)
    for bound in claims.bindings:
        # The node of a pod's token is told for information; only a token bound to the node itself dies with it.
        if bound.kind != "node" or not pod_bound:
            resource = _BINDABLE[bound.kind][0]
            found = cache.get(resource, claims.namespace if resource.namespaced else "", bound.name)
            _check_there(found, resource.kind, bound.name, bound.uid, now)
        if bound.kind != "secret":
            extra[f"{_EXTRA}{bound.kind}-name"] = (bound.name,)
            extra[f"{_EXTRA}{bound.kind}-uid"] = (bound.uid,)
    return User(
        f"{USER_PREFIX}{claims.namespace}:{claims.account}",
        claims.uid,
        (GROUP, f"{GROUP}:{claims.namespace}"),
        extra,
    )


def _check_there(obj: Object | None, kind: str, name: str, uid: str, now: float) -> None:
    if obj is None:
        raise InvalidToken(f"{kind} {name} has been deleted")
    if obj["metadata"].get("uid") != uid:
        raise InvalidToken(f"{kind} {name} is another one now: its uid is not the token's")
    going = obj["metadata"].get("deletionTimestamp")
    # A pod that is shutting down may still need the API; upstream gives it a minute after its grace period.
    if going and parse_time(going) + _LEEWAY_SECONDS < now:
        raise InvalidToken(f"{kind} {name} has been deleted")


_BINDABLE = {
    "pod": (resources.PODS, "v1"),
    "secret": (resources.SECRETS, "v1"),
    "node": (resources.NODES, "v1"),
}


# ---- making one


def create_token_request(
    cache: ReadCache,
    config: Config,
    user: User,
    account: Object,
    request: Object,
    *,
    clock: Callable[[], float] = time.time,
) -> Object:
    """Answer a `TokenRequest` for ServiceAccount `account`: the request with its defaults and `status`.

    `user` is who asks: a node gets tokens bound to its own pods alone. Raises StatusError 422 for a bad request, 404
    and 409 where the object to bind to is gone or another, 403 where a node oversteps.
    """
    out = deep_copy(request)
    out.update(apiVersion="authentication.k8s.io/v1", kind="TokenRequest")
    meta = account["metadata"]
    out["metadata"] = {**(out.get("metadata") or {}), "name": meta["name"], "namespace": meta["namespace"]}
    spec = out["spec"] = out.get("spec") or {}
    spec["audiences"] = spec.get("audiences") or [config.issuer]
    seconds = spec.get("expirationSeconds")
    if seconds is None:
        seconds = spec["expirationSeconds"] = DEFAULT_SECONDS
    if seconds < MINIMUM_SECONDS or seconds > MAXIMUM_SECONDS:
        limit = "less than 10 minutes" if seconds < MINIMUM_SECONDS else "larger than 2^32 seconds"
        problem = errors.invalid_value(
            "spec.expirationSeconds", seconds, f"may not specify a duration {limit}"
        )
        raise errors.invalid("TokenRequest", meta["name"], [problem], "authentication.k8s.io")
    reference = spec.get("boundObjectRef")
    bound = _bind(cache, account, reference) if reference else {}
    _check_node(user, account, bound)

    now = math.floor(clock())
    expires = now + seconds
    private: Object = {
        "namespace": meta["namespace"],
        "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
        **{k: {"name": o["metadata"]["name"], "uid": o["metadata"]["uid"]} for k, o in bound.items()},
    }
    claimed_end = expires
    if seconds == _MOUNTED_SECONDS and spec["audiences"] == [config.issuer] and "pod" in bound:
        private["warnafter"] = expires
        claimed_end = now + _EXTENDED_SECONDS
    claims: Object = {
        "aud": spec["audiences"],
        "exp": claimed_end,
        "iat": now,
        "iss": config.issuer,
        "jti": new_uid(),
        _PRIVATE: private,
        "nbf": now,
        "sub": f"{USER_PREFIX}{meta['namespace']}:{meta['name']}",
    }
    out["status"] = {"token": key(config).sign(claims), "expirationTimestamp": format_time(expires)}
    return out


def _bind(cache: ReadCache, account: Object, reference: Object) -> dict[str, Object]:
    """The objects to name in the claims: the one referred to and, for a pod, its node."""
    kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
    resource, api_version = _BINDABLE.get(kind.lower(), (None, ""))
    if resource is None or resource.kind != kind or reference.get("apiVersion", "v1") != api_version:
        raise errors.bad_request(f"cannot bind token for serviceaccount to object of type {kind}")
    namespace = account["metadata"]["namespace"] if resource.namespaced else ""
    found = cache.get(resource, namespace, name)
    if found is None:
        raise errors.not_found(resource.plural, name)
    uid, wanted = found["metadata"]["uid"], reference.get("uid")
    if wanted and wanted != uid:
        why = (
            f"the UID in the bound object reference ({wanted}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
        raise errors.conflict(resource.plural, name, why)
    bound = {kind.lower(): found}
    if resource is resources.PODS:
        account_name = account["metadata"]["name"]
        if found["spec"].get("serviceAccountName") != account_name:
            why = f'cannot bind token for serviceaccount "{account_name}" to pod running with different serviceaccount name.'
            raise errors.bad_request(why)
        node_name = found["spec"].get("nodeName")
        node = cache.get(resources.NODES, "", node_name) if node_name else None
        if node is not None:
            bound["node"] = node
    return bound


def _check_node(user: User, account: Object, bound: dict[str, Object]) -> None:
    if NODES_GROUP not in user.groups or not user.name.startswith(NODE_PREFIX):
        return
    name = account["metadata"]["name"]
    pod = bound.get("pod")
    if pod is None:
        raise errors.forbidden("serviceaccounts", name, "node requested token not bound to a pod")
    if pod["spec"].get("nodeName") != user.name.removeprefix(NODE_PREFIX):
        why = "node requested token bound to a pod scheduled on a different node"
        raise errors.forbidden("serviceaccounts", name, why)


# ---- OpenID discovery


def openid(config: Config, request: Request) -> Response | None:
    """Answer the two paths by which others learn to verify our tokens; None for any other path."""
    path = request.path
    if path == JWKS_PATH:
        body: Object = {"keys": [key(config).jwk()]}
        content_type = "application/jwk-set+json"
    elif path == CONFIGURATION_PATH:
        body = {
            "issuer": config.issuer,
            "jwks_uri": f"https://{config.advertise_address}:{config.advertise_port}{JWKS_PATH}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [key(config).algorithm],
        }
        content_type = "application/json"
    else:
        return None
    if request.method != "GET":
        raise StatusError(405, "MethodNotAllowed", f"{request.method} is not supported on {path}")
    return Response(200, _json(body), content_type, (("Cache-Control", "public, max-age=3600"),))
