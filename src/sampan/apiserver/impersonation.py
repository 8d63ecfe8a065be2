"""Acting as somebody else: `Impersonate-*` headers, each of which must be allowed.

Upstream: `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.
"""

from __future__ import annotations

from urllib.parse import unquote

from sampan.api.errors import bad_request
from sampan.apiserver.tokens import groups as account_groups
from sampan.apiserver.tokens import split_user_name
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


def impersonate(request: Request, user: User, authorizer: Authorizer) -> User:
    """The user that the request is made as: `user`, or whom its headers name. Raises StatusError 403 or 400."""
    headers = request.headers
    name = headers.get("impersonate-user", "")
    groups = _values(headers.get("impersonate-group", ""))
    uid = headers.get("impersonate-uid", "")
    extra = {unquote(h[len(_EXTRA) :]): _values(v) for h, v in headers.items() if h.startswith(_EXTRA)}
    if not name:
        if groups or uid or extra:
            raise bad_request("requested impersonation without impersonating a user")
        return user
    account = split_user_name(name)
    if account is not None:
        _check(authorizer, user, "", "serviceaccounts", account[1], account[0])
    else:
        _check(authorizer, user, "", "users", name)
    for group in groups:
        _check(authorizer, user, "", "groups", group)
    for key, values in extra.items():
        for value in values:
            _check(authorizer, user, _GROUP, "userextras", value, subresource=key)
    if uid:
        _check(authorizer, user, _GROUP, "uids", uid)
    if account is not None and not groups:
        groups = list(account_groups(account[0]))
    if name == ANONYMOUS:
        if UNAUTHENTICATED not in groups:
            groups.append(UNAUTHENTICATED)
    elif AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
        groups.append(AUTHENTICATED)
    return User(name, uid, tuple(groups), extra)


def _values(text: str) -> list[str]:
    return [v for v in (part.strip() for part in text.split("\n")) if v]


def _check(
    authorizer: Authorizer,
    user: User,
    group: str,
    plural: str,
    name: str,
    namespace: str = "",
    subresource: str = "",
) -> None:
    if SYSTEM_MASTERS in user.groups:
        return
    from sampan.apiserver import authorization

    info = RequestInfo("impersonate", "", True, group, "v1", plural, namespace, name, subresource)
    decision = authorizer.authorize(user, info)
    if not decision.allowed:
        raise authorization.forbidden(user, info, decision.reason)
