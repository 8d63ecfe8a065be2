"""Acting as somebody else: `Impersonate-*` headers, each of which must be allowed.

The narrow way is tried first: `impersonate:MODE` says who may be acted as, `impersonate-on:MODE:VERB` what may be done
as them. The modes are `associated-node` (the node that a ServiceAccount's pod runs on), `arbitrary-node`,
`serviceaccount` and `user-info`. The old verb `impersonate` allows everything that the one acted as may do.

Upstream: `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from sampan.api.errors import StatusError, bad_request
from sampan.apiserver import authorization, requestinfo
from sampan.apiserver.tokens import EXTRA, NODE_PREFIX, NODES_GROUP, split_user_name
from sampan.apiserver.tokens import groups as account_groups
from sampan.apiserver.types import (
    ANONYMOUS,
    AUTHENTICATED,
    SYSTEM_MASTERS,
    UNAUTHENTICATED,
    Authorizer,
    RequestInfo,
    User,
)
from sampan.transport.types import Request

_EXTRA = "impersonate-extra-"
_GROUP = "authentication.k8s.io"
_MANY = 4
"""From so many groups, or extra values, on it is first asked whether all are allowed at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom the headers name, as they stand there."""

    name: str
    uid: str
    groups: tuple[str, ...]
    extra: dict[str, tuple[str, ...]]

    @property
    def name_only(self) -> bool:
        return not (self.uid or self.groups or self.extra)

    @property
    def node(self) -> str:
        """The node that is wanted, or ""."""
        from sampan.api.validation.formats import dns1123_subdomain

        name = self.name.removeprefix(NODE_PREFIX)
        return name if name != self.name and not dns1123_subdomain(name) else ""

    @property
    def account(self) -> tuple[str, str] | None:
        return split_user_name(self.name)


def impersonate(
    request: Request, user: User, authorizer: Authorizer, info: RequestInfo | None = None
) -> User:
    """The user that the request is made as: `user`, or whom its headers name. `info` is what the request is about,
    where that is known already. Raises StatusError 403 or 400."""
    wanted = _wanted(request.headers)
    if wanted is None:
        return user
    if info is None:
        info = requestinfo.parse(request)
    refusal: StatusError | None = None
    for mode, applies in _MODES.items():
        if not applies(wanted, user):
            continue
        try:
            return _narrowly(mode, wanted, user, info, authorizer)
        except StatusError as e:
            refusal = refusal or e
    try:
        return _Check(authorizer, user, "impersonate", "").identity(wanted)
    except StatusError as e:
        raise refusal or e from None


def _wanted(headers: dict[str, str]) -> Wanted | None:
    wanted = Wanted(
        headers.get("impersonate-user", ""),
        headers.get("impersonate-uid", ""),
        _values(headers.get("impersonate-group", "")),
        {unquote(h[len(_EXTRA) :]): _values(v) for h, v in headers.items() if h.startswith(_EXTRA)},
    )
    if wanted.name:
        return wanted
    if wanted.name_only:
        return None
    raise bad_request("requested impersonation without impersonating a user name")


def _values(text: str) -> tuple[str, ...]:
    return tuple(v for v in (part.strip() for part in text.split("\n")) if v)


# ---- the narrow way


def _on_its_node(wanted: Wanted, user: User) -> bool:
    node = wanted.node
    if not node or not wanted.name_only or split_user_name(user.name) is None:
        return False
    return list(user.extra.get(EXTRA + "node-name", ())) == [node]


_MODES: dict[str, Callable[[Wanted, User], bool]] = {
    "associated-node": _on_its_node,
    "arbitrary-node": lambda wanted, user: wanted.name_only and bool(wanted.node),
    "serviceaccount": lambda wanted, user: wanted.name_only and wanted.account is not None,
    "user-info": lambda wanted, user: not wanted.node and wanted.account is None,
}
"""Whether a mode is for such a wish, in the order in which they are tried."""


def _narrowly(mode: str, wanted: Wanted, user: User, info: RequestInfo, authorizer: Authorizer) -> User:
    """The user to act as, by way of a mode. Raises StatusError 403."""
    every = False
    if mode == "associated-node":
        # That it is the ServiceAccount's own node has been seen to: the right is one for whatever node that is.
        every = True
        user = replace(user, extra={EXTRA + "associated-node-keys": sorted(user.extra)})
    on = replace(info, verb=f"impersonate-on:{mode}:{info.verb}")
    _allowed(authorizer, user, on)
    return _Check(authorizer, user, f"impersonate:{mode}", _GROUP).identity(wanted, every_node=every)


# ---- who may be acted as


class _Check:
    """Asks for each part of an identity whether `user` may act as that. `group` is where users and groups stand: ""
    for the old verb, which also knows no nodes and forbids nothing outright."""

    def __init__(self, authorizer: Authorizer, user: User, verb: str, group: str) -> None:
        self._authorizer = authorizer
        self._user = user
        self._verb = verb
        self._group = group

    def identity(self, wanted: Wanted, *, every_node: bool = False) -> User:
        """The user, with the groups that come with the name. Raises StatusError 403."""
        groups = list(wanted.groups)
        account, node = wanted.account, wanted.node
        if account is not None:
            self._may("serviceaccounts", account[1], account[0], self._group)
            groups = groups or list(account_groups(account[0]))
        elif node and self._group:
            self._may("nodes", "*" if every_node else node, group=self._group)
            groups = [NODES_GROUP]
        else:
            self._may("users", wanted.name, group=self._group)
        if wanted.uid:
            self._may("uids", wanted.uid)
        self._groups(wanted.groups)
        self._extra(wanted.extra)
        if wanted.name == ANONYMOUS:
            if UNAUTHENTICATED not in groups:
                groups.append(UNAUTHENTICATED)
        elif AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
            groups.append(AUTHENTICATED)
        return User(wanted.name, wanted.uid, tuple(groups), wanted.extra)

    def _groups(self, groups: Sequence[str]) -> None:
        if self._group:
            if SYSTEM_MASTERS in groups:
                why = "impersonating the system:masters group is not allowed"
                raise authorization.forbidden(self._user, self._info("groups", SYSTEM_MASTERS, group=self._group), why)  # fmt: skip
            if len(groups) >= _MANY and self._would("groups", "*", group=self._group):
                return
        for group in groups:
            self._may("groups", group, group=self._group)

    def _extra(self, extra: dict[str, tuple[str, ...]]) -> None:
        if self._group and extra:
            if problem := _extra_problem(extra):
                raise authorization.forbidden(self._user, self._info("userextras", ""), problem)
            if max(len(extra), sum(map(len, extra.values()))) >= _MANY and self._would("userextras", "*", key="*"):  # fmt: skip
                return
        for key, values in extra.items():
            for value in values:
                self._may("userextras", value, key=key)

    def _info(
        self, plural: str, name: str, namespace: str = "", group: str = _GROUP, key: str = ""
    ) -> RequestInfo:
        return RequestInfo(self._verb, "", True, group, "v1", plural, namespace, name, key)

    def _may(self, plural: str, name: str, namespace: str = "", group: str = _GROUP, key: str = "") -> None:
        _allowed(self._authorizer, self._user, self._info(plural, name, namespace, group, key))

    def _would(self, plural: str, name: str, group: str = _GROUP, key: str = "") -> bool:
        return self._authorizer.authorize(self._user, self._info(plural, name, "", group, key)).allowed


def _extra_problem(extra: dict[str, tuple[str, ...]]) -> str:
    for key, values in extra.items():
        domain, slash, path = key.partition("/")
        if not (domain and slash and path):
            why = 'must be a domain-prefixed path (such as "acme.io/foo")'
            return f"impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {json.dumps(key)}: {why}"
        if key != key.lower():
            return f"impersonating a non-lowercase key in extra is not allowed: {json.dumps(key)}"
        if not values:
            return "impersonating empty values in extra is not allowed"
    return ""


def _allowed(authorizer: Authorizer, user: User, info: RequestInfo) -> None:
    decision = authorizer.authorize(user, info)
    if not decision.allowed:
        raise authorization.forbidden(user, info, decision.reason)
