"""Each field of Pods and Services, once: whether it works here, is warned of, or is refused.

Keys are paths of the schema without indices; `x.*` is `x` and all below it. Fields that people rely on for safety are
refused while they do not work; other fields that do not work yet are accepted with a warning. A test walks the schema
and fails when a field is not listed, or listed twice.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sampan.api.errors import Object


class State(enum.Enum):
    WORKS = enum.auto()
    WARNED = enum.auto()
    REFUSED = enum.auto()


When = Callable[[Any, Object], bool]


@dataclass(frozen=True, slots=True)
class Support:
    """`why` is told to the user. `when` gets the value and the spec that it is in: where it says no, the field works."""

    state: State
    why: str = ""
    when: When | None = None


WORKS = Support(State.WORKS)


def _warned(why: str, when: When | None = None) -> Support:
    return Support(State.WARNED, why, when)


def _refused(why: str, when: When | None = None) -> Support:
    return Support(State.REFUSED, why, when)


def _is(*values: object) -> When:
    return lambda value, _: value in values


def _is_not(*values: object) -> When:
    return lambda value, _: value not in values


def _limited_on_disk(volume: Object, limit: object) -> bool:
    source = volume.get("emptyDir") or {}
    return source.get("sizeLimit") == limit and not source.get("medium")


_GRPC = _refused("gRPC probes are not implemented; use an exec, httpGet or tcpSocket probe")
_APPARMOR = _refused(
    "AppArmor profiles are not implemented; only Unconfined is", _is("RuntimeDefault", "Localhost")
)
_SELINUX = _refused("SELinux is not implemented")
_WINDOWS = _refused("Windows containers are not implemented")
_CLAIMS = _warned(
    "dynamic resource allocation is not implemented: the container starts without the claimed devices"
)
_STORAGE = "this type of volume is not implemented; emptyDir, hostPath, configMap, secret, downwardAPI and projected are"


def _probe(name: str) -> dict[str, Support]:
    return {
        f"{name}.exec.*": WORKS,
        f"{name}.httpGet.*": WORKS,
        f"{name}.tcpSocket.*": WORKS,
        f"{name}.grpc.*": _GRPC,
        f"{name}.initialDelaySeconds": WORKS,
        f"{name}.periodSeconds": WORKS,
        f"{name}.timeoutSeconds": WORKS,
        f"{name}.successThreshold": WORKS,
        f"{name}.failureThreshold": WORKS,
        f"{name}.terminationGracePeriodSeconds": WORKS,
    }


_CONTAINER: dict[str, Support] = {
    "name": WORKS,
    "image": WORKS,
    "imagePullPolicy": WORKS,
    "command": WORKS,
    "args": WORKS,
    "workingDir": WORKS,
    "env.name": WORKS,
    "env.value": WORKS,
    "env.valueFrom.configMapKeyRef.*": WORKS,
    "env.valueFrom.secretKeyRef.*": WORKS,
    "env.valueFrom.fieldRef.*": WORKS,
    "env.valueFrom.resourceFieldRef.*": WORKS,
    "env.valueFrom.fileKeyRef.*": _refused("environment from files of a volume is not implemented"),
    "envFrom.*": WORKS,
    "lifecycle.*": WORKS,
    "ports.name": WORKS,
    "ports.containerPort": WORKS,
    "ports.protocol": WORKS,
    "ports.hostPort": WORKS,
    "ports.hostIP": WORKS,
    **_probe("livenessProbe"),
    **_probe("readinessProbe"),
    **_probe("startupProbe"),
    "resizePolicy.*": _warned(
        "resizing a running container is not implemented", lambda value, _: bool(value)
    ),
    "resources.limits": _warned(
        "the limit of ephemeral-storage is not enforced", lambda value, _: "ephemeral-storage" in value
    ),
    "resources.requests": WORKS,
    "resources.claims.*": _CLAIMS,
    "restartPolicy": WORKS,
    "restartPolicyRules.*": WORKS,
    "securityContext.allowPrivilegeEscalation": WORKS,
    "securityContext.appArmorProfile.type": _APPARMOR,
    "securityContext.appArmorProfile.localhostProfile": _APPARMOR,
    "securityContext.capabilities.*": WORKS,
    "securityContext.privileged": WORKS,
    "securityContext.procMount": _refused("procMount Unmasked is not implemented", _is("Unmasked")),
    "securityContext.readOnlyRootFilesystem": WORKS,
    "securityContext.runAsGroup": WORKS,
    "securityContext.runAsNonRoot": WORKS,
    "securityContext.runAsUser": WORKS,
    "securityContext.seLinuxOptions.*": _SELINUX,
    "securityContext.seccompProfile.*": WORKS,
    "securityContext.windowsOptions.*": _WINDOWS,
    "stdin": WORKS,
    "stdinOnce": WORKS,
    "tty": WORKS,
    "terminationMessagePath": WORKS,
    "terminationMessagePolicy": WORKS,
    "volumeDevices.*": _refused("block devices are not implemented"),
    "volumeMounts.name": WORKS,
    "volumeMounts.mountPath": WORKS,
    "volumeMounts.mountPropagation": WORKS,
    "volumeMounts.readOnly": WORKS,
    "volumeMounts.recursiveReadOnly": _refused(
        "recursive read-only mounts are not implemented", _is("Enabled")
    ),
    "volumeMounts.subPath": WORKS,
    "volumeMounts.subPathExpr": WORKS,
}

_OTHER_VOLUMES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "ephemeral", "fc", "flexVolume", "flocker",
    "gcePersistentDisk", "gitRepo", "glusterfs", "image", "iscsi", "nfs", "persistentVolumeClaim", "photonPersistentDisk",
    "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
)  # fmt: skip

_VOLUME: dict[str, Support] = {
    "name": WORKS,
    "emptyDir.medium": _refused("huge pages are not implemented", _is_not("Memory")),
    "emptyDir.sizeLimit": _warned(
        "the limit is enforced only where the medium is Memory",
        lambda value, spec: any(_limited_on_disk(volume, value) for volume in spec.get("volumes") or ()),
    ),
    "hostPath.*": WORKS,
    "configMap.*": WORKS,
    "secret.*": WORKS,
    "downwardAPI.*": WORKS,
    "projected.defaultMode": WORKS,
    "projected.sources.configMap.*": WORKS,
    "projected.sources.secret.*": WORKS,
    "projected.sources.downwardAPI.*": WORKS,
    "projected.sources.serviceAccountToken.*": WORKS,
    "projected.sources.clusterTrustBundle.*": _refused("cluster trust bundles are not implemented"),
    "projected.sources.podCertificate.*": _refused("pod certificates are not implemented"),
    **{f"{name}.*": _refused(_STORAGE) for name in _OTHER_VOLUMES},
}

_POD_SPEC: dict[str, Support] = {
    **{f"containers.{path}": support for path, support in _CONTAINER.items()},
    **{f"initContainers.{path}": support for path, support in _CONTAINER.items()},
    **{f"ephemeralContainers.{path}": support for path, support in _CONTAINER.items()},
    "ephemeralContainers.targetContainerName": _warned(
        "joining the processes of one container is not implemented: they are seen where shareProcessNamespace is set",
        lambda _, spec: not spec.get("shareProcessNamespace") and not spec.get("hostPID"),
    ),
    **{f"volumes.{path}": support for path, support in _VOLUME.items()},
    "activeDeadlineSeconds": WORKS,
    "affinity.nodeAffinity.*": WORKS,
    "affinity.podAffinity.*": WORKS,
    "affinity.podAntiAffinity.*": WORKS,
    "automountServiceAccountToken": WORKS,
    "dnsConfig.*": WORKS,
    "dnsPolicy": WORKS,
    "enableServiceLinks": WORKS,
    "hostAliases.*": WORKS,
    "hostIPC": WORKS,
    "hostNetwork": WORKS,
    "hostPID": WORKS,
    "hostUsers": _refused("user namespaces are not implemented", _is(False)),
    "hostname": WORKS,
    "hostnameOverride": WORKS,
    "imagePullSecrets.*": WORKS,
    "nodeName": WORKS,
    "nodeSelector": WORKS,
    "os.name": _warned("only Linux nodes exist: the pod cannot run", _is_not("linux")),
    "overhead": _warned("the scheduler and quotas count the overhead, the node does not"),
    "preemptionPolicy": WORKS,
    "priority": WORKS,
    "priorityClassName": WORKS,
    "readinessGates.*": WORKS,
    "resourceClaims.*": _CLAIMS,
    "resources.*": _warned("resources of the whole pod are not implemented; set them on its containers"),
    "restartPolicy": WORKS,
    "runtimeClassName": WORKS,
    "schedulerName": _warned(
        "no such scheduler runs here: the pod stays Pending", _is_not("default-scheduler")
    ),
    "schedulingGates.*": WORKS,
    "schedulingGroup.*": _warned("scheduling groups are not implemented: the pod is scheduled by itself"),
    "securityContext.appArmorProfile.type": _APPARMOR,
    "securityContext.appArmorProfile.localhostProfile": _APPARMOR,
    "securityContext.fsGroup": WORKS,
    "securityContext.fsGroupChangePolicy": WORKS,
    "securityContext.runAsGroup": WORKS,
    "securityContext.runAsNonRoot": WORKS,
    "securityContext.runAsUser": WORKS,
    "securityContext.seLinuxChangePolicy": _SELINUX,
    "securityContext.seLinuxOptions.*": _SELINUX,
    "securityContext.seccompProfile.*": WORKS,
    "securityContext.supplementalGroups": WORKS,
    "securityContext.supplementalGroupsPolicy": _refused(
        "the policy Strict is not implemented", _is("Strict")
    ),
    "securityContext.sysctls.*": WORKS,
    "securityContext.windowsOptions.*": _WINDOWS,
    "serviceAccount": WORKS,
    "serviceAccountName": WORKS,
    "setHostnameAsFQDN": WORKS,
    "shareProcessNamespace": WORKS,
    "subdomain": WORKS,
    "terminationGracePeriodSeconds": WORKS,
    "tolerations.*": WORKS,
    "topologySpreadConstraints.*": WORKS,
}

_OBJECT: dict[str, Support] = {"apiVersion": WORKS, "kind": WORKS, "metadata.*": WORKS, "status.*": WORKS}

POD: dict[str, Support] = {**_OBJECT, **{f"spec.{path}": support for path, support in _POD_SPEC.items()}}

SERVICE: dict[str, Support] = {
    **_OBJECT,
    "spec.allocateLoadBalancerNodePorts": WORKS,
    "spec.clusterIP": WORKS,
    "spec.clusterIPs": WORKS,
    "spec.externalIPs": WORKS,
    "spec.externalName": WORKS,
    "spec.externalTrafficPolicy": WORKS,
    "spec.healthCheckNodePort": WORKS,
    "spec.internalTrafficPolicy": WORKS,
    "spec.ipFamilies": WORKS,
    "spec.ipFamilyPolicy": WORKS,
    "spec.loadBalancerClass": WORKS,
    "spec.loadBalancerIP": WORKS,
    "spec.loadBalancerSourceRanges": WORKS,
    "spec.ports.appProtocol": WORKS,
    "spec.ports.name": WORKS,
    "spec.ports.nodePort": WORKS,
    "spec.ports.port": WORKS,
    "spec.ports.protocol": WORKS,
    "spec.ports.targetPort": WORKS,
    "spec.publishNotReadyAddresses": WORKS,
    "spec.selector": WORKS,
    "spec.sessionAffinity": WORKS,
    "spec.sessionAffinityConfig.*": WORKS,
    "spec.trafficDistribution": WORKS,
    "spec.type": WORKS,
}

_NO_PODS = "{} is stored, but its controller does not run here yet: no pods are made"
_NO_BUDGET = (
    "{} is stored, but its controller does not run here yet: no running pod that it selects can be evicted"
)
_NO_STORAGE = "{} is stored, but no volumes are provisioned or attached here yet"
_NO_DEVICES = "{} is stored, but dynamic resource allocation is not implemented"
_BATCH, _STORAGE_GROUP, _RESOURCE = (
    "batch",
    "storage.k8s.io",
    "resource.k8s.io",
)

KINDS: dict[tuple[str, str], Support] = {
    (group, kind): _warned(why.format(kind))
    for why, group, kinds in (
        (_NO_PODS, "", ("ReplicationController",)),
        (_NO_PODS, "apps", ("DaemonSet", "StatefulSet")),
        (_NO_PODS, _BATCH, ("CronJob", "Job")),
        ("{} is stored, but nothing is scaled by it here yet", "autoscaling", ("HorizontalPodAutoscaler",)),
        (_NO_BUDGET, "policy", ("PodDisruptionBudget",)),
        (_NO_STORAGE, "", ("PersistentVolume", "PersistentVolumeClaim")),
        (
            _NO_STORAGE,
            _STORAGE_GROUP,
            ("CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment"),
        ),
        (_NO_STORAGE, _STORAGE_GROUP, ("VolumeAttributesClass",)),
        (_NO_DEVICES, _RESOURCE, ("DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice")),
    )
    for kind in kinds
}
"""Kinds that are served, and whose controller is not there yet, by group and kind."""
