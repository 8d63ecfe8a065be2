"""api-resources, api-versions and explain: what is served, and what the documents say of it."""

from __future__ import annotations

from tests.kubectl.commands import refused, rows, said
from tests.real_cluster import Kubectl

RESOURCES = """
bindings - v1 true Binding create
componentstatuses cs v1 false ComponentStatus get,list
configmaps cm v1 true ConfigMap all
endpoints ep v1 true Endpoints all
events ev v1 true Event all
limitranges limits v1 true LimitRange all
namespaces ns v1 false Namespace create,delete,get,list,patch,update,watch
nodes no v1 false Node all
persistentvolumeclaims pvc v1 true PersistentVolumeClaim all
persistentvolumes pv v1 false PersistentVolume all
pods po v1 true Pod all
podtemplates - v1 true PodTemplate all
replicationcontrollers rc v1 true ReplicationController all
resourcequotas quota v1 true ResourceQuota all
secrets - v1 true Secret all
serviceaccounts sa v1 true ServiceAccount all
services svc v1 true Service all
controllerrevisions - apps/v1 true ControllerRevision all
daemonsets ds apps/v1 true DaemonSet all
deployments deploy apps/v1 true Deployment all
replicasets rs apps/v1 true ReplicaSet all
statefulsets sts apps/v1 true StatefulSet all
selfsubjectreviews - authentication.k8s.io/v1 false SelfSubjectReview create
tokenreviews - authentication.k8s.io/v1 false TokenReview create
localsubjectaccessreviews - authorization.k8s.io/v1 true LocalSubjectAccessReview create
selfsubjectaccessreviews - authorization.k8s.io/v1 false SelfSubjectAccessReview create
selfsubjectrulesreviews - authorization.k8s.io/v1 false SelfSubjectRulesReview create
subjectaccessreviews - authorization.k8s.io/v1 false SubjectAccessReview create
horizontalpodautoscalers hpa autoscaling/v2 true HorizontalPodAutoscaler all
cronjobs cj batch/v1 true CronJob all
jobs - batch/v1 true Job all
certificatesigningrequests csr certificates.k8s.io/v1 false CertificateSigningRequest all
leases - coordination.k8s.io/v1 true Lease all
endpointslices - discovery.k8s.io/v1 true EndpointSlice all
events ev events.k8s.io/v1 true Event all
ingresses - extensions/v1beta1 true Ingress create,get,patch,update
flowschemas - flowcontrol.apiserver.k8s.io/v1 false FlowSchema all
prioritylevelconfigurations - flowcontrol.apiserver.k8s.io/v1 false PriorityLevelConfiguration all
gatewayclasses gc gateway.networking.k8s.io/v1 false GatewayClass all
gateways gtw gateway.networking.k8s.io/v1 true Gateway all
grpcroutes - gateway.networking.k8s.io/v1 true GRPCRoute all
httproutes - gateway.networking.k8s.io/v1 true HTTPRoute all
referencegrants refgrant gateway.networking.k8s.io/v1 true ReferenceGrant all
ipaddresspools - loadbalancer.sampan.io/v1 false IPAddressPool all
ingressclasses - networking.k8s.io/v1 false IngressClass all
ingresses ing networking.k8s.io/v1 true Ingress all
ipaddresses ip networking.k8s.io/v1 false IPAddress all
networkpolicies netpol networking.k8s.io/v1 true NetworkPolicy all
servicecidrs - networking.k8s.io/v1 false ServiceCIDR all
runtimeclasses - node.k8s.io/v1 false RuntimeClass all
poddisruptionbudgets pdb policy/v1 true PodDisruptionBudget all
clusterrolebindings - rbac.authorization.k8s.io/v1 false ClusterRoleBinding all
clusterroles - rbac.authorization.k8s.io/v1 false ClusterRole all
rolebindings - rbac.authorization.k8s.io/v1 true RoleBinding all
roles - rbac.authorization.k8s.io/v1 true Role all
deviceclasses - resource.k8s.io/v1 false DeviceClass all
resourceclaims - resource.k8s.io/v1 true ResourceClaim all
resourceclaimtemplates - resource.k8s.io/v1 true ResourceClaimTemplate all
resourceslices - resource.k8s.io/v1 false ResourceSlice all
priorityclasses pc scheduling.k8s.io/v1 false PriorityClass all
csidrivers - storage.k8s.io/v1 false CSIDriver all
csinodes - storage.k8s.io/v1 false CSINode all
csistoragecapacities - storage.k8s.io/v1 true CSIStorageCapacity all
storageclasses sc storage.k8s.io/v1 false StorageClass all
volumeattachments - storage.k8s.io/v1 false VolumeAttachment all
volumeattributesclasses vac storage.k8s.io/v1 false VolumeAttributesClass all
"""
"""What v1.36 serves by default, but for what is added by the user (webhooks, further kinds, further servers); and the kinds that
are custom resources elsewhere, and the lesson's old Ingress."""
OLDER = {"autoscaling/v1", "gateway.networking.k8s.io/v1beta1", "networking.k8s.io/v1beta1"}
IN_ALL = ["po", "rc", "svc", "ds", "deploy", "rs", "sts", "hpa", "cj"]


