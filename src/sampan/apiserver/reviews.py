"""Questions that are asked by creating an object: may this user, who is this token, who am I.

Nothing is stored; the answer is the object with its `status`. Whether the asker may ask is checked before, like any
create.

Upstream: `pkg/registry/{authorization,authentication}`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sampan.api import errors, resources
from sampan.api.errors import FieldError, Object
from sampan.api.objects import deep_copy
from sampan.api.resources import Resource
from sampan.apiserver.authentication import KeysWanted, RequestAuthenticator
from sampan.apiserver.authorization import UnionAuthorizer
from sampan.apiserver.tokens import InvalidToken
from sampan.apiserver.types import Authorizer, RequestInfo, User

_GROUP = "authorization.k8s.io"
_BOTH = "spec.resourceAttributes"
_OPERATORS = {"In": "in", "NotIn": "notin"}
_METADATA = ("name", "generateName", "uid", "labels", "annotations", "finalizers", "ownerReferences")


def create(
    resource: Resource,
    obj: Object,
    user: User,
    authorizer: UnionAuthorizer,
    authenticator: RequestAuthenticator,
    namespace: str = "",
) -> Object | Awaitable[Object]:
    """The answered review: at once, but for a token whose issuer must be asked for its keys. `user` asks; `namespace`
    is that of a LocalSubjectAccessReview. Raises StatusError 400 and 422 for a question that makes no sense, KeyError
    for a resource that is no review."""
    answer: dict[Resource, Callable[[Object], Object | Awaitable[Object]]] = {
        resources.SUBJECTACCESSREVIEWS: lambda o: _subject(o, authorizer, ""),
        resources.LOCALSUBJECTACCESSREVIEWS: lambda o: _subject(o, authorizer, namespace),
        resources.SELFSUBJECTACCESSREVIEWS: lambda o: _access("SelfSubjectAccessReview", o, user, authorizer),
        resources.SELFSUBJECTRULESREVIEWS: lambda o: _rules(o, user, authorizer),
        resources.TOKENREVIEWS: lambda o: _token(o, authenticator),
        resources.SELFSUBJECTREVIEWS: lambda o: {"userInfo": _user_info(user)},
    }
    out = deep_copy(obj)
    out.update(apiVersion=resource.api_version, kind=resource.kind)
    out.setdefault("metadata", {}).setdefault("creationTimestamp", None)
    if resource is not resources.SELFSUBJECTREVIEWS:
        out["spec"] = out.get("spec") or {}
    status = answer[resource](out)
    if isinstance(status, Awaitable):
        return _later(out, status)
    out["status"] = status
    return out


async def _later(review: Object, status: Awaitable[Object]) -> Object:
    review["status"] = await status
    return review


# ---- may


def _subject(review: Object, authorizer: Authorizer, namespace: str) -> Object:
    """SubjectAccessReview, and in a namespace LocalSubjectAccessReview."""
    spec, kind = review["spec"], review["kind"]
    problems: list[FieldError] = []
    if not spec.get("user") and not spec.get("groups"):
        why = "at least one of user or group must be specified"
        problems.append(errors.invalid_value("spec.user", spec.get("user") or "", why))
    if kind == "LocalSubjectAccessReview":
        attributes = spec.get("resourceAttributes") or {}
        if attributes.get("namespace", "") != namespace:
            given = attributes.get("namespace", "")
            why = "must match metadata.namespace"
            problems.append(errors.invalid_value("spec.resourceAttributes.namespace", given, why))
        if spec.get("nonResourceAttributes"):
            why = "disallowed on this kind of request"
            problems.append(errors.invalid_value("spec.nonResourceAttributes", spec["nonResourceAttributes"], why))  # fmt: skip
    extra = {k: tuple(v) for k, v in (spec.get("extra") or {}).items()}
    user = User(spec.get("user") or "", spec.get("uid") or "", tuple(spec.get("groups") or ()), extra)
    return _access(kind, review, user, authorizer, problems)


def _access(
    kind: str, review: Object, user: User, authorizer: Authorizer, problems: Sequence[FieldError] = ()
) -> Object:
    spec = review["spec"]
    found = list(problems)
    if named := {k: v for k, v in review["metadata"].items() if k in _METADATA and v}:
        found.append(errors.invalid_value("metadata", named, "must be empty"))
    asked, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if asked is not None and path is not None:
        why = "cannot be specified in combination with resourceAttributes"
        found.append(errors.invalid_value("spec.nonResourceAttributes", path, why))
    if asked is None and path is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        found.append(errors.invalid_value(_BOTH, None, why))
    for name in ("fieldSelector", "labelSelector"):
        if asked is not None and (selector := asked.get(name)) is not None:
            found += _selector_problems(selector, f"{_BOTH}.{name}")
    if found:
        raise errors.invalid(kind, "", found, _GROUP)
    if asked is None:
        decision = authorizer.authorize(user, RequestInfo(path.get("verb", ""), path.get("path", "")))
    else:
        decision = authorizer.authorize(user, _request(asked))
    status: Object = {"allowed": decision.allowed}
    if decision.reason:
        status["reason"] = decision.reason
    return status


def _request(asked: Object) -> RequestInfo:
    group, version = asked.get("group") or "", asked.get("version") or ""
    plural, namespace, name = (asked.get(k) or "" for k in ("resource", "namespace", "name"))
    return RequestInfo(
        asked.get("verb") or "",
        "",
        True,
        group,
        version,
        plural,
        namespace,
        name,
        asked.get("subresource") or "",
        "",
        # A review is about the words it is asked in, which may name what is not served here.
        None,
        _selector(asked.get("labelSelector"), _label_requirement),
        _selector(asked.get("fieldSelector"), _field_requirement),
    )


def _selector_problems(selector: Object, path: str) -> list[FieldError]:
    raw, requirements = selector.get("rawSelector") or "", selector.get("requirements") or []
    problems: list[FieldError] = []
    if raw and requirements:
        why = "may not specified at the same time as requirements"
        problems.append(errors.invalid_value(f"{path}.rawSelector", raw, why))
    if not raw and not requirements:
        why = f"when {path} is specified, requirements or rawSelector is required"
        problems.append(errors.required(f"{path}.requirements", why))
    for i, requirement in enumerate(requirements):
        at, operator = f"{path}.requirements[{i}]", requirement.get("operator")
        if not requirement.get("key"):
            problems.append(errors.required(f"{at}.key", "must be specified"))
        if operator in _OPERATORS and not requirement.get("values"):
            why = "must be specified when `operator` is 'In' or 'NotIn'"
            problems.append(errors.required(f"{at}.values", why))
        if operator in ("Exists", "DoesNotExist") and requirement.get("values"):
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            problems.append(errors.forbidden_field(f"{at}.values", why))
    return problems


def _selector(selector: Object | None, text: Callable[[Object], str]) -> str:
    """A review's selector, given raw or as requirements, as text. What we do not understand of it is left out: that
    asks for more than was meant, never for less."""
    if not selector:
        return ""
    if selector.get("rawSelector"):
        return str(selector["rawSelector"])
    return ",".join(filter(None, map(text, selector.get("requirements") or ())))


def _label_requirement(requirement: Object) -> str:
    key, operator, values = (
        requirement["key"],
        requirement.get("operator", ""),
        requirement.get("values") or [],
    )
    if operator in _OPERATORS:
        return f"{key} {_OPERATORS[operator]} ({','.join(values)})"
    return {"Exists": str(key), "DoesNotExist": f"!{key}"}.get(operator, "")


def _field_requirement(requirement: Object) -> str:
    operator, values = requirement.get("operator", ""), requirement.get("values") or []
    if operator not in _OPERATORS or len(values) != 1:
        return ""
    return f"{requirement['key']}{'=' if operator == 'In' else '!='}{values[0]}"


def _rules(review: Object, user: User, authorizer: UnionAuthorizer) -> Object:
    namespace = review["spec"].get("namespace") or ""
    if not namespace:
        raise errors.bad_request("no namespace on request")
    found = authorizer.rules(user, namespace)
    status: Object = {
        "resourceRules": _distinct(
            {k: r[k] for k in ("verbs", "apiGroups", "resources", "resourceNames") if r.get(k)}
            for r in found.rules
            if r.get("resources")
        ),
        "nonResourceRules": _distinct(
            {k: r[k] for k in ("verbs", "nonResourceURLs") if r.get(k)}
            for r in found.rules
            if r.get("nonResourceURLs")
        ),
        "incomplete": bool(found.errors),
    }
    if found.errors:
        status["evaluationError"] = ", ".join(found.errors)
    return status


def _distinct(rules: Any) -> list[Object]:
    return list({json.dumps(r, sort_keys=True): r for r in rules}.values())


# ---- who


def _token(review: Object, authenticator: RequestAuthenticator) -> Object | Awaitable[Object]:
    spec = review["spec"]
    if not spec.get("token"):
        raise errors.bad_request("token is required for TokenReview in authentication")
    try:
        return _known(spec, authenticator)
    except InvalidToken as e:
        return _unknown(e)
    except KeysWanted as wanted:
        return _known_later(spec, authenticator, wanted)


async def _known_later(spec: Object, authenticator: RequestAuthenticator, wanted: KeysWanted) -> Object:
    try:
        await wanted.fetch()
        return _known(spec, authenticator)
    except (InvalidToken, KeysWanted) as e:
        return _unknown(e)


def _unknown(why: Exception) -> Object:
    what = "invalid bearer token"
    return {"user": {}, "error": f"[{what}, {why}]" if str(why) else what}


def _known(spec: Object, authenticator: RequestAuthenticator) -> Object:
    user, audiences = authenticator.authenticate_token(spec["token"], spec.get("audiences") or ())
    return {"authenticated": True, "user": _user_info(user), "audiences": list(audiences)}


def _user_info(user: User) -> Object:
    info: Object = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {k: list(v) for k, v in user.extra.items()}
    return info
