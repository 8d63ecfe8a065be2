"""Acting as somebody else: `Impersonate-*` headers, each of which must be allowed.

Upstream: `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.
"""

from __future__ import annotations

from urllib.parse import unquote

from sampan.api.errors import bad_request
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
_ACCOUNT = "system:serviceaccount:"


def impersonate(request: Request, user: User, authorizer: Authorizer) -> User:
    """The user that the request is made as: `user`, or whom its headers name. Raises StatusError 403 or 400."""
    headers = request.headers
    if "impersonate-user" not in headers:
        if any(h.startswith("impersonate-") for h in headers):
            raise bad_request("requested impersonation without impersonating a user")
        return user
    name = headers["impersonate-user"]
    groups = [g.strip() for g in headers.get("impersonate-group", "").split(",") if g.strip()]
    extra = {
        unquote(h[len(_EXTRA) :]).lower(): [v.strip() for v in value.split(",")]
        for h, value in headers.items()
        if h.startswith(_EXTRA)
    }
    uid = headers.get("impersonate-uid", "")
    account = name.removeprefix(_ACCOUNT).split(":") if name.startswith(_ACCOUNT) else []
    if len(account) == 2:
        _check(authorizer, user, "", "serviceaccounts", account[1], account[0])
        if not groups:
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
    else:
        _check(authorizer, user, "", "users", name)
    for group in [g for g in headers.get("impersonate-group", "").split(",") if g.strip()]:
        _check(authorizer, user, "", "groups", group.strip())
    for key, values in extra.items():
        for value in values:
            _check(authorizer, user, "authentication.k8s.io", "userextras", value, subresource=key)
    if uid:
        _check(authorizer, user, "authentication.k8s.io", "uids", uid)
    if name == ANONYMOUS:
        groups = [*groups, *({UNAUTHENTICATED} - set(groups))]
    elif UNAUTHENTICATED not in groups:
        groups = [*groups, *({AUTHENTICATED} - set(groups))]
    return User(name, uid, tuple(groups), extra)


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
