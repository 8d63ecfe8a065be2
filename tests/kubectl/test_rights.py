"""auth, set subject, create token: who may do what, and who somebody is."""

from __future__ import annotations

import json

from tests.kubectl.commands import refused, said
from tests.real_cluster import Kubectl

RULES = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: reader, namespace: {namespace}}}
rules: [{{apiGroups: [""], resources: [pods, {resource}], verbs: [get]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: reads, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]
"""


def reconciled(kubectl: Kubectl, *options: str, stdin: str) -> list[str]:
    """What `auth reconcile` says of each object; what it changes it tells on standard error."""
    done = kubectl.run("auth", "reconcile", "-f", "-", *options, stdin=stdin)
    assert done.code == 0, done
    return done.out.splitlines()


def test_reconcile_adds_what_is_missing_and_takes_nothing(kubectl: Kubectl) -> None:
    first = RULES.format(namespace=kubectl.namespace, resource="secrets", user="ann")
    assert reconciled(kubectl, stdin=first) == [
        "role.rbac.authorization.k8s.io/reader reconciled",
        "rolebinding.rbac.authorization.k8s.io/reads reconciled",
    ]
    second = RULES.format(namespace=kubectl.namespace, resource="configmaps", user="bob")
    dry = reconciled(kubectl, "--dry-run=client", stdin=second)
    assert dry[0] == "role.rbac.authorization.k8s.io/reader reconciled (dry run)"
    assert kubectl.run("auth", "can-i", "get", "configmaps", "--as=ann").out == "no\n"
    reconciled(kubectl, stdin=second)
    for user in ("ann", "bob"):
        for resource in ("pods", "secrets", "configmaps"):
            assert said(kubectl, "auth", "can-i", "get", resource, f"--as={user}") == "yes\n"
    third = second.replace("pods, configmaps", "pods")
    reconciled(kubectl, "--remove-extra-permissions", "--remove-extra-subjects", stdin=third)
    assert kubectl.run("auth", "can-i", "get", "secrets", "--as=bob").out == "no\n"
    assert kubectl.run("auth", "can-i", "get", "pods", "--as=ann").out == "no\n"


def test_who_may_be_asked_in_detail(kubectl: Kubectl) -> None:
    said(
        kubectl,
        "create",
        "role",
        "one",
        "--verb=update",
        "--resource=deployments/scale",
        "--resource-name=web",
    )
    said(kubectl, "create", "rolebinding", "one", "--role=one", "--user=ann")
    assert (
        said(kubectl, "auth", "can-i", "update", "deployments/web", "--subresource=scale", "--as=ann")
        == "yes\n"
    )
    for asked in (["deployments/web"], ["deployments/other", "--subresource=scale"]):
        answer = kubectl.run("auth", "can-i", "update", *asked, "--as=ann")
        assert (answer.code, answer.out, answer.err) == (1, "no\n", "")
    assert kubectl.run("auth", "can-i", "get", "/logs", "--as=ann").out == "no\n"
    assert (
        said(kubectl, "auth", "can-i", "get", "/version", "--as=ann", "--as-group=system:authenticated")
        == "yes\n"
    )
    quiet = kubectl.run("auth", "can-i", "delete", "nodes", "--as=ann", "--quiet")
    assert (quiet.code, quiet.out) == (1, "")
    listed = said(kubectl, "auth", "can-i", "--list", "--as=ann")
    [row] = [line.split() for line in listed.splitlines() if line.startswith("deployments.apps/scale")]
    assert row[1:] == ["[]", "[web]", "[update]"]
    who = said(kubectl, "auth", "whoami", "--as=ann", "--as-group=g", "--as-uid=7")
    assert [line.split() for line in who.splitlines()] == [
        ["ATTRIBUTE", "VALUE"], ["Username", "ann"], ["UID", "7"], ["Groups", "[g", "system:authenticated]"],
    ]  # fmt: skip


def test_set_subject_and_selector(kubectl: Kubectl) -> None:
    said(kubectl, "create", "rolebinding", "b", "--clusterrole=view", "--user=ann")
    subjects = ("--user=bob", "--group=g", f"--serviceaccount={kubectl.namespace}:default")
    done = said(kubectl, "set", "subject", "rolebinding", "b", *subjects)
    assert done == "rolebinding.rbac.authorization.k8s.io/b subjects updated\n"
    wide = said(kubectl, "get", "rolebinding", "b", "-o", "wide").splitlines()[1]
    assert wide.split()[1] == "ClusterRole/view"
    assert wide.split()[3:] == ["ann,", "bob", "g", f"{kubectl.namespace}/default"]
    said(kubectl, "create", "service", "clusterip", "s", "--tcp=80")
    assert said(kubectl, "set", "selector", "service/s", "a=b") == "service/s selector updated\n"
    assert kubectl.value("service/s", ".spec.selector") == '{"a":"b"}'


def test_tokens_bound_to_an_object(kubectl: Kubectl) -> None:
    bound = ("create", "token", "default", "--bound-object-kind=Secret", "--bound-object-name=s")
    assert refused(kubectl, *bound) == 'error: failed to create token: secrets "s" not found\n'
    said(kubectl, "create", "secret", "generic", "s")
    token = said(kubectl, *bound, "--audience=a", "--duration=20m").strip()
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["a"]},
    }

    def known() -> str:
        # kubectl looks for a CustomResourceDefinition of what nobody can patch; of the items of a List it does not.
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [review]})
        return said(kubectl, "create", "-f", "-", "-o", "jsonpath={.status.user.username}", stdin=listed)

    assert known() == f"system:serviceaccount:{kubectl.namespace}:default"
    said(kubectl, "delete", "secret", "s")
    assert known() == "", "it goes with what it is bound to"
    assert "may not specify a duration less than 10 minutes" in refused(
        kubectl, "create", "token", "default", "--duration=9m"
    )