def test_the_table_of_resources(kubectl: Kubectl) -> None:
    everything = "create,delete,deletecollection,get,list,patch,update,watch"
    wanted = []
    for row in RESOURCES.split("\n")[1:-1]:
        *cells, verbs = [cell for cell in row.split() if cell != "-"]
        categories = ["all"] if set(cells) & set(IN_ALL) or cells[0] == "jobs" else []
        if "gateway.networking.k8s.io/v1" in cells:
            categories = ["gateway-api"]
        wanted.append([*cells, everything if verbs == "all" else verbs, *categories])
    assert rows(said(kubectl, "api-resources", "-o", "wide")) == wanted
    by_category = said(kubectl, "api-resources", "--categories=all", "-o", "name").split()
    assert by_category == [
        f"{row[0]}.{row[2 if len(row) > 6 else 1].partition('/')[0]}".removesuffix(".v1")
        for row in wanted if row[-1] == "all"
    ]  # fmt: skip
    versions = {row.split()[-4] for row in RESOURCES.split("\n")[1:-1]} | OLDER
    assert said(kubectl, "api-versions").split() == sorted(versions)
    names = said(kubectl, "api-resources", "--api-group=apps", "--namespaced=true", "-o", "name").split()
    assert names == [f"{row[0]}.apps" for row in wanted if "apps/v1" in row]
    watchable = said(kubectl, "api-resources", "--verbs=watch,patch", "-o", "name").split()
    assert len(watchable) == len([row for row in wanted if "watch" in " ".join(row[-2:])])


def test_explain(kubectl: Kubectl) -> None:
    assert said(kubectl, "explain", "pod.spec.containers").startswith("KIND:       Pod\nVERSION:    v1\n")
    assert "FIELD: nodePort <integer>" in said(kubectl, "explain", "service.spec.ports.nodePort")
    assert "progressDeadlineSeconds" in said(kubectl, "explain", "deployments", "--recursive")
    assert "KIND:     Pod\n" in said(kubectl, "explain", "pods", "--output=plaintext-openapiv2")
    assert 'field "color" does not exist' in refused(kubectl, "explain", "pod.spec.color")


def test_explain_every_kind(kubectl: Kubectl) -> None:
    """Each kind in its own version; the documents are asked for once a group, so one command a group is enough."""
    served = [
        line.split() for line in said(kubectl, "api-resources", "--no-headers", "--verbs=list").splitlines()
    ]
    kinds = {row[-3]: (row[0], row[-1]) for row in served}
    assert len(kinds) >= 15, "one kind of each group and version"
    for version, (plural, kind) in kinds.items():
        group, _, number = version.rpartition("/")
        text = said(kubectl, "explain", plural, f"--api-version={version}", "--recursive")
        head = {line.split(":")[0]: line.split()[-1] for line in text.splitlines()[:3] if ":" in line}
        assert head == ({"GROUP": group} if group else {}) | {"KIND": kind, "VERSION": number}
        assert "  creationTimestamp\t<string>" in text
    old = said(kubectl, "explain", "hpa.spec", "--api-version=autoscaling/v1")
    assert "targetCPUUtilizationPercentage\t<integer>" in old
