from __future__ import annotations

import pytest

from sampan.api import resources
from sampan.api.errors import Object, StatusError
from sampan.api.resources import Resource
from sampan.apiserver import authentication, authorization, reviews
from sampan.apiserver.tokens.requests import create_token_request
from sampan.apiserver.types import User

from .fakes import FakeCache, config, make

ALICE = User("alice", "u1", ("devs",), {"k": ("v",)})


def cache() -> FakeCache:
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    subjects = [{"kind": "Group", "name": "devs"}]
    return FakeCache(
        make("Role", "reader", "dev", rules=rules),
        make("RoleBinding", "b", "dev", roleRef=ref, subjects=subjects),
        make("RoleBinding", "b2", "dev", roleRef=ref, subjects=subjects),
        make("ServiceAccount", "bot", "dev"),
    )


def asked(resource: Resource, spec: Object | None = None, namespace: str = "", user: User = ALICE) -> Object:
    held = cache()
    obj: Object = {} if spec is None else {"spec": spec}
    out = reviews.create(
        resource,
        obj,
        user,
        authorization.build(config(), held),
        authentication.build(config(static_tokens={"t": User("bob")}), held),
        namespace,
    )
    assert isinstance(out, dict)
    assert (out["apiVersion"], out["kind"]) == (resource.api_version, resource.kind)
    return out["status"]  # type: ignore[no-any-return]


GET = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "dev"}}


def test_may_i() -> None:
    status = asked(resources.SELFSUBJECTACCESSREVIEWS, GET)
    assert status == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "b/dev" of Role "reader" to Group "devs"',
    }
    other = {"resourceAttributes": {**GET["resourceAttributes"], "namespace": "prod"}}
    assert asked(resources.SELFSUBJECTACCESSREVIEWS, other) == {"allowed": False}
    path = {"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}
    assert asked(resources.SELFSUBJECTACCESSREVIEWS, path) == {"allowed": False}
    root = User("root", "", ("system:masters",))
    assert asked(resources.SELFSUBJECTACCESSREVIEWS, path, user=root)["allowed"]


def test_may_another() -> None:
    spec = {**GET, "user": "x", "groups": ["devs"]}
    assert asked(resources.SUBJECTACCESSREVIEWS, spec)["allowed"]
    assert not asked(resources.SUBJECTACCESSREVIEWS, {**spec, "groups": []})["allowed"]
    assert asked(resources.LOCALSUBJECTACCESSREVIEWS, spec, "dev")["allowed"]


@pytest.mark.parametrize(
    ("resource", "spec", "problem"),
    [
        (
            resources.SELFSUBJECTACCESSREVIEWS,
            {},
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        (resources.SUBJECTACCESSREVIEWS, GET, "at least one of user or group must be specified"),
        (
            resources.LOCALSUBJECTACCESSREVIEWS,
            {**GET, "user": "x"},
            "spec.resourceAttributes.namespace",
        ),
        (
            resources.SELFSUBJECTACCESSREVIEWS,
            {**GET, "nonResourceAttributes": {}},
            "cannot be specified in combination",
        ),
    ],
)
def test_a_question_must_make_sense(resource: Resource, spec: Object, problem: str) -> None:
    with pytest.raises(StatusError) as e:
        asked(resource, spec, "prod")
    assert e.value.code == 422
    assert problem in e.value.message


@pytest.mark.parametrize(
    ("selector", "problem"),
    [
        ({}, "requirements: Required value: when spec.resourceAttributes.fieldSelector is specified"),
        ({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}]}, "rawSelector: Invalid value"),
        ({"requirements": [{"operator": "Exists"}]}, "requirements[0].key: Required value"),
        ({"requirements": [{"key": "a", "operator": "In"}]}, "requirements[0].values: Required value"),
        ({"requirements": [{"key": "a", "operator": "Exists", "values": ["b"]}]}, "requirements[0].values: Forbidden"),
    ],
)  # fmt: skip
def test_selectors_of_a_question(selector: Object, problem: str) -> None:
    attributes = {**GET["resourceAttributes"], "fieldSelector": selector}
    with pytest.raises(StatusError) as e:
        asked(resources.SELFSUBJECTACCESSREVIEWS, {"resourceAttributes": attributes})
    assert e.value.code == 422
    assert problem in e.value.message


def test_a_node_is_asked_about_by_its_selector() -> None:
    def allowed(**selector: object) -> bool:
        attributes = {"verb": "list", "resource": "pods", "fieldSelector": selector}
        spec = {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": attributes}
        return bool(asked(resources.SUBJECTACCESSREVIEWS, spec)["allowed"])

    term = {"key": "spec.nodeName", "operator": "In", "values": ["n1"]}
    assert allowed(rawSelector="spec.nodeName=n1")
    assert allowed(requirements=[term, {"key": "x", "operator": "Exists"}])
    assert not allowed(rawSelector="spec.nodeName=n2")
    assert not allowed(requirements=[{**term, "operator": "NotIn"}])
    assert not allowed(requirements=[{**term, "operator": "Like"}])
    assert not allowed(requirements=[{**term, "values": ["n1", "n2"]}])


def test_the_rules_of_a_node_are_not_all_there_is() -> None:
    node = User("system:node:n1", "", ("system:nodes",))
    status = asked(resources.SELFSUBJECTRULESREVIEWS, {"namespace": "dev"}, user=node)
    assert status["incomplete"]
    assert status["evaluationError"] == "node authorizer does not support user rule resolution"


def test_my_rules() -> None:
    assert asked(resources.SELFSUBJECTRULESREVIEWS, {"namespace": "dev"}) == {
        "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
        "nonResourceRules": [],
        "incomplete": False,
    }
    with pytest.raises(StatusError):
        asked(resources.SELFSUBJECTRULESREVIEWS, {})


def test_whose_token() -> None:
    status = asked(resources.TOKENREVIEWS, {"token": "t"})
    assert status["user"] == {"username": "bob", "groups": ["system:authenticated"]}
    assert status["authenticated"]
    refused = asked(resources.TOKENREVIEWS, {"token": "wrong"})
    assert not refused.get("authenticated")
    assert refused["error"] == "invalid bearer token"
    held = cache()
    account = held.get(resources.SERVICEACCOUNTS, "dev", "bot")
    assert account is not None
    issued = create_token_request(held, config(), ALICE, account, {"spec": {"audiences": ["vault"]}})
    authenticator = authentication.build(config(), held)
    review = {"spec": {"token": issued["status"]["token"], "audiences": ["vault"]}}
    out = reviews.create(
        resources.TOKENREVIEWS, review, ALICE, authorization.build(config(), held), authenticator
    )
    assert isinstance(out, dict)
    assert out["status"]["user"]["username"] == "system:serviceaccount:dev:bot"
    assert out["status"]["audiences"] == ["vault"]


def test_who_am_i() -> None:
    assert asked(resources.SELFSUBJECTREVIEWS) == {
        "userInfo": {"username": "alice", "uid": "u1", "groups": ["devs"], "extra": {"k": ["v"]}}
    }
