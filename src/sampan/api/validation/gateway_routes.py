"""HTTPRoutes and GRPCRoutes: the rules that upstream's CustomResourceDefinitions have in CEL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sampan.api.errors import FieldError, Object, invalid_value
from sampan.api.gateway_duration import milliseconds

_PATH_WORDS = ("//", "/./", "/../", "%2f", "%2F", "#")
_PATH_ENDS = ("/..", "/.")
_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+")
_COMPARED = "when type one of ['Exact', 'PathPrefix']"
_SERVICE = re.compile(r"(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_ONCE = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS")
_MANY_MATCHES = (
    "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be "
    "less than 128"
)


def http_route(obj: Object) -> Iterator[FieldError]:
    spec = obj["spec"]
    yield from _parents(spec.get("parentRefs") or [])
    yield from _rules(spec)
    for i, rule in enumerate(spec.get("rules") or ()):
        at = f"spec.rules[{i}]"
        for j, match in enumerate(rule.get("matches") or ()):
            yield from _path(match.get("path") or {}, f"{at}.matches[{j}].path")
        filters, backends = rule.get("filters") or [], rule.get("backendRefs") or []
        yield from _filters(filters, f"{at}.filters")
        if any("requestRedirect" in f for f in filters) and backends:
            detail = "RequestRedirect filter must not be used together with backendRefs"
            yield invalid_value(at, "object", detail)
        yield from _prefixes(rule, filters, at, "")
        for j, backend in enumerate(backends):
            yield from _backend(backend, f"{at}.backendRefs[{j}]")
            inner = backend.get("filters") or []
            yield from _filters(inner, f"{at}.backendRefs[{j}].filters")
            yield from _prefixes(rule, inner, at, "Within backendRefs, ")
        yield from _timeouts(rule.get("timeouts") or {}, f"{at}.timeouts")


def grpc_route(obj: Object) -> Iterator[FieldError]:
    spec = obj["spec"]
    yield from _parents(spec.get("parentRefs") or [])
    yield from _rules(spec)
    for i, rule in enumerate(spec.get("rules") or ()):
        at = f"spec.rules[{i}]"
        for j, match in enumerate(rule.get("matches") or ()):
            if match.get("method") is not None:
                yield from _grpc_method(match["method"], f"{at}.matches[{j}].method")
        yield from _filters(rule.get("filters") or [], f"{at}.filters")
        for j, backend in enumerate(rule.get("backendRefs") or ()):
            yield from _backend(backend, f"{at}.backendRefs[{j}]")
            yield from _filters(backend.get("filters") or [], f"{at}.backendRefs[{j}].filters")


def _parents(refs: Sequence[Object]) -> Iterator[FieldError]:
    """Of several references to one parent each names a section, and another one."""
    by_parent: dict[tuple[Any, ...], list[str]] = {}
    for one in refs:
        key = (one.get("group"), one.get("kind"), one["name"], one.get("namespace") or "")
        by_parent.setdefault(key, []).append(one.get("sectionName") or "")
    several = [sections for sections in by_parent.values() if len(sections) > 1]
    if any("" in sections and set(sections) != {""} for sections in several):
        detail = (
            "sectionName must be specified when parentRefs includes 2 or more references to the same parent"
        )
        yield invalid_value("spec.parentRefs", "array", detail)
    if any(len(set(sections)) < len(sections) for sections in several):
        detail = "sectionName must be unique when parentRefs includes 2 or more references to the same parent"
        yield invalid_value("spec.parentRefs", "array", detail)


def _rules(spec: Object) -> Iterator[FieldError]:
    rules = spec.get("rules") or []
    if sum(len(r.get("matches") or ()) for r in rules) > 128:
        yield invalid_value("spec.rules", "array", _MANY_MATCHES)
    names = [r["name"] for r in rules if r.get("name")]
    if len(set(names)) < len(names):
        yield invalid_value("spec.rules", "array", "Rule name must be unique within the route")


def _path(path: Object, at: str) -> Iterator[FieldError]:
    kind, value = path.get("type"), path.get("value") or ""
    if kind not in ("Exact", "PathPrefix"):
        return
    if not value.startswith("/"):
        detail = f"value must be an absolute path and start with '/' {_COMPARED}"
        yield invalid_value(at, "object", detail)
    for word in _PATH_WORDS:
        if word in value:
            yield invalid_value(at, "object", f"must not contain '{word}' {_COMPARED}")
    for word in _PATH_ENDS:
        if value.endswith(word):
            yield invalid_value(at, "object", f"must not end with '{word}' {_COMPARED}")
    if not _PATH.fullmatch(value):
        detail = f"must only contain valid characters (matching ^{_PATH.pattern}$) for types ['Exact', 'PathPrefix']"
        yield invalid_value(at, "object", detail)


def _grpc_method(method: Object, at: str) -> Iterator[FieldError]:
    service, name = method.get("service") or "", method.get("method") or ""
    if not service and not name:
        yield invalid_value(at, "object", "One or both of 'service' or 'method' must be specified")
    if method.get("type") != "Exact":
        return
    for what, value, pattern in (("service", service, _SERVICE), ("method", name, _METHOD)):
        if value and not pattern.fullmatch(value):
            detail = f"{what} must only contain valid characters (matching ^{pattern.pattern}$)"
            yield invalid_value(at, "object", detail)


def _field(kind: str) -> str:
    """The field of a filter's type."""
    return "cors" if kind == "CORS" else "urlRewrite" if kind == "URLRewrite" else kind[0].lower() + kind[1:]


