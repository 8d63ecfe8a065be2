"""One object of each kind that is served goes through kubectl's commands: made, read, replaced, applied, labelled,
described, deleted. The objects are in one_of_each.yaml; each command is for all of them, so a failure names whom it meets.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kubectl.commands import refused, said
from tests.real_cluster import Kubectl

OBJECTS = Path(__file__).with_name("one_of_each.yaml")
ENDPOINTS = "Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\n"
CLUSTER_WIDE = "Warning: deleting cluster-scoped resources, not scoped to the provided namespace\n"

# `kubectl get -o wide`: the columns after NAME.
COLUMNS = {
    "configmap": "DATA AGE",
    "endpoints": "ENDPOINTS AGE",
    "limitrange": "CREATED-AT",
    "namespace": "STATUS AGE",
    "node": "STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME",
    "persistentvolumeclaim": "STATUS VOLUME CAPACITY ACCESS-MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE VOLUMEMODE",
    "persistentvolume": "CAPACITY ACCESS-MODES RECLAIM-POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON "
    "AGE VOLUMEMODE",
    "pod": "READY STATUS RESTARTS AGE IP NODE NOMINATED-NODE READINESS-GATES",
    "podtemplate": "CONTAINERS IMAGES POD-LABELS",
    "replicationcontroller": "DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR",
    "resourcequota": "REQUEST LIMIT AGE",
    "secret": "TYPE DATA AGE",
    "serviceaccount": "SECRETS AGE",
    "service": "TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR",
    "controllerrevision.apps": "CONTROLLER REVISION AGE",
    "daemonset.apps": "DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE-SELECTOR AGE CONTAINERS IMAGES SELECTOR",
    "deployment.apps": "READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR",
    "replicaset.apps": "DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR",
    "statefulset.apps": "READY AGE CONTAINERS IMAGES",
    "horizontalpodautoscaler.autoscaling": "REFERENCE TARGETS MINPODS MAXPODS REPLICAS AGE",
    "cronjob.batch": "SCHEDULE TIMEZONE SUSPEND ACTIVE LAST-SCHEDULE AGE CONTAINERS IMAGES SELECTOR",
    "job.batch": "STATUS COMPLETIONS DURATION AGE CONTAINERS IMAGES SELECTOR",
    "certificatesigningrequest.certificates.k8s.io": "AGE SIGNERNAME REQUESTOR REQUESTEDDURATION CONDITION",
    "lease.coordination.k8s.io": "HOLDER AGE",
    "endpointslice.discovery.k8s.io": "ADDRESSTYPE PORTS ENDPOINTS AGE",
    "ipaddresspool.loadbalancer.sampan.io": "AUTO-ASSIGN AVOID-BUGGY-IPS ADDRESSES ASSIGNED-IPV4 AVAILABLE-IPV4 "
    "ASSIGNED-IPV6 AVAILABLE-IPV6 AGE",
    "prioritylevelconfiguration.flowcontrol.apiserver.k8s.io": "TYPE NOMINALCONCURRENCYSHARES QUEUES HANDSIZE "
    "QUEUELENGTHLIMIT AGE",
    "flowschema.flowcontrol.apiserver.k8s.io": "PRIORITYLEVEL MATCHINGPRECEDENCE DISTINGUISHERMETHOD AGE MISSINGPL",
    "gatewayclass.gateway.networking.k8s.io": "CONTROLLER ACCEPTED AGE DESCRIPTION",
    "gateway.gateway.networking.k8s.io": "CLASS ADDRESS PROGRAMMED AGE",
    "httproute.gateway.networking.k8s.io": "HOSTNAMES AGE",
    "grpcroute.gateway.networking.k8s.io": "HOSTNAMES AGE",
    "referencegrant.gateway.networking.k8s.io": "AGE",
    "ingressclass.networking.k8s.io": "CONTROLLER PARAMETERS AGE",
    "ingress.networking.k8s.io": "CLASS HOSTS ADDRESS PORTS AGE",
    "networkpolicy.networking.k8s.io": "POD-SELECTOR AGE",
    "servicecidr.networking.k8s.io": "CIDRS AGE",
    "ipaddress.networking.k8s.io": "PARENTREF",
    "runtimeclass.node.k8s.io": "HANDLER AGE",
    "poddisruptionbudget.policy": "MIN-AVAILABLE MAX-UNAVAILABLE ALLOWED-DISRUPTIONS AGE",
    "clusterrole.rbac.authorization.k8s.io": "CREATED-AT",
    "clusterrolebinding.rbac.authorization.k8s.io": "ROLE AGE USERS GROUPS SERVICEACCOUNTS",
    "role.rbac.authorization.k8s.io": "CREATED-AT",
    "rolebinding.rbac.authorization.k8s.io": "ROLE AGE USERS GROUPS SERVICEACCOUNTS",
    "deviceclass.resource.k8s.io": "AGE",
    "resourceclaim.resource.k8s.io": "STATE AGE",
    "resourceclaimtemplate.resource.k8s.io": "AGE",
    "resourceslice.resource.k8s.io": "NODE DRIVER POOL AGE",
    "priorityclass.scheduling.k8s.io": "VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY",
    "storageclass.storage.k8s.io": "PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE",
    "csidriver.storage.k8s.io": "ATTACHREQUIRED PODINFOONMOUNT STORAGECAPACITY TOKENREQUESTS REQUIRESREPUBLISH MODES AGE",
    "csinode.storage.k8s.io": "DRIVERS AGE",
    "csistoragecapacity.storage.k8s.io": "STORAGECLASSNAME CAPACITY",
    "volumeattachment.storage.k8s.io": "ATTACHER PV NODE ATTACHED AGE",
    "volumeattributesclass.storage.k8s.io": "DRIVERNAME AGE",
}  # fmt: skip
# These begin with another column.
EVENTS = "LAST-SEEN TYPE REASON OBJECT SUBOBJECT SOURCE MESSAGE FIRST-SEEN COUNT NAME"

# What kubectl always believes to differ: lists that it compares as a whole, with and without their defaults.
ALWAYS_CONFIGURED = {
    "endpoints", "endpointslice.discovery.k8s.io", "poddisruptionbudget.policy", "resourceclaim.resource.k8s.io",
    "resourceclaimtemplate.resource.k8s.io", "gateway.gateway.networking.k8s.io", "httproute.gateway.networking.k8s.io",
    "grpcroute.gateway.networking.k8s.io",
}  # fmt: skip
# kubectl 1.32 describes these in a version that is beta, thus not served.
DESCRIBED_AS_BETA = {"ServiceCIDR", "IPAddress", "VolumeAttributesClass"}
# Subjects of requests alone; the status of the server's parts; what is refused (test_network_and_devices).
NOT_KEPT = {
    "Binding", "ComponentStatus", "LocalSubjectAccessReview", "SelfSubjectAccessReview",
    "SelfSubjectReview", "SelfSubjectRulesReview", "SubjectAccessReview", "TokenReview",
}  # fmt: skip


@dataclass(frozen=True)
class Each:
    """One of each: the file, and the same without what kubectl cannot describe."""

    file: Path
    described: Path
    kinds: list[str]

    def made(self, done: str) -> list[str]:
        """What kubectl says of each, in order: `configmap/one created`."""
        lines = done.splitlines()
        assert len(lines) == len(self.kinds), lines
        return lines


@pytest.fixture
def each(kubectl: Kubectl, tmp_path: Path) -> Iterator[Each]:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name)
    pem = csr.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )
    text = OBJECTS.read_text().replace("NAME", kubectl.namespace)
    text = text.replace("REQUEST", base64.b64encode(pem).decode())
    documents = text.split("\n---\n")
    kinds = [yaml.safe_load(d)["kind"] for d in documents]
    file, described = tmp_path / "each.yaml", tmp_path / "described.yaml"
    file.write_text(text)
    known = [d for d, kind in zip(documents, kinds, strict=True) if kind not in DESCRIBED_AS_BETA]
    described.write_text("\n---\n".join(known))
    yield Each(file, described, kinds)
    # Without waiting: a ServiceCIDR stays some seconds, lest its addresses be given away meanwhile.
    kubectl.run("delete", "-f", file, "--wait=false", "--ignore-not-found")


def versions(kubectl: Kubectl, each: Each) -> dict[str, str]:
    """The resource version of each."""
    template = '{{range .items}}{{.kind}} {{.metadata.resourceVersion}}{{"\\n"}}{{end}}'
    found = said(kubectl, "get", "-f", each.file, "-o", f"go-template={template}", err=ENDPOINTS)
    lines = each.made(found)
    return {f"{number} {line.split()[0]}": line.split()[1] for number, line in enumerate(lines)}


def settled(kubectl: Kubectl) -> None:
    """Wait for what controllers write into new objects."""
    kubectl.wait("deployment,replicaset", "jsonpath={.status.observedGeneration}=1", "--all")
    kubectl.wait(f"servicecidr/{kubectl.namespace}", "condition=Ready")
    kubectl.wait("quota/one", "jsonpath={.status.used}")
    kubectl.wait(f"ipaddresspool/{kubectl.namespace}", "jsonpath={.status.availableIPv4}=4")
    taint = 'jsonpath={.spec.taints[?(@.key=="node.kubernetes.io/unschedulable")].effect}=NoSchedule'
    kubectl.wait(f"node/{kubectl.namespace}", taint)


def test_each_kind_is_there(kubectl: Kubectl, each: Each) -> None:
    served = said(kubectl, "api-resources", "--no-headers")
    kinds = {line.split()[-1] for line in served.splitlines()}
    assert kinds - NOT_KEPT == set(each.kinds)
    assert len(COLUMNS) + 2 == len(each.kinds), "two kinds of events beside"


def test_round_trip(kubectl: Kubectl, each: Each, tmp_path: Path) -> None:
    made = kubectl.run("create", "-f", each.file)
    assert (made.code, {line.rpartition(" ")[2] for line in each.made(made.out)}) == (0, {"created"}), made
    settled(kubectl)

    # Replaced by itself, nothing is written.
    file = tmp_path / "got.yaml"
    file.write_text(said(kubectl, "get", "-f", each.file, "-o", "yaml", err=ENDPOINTS))
    before = versions(kubectl, each)
    replaced = each.made(said(kubectl, "replace", "-f", file, err=ENDPOINTS))
    assert {line.rpartition(" ")[2] for line in replaced} == {"replaced"}
    assert versions(kubectl, each) == before

    # Applied again, nothing is written, and kubectl mostly sees that there is nothing to do. The first apply completes
    # the annotation.
    said(kubectl, "apply", "set-last-applied", "--create-annotation", "-f", each.file, err=ENDPOINTS)
    said(kubectl, "apply", "-f", each.file, err=ENDPOINTS)
    before = versions(kubectl, each)
    applied = each.made(said(kubectl, "apply", "-f", each.file, err=ENDPOINTS))
    changed = {line.partition("/")[0] for line in applied if not line.endswith(" unchanged")}
    assert changed <= ALWAYS_CONFIGURED
    assert versions(kubectl, each) == before

    labelled = each.made(said(kubectl, "label", "-f", each.file, "tested=yes", err=ENDPOINTS))
    assert {line.rpartition(" ")[2] for line in labelled} == {"labeled"}
    assert columns(said(kubectl, "get", "-f", each.file, "-o", "wide", err=ENDPOINTS)) == COLUMNS | {
        "event": EVENTS, "event.events.k8s.io": EVENTS,
    }  # fmt: skip
    described = said(kubectl, "describe", "-f", each.described, err=ENDPOINTS)
    assert "%!" not in described, "a value that its format does not fit"
    names = [line for line in described.splitlines() if line.startswith("Name:")]
    assert len(names) == len(each.kinds) - len(DESCRIBED_AS_BETA)

    deleted = said(kubectl, "delete", "-f", each.file, "--wait=false", err=ENDPOINTS + CLUSTER_WIDE)
    assert {line.rpartition(" ")[2] for line in each.made(deleted)} == {"deleted"}


def columns(tables: str) -> dict[str, str]:
    """The heading of each table by the kind of its first row, NAME left out; a blank within a column's name is a dash."""
    found = {}
    for table in tables.split("\n\n"):
        heading, row, *_ = table.splitlines()
        titles = [part.strip().replace(" ", "-") for part in heading.split("  ") if part.strip()]
        if titles[0] == "NAME":
            found[row.partition("/")[0]] = " ".join(titles[1:])
        else:
            found[row.split()[-1].partition("/")[0]] = " ".join(titles)
    return found


