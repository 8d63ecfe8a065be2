"""Kinds beside the workloads: quotas, classes, volumes, flow control, certificates; as kubectl makes and shows them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kubectl.commands import answers, refused, rows
from tests.real_cluster import Cluster, Kubectl

MANIFEST = """
apiVersion: v1
kind: LimitRange
metadata: {name: l}
spec:
  limits:
  - {type: Container, max: {cpu: "2"}, default: {cpu: "2"}, defaultRequest: {cpu: "2", memory: 64Mi}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: NAME}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /tmp/x}, storageClassName: NAME}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: NAME}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: NAME}
provisioner: example.com/p
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: NAME}
spec: {podInfoOnMount: true}
---
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: NAME}
spec: {drivers: [{name: csi.example.com, nodeID: i-1}]}
---
apiVersion: storage.k8s.io/v1
kind: CSIStorageCapacity
metadata: {name: cap}
storageClassName: NAME
capacity: 1Gi
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: NAME}
spec: {attacher: csi.example.com, nodeName: node-1, source: {persistentVolumeName: NAME}}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {name: NAME}
driverName: csi.example.com
parameters: {iops: "10"}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: NAME}
handler: gvisor
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: NAME}
spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {queues: 4, handSize: 2}}}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: NAME}
spec:
  priorityLevelConfiguration: {name: NAME}
  rules:
  - subjects: [{kind: User, user: {name: ann}}]
    resourceRules: [{verbs: ["*"], apiGroups: ["*"], resources: ["*"], namespaces: ["*"]}]
"""


@pytest.fixture
def manifest(kubectl: Kubectl) -> Iterator[str]:
    """One object of each kind; those without a namespace are named after the test's and go with it."""
    text = MANIFEST.replace("NAME", kubectl.namespace)
    yield text
    kubectl.run("delete", "--ignore-not-found", "-f", "-", stdin=text)


def test_tables(kubectl: Kubectl, manifest: str) -> None:
    answers(kubectl, "apply", "-f", "-", stdin=manifest)
    name = kubectl.namespace

    def row(*what: str) -> list[str]:
        [found] = [r for r in rows(answers(kubectl, "get", *what, "-o", "wide")) if r]
        return found

    assert row("pv", name)[:6] == [name, "1Gi", "RWO", "Retain", "Pending", name]
    assert row("pvc")[:3] == ["c", "Pending", name]
    assert row("sc", name)[:5] == [name, "example.com/p", "Delete", "Immediate", "false"]
    assert row("csidriver", name)[:7] == [name, "true", "true", "false", "<unset>", "false", "Persistent"]
    assert row("csinode", name)[:2] == [name, "1"]
    assert row("csistoragecapacity") == ["cap", name, "1Gi"]
    assert row("volumeattachment", name)[:5] == [name, "csi.example.com", name, "node-1", "false"]
    assert row("vac", name)[:2] == [name, "csi.example.com"]
    assert row("runtimeclass", name)[:2] == [name, "gvisor"]
    assert row("flowschema", name)[:4] == [name, name, "1000", "<none>"]
    assert row("prioritylevelconfiguration", name)[:6] == [name, "Limited", "30", "4", "2", "50"]
    described = answers(kubectl, "describe", "limits", "l")
    assert ["Container", "cpu", "-", "2", "2", "2", "-"] in [line.split() for line in described.splitlines()]
    assert "StorageClass:    " + name in answers(kubectl, "describe", "pv", name)
    assert f"StorageClass:  {name}" in answers(kubectl, "describe", "pvc", "c")
    assert "VolumeBindingMode:     Immediate" in answers(kubectl, "describe", "sc", name)


def test_quotas_and_priority_classes(kubectl: Kubectl) -> None:
    name = kubectl.namespace
    made = answers(kubectl, "create", "quota", "q", "--hard=pods=3,requests.cpu=1", "--scopes=NotTerminating")
    assert made == "resourcequota/q created\n"
    assert kubectl.value("quota/q", ".spec.hard") == '{"pods":"3","requests.cpu":"1"}'
    assert "pods" in answers(kubectl, "describe", "quota", "q") or kubectl.value("quota/q", ".status") == "{}"
    wrong = refused(kubectl, "create", "quota", "w", "--hard=tea=3")
    assert 'spec.hard[tea]: Invalid value: "tea": must be a standard resource for quota' in wrong
    made = answers(kubectl, "create", "priorityclass", name, "--value=1000", "--preemption-policy=Never")
    assert made == f"priorityclass.scheduling.k8s.io/{name} created\n"
    assert rows(answers(kubectl, "get", "pc", name))[0][1:3] == ["1000", "false"]
    assert "value: Forbidden: may not be changed in an update." in refused(
        kubectl, "patch", "priorityclass", name, "-p", '{"value": 1}'
    )
    assert "this is a system priority class and cannot be deleted" in refused(
        kubectl, "delete", "priorityclass", "system-node-critical"
    )
    answers(kubectl, "delete", "priorityclass", name)