def _filters(filters: Sequence[Object], at: str) -> Iterator[FieldError]:
    kinds = [f["type"] for f in filters]
    if "RequestRedirect" in kinds and "URLRewrite" in kinds:
        detail = (
            "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both"
        )
        yield invalid_value(at, "array", detail)
    for kind in _ONCE:
        if kinds.count(kind) > 1:
            yield invalid_value(at, "array", f"{kind} filter cannot be repeated")
    for i, one in enumerate(filters):
        kind, own = one["type"], _field(one["type"])
        if own not in one:
            yield invalid_value(
                f"{at}[{i}]", "object", f"filter.{own} must be specified for {kind} filter.type"
            )
        for name in one:
            if name not in ("type", own):
                other = (
                    "CORS"
                    if name == "cors"
                    else "URLRewrite"
                    if name == "urlRewrite"
                    else name[0].upper() + name[1:]
                )
                detail = f"filter.{name} must be nil if the filter.type is not {other}"
                yield invalid_value(f"{at}[{i}]", "object", detail)
        if one.get("requestMirror"):
            yield from _mirror(one["requestMirror"], f"{at}[{i}].requestMirror")
        for name in ("requestRedirect", "urlRewrite"):
            path = (one.get(name) or {}).get("path")
            if path is not None:
                yield from _modifier(path, f"{at}[{i}].{name}.path")
        cors = one.get("cors") or {}
        for name, what in (("Origins", "origins"), ("Methods", "methods"), ("Headers", "methods")):
            given = cors.get(f"allow{name}") or ()
            if "*" in given and len(given) > 1:
                detail = f"Allow{name} cannot contain '*' alongside other {what}"
                yield invalid_value(f"{at}[{i}].cors.allow{name}", "array", detail)


def _mirror(mirror: Object, at: str) -> Iterator[FieldError]:
    if mirror.get("percent") is not None and mirror.get("fraction") is not None:
        detail = "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter"
        yield invalid_value(at, "object", detail)
    fraction = mirror.get("fraction")
    if fraction is not None and fraction["numerator"] > fraction["denominator"]:
        detail = "numerator must be less than or equal to denominator"
        yield invalid_value(f"{at}.fraction", "object", detail)
    yield from _backend(mirror["backendRef"], f"{at}.backendRef")


def _modifier(path: Object, at: str) -> Iterator[FieldError]:
    for kind, name in (("ReplaceFullPath", "replaceFullPath"), ("ReplacePrefixMatch", "replacePrefixMatch")):
        if path["type"] == kind and name not in path:
            yield invalid_value(at, "object", f"{name} must be specified when type is set to '{kind}'")
        if name in path and path["type"] != kind:
            yield invalid_value(at, "object", f"type must be '{kind}' when {name} is set")


def _backend(backend: Object, at: str) -> Iterator[FieldError]:
    if not backend.get("group") and backend.get("kind") == "Service" and backend.get("port") is None:
        yield invalid_value(at, "object", "Must have port for Service reference")


def _prefixes(rule: Object, filters: Sequence[Object], at: str, where: str) -> Iterator[FieldError]:
    """What replaces a matched prefix needs one match, of a prefix."""
    matches = rule.get("matches") or []
    if len(matches) == 1 and (matches[0].get("path") or {}).get("type") == "PathPrefix":
        return
    for name, kind in (("requestRedirect", "RequestRedirect"), ("urlRewrite", "URLRewrite")):
        paths = [(f.get(name) or {}).get("path") or {} for f in filters]
        if any(p.get("type") == "ReplacePrefixMatch" for p in paths):
            when = "when" if where and name == "requestRedirect" else "When"
            detail = f"{where}{when} using {kind} filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified"
            yield invalid_value(at, "object", detail)


def _timeouts(timeouts: Object, at: str) -> Iterator[FieldError]:
    request, backend = timeouts.get("request"), timeouts.get("backendRequest")
    if request is None or backend is None:
        return
    whole = milliseconds(request)
    if whole and milliseconds(backend) > whole:
        detail = "backendRequest timeout cannot be longer than request timeout"
        yield invalid_value(at, "object", detail)
