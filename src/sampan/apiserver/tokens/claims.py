"""What a ServiceAccount token says, and whether it is still true.

Upstream: `pkg/serviceaccount/claims.go`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sampan.api import resources
from sampan.api.errors import Object
from sampan.api.objects import parse_time
from sampan.api.resources import Resource
from sampan.apiserver.tokens import EXTRA, InvalidToken, groups, user_name
from sampan.apiserver.tokens.keys import SignedToken
from sampan.apiserver.types import ReadCache, User

PRIVATE = "kubernetes.io"
"""The claim below which everything of Kubernetes' own stands."""
LEEWAY_SECONDS = 60
"""Clocks of hosts differ; tokens are dated, and believed, with this much room."""
BINDABLE = {"pod": resources.PODS, "secret": resources.SECRETS, "node": resources.NODES}
"""What a token can be bound to, by the name of its claim."""


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
    """From when on its use is worth a warning: its holder ought to have read a newer one."""


@dataclass(slots=True)
class Looked:
    """The objects on which a verdict about a token rests, as they were then."""

    cache: ReadCache
    objects: list[tuple[Resource, str, str, Object | None]] = field(default_factory=list)

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        found = self.cache.get(resource, namespace, name)
        self.objects.append((resource, namespace, name, found))
        return found

    def found(self) -> Iterator[Object]:
        return (obj for _, _, _, obj in self.objects if obj is not None)

    def unchanged(self) -> bool:
        """Whether looking again would find the very same."""
        get = self.cache.get
        for resource, namespace, name, found in self.objects:
            if get(resource, namespace, name) is not found:
                return False
        return True


def read(token: SignedToken) -> Claims:
    """The claims of a token whose signature is good. Raises InvalidToken."""
    raw = token.claims
    private = raw.get(PRIVATE)
    audiences = raw.get("aud") or ()
    if isinstance(audiences, str):
        audiences = (audiences,)
    try:
        account = private["serviceaccount"]  # type: ignore[index]
        bindings = tuple(
            Binding(kind, private[kind]["name"], private[kind]["uid"])  # type: ignore[index]
            for kind in BINDABLE
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
    if raw.get("sub") != user_name(claims.namespace, claims.account):
        raise InvalidToken("the subject is not the ServiceAccount")
    return claims


def check(looked: Looked, claims: Claims, now: float) -> User:
    """The user that a token stands for at `now`: it is of its time, and all it names is still there. For whom it is
    meant is another question. Raises InvalidToken."""
    if now > claims.expires + LEEWAY_SECONDS:
        raise InvalidToken("service account token has expired")
    if now < claims.not_before - LEEWAY_SECONDS:
        raise InvalidToken("service account token is not valid yet")
    account = looked.get(resources.SERVICEACCOUNTS, claims.namespace, claims.account)
    check_there(account, "ServiceAccount", claims.account, claims.uid, now)
    extra: dict[str, Sequence[str]] = {}
    if claims.token_id:
        extra[EXTRA + "credential-id"] = (f"JTI={claims.token_id}",)
    pod_bound = any(b.kind == "pod" for b in claims.bindings)
    for bound in claims.bindings:
        # The node of a pod's token is told for information; only a token bound to the node itself dies with it.
        if bound.kind != "node" or not pod_bound:
            resource = BINDABLE[bound.kind]
            found = looked.get(resource, claims.namespace if resource.namespaced else "", bound.name)
            check_there(found, resource.kind, bound.name, bound.uid, now)
        if bound.kind != "secret":
            extra[f"{EXTRA}{bound.kind}-name"] = (bound.name,)
            extra[f"{EXTRA}{bound.kind}-uid"] = (bound.uid,)
    return User(user_name(claims.namespace, claims.account), claims.uid, groups(claims.namespace), extra)


def check_there(obj: Object | None, kind: str, name: str, uid: str, now: float) -> None:
    """Raises InvalidToken unless `obj` is the one with that uid, and is not gone at `now`."""
    if obj is None:
        raise InvalidToken(f"{kind} {name} has been deleted")
    if obj["metadata"].get("uid") != uid:
        raise InvalidToken(f"{kind} {name} is another one now: its uid is not the token's")
    if gone_by(obj) < now:
        raise InvalidToken(f"{kind} {name} has been deleted")


def gone_by(obj: Object) -> float:
    """Until when tokens bound to an object are good, as far as the object itself tells. A pod that is shutting down may
    still need the API; upstream gives it a minute after its grace period."""
    going = obj["metadata"].get("deletionTimestamp")
    return parse_time(going) + LEEWAY_SECONDS if going else float("inf")