def test_explain(kubectl: Kubectl) -> None:
    for path, text in (
        ("quota.spec.scopeSelector", "matchExpressions\t<[]ScopedResourceSelectorRequirement>"),
        ("pv.spec.csi", "volumeHandle\t<string>"),
        ("csr.spec", "signerName\t<string>"),
        ("flowschemas.spec", "matchingPrecedence\t<integer>"),
        ("priorityclasses", "GROUP:      scheduling.k8s.io"),
        ("componentstatuses", "KIND:       ComponentStatus"),
    ):
        assert text in answers(kubectl, "explain", path)


def test_components(kubectl: Kubectl) -> None:
    done = kubectl.run("get", "componentstatuses")
    assert done.err == "Warning: v1 ComponentStatus is deprecated in v1.19+\n"
    assert rows(done.out) == [
        ["scheduler", "Healthy", "ok"],
        ["controller-manager", "Healthy", "ok"],
        ["etcd-0", "Healthy", "ok"],
    ]


CSR = """
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {name}}}
spec:
  request: {request}
  signerName: kubernetes.io/kube-apiserver-client
  expirationSeconds: 3600
  usages: [client auth]
"""


@pytest.fixture
def asked(kubectl: Kubectl, tmp_path: Path) -> Iterator[Path]:
    """A request for the certificate of a person, as the guide of Kubernetes makes one; the file of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "devs"),
        x509.NameAttribute(NameOID.COMMON_NAME, "jane"),
    ]
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject)).sign(key, hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM)
    text = CSR.format(name=kubectl.namespace, request=base64.b64encode(pem).decode())
    assert answers(kubectl, "apply", "-f", "-", stdin=text).endswith(" created\n")
    path = tmp_path / "jane.key"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    yield path
    kubectl.run("delete", "csr", kubectl.namespace)


def test_a_certificate_that_was_approved_logs_in(
    kubectl: Kubectl, cluster: Cluster, asked: Path, tmp_path: Path
) -> None:
    name = kubectl.namespace
    row = rows(answers(kubectl, "get", "csr", name))[0]
    assert row[2:] == ["kubernetes.io/kube-apiserver-client", "kubernetes-admin", "60m", "Pending"]
    approved = answers(kubectl, "certificate", "approve", name)
    assert approved == f"certificatesigningrequest.certificates.k8s.io/{name} approved\n"
    kubectl("wait", f"csr/{name}", "--for=jsonpath={.status.certificate}", "--timeout=10s")
    assert rows(answers(kubectl, "get", "csr", name))[0][-1] == "Approved,Issued"
    assert "Requesting User:" in answers(kubectl, "describe", "csr", name)
    certificate = tmp_path / "jane.crt"
    certificate.write_bytes(base64.b64decode(kubectl.value(f"csr/{name}", ".status.certificate")))
    ca = cluster.config.directory / "pki" / "ca.crt"
    as_jane = (
        "--kubeconfig=/dev/null",
        f"--server={cluster.config.server}",
        f"--certificate-authority={ca}",
        f"--client-certificate={certificate}",
        f"--client-key={asked}",
    )
    assert (
        answers(kubectl, *as_jane, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}") == "jane"
    )
    assert "devs" in answers(kubectl, *as_jane, "auth", "whoami")
    assert 'User "jane" cannot list resource "pods"' in refused(kubectl, *as_jane, "get", "pods")
    kubectl("create", "rolebinding", "jane", "--clusterrole=view", "--user=jane")
    assert answers(kubectl, *as_jane, "get", "configmaps", "-o", "name") == "configmap/kube-root-ca.crt\n"


def test_a_request_that_was_denied_gets_none(kubectl: Kubectl, asked: Path) -> None:
    name = kubectl.namespace
    denied = answers(kubectl, "certificate", "deny", name)
    assert denied == f"certificatesigningrequest.certificates.k8s.io/{name} denied\n"
    assert rows(answers(kubectl, "get", "csr", name))[0][-1] == "Denied"
    assert "Denied" in refused(kubectl, "certificate", "approve", name)
    assert kubectl.value(f"csr/{name}", ".status.certificate") == ""


def test_the_key_of_the_authority_is_for_root_alone(cluster: Cluster) -> None:
    pki = cluster.config.directory / "pki"
    assert (pki.stat().st_mode & 0o777, (pki / "ca.key").stat().st_mode & 0o777) == (0o700, 0o600)
