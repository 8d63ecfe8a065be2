"""Label and field selectors: parsing, matching, and which fields of which kind can be selected.

Upstream: `k8s.io/apimachinery/pkg/{labels,fields}` and the field label conversions of each API group.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sampan.api.errors import Object, bad_request, show
from sampan.api.resources import Resource

Operator = Literal["in", "notin", "exists", "!", "gt", "lt"]

_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TOKEN = re.compile(r"[ \t\r\n]*(?:(==|!=|[=!(),<>])|([^=!(),<> \t\r\n]+)|$)")
_BINARY = {"in": "in", "notin": "notin", "=": "in", "==": "in", "!=": "notin", ">": "gt", "<": "lt"}
_INTEGER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. `=` is kept as `in` with one value, `!=` as `notin`."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        if value is None or not _INTEGER.fullmatch(value):
            return False
        limit = int(next(iter(self.values)))
        return int(value) > limit if self.operator == "gt" else int(value) < limit

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "gt" | "lt":
                return f"{self.key}{'>' if self.operator == 'gt' else '<'}{next(iter(self.values))}"
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.operator == 'in' else '!='}{next(iter(self.values))}"
        return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"


_NO_LABELS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that must all hold; without any, everything matches. `nothing` matches no object at all (a
    selector that is absent where absent means none)."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @property
    def empty(self) -> bool:
        """Whether everything matches."""
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self.nothing:
            return False
        labels = labels or _NO_LABELS
        return all(r.matches(labels) for r in self.requirements)

    def __str__(self) -> str:
        """The selector as a query parameter."""
        return ",".join(str(r) for r in self.requirements)


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


def _key_problem(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    problems = []
    if slash:
        if not prefix:
            problems.append("prefix part must be non-empty")
        elif len(prefix) > 253:
            problems.append("prefix part must be no more than 253 bytes")
        elif "/" in prefix:
            return (
                "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
                "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
                "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and "
                "'/' (e.g. 'example.com/MyName')"
            )
        elif not _SUBDOMAIN.fullmatch(prefix):
            problems.append(
                "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' "
                "or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for "
                "validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            )
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _QUALIFIED.fullmatch(name):
        problems.append(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    return "; ".join(problems)


def _value_problem(value: str) -> str:
    if len(value) > 63:
        return "must be no more than 63 bytes"
    if value and not _QUALIFIED.fullmatch(value):
        return (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
    return ""


def _requirement(key: str, operator: Operator, values: frozenset[str]) -> Requirement:
    if problem := _key_problem(key):
        raise ValueError(f"<nil>: Invalid value: {show(key)}: {problem}")
    for value in sorted(values):
        if operator in ("gt", "lt"):
            if not _INTEGER.fullmatch(value):
                raise ValueError(
                    f"values[0]: Invalid value: {show(value)}: for 'Gt', 'Lt' operators, the value must be an integer"
                )
        elif problem := _value_problem(value):
            raise ValueError(f"values[0][{key}]: Invalid value: {show(value)}: {problem}")
    return Requirement(key, operator, values)


class _Parser:
    """Reads tokens left to right. A word is `in` or `notin` only where an operator can stand."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, bool]] = []  # (text, is a word)
        position = 0
        while position < len(text):
            matched = _TOKEN.match(text, position)
            assert matched is not None
            symbol, word = matched.groups()
            if symbol or word:
                self.tokens.append((symbol or word, bool(word)))
            position = matched.end()
        self.tokens.append(("", False))
        self.at = 0

    def peek(self) -> tuple[str, bool]:
        return self.tokens[self.at]

    def take(self) -> tuple[str, bool]:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def selector(self) -> tuple[Requirement, ...]:
        found: list[Requirement] = []
        token, word = self.peek()
        while token:
            if not word and token != "!":
                raise ValueError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self.requirement())
            except ValueError as e:
                raise ValueError(f"unable to parse requirement: {e}") from None
            token, _ = self.take()
            if not token:
                break
            if token != ",":
                raise ValueError(f"found '{token}', expected: ',' or 'end of string'")
            token, word = self.peek()
            if not word and token != "!":
                raise ValueError(f"found '{token}', expected: identifier after ','")
        return tuple(sorted(found, key=lambda r: r.key))

    def requirement(self) -> Requirement:
        token, word = self.take()
        negated = token == "!" and not word
        if negated:
            token, word = self.take()
        if not word:
            raise ValueError(f"found '{token}', expected: identifier")
        key = token
        if problem := _key_problem(key):
            raise ValueError(f"<nil>: Invalid value: {show(key)}: {problem}")
        following = self.peek()[0]
        if following in ("", ","):
            return Requirement(key, "!" if negated else "exists")
        symbol, _ = self.take()
        operator = _BINARY.get(symbol)
        if operator is None:
            raise ValueError(f"found '{symbol}', expected: in, notin, =, ==, !=, gt, lt")
        values = self.values() if symbol in ("in", "notin") else self.one_value()
        return _requirement(key, operator, values)  # type: ignore[arg-type]

    def one_value(self) -> frozenset[str]:
        if self.peek()[0] in ("", ","):
            return frozenset({""})
        token, word = self.take()
        if not word:
            raise ValueError(f"found '{token}', expected: identifier")
        return frozenset({token})

    def values(self) -> frozenset[str]:
        """`(a,b)`, where an empty place is the empty string."""
        token, _ = self.take()
        if token != "(":
            raise ValueError(f"found '{token}' expected: '('")
        token, word = self.peek()
        if not word and token not in (",", ")"):
            raise ValueError(f"found '{token}', expected: ',', ')' or identifier")
        found: set[str] = set()
        while True:
            token, word = self.take()
            if word:
                found.add(token)
                token, word = self.take()
                if word or token not in (",", ")"):
                    raise ValueError(f"found '{token}', expected: ',' or ')'")
                if token == ")":
                    return frozenset(found)
                if self.peek() == (")", False):
                    found.add("")
            elif token == ",":
                found.add("")
            elif token == ")":
                return frozenset(found or {""})
            else:
                raise ValueError(f"found '{token}', expected: ',', or identifier")


