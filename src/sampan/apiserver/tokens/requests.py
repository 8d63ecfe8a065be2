"""TokenRequest: a new token for a ServiceAccount, bound to a Pod, a Node, a Secret or to nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from sampan.api import errors, resources
from sampan.api.errors import FieldError, Object
from sampan.api.objects import deep_copy, format_time, new_uid
from sampan.apiserver.config import Config
from sampan.apiserver.tokens import NODE_PREFIX, NODES_GROUP, user_name
from sampan.apiserver.tokens.claims import BINDABLE, PRIVATE
from sampan.apiserver.tokens.keys import signing_key
from sampan.apiserver.types import ReadCache, User

DEFAULT_SECONDS = 3600
MINIMUM_SECONDS = 600
MAXIMUM_SECONDS = 1 << 32
_MOUNTED_SECONDS = 3607
"""What the ServiceAccount admission plugin asks for. Upstream marks such a token by this odd number and lets it live
for a year, warning after the hour: programs that read the mounted file only once go on working."""
_EXTENDED_SECONDS = 365 * 24 * 3600


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
    given = out.get("metadata") or {}
    if given.get("name") and given["name"] != meta["name"]:
        why = f"must match the service account name: {given['name']} != {meta['name']}"
        raise errors.bad_request(f"metadata.name: {why}")
    if given.get("namespace") and given["namespace"] != meta["namespace"]:
        why = f"must match the service account namespace: {given['namespace']} != {meta['namespace']}"
        raise errors.bad_request(f"metadata.namespace: {why}")
    out["metadata"] = {**given, "name": meta["name"], "namespace": meta["namespace"]}
    spec = out["spec"] = out.get("spec") or {}
    spec["audiences"] = spec.get("audiences") or [config.issuer]
    seconds = spec.get("expirationSeconds")
    if seconds is None:
        seconds = spec["expirationSeconds"] = DEFAULT_SECONDS
    if problems := _problems(spec):
        raise errors.invalid("TokenRequest", meta["name"], problems, "authentication.k8s.io")
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
        PRIVATE: private,
        "nbf": now,
        "sub": user_name(meta["namespace"], meta["name"]),
    }
    token = signing_key(config.service_account_key).sign(claims)
    out["status"] = {"token": token, "expirationTimestamp": format_time(expires)}
    return out


def _problems(spec: Object) -> list[FieldError]:
    seconds = spec["expirationSeconds"]
    limit = ""
    if seconds < MINIMUM_SECONDS:
        limit = "less than 10 minutes"
    elif seconds > MAXIMUM_SECONDS:
        limit = "larger than 2^32 seconds"
    if not limit:
        return []
    why = f"may not specify a duration {limit}"
    return [errors.invalid_value("spec.expirationSeconds", seconds, why)]


def _bind(cache: ReadCache, account: Object, reference: Object) -> dict[str, Object]:
    """The objects to name in the claims: the one referred to and, for a pod, its node."""
    kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
    resource = BINDABLE.get(kind.lower())
    version = reference.get("apiVersion", "v1")
    if resource is None or resource.kind != kind or version != resource.api_version:
        described = f"{version}, Kind={kind}" if "/" in version else f"/{version}, Kind={kind}"
        raise errors.bad_request(f"cannot bind token for serviceaccount to object of type {described}")
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
