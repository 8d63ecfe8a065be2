"""Addresses, ranges, policies and devices, as kubectl makes and shows them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kubectl.commands import answers, refused, rows
from tests.real_cluster import Kubectl

MANIFEST = """
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: NAME}
spec: {selectors: [{cel: {expression: 'device.driver == "gpu.example.com"'}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: NAME}
spec:
  driver: gpu.example.com
  nodeName: node-1
  pool: {name: node-1, generation: 1, resourceSliceCount: 1}
  devices: [{name: gpu-0, attributes: {model: {string: x}}, capacity: {memory: {value: 10Gi}}}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: one}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: NAME}}]}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: many}
spec: {spec: {devices: {requests: [{name: gpu, firstAvailable: [{name: big, deviceClassName: NAME}]}]}}}
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: some}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
    - namespaceSelector: {matchLabels: {team: a}}
      podSelector: {matchLabels: {role: frontend}}
    ports: [{port: http, protocol: TCP}, {port: 8000, endPort: 8010, protocol: UDP}]
"""


@pytest.fixture
def devices(kubectl: Kubectl) -> Iterator[str]:
    text = MANIFEST.replace("NAME", kubectl.namespace)
    yield text
    kubectl.run("delete", "--ignore-not-found", "-f", "-", stdin=text)


def test_devices(kubectl: Kubectl, devices: str) -> None:
    made = kubectl.run("apply", "-f", "-", stdin=devices)
    assert made.code == 0, made
    assert "Warning: spec.selectors[0].cel.expression: CEL expressions are not compiled here" in made.err
    # Of atomic lists with defaults inside kubectl sends all again, and says "configured": nothing must come of it.
    versions = answers(kubectl, "get", "-f", "-", "-o=jsonpath={.items[*].metadata.resourceVersion}", stdin=devices)  # fmt: skip
    again = answers(kubectl, "apply", "-f", "-", stdin=devices).splitlines()
    assert [line.rpartition(" ")[2] for line in again[:2]] == ["unchanged"] * 2
    assert versions == answers(
        kubectl, "get", "-f", "-", "-o=jsonpath={.items[*].metadata.resourceVersion}", stdin=devices
    )
    assert answers(kubectl, "diff", "-f", "-", stdin=devices) == ""
    name = kubectl.namespace
    [found] = rows(answers(kubectl, "get", "resourceslices", name))
    assert found[:4] == [name, "node-1", "gpu.example.com", "node-1"]
    [found] = rows(answers(kubectl, "get", "resourceclaims"))
    assert found[:2] == ["one", "pending"]
    assert rows(answers(kubectl, "get", "deviceclass", name))[0][0] == name
    assert rows(answers(kubectl, "get", "resourceclaimtemplate"))[0][0] == "many"
    claim = "spec.devices.requests[0].exactly"
    shown = answers(kubectl, "get", "resourceclaim", "one", f"-o=jsonpath={{.{claim}.allocationMode}}")
    assert shown == "ExactCount"
    by_node = answers(kubectl, "get", "resourceslices", "--field-selector=spec.nodeName=elsewhere", "-o=name")
    assert by_node == ""
    wrong = refused(
        kubectl, "patch", "resourceclaim", "one", "--type=merge", "-p", '{"spec":{"devices":null}}'
    )
    assert "spec: Invalid value" in wrong
    assert "field is immutable" in wrong


def test_network_policies(kubectl: Kubectl) -> None:
    answers(kubectl, "apply", "-f", "-", stdin=POLICY)
    assert answers(kubectl, "apply", "-f", "-", stdin=POLICY).endswith(" unchanged\n")
    [found] = rows(answers(kubectl, "get", "netpol"))
    assert found[:2] == ["some", "app=web"]
    described = [line.strip() for line in answers(kubectl, "describe", "networkpolicy", "some").splitlines()]
    for line in (
        "PodSelector:     app=web", "To Port: http/TCP", "To Port Range: 8000-8010/UDP", "CIDR: 172.17.0.0/16",
        "Except: 172.17.1.0/24", "NamespaceSelector: team=a", "PodSelector: role=frontend", "Policy Types: Ingress, Egress",
        "<none> (Selected pods are isolated for egress connectivity)",
    ):  # fmt: skip
        assert line in described
    wrong = refused(kubectl, "patch", "netpol", "some", "--type=merge", "-p", '{"spec":{"policyTypes":["Both"]}}')  # fmt: skip
    assert 'spec.policyTypes[0]: Unsupported value: "Both": supported values: ' in wrong


def test_addresses_and_ranges(kubectl: Kubectl) -> None:
    kubectl("create", "service", "nodeport", "web", "--tcp=80")
    address = kubectl.value("service/web", ".spec.clusterIP")
    [found] = rows(answers(kubectl, "get", "ip", address))
    assert found == [address, f"services/{kubectl.namespace}/web"]
    labels = answers(kubectl, "get", "ipaddress", "-l=ipaddress.kubernetes.io/managed-by=ipallocator.k8s.io", "-o=name")  # fmt: skip
    assert f"ipaddress.networking.k8s.io/{address}" in labels.splitlines()
    wrong = refused(kubectl, "create", "service", "clusterip", "other", "--tcp=80", f"--clusterip={address}")
    assert "provided IP is already allocated" in wrong
    wrong = refused(
        kubectl, "create", "service", "clusterip", "other", "--tcp=80", "--clusterip=198.51.100.7"
    )
    assert "the provided network does not match the current range" in wrong
    tried = answers(kubectl, "create", "service", "clusterip", "dry", "--tcp=80", "--dry-run=server", "-o=jsonpath={.spec.clusterIP}")  # fmt: skip
    assert refused(kubectl, "get", "ip", tried).startswith("Error from server (NotFound)")
    [cidr] = [r for r in rows(answers(kubectl, "get", "servicecidr")) if r[0] == "kubernetes"]
    assert len(cidr) == 3
    ready = kubectl.value("servicecidr/kubernetes", '.status.conditions[?(@.type=="Ready")].status')
    assert ready == "True"
    kubectl("delete", "service", "web")
    assert refused(kubectl, "get", "ip", address).startswith("Error from server (NotFound)")
