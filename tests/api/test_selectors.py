from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import resources, selectors
from sampan.api.errors import StatusError


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True), ("", {"a": "b"}, True), ("a=b", {"a": "b"}, True), ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True), ("a!=b", {"a": "b"}, False), ("a in (b, c)", {"a": "c"}, True),
        ("a in (b)", {}, False), ("a notin (b,c)", {}, True), ("a notin (b,c)", {"a": "c"}, False),
        ("a", {"a": ""}, True), ("a", {}, False), ("!a", {}, True), ("! a", {"a": "x"}, False), ("a=", {"a": ""}, True),
        ("a in ()", {"a": ""}, True), ("a in (,x)", {"a": ""}, True), ("a=b,c", {"a": "b", "c": "1"}, True),
        ("a=b,!c", {"a": "b", "c": "1"}, False), ("in in (in)", {"in": "in"}, True), ("notin=in", {"notin": "in"}, True),
        ("a>1", {"a": "2"}, True), ("a<1", {"a": "2"}, False), ("a>1", {"a": "x"}, False),
        ("app.kubernetes.io/name=x", {"app.kubernetes.io/name": "x"}, True), (" a = b ", {"a": "b"}, True),
    ],
)  # fmt: skip
def test_labels(text: str, labels: dict[str, str], matches: bool) -> None:
    assert selectors.parse_labels(text).matches(labels) is matches


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("!=a", "found '!=', expected: !, identifier, or 'end of string'"),
        ("!!", "unable to parse requirement: found '!', expected: identifier"),
    ],
)
def test_label_errors(text: str, message: str) -> None:
    with pytest.raises(StatusError) as e:
        selectors.parse_labels(text)
    assert (e.value.code, e.value.message) == (400, message)


@pytest.mark.parametrize("text", ["-a=b", "a=b_", "a/b/c=d", "/a=b", "a=" + "x" * 64, "a>b"])
def test_label_syntax(text: str) -> None:
    with pytest.raises(StatusError, match=r"^unable to parse requirement: .*Invalid value: "):
        selectors.parse_labels(text)


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)


@given(st.dictionaries(NAMES, NAMES, max_size=4), st.dictionaries(NAMES, NAMES, max_size=4))
def test_from_map_is_a_subset(wanted: dict[str, str], labels: dict[str, str]) -> None:
    selector = selectors.from_map(wanted)
    assert selector.matches(labels) is (wanted.items() <= labels.items())
    assert selector.empty is (not wanted)
    assert selectors.parse_labels(str(selector)).matches({**labels, **wanted})


def test_from_object() -> None:
    assert selectors.from_object({}).empty
    assert not selectors.from_object(None).matches({})
    assert not selectors.from_object(None).empty
    selector = selectors.from_object(
        {
            "matchLabels": {"a": "b"},
            "matchExpressions": [
                {"key": "c", "operator": "NotIn", "values": ["d"]},
                {"key": "e", "operator": "DoesNotExist"},
                {"key": "a", "operator": "Exists"},
                {"key": "a", "operator": "In", "values": ["b", "z"]},
            ],
        }
    )
    assert selector.matches({"a": "b"})
    assert not selector.matches({"a": "b", "c": "d"})
    assert not selector.matches({"a": "b", "e": ""})
    assert str(selector) == "a=b,c!=d,!e,a,a in (b,z)"
    with pytest.raises(ValueError, match='"Near" is not a valid label selector operator'):
        selectors.from_object({"matchExpressions": [{"key": "a", "operator": "Near"}]})


POD = {
    "metadata": {"name": "p", "namespace": "ns"},
    "spec": {"nodeName": "n1", "restartPolicy": "Always"},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True), ("metadata.name=p", True), ("metadata.name==q", False), ("metadata.namespace!=ns", False),
        ("spec.nodeName=n1,status.phase=Running", True), ("spec.host=n1", True), ("status.podIP=", True),
        ("spec.hostNetwork=false", True), ("status.phase!=Succeeded,", True), ("status.nominatedNodeName!=", False),
    ],
)  # fmt: skip
def test_fields(text: str, matches: bool) -> None:
    selector = selectors.parse_fields(resources.PODS, text)
    assert selector.matches(selectors.fields_of(resources.PODS, POD)) is matches


@pytest.mark.parametrize(
    ("resource", "text", "message"),
    [
        (resources.PODS, "spec.colour=red", "field label not supported: spec.colour"),
        (resources.NODES, "metadata.namespace=x", "field label not supported: metadata.namespace"),
        (
            resources.CONFIGMAPS,
            "data=x",
            '"data" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        (
            resources.PODS,
            "metadata.name",
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
        ),
    ],
)
def test_field_errors(resource: resources.Resource, text: str, message: str) -> None:
    with pytest.raises(StatusError) as e:
        selectors.parse_fields(resource, text)
    assert (e.value.code, e.value.message) == (400, message)


def test_field_escapes_and_exact() -> None:
    selector = selectors.parse_fields(resources.EVENTS, r"reason=a\,b\=c\\,type!=Normal")
    assert selector.terms == (("reason", True, "a,b=c\\"), ("type", False, "Normal"))
    assert selectors.parse_fields(resources.EVENTS, str(selector)) == selector
    assert selector.exact("reason") == "a,b=c\\"
    assert selector.exact("type") is None


def test_both_kinds_of_event() -> None:
    core = {
        "metadata": {"name": "e", "namespace": "ns"},
        "involvedObject": {"kind": "Pod", "name": "p"},
        "source": {"component": "kubelet"},
        "reason": "Pulled",
        "type": "Normal",
    }
    new = {
        "metadata": {"name": "e", "namespace": "ns"},
        "regarding": {"kind": "Pod", "name": "p"},
        "deprecatedSource": {"component": "kubelet"},
        "reason": "Pulled",
        "type": "Normal",
    }
    a = selectors.parse_fields(resources.EVENTS, "involvedObject.name=p,source=kubelet,reason=Pulled")
    b = selectors.parse_fields(resources.EVENTS_V1, "regarding.name=p,reason=Pulled")
    for selector in (a, b):
        assert selector.matches(selectors.fields_of(resources.EVENTS, core))
        assert selector.matches(selectors.fields_of(resources.EVENTS_V1, new))