def test_server_side(kubectl: Kubectl, each: Each) -> None:
    dry = kubectl.run("apply", "--server-side", "--dry-run=server", "-f", each.file)
    # Neither is there what the dry run has not made: some namespace.
    assert {line.rpartition(") ")[2] or line for line in each.made(dry.out)}, dry
    assert dry.code == 0, dry
    assert "(NotFound)" in refused(kubectl, "get", "-f", each.file, "-o", "name")
    apply = ("apply", "--server-side", "-f", each.file)
    first = kubectl.run(*apply)
    assert first.code == 0, first
    settled(kubectl)
    before = versions(kubectl, each)
    again = each.made(said(kubectl, *apply, err=ENDPOINTS))
    assert {line.rpartition(" ")[2] for line in again} == {"serverside-applied"}
    assert versions(kubectl, each) == before
    diff = kubectl.run("diff", "--server-side", "-f", each.file)
    assert (diff.code, diff.out) == (0, ""), diff


def test_reviews(kubectl: Kubectl) -> None:
    """Kinds that only answer."""
    attributes = {"verb": "get", "resource": "pods", "namespace": kubectl.namespace}
    asked: dict[str, dict[str, dict[str, object]]] = {
        "authentication.k8s.io/v1": {"SelfSubjectReview": {}, "TokenReview": {"token": "none"}},
        "authorization.k8s.io/v1": {
            "SubjectAccessReview": {"user": "nobody", "resourceAttributes": attributes},
            "SelfSubjectAccessReview": {"resourceAttributes": attributes},
            "LocalSubjectAccessReview": {"user": "nobody", "resourceAttributes": attributes},
            "SelfSubjectRulesReview": {"namespace": kubectl.namespace},
        },
    }
    items = [
        {"apiVersion": version, "kind": kind, "metadata": {}} | ({"spec": spec} if spec else {})
        for version, kinds in asked.items() for kind, spec in kinds.items()
    ]  # fmt: skip
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    lines = said(kubectl, "create", "-f", "-", "-o", "jsonpath={@}{'\\n'}", stdin=given).splitlines()
    status = {answer["kind"]: answer["status"] for answer in map(json.loads, lines)}
    assert status["SelfSubjectReview"]["userInfo"]["username"] == "kubernetes-admin"
    assert not status["TokenReview"].get("authenticated")
    assert status["SelfSubjectAccessReview"]["allowed"] is True
    for kind in ("SubjectAccessReview", "LocalSubjectAccessReview"):
        assert status[kind]["allowed"] is False
    assert status["SelfSubjectRulesReview"]["resourceRules"]
