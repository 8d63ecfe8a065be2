"""TokenRequest: a new token for a ServiceAccount, bound to a Pod, a Node, a Secret or to nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

from sampan.api import errors, resources
from sampan.api.errors import FieldError, Object
from sampan.api.objects import deep_copy, format_time, new_uid
from sampan.apiserver.config import Config
from sampan.apiserver.tokens import node_name, user_name
from sampan.apiserver.tokens.claims import BINDABLE, PRIVATE
from sampan.apiserver.tokens.keys import signing_key
from sampan.apiserver.types import Authorizer, ReadCache, RequestInfo, User

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
    authorizer: Authorizer | None = None,
    clock: Callable[[], float] = time.time,
) -> Object:
    """Answer a `TokenRequest` for ServiceAccount `account`: the request with its defaults and `status`.

    `user` is who asks: a node gets tokens bound to its own pods alone, and for audiences that these ask for, or that
    `authorizer` lets it have. Raises StatusError 422 for a bad request, 404 and 409 where the object to bind to is gone
    or another, 403 where a node oversteps.
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
    asked = list(spec.get("audiences") or ())
    spec["audiences"] = asked or [config.issuer]
    seconds = spec.get("expirationSeconds")
    if seconds is None:
        seconds = spec["expirationSeconds"] = DEFAULT_SECONDS
    if problems := _problems(spec):
        raise errors.invalid("TokenRequest", meta["name"], problems, "authentication.k8s.io")
    reference = spec.get("boundObjectRef")
    bound = _bind(cache, account, reference) if reference else {}
    node = node_name(user)
    if node is not None:
        _check_node(node, account, bound)
        _check_audience(cache, user, account, bound["pod"], asked, authorizer)

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


def _check_node(node: str, account: Object, bound: dict[str, Object]) -> None:
    name = account["metadata"]["name"]
    pod = bound.get("pod")
    if pod is None:
        raise errors.forbidden("serviceaccounts", name, "node requested token not bound to a pod")
    if not node or pod["spec"].get("nodeName") != node:
        why = "node requested token bound to a pod scheduled on a different node"
        raise errors.forbidden("serviceaccounts", name, why)


def _check_audience(
    cache: ReadCache,
    user: User,
    account: Object,
    pod: Object,
    asked: Sequence[str],
    authorizer: Authorizer | None,
) -> None:
    """A node asks for a token for one audience, and one that the pod's volumes want, unless it has the right to more."""
    meta = account["metadata"]
    if len(asked) > 1:
        raise errors.forbidden("serviceaccounts", meta["name"], "node may only request 0 or 1 audiences")
    audience = asked[0] if asked else ""
    if audience in _audiences(cache, pod):
        return
    verb = "request-serviceaccounts-token-audience"
    info = RequestInfo(verb, "", True, "", "v1", audience, meta["namespace"], meta["name"])
    if authorizer is not None and authorizer.authorize(user, info).allowed:
        return
    why = (
        f'audience "{audience}" not found in pod spec volume, {user.name} is not authorized to request tokens for this '
        "audience"
    )
    raise errors.forbidden("serviceaccounts", meta["name"], why)


def _audiences(cache: ReadCache, pod: Object) -> Iterator[str]:
    """The audiences that a pod's volumes want tokens for: projected ones, and those of CSI drivers; "" is this API."""
    meta = pod["metadata"]
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if (token := source.get("serviceAccountToken")) is not None:
                yield token.get("audience", "")
        driver = (volume.get("csi") or {}).get("driver", "")
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
        if volume.get("ephemeral"):
            claim = f"{meta['name']}-{volume['name']}"
        if claim:
            driver = _driver_of_claim(cache, meta["namespace"], claim)
        if driver:
            found = cache.get(resources.CSIDRIVERS, "", driver) or {}
            for wanted in (found.get("spec") or {}).get("tokenRequests") or ():
                yield wanted.get("audience", "")


def _driver_of_claim(cache: ReadCache, namespace: str, name: str) -> str:
    claim = cache.get(resources.PERSISTENTVOLUMECLAIMS, namespace, name) or {}
    volume_name = (claim.get("spec") or {}).get("volumeName", "")
    volume = cache.get(resources.PERSISTENTVOLUMES, "", volume_name) if volume_name else None
    return str((((volume or {}).get("spec") or {}).get("csi") or {}).get("driver", ""))
