"""`kubectl create` and its generators: what each sends is taken, and nothing is said that the user need not know."""

from __future__ import annotations

import base64
import json

import pytest

from tests.kubectl.commands import IMAGE, refused, said
from tests.real_cluster import Cluster, Kubectl

GENERATORS = [
    ("configmap c --from-literal=a=1", "configmap/c created", ""),
    ("secret generic s --from-literal=a=1", "secret/s created", ""),
    ("secret docker-registry r --docker-server=r --docker-username=u --docker-password=p", "secret/r created", ""),
    ("serviceaccount robot", "serviceaccount/robot created", ""),
    ("role reader --verb=get,list --resource=pods", "role.rbac.authorization.k8s.io/reader created", ""),
    ("rolebinding reads --role=reader --user=ann", "rolebinding.rbac.authorization.k8s.io/reads created", ""),
    ("ingress i --rule=example.com/*=s:80", "ingress.networking.k8s.io/i created", ""),
    ("service clusterip s1 --tcp=80:8080", "service/s1 created", ""),
    ("service nodeport s2 --tcp=80:8080", "service/s2 created", ""),
    ("service loadbalancer s3 --tcp=80:8080", "service/s3 created", ""),
    ("service externalname s4 --external-name=example.com", "service/s4 created", ""),
    (f"deployment d --image={IMAGE} --replicas=0 --port=80", "deployment.apps/d created", ""),
]  # fmt: skip


def test_generators(kubectl: Kubectl) -> None:
    for command, answer, warning in GENERATORS:
        assert said(kubectl, "create", *command.split(), err=warning) == f"{answer}\n"
    assert kubectl.value("secret/s", ".data.a") == base64.b64encode(b"1").decode()
    assert kubectl.value("deployment/d", ".spec.template.spec.containers[0].ports[0].containerPort") == "80"
    assert kubectl.value("service/s1", ".spec.ports[0].targetPort") == "8080"


def test_names_without_a_namespace(kubectl: Kubectl) -> None:
    name = kubectl.namespace
    said(kubectl, "create", "clusterrole", name, "--verb=get", "--resource=nodes")
    try:
        said(kubectl, "create", "clusterrolebinding", name, f"--clusterrole={name}", "--user=ann")
        own = "Warning: resource 'nodes' is not namespace scoped\n\n"
        assert said(kubectl, "auth", "can-i", "get", "nodes/x", "--as=ann", err=own) == "yes\n"
    finally:
        own = "Warning: deleting cluster-scoped resources, not scoped to the provided namespace\n"
        said(kubectl, "delete", "clusterrole,clusterrolebinding", name, err=own)
    assert said(kubectl, "create", "namespace", f"{name}-2") == f"namespace/{name}-2 created\n"
    own = "Warning: deleting cluster-scoped resources, not scoped to the provided namespace\n"
    assert said(kubectl, "delete", "namespace", f"{name}-2", err=own) == f'namespace "{name}-2" deleted\n'


def test_token_is_who_it_says(kubectl: Kubectl, cluster: Cluster) -> None:
    said(kubectl, "create", "serviceaccount", "robot")
    token = said(kubectl, "create", "token", "robot", "--duration=10m").strip()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["exp"] - claims["iat"] == 600
    ca = str(cluster.config.directory / "pki" / "ca.crt")
    as_robot = ("--kubeconfig=/dev/null", f"--server={cluster.config.server}", f"--certificate-authority={ca}", f"--token={token}")  # fmt: skip
    who = json.loads(said(kubectl, *as_robot, "auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert who["username"] == f"system:serviceaccount:{kubectl.namespace}:robot"
    assert f"system:serviceaccounts:{kubectl.namespace}" in who["groups"]
    denied = refused(kubectl, *as_robot, "get", "pods")
    assert (
        f'Error from server (Forbidden): pods is forbidden: User "{who["username"]}" cannot list resource'
        in denied
    )


def test_rights(kubectl: Kubectl) -> None:
    assert said(kubectl, "auth", "can-i", "delete", "pods") == "yes\n"
    assert "kubernetes-admin" in said(kubectl, "auth", "whoami")
    said(kubectl, "create", "role", "reader", "--verb=get,list", "--resource=pods")
    said(kubectl, "create", "rolebinding", "reads", "--role=reader", "--user=ann")
    assert said(kubectl, "auth", "can-i", "list", "pods", "--as=ann") == "yes\n"
    answer = kubectl.run("auth", "can-i", "delete", "pods", "--as=ann")
    assert (answer.code, answer.out, answer.err) == (1, "no\n", "")
    listed = said(kubectl, "auth", "can-i", "--list", "--as=ann")
    assert any(line.split()[0] == "pods" and "[get list]" in line for line in listed.splitlines())


@pytest.mark.parametrize("kind", ["configmap", "deployment"])
def test_dry_run_leaves_nothing(kubectl: Kubectl, kind: str) -> None:
    options = {"configmap": (), "deployment": (f"--image={IMAGE}",)}[kind]
    out = said(kubectl, "create", kind, "x", *options, "--dry-run=server", "-o", "name")
    assert out.strip().endswith("/x")
    assert "(NotFound)" in refused(kubectl, "get", kind, "x")
