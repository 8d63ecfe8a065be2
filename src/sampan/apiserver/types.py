"""The seams inside the API server: who asks (`User`), for what (`RequestInfo`), and what answers yes or no.

Names follow upstream's `k8s.io/apiserver`: `authentication/user.Info`, `endpoints/request.RequestInfo`,
`authorization/authorizer` and `admission`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.transport.types import Answer, Request

if TYPE_CHECKING:
    from sampan.apiserver.authentication import KeysWanted

SYSTEM_MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = "system:anonymous"


@dataclass(frozen=True, slots=True)
class User:
    """Who is asking."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)


LOOPBACK = User("system:apiserver", "", (SYSTEM_MASTERS, AUTHENTICATED))
"""Our own parts in the control-plane process (the in-process client's default identity)."""


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A request as authorization sees it. `verb` is the API verb (get, list, watch, create, update, patch, delete,
    deletecollection), or the lower-case HTTP method for a path that is no resource. For connect subresources the verb
    follows the method (GET is get, POST is create). `resource` is None where the path names no served resource."""

    verb: str
    path: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    plural: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    """What follows the subresource (`proxy/REST`)."""
    resource: Resource | None = None
    label_selector: str = ""
    field_selector: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    allowed: bool
    reason: str = ""


class Authenticator(Protocol):
    def authenticate(self, request: Request) -> User:
        """Who sent it: by client certificate, else bearer token, else anonymous (only if there were no credentials at
        all); impersonation headers are applied by the caller. Raises StatusError 401 for a bad credential, KeysWanted
        where it takes a look elsewhere to tell."""

    async def authenticate_later(self, request: Request, wanted: KeysWanted) -> User:
        """The same, with that look. Raises StatusError 401."""


class Authorizer(Protocol):
    def authorize(self, user: User, info: RequestInfo) -> Decision:
        """Whether `user` may. Never blocks: reads the cache."""


ChangeCallback = Callable[[Object | None, Object | None], None]


class ReadCache(Protocol):
    """The decoded, shared, read-only copy of what is stored, current up to the last durable write."""

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None: ...

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]: ...

    def on_change(self, resource: Resource, callback: ChangeCallback) -> None:
        """Have `callback(old, new)` run, at once and in order, after each change of a resource from now on (`old` is
        None on a create, `new` on a delete). It must be quick and must not raise. What is there already is not
        announced: list it. This is how authorization keeps its indexes without ever scanning."""


@dataclass(slots=True)
class Attributes:
    """One write on its way through admission. `obj` may be changed in place by mutating plugins (None on delete)."""

    user: User
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    resource: Resource
    namespace: str
    name: str
    subresource: str
    obj: Object | None
    old: Object | None
    dry_run: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    """For the client, as Warning headers."""
    settle: list[Callable[[bool], Awaitable[None]]] = field(default_factory=list)
    """Called once when the write is over, with whether it was stored: who reserved something for it lets go of it."""


class Admission(Protocol):
    """The chain of built-in plugins. Both raise StatusError to refuse; validate must change nothing."""

    async def mutate(self, attributes: Attributes) -> None: ...

    async def validate(self, attributes: Attributes) -> None: ...


class Connector(Protocol):
    """Answers the connect subresources: pods/{log,exec,attach,portforward,proxy}, services/proxy, nodes/proxy."""

    async def connect(self, request: Request, info: RequestInfo, user: User) -> Answer: ...