@functools.lru_cache(1024)
def _parse(text: str) -> LabelSelector:
    return LabelSelector(_Parser(text).selector())


def parse_labels(text: str) -> LabelSelector:
    """A selector from a query parameter (`app=web,tier in (a,b),!old`). Raises StatusError 400."""
    try:
        return _parse(text)
    except ValueError as e:
        raise bad_request(str(e)) from None


_FROM_OBJECT: dict[str, Operator] = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_object(selector: Mapping[str, Any] | None) -> LabelSelector:
    """A `metav1.LabelSelector`. None selects nothing, `{}` everything. Raises ValueError for an unknown operator."""
    if selector is None:
        return NOTHING
    found = [Requirement(k, "in", frozenset({v})) for k, v in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        operator = _FROM_OBJECT.get(expression.get("operator", ""))
        if operator is None:
            raise ValueError(f"{show(expression.get('operator', ''))} is not a valid label selector operator")
        found.append(Requirement(expression["key"], operator, frozenset(expression.get("values") or ())))
    return LabelSelector(tuple(found))


def from_map(labels: Mapping[str, str] | None) -> LabelSelector:
    """A selector that asks for every label of a map (`Service.spec.selector`). Empty selects everything."""
    return LabelSelector(tuple(Requirement(k, "in", frozenset({v})) for k, v in (labels or {}).items()))


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Terms (field, wanted, value) that must all hold. A field that an object lacks counts as ''."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    @property
    def empty(self) -> bool:
        return not self.terms

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(name, "") == value) is wanted for name, wanted, value in self.terms)

    def exact(self, field: str) -> str | None:
        """The one value that `field` must have, or None where the selector leaves it open."""
        return next((value for name, wanted, value in self.terms if wanted and name == field), None)

    def __str__(self) -> str:
        return ",".join(
            f"{name}{'=' if wanted else '!='}{_escape(value)}" for name, wanted, value in self.terms
        )


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _at(obj: Object, *path: str) -> Any:
    """The value at a path, or None."""
    value: Any = obj
    for part in path:
        value = value.get(part)
        if value is None:
            return None
    return value


def _plain(path: str) -> Callable[[Object], str]:
    parts = tuple(path.split("."))

    def read(obj: Object) -> str:
        value = _at(obj, *parts)
        return "" if value is None else str(value)

    return read


def _flag(path: str) -> Callable[[Object], str]:
    parts = tuple(path.split("."))
    return lambda obj: "true" if _at(obj, *parts) else "false"


def _count(path: str) -> Callable[[Object], str]:
    parts = tuple(path.split("."))
    return lambda obj: str(_at(obj, *parts) or 0)


def _reporting(obj: Object) -> str:
    return str(obj.get("reportingComponent") or obj.get("reportingController") or "")


def _source(obj: Object) -> str:
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    return str(source.get("component") or _reporting(obj))


def _involved(field: str) -> Callable[[Object], str]:
    return lambda obj: str((obj.get("involvedObject") or obj.get("regarding") or {}).get(field) or "")


_EVENT = {
    **{
        f"involvedObject.{f}": _involved(f)
        for f in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    },
    "reason": _plain("reason"),
    "reportingComponent": _reporting,
    "source": _source,
    "type": _plain("type"),
}
_SELECTABLE: dict[str, dict[str, Callable[[Object], str]]] = {
    "pods": {
        **{
            f: _plain(f)
            for f in (
                "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
                "status.phase", "status.podIP", "status.nominatedNodeName",
            )
        },
        "spec.hostNetwork": _flag("spec.hostNetwork"),
    },
    "nodes": {"spec.unschedulable": _flag("spec.unschedulable")},
    "events": _EVENT,
    "secrets": {"type": _plain("type")},
    "namespaces": {"status.phase": _plain("status.phase")},
    "replicasets.apps": {"status.replicas": _count("status.replicas")},
    "replicationcontrollers": {"status.replicas": _count("status.replicas")},
    "jobs.batch": {"status.successful": _count("status.succeeded")},
    "services": {"spec.clusterIP": _plain("spec.clusterIP"), "spec.type": _plain("spec.type")},
    "certificatesigningrequests.certificates.k8s.io": {"spec.signerName": _plain("spec.signerName")},
    "resourceslices.resource.k8s.io": {f: _plain(f) for f in ("spec.nodeName", "spec.driver")},
}  # fmt: skip
_ALIASES: dict[str, dict[str, str]] = {
    "pods": {"spec.host": "spec.nodeName"},
    "events.events.k8s.io": {
        **{
            f"regarding.{f}": f"involvedObject.{f}"
            for f in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        },
        "reportingController": "reportingComponent",
    },
}
"""Other names of a field. The second is keyed by resource and group, because both kinds of Event are stored as one."""


def fields_of(resource: Resource, obj: Object) -> dict[str, str]:
    """The selectable fields of an object and their values, under the names that `FieldSelector.terms` use."""
    meta = obj["metadata"]
    found = {"metadata.name": meta.get("name", "")}
    if resource.namespaced:
        found["metadata.namespace"] = meta.get("namespace", "")
    for name, read in _SELECTABLE.get(resource.key_stem, {}).items():
        found[name] = read(obj)
    return found


_OPERATOR = re.compile(r"(?<!\\)(?:!=|==|=)")
_TERM_END = re.compile(r"((?:[^\\,]|\\.|\\$)*)(?:,|$)", re.DOTALL)


def _unescape(text: str) -> str:
    def one(matched: re.Match[str]) -> str:
        escaped = matched.group(1)
        if escaped not in ("\\", ",", "="):
            raise ValueError(f"invalid field selector: invalid escape sequence: \\{escaped}")
        return escaped

    if "=" in re.sub(r"\\.", "", text):
        raise ValueError(f"invalid field selector: unescaped character in value: {text}")
    return re.sub(r"\\(.?)", one, text, flags=re.DOTALL)


def parse_fields(resource: Resource, text: str) -> FieldSelector:
    """A selector from a query parameter (`status.phase!=Running`).

    Raises StatusError 400 for a malformed one and for a field that the kind does not offer.
    """
    allowed = _SELECTABLE.get(resource.key_stem)
    aliases = _ALIASES.get(f"{resource.plural}.{resource.group}" if resource.group else resource.plural, {})
    terms: list[tuple[str, bool, str]] = []
    for part in _terms(text):
        operator = _OPERATOR.search(part)
        if operator is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        name = part[: operator.start()]
        try:
            value = _unescape(part[operator.end() :])
        except ValueError as e:
            raise bad_request(str(e)) from None
        name = aliases.get(name, name)
        offered = name == "metadata.name" or (name == "metadata.namespace" and resource.key_stem != "nodes")
        if not offered and name not in (allowed or ()):
            if allowed is None:
                raise bad_request(
                    f'{show(name)} is not a known field selector: only "metadata.name", "metadata.namespace"'
                )
            raise bad_request(f"field label not supported: {name}")
        terms.append((name, operator.group() != "!=", value))
    return FieldSelector(tuple(terms))


def _terms(text: str) -> list[str]:
    """The comma-separated parts, where a backslash escapes a comma; empty parts are dropped."""
    found, position = [], 0
    while position < len(text):
        matched = _TERM_END.match(text, position)
        assert matched is not None
        if matched.group(1):
            found.append(matched.group(1))
        position = max(matched.end(), position + 1)
    return found
