"""Semantic validation: each case is a change of a good object and what upstream says about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sampan.api import decoding, defaults, resources, schema, strategy, validation
from sampan.api.errors import Object, invalid
from sampan.api.objects import deep_copy
from sampan.api.resources import Resource

Change = Callable[[Any], object]


def ready(resource: Resource, obj: Object) -> Object:
    """An object as validation gets it: checked, with defaults, prepared."""
    obj = deep_copy(obj)
    meta = obj.setdefault("metadata", {})
    if resource.namespaced:
        meta.setdefault("namespace", "default")
    assert decoding.check(schema.node(resource.definition), obj) == []
    defaults.apply(resource, obj)
    strategy.prepare_create(resource, obj)
    return obj


def problems(resource: Resource, obj: Object) -> list[str]:
    return [str(p) for p in validation.create(resource, ready(resource, obj))]


def changed(obj: Object, path: str, value: object) -> Object:
    """A copy with one value set; `~` deletes. Numbers in the path are indices."""
    obj = deep_copy(obj)
    at: Any = obj
    *parents, last = path.split("/")
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
    key: Any = int(last) if isinstance(at, list) else last
    if value == "~":
        del at[key]
    else:
        at[key] = value
    return obj


POD: Object = {
    "metadata": {"name": "p"},
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "nginx",
                "ports": [{"containerPort": 80, "name": "web"}],
                "env": [{"name": "A", "value": "b"}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "livenessProbe": {"httpGet": {"port": "web"}},
            }
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
}
C = "spec/containers/0/"
PC = "spec.containers[0]."

POD_CASES: list[tuple[str, object, str]] = [
    ("metadata/name", "~", "metadata.name: Required value: name or generateName is required"),
    ("metadata/name", "A_b", 'metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of'),
    ("metadata/generateName", "A-", "metadata.generateName: Invalid value"),
    ("metadata/labels", {"a b": "x"}, 'metadata.labels: Invalid value: "a b": name part must consist of'),
    ("metadata/labels", {"a": "x y"}, 'metadata.labels: Invalid value: "x y": a valid label must be an empty string or'),
    ("metadata/labels", {"a/b/c": ""}, 'metadata.labels: Invalid value: "a/b/c": a valid label key must consist of'),
    ("metadata/annotations", {"a": "x" * 262145}, "metadata.annotations: Too long: may not be more than 262144 bytes"),
    ("metadata/finalizers", ["a b"], 'metadata.finalizers: Invalid value: "a b"'),
    ("metadata/ownerReferences", [{"apiVersion": "v1", "kind": "A", "name": "n"}],
     'metadata.ownerReferences.uid: Invalid value: "": must not be empty'),
    ("spec/containers", [], "spec.containers: Required value"),
    (C + "name", "~", PC + "name: Required value"),
    (C + "name", "A", PC + 'name: Invalid value: "A": a lowercase RFC 1123 label'),
    (C + "name", "a.b", PC + 'name: Invalid value: "a.b": must not contain dots'),
    (C + "image", "~", PC + "image: Required value"),
    (C + "image", " nginx", PC + 'image: Invalid value: " nginx": must not have leading or trailing whitespace'),
    (C + "imagePullPolicy", "Sometimes",
     PC + 'imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"'),
    (C + "ports/0/containerPort", 0, PC + "ports[0].containerPort: Required value"),
    (C + "ports/0/containerPort", 70000, PC + "ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
    (C + "ports/0/protocol", "HTTP", PC + 'ports[0].protocol: Unsupported value: "HTTP": supported values: "SCTP", "TCP", "UDP"'),
    (C + "ports/0/name", "a_b", PC + "ports[0].name: Invalid value: \"a_b\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
    (C + "env/0/name", "a=b", PC + 'env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of'),
    (C + "env/0/valueFrom", {}, PC + "env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`"),
    (C + "env/0/valueFrom", {"fieldRef": {"fieldPath": "metadata.name"}},
     PC + "env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"),
    (C + "env/0", {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}},
     PC + 'env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name"'),
    (C + "env/0", {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}},
     PC + 'env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.foo": error converting fieldPath: field label not supported: spec.foo'),
    (C + "env/0", {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}},
     PC + "env[0].valueFrom.secretKeyRef.key: Required value"),
    (C + "envFrom", [{}], PC + "envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"),
    (C + "volumeMounts/0/name", "w", PC + 'volumeMounts[0].name: Not found: "w"'),
    (C + "volumeMounts/0/mountPath", "~", PC + "volumeMounts[0].mountPath: Required value"),
    (C + "volumeMounts", [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}],
     PC + 'volumeMounts[1].mountPath: Invalid value: "/v": must be unique'),
    (C + "volumeMounts/0/subPath", "../x", PC + "volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'"),
    (C + "volumeMounts/0/subPath", "/x", PC + 'volumeMounts[0].subPath: Invalid value: "/x": must be a relative path'),
    (C + "livenessProbe", {"exec": {}}, PC + "livenessProbe.exec.command: Required value"),
    (C + "livenessProbe", {}, PC + "livenessProbe: Required value: must specify a handler type"),
    (C + "livenessProbe/successThreshold", 2, PC + "livenessProbe.successThreshold: Invalid value: 2: must be 1"),
    (C + "livenessProbe/tcpSocket", {"port": 1}, PC + "livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"),
    (C + "livenessProbe/httpGet/port", 0, PC + "livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    (C + "livenessProbe/periodSeconds", -1, PC + "livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0"),
    (C + "lifecycle", {"preStop": {"sleep": {"seconds": 99}}},
     PC + "lifecycle.preStop.sleep: Invalid value: 99: must be non-negative and less than terminationGracePeriodSeconds (30)"),
    (C + "resources", {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
     PC + 'resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
    (C + "resources", {"limits": {"cpus": "1"}},
     PC + 'resources.limits[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified'),
    (C + "resources", {"limits": {"memory": "-1"}},
     PC + 'resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0'),
    (C + "resources", {"limits": {"a.b/gpu": "500m"}}, PC + 'resources.limits[a.b/gpu]: Invalid value: "500m": must be an integer'),
    (C + "securityContext", {"privileged": True, "allowPrivilegeEscalation": False},
     "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"),
    (C + "securityContext", {"seccompProfile": {"type": "Local"}},
     PC + 'securityContext.seccompProfile.type: Unsupported value: "Local": supported values: "Localhost"'),
    (C + "terminationMessagePolicy", "x", PC + 'terminationMessagePolicy: Unsupported value: "x"'),
    ("spec/volumes/0/hostPath", {"path": "/x"}, "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"),
    ("spec/volumes/0", {"name": "v", "hostPath": {"path": "/a/../b"}},
     "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"),
    ("spec/volumes/0", {"name": "v", "hostPath": {"path": "/a", "type": "Dir"}},
     'spec.volumes[0].hostPath.type: Unsupported value: "Dir": supported values: "", "BlockDevice"'),
    ("spec/volumes/0", {"name": "v", "configMap": {}}, "spec.volumes[0].configMap.name: Required value"),
    ("spec/volumes/0", {"name": "v", "configMap": {"name": "a", "defaultMode": 1000}},
     "spec.volumes[0].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive"),
    ("spec/volumes/0", {"name": "v", "configMap": {"name": "a", "items": [{"key": "k", "path": "..x"}]}},
     "spec.volumes[0].configMap.items[0].path: Invalid value: \"..x\": must not start with '..'"),
    ("spec/volumes/0", {"name": "v", "secret": {}}, "spec.volumes[0].secret.secretName: Required value"),
    ("spec/volumes/0", {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}},
     "expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"),
    ("spec/volumes/0", {"name": "v", "downwardAPI": {"items": [{"path": "x"}]}},
     "spec.volumes[0].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required"),
    ("spec/volumes", [{"name": "v"}, {"name": "v"}], 'spec.volumes[1].name: Duplicate value: "v"'),
    ("spec/restartPolicy", "Sometimes",
     'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"'),
    ("spec/dnsPolicy", "None", "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
    ("spec/dnsConfig", {"nameservers": ["a"]}, 'spec.dnsConfig.nameservers[0]: Invalid value: "a": must be a valid IP address'),
    ("spec/nodeSelector", {"a": "x y"}, "spec.nodeSelector: Invalid value"),
    ("spec/activeDeadlineSeconds", 0, "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"),
    ("spec/hostname", "a.b", "spec.hostname: Invalid value"),
    ("spec/hostnameOverride", "-a.b", "spec.hostnameOverride: Invalid value"),
    ("spec/hostnameOverride", "../../etc", "spec.hostnameOverride: Invalid value"),
    ("spec/hostnameOverride", "a." * 32 + "b", "spec.hostnameOverride: Too long: may not be more than 64 bytes"),
    ("spec/serviceAccountName", "A", "spec.serviceAccountName: Invalid value"),
    ("spec/tolerations", [{"effect": "No"}], 'spec.tolerations[0].effect: Unsupported value: "No"'),
    ("spec/tolerations", [{}], "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty"),
    ("spec/tolerations", [{"key": "a", "tolerationSeconds": 1}],
     "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set"),
    ("spec/affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
     "nodeSelectorTerms: Required value: must have at least one node selector term"),
    ("spec/affinity", {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": ""}]}},
     "topologyKey: Required value: can not be empty"),
    ("spec/topologySpreadConstraints", [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}],
     "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"),
    ("spec/initContainers", [{"name": "c", "image": "i"}], 'spec.initContainers[0].name: Duplicate value: "c"'),
    ("spec/initContainers", [{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}],
     "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"),
    ("spec/ephemeralContainers", [{"name": "e", "image": "i"}], "spec.ephemeralContainers: Forbidden: cannot be set on create"),
    ("spec/hostAliases", [{"ip": "x"}], "spec.hostAliases[0].ip: Invalid value"),
    (C + "restartPolicy", "Often", PC + 'restartPolicy: Unsupported value: "Often": supported values: "Always", "Never", "OnFailure"'),
    (C + "restartPolicyRules", [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}],
     PC + "restartPolicy: Required value: must specify restartPolicy when restart rules are used"),
    ("metadata/annotations", {"controller.kubernetes.io/pod-deletion-cost": "1.5"}, 'Invalid value: "1.5": must be a 32bit integer'),
    ("spec/securityContext", {"runAsUser": -1}, "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 4294967295, inclusive"),
    ("spec/securityContext", {"sysctls": [{"name": "A", "value": "1"}]}, "spec.securityContext.sysctls[0].name: Invalid value"),
]  # fmt: skip


def test_a_good_pod() -> None:
    assert problems(resources.PODS, POD) == []


@pytest.mark.parametrize(("path", "value", "text"), POD_CASES)
def test_pods(path: str, value: object, text: str) -> None:
    found = problems(resources.PODS, changed(POD, path, value))
    assert any(text in p for p in found), found


@pytest.mark.parametrize("name", ["db.example", "a." * 31 + "bc"])
def test_a_host_name_override_stands_alone(name: str) -> None:
    pod = changed(POD, "spec/hostnameOverride", name)
    assert problems(resources.PODS, pod) == []
    for other in ("hostNetwork", "setHostnameAsFQDN"):
        assert problems(resources.PODS, changed(pod, f"spec/{other}", True)) == [
            f"spec.hostnameOverride: Forbidden: may not be specified when `{other}` is true"
        ]


def test_all_problems_at_once() -> None:
    obj = changed(changed(POD, C + "image", "~"), C + "ports/0/containerPort", 70000)
    found = validation.create(resources.PODS, ready(resources.PODS, obj))
    assert len(found) == 2
    status = invalid("Pod", "p", found).status()
    assert status["code"] == 422
    assert status["message"].startswith(
        'Pod "p" is invalid: [spec.containers[0].image: Required value, spec.'
    )
    assert [c["field"] for c in status["details"]["causes"]] == [
        "spec.containers[0].image",
        "spec.containers[0].ports[0].containerPort",
    ]


def test_swallowed_neighbours_are_explained() -> None:
    mount = {"name": "v mountPath:/etc/nginx.conf subPath:nginx.conf"}
    found = problems(resources.PODS, changed(POD, C + "volumeMounts/0", mount))
    assert all('a blank after ":" is missing in "mountPath:/etc/nginx.conf"' in p for p in found), found
    service = changed(SERVICE, "spec/ports/0/protocol", "TCP nodePort：37844")
    found = problems(resources.SERVICES, service)
    assert len(found) == 1
    assert 'Unsupported value: "TCP nodePort：37844"' in found[0]
    assert '"：" in "nodePort：37844" is a full-width colon: write "nodePort: "' in found[0]


# Pod updates

UPDATE_CASES: list[tuple[str, object, str]] = [
    (C + "image", "nginx:2", ""),
    ("metadata/labels", {"a": "b"}, ""),
    ("spec/activeDeadlineSeconds", 5, ""),
    ("spec/tolerations", [{"key": "a", "operator": "Exists"}], ""),
    (
        C + "args",
        ["x"],
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
    ),
    (C + "args", ["x"], "changed: spec.containers[0].args"),
    ("spec/nodeName", "n", "changed: spec.nodeName"),
    ("spec/containers", [], "spec.containers: Forbidden: pod updates may not add or remove containers"),
    ("metadata/uid", "other", 'metadata.uid: Invalid value: "other": field is immutable'),
    ("metadata/name", "q", 'metadata.name: Invalid value: "q": field is immutable'),
]


@pytest.mark.parametrize(("path", "value", "text"), UPDATE_CASES)
def test_pod_updates(path: str, value: object, text: str) -> None:
    old = ready(resources.PODS, POD)
    old["metadata"]["uid"] = "1"
    new = changed(old, path, value)
    strategy.prepare_update(resources.PODS, new, old)
    found = [str(p) for p in validation.update(resources.PODS, new, old)]
    if text:
        assert any(text in p for p in found), found
    else:
        assert found == []


def test_pod_status_updates() -> None:
    old = ready(resources.PODS, changed(POD, "spec/restartPolicy", "Never"))
    ended = {"name": "c", "state": {"terminated": {"exitCode": 0}}, "ready": False, "restartCount": 0}
    old["status"]["containerStatuses"] = [ended]
    new = deep_copy(old)
    new["status"]["containerStatuses"][0]["state"] = {"running": {}}
    new["status"]["qosClass"] = "Guaranteed"
    found = [str(p) for p in validation.update(resources.PODS, new, old, "status")]
    assert found == [
        'status.qosClass: Invalid value: "Guaranteed": field is immutable',
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
    ]


# Services

SERVICE: Object = {
    "metadata": {"name": "s"},
    "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80, "nodePort": 30001}]},
}
RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
SERVICE_CASES: list[tuple[str, object, str]] = [
    ("metadata/name", "1a", 'metadata.name: Invalid value: "1a": a DNS-1035 label must consist of'),
    ("spec/ports", [], "spec.ports: Required value"),
    ("spec/ports/0/port", 0, "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    ("spec/ports/0/targetPort", "a_b", "spec.ports[0].targetPort: Invalid value"),
    ("spec/ports", [{"port": 80}, {"port": 81}], "spec.ports[0].name: Required value"),
    ("spec/ports", [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}], 'spec.ports[1].name: Duplicate value: "a"'),
    ("spec/ports", [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}], "spec.ports[1]: Duplicate value"),
    ("spec/type", "Nodeport",
     'spec.type: Unsupported value: "Nodeport": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'),
    ("spec/type", "ClusterIP", "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
    ("spec/type", "ExternalName", "spec.externalName: Required value"),
    ("spec/sessionAffinity", "Always", 'spec.sessionAffinity: Unsupported value: "Always": supported values: "ClientIP", "None"'),
    ("spec/sessionAffinity", "ClientIP", ""),
    ("spec/clusterIP", "x", 'spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address'),
    ("spec/clusterIP", "None", "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"),
    ("spec/externalIPs", ["127.0.0.1"], "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range"),
    ("spec/externalTrafficPolicy", "All", 'spec.externalTrafficPolicy: Unsupported value: "All": supported values: "Cluster", "Local"'),
    ("spec/selector", {"a": "x y"}, "spec.selector: Invalid value"),
    ("spec/loadBalancerSourceRanges", ["10.0.0.0/8"], "may only be used when `type` is 'LoadBalancer'"),
    ("metadata/annotations", {RANGES: "10.0.0.0/8"}, f"metadata.annotations[{RANGES}]: Forbidden: may only be used when `type` is 'LoadBalancer'"),
    ("spec/ports", [{"port": 80, "name": "a", "nodePort": 30001}, {"port": 81, "name": "b", "nodePort": 30001}],
     "spec.ports[1].nodePort: Duplicate value: 30001"),
    ("spec/ports", [{"port": 80, "name": "a", "nodePort": 30001}, {"port": 80, "name": "b", "nodePort": 30001, "protocol": "UDP"}], ""),
    ("spec/ports/0/protocol", "ICMP", 'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'),
    ("spec/healthCheckNodePort", 30002,
     "spec.healthCheckNodePort: Invalid value: 30002: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"),
    ("spec/clusterIPs", ["10.96.0.5"], 'spec.clusterIPs: Invalid value: ["10.96.0.5"]: first value must match `clusterIP`'),
    ("spec/ipFamilies", ["IPv5"], 'spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"'),
    ("spec/ipFamilies", ["IPv4", "IPv4"], 'spec.ipFamilies[1]: Duplicate value: "IPv4"'),
    ("spec/ipFamilyPolicy", "Dual",
     'spec.ipFamilyPolicy: Unsupported value: "Dual": supported values: "PreferDualStack", "RequireDualStack", "SingleStack"'),
    ("spec/trafficDistribution", "Near",
     'spec.trafficDistribution: Unsupported value: "Near": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"'),
    ("spec/internalTrafficPolicy", "All", 'spec.internalTrafficPolicy: Unsupported value: "All": supported values: "Cluster", "Local"'),
    ("spec/allocateLoadBalancerNodePorts", False,
     "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'"),
    ("spec/loadBalancerClass", "a/b", "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"),
    ("spec/sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 5}}, ""),
]  # fmt: skip
BALANCED: Object = {
    "metadata": {"name": "s"},
    "spec": {"type": "LoadBalancer", "selector": {"a": "b"}, "ports": [{"port": 80}]},
}
BALANCED_CASES: list[tuple[str, object, str]] = [
    ("spec/externalTrafficPolicy", "Local", ""),
    ("spec/loadBalancerSourceRanges", ["10.0.0.0/8", " 2001:db8::/32 "], ""),
    ("spec/loadBalancerSourceRanges", ["10.0.0.1"], 'spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.1": must be a valid CIDR value'),
    ("metadata/annotations", {RANGES: "10.0.0.0/8, 192.0.2.0/24"}, ""),
    ("metadata/annotations", {RANGES: "10.0.0.0/8,x"}, f'metadata.annotations[{RANGES}]: Invalid value: "x": must be a valid CIDR value'),
    ("spec/loadBalancerClass", "x y", 'spec.loadBalancerClass: Invalid value: "x y"'),
    ("spec/clusterIP", "None", "may not be set to 'None' for LoadBalancer services"),
    ("spec/sessionAffinity", "ClientIP", ""),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "text"), BALANCED_CASES)
def test_services_of_load_balancers(path: str, value: object, text: str) -> None:
    found = problems(resources.SERVICES, changed(BALANCED, path, value))
    assert any(text in p for p in found) if text else found == []


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "10.96.0.6"]},
            'spec.clusterIPs: Invalid value: ["10.96.0.5","10.96.0.6"]: may specify no more than one IP for each IP family',
        ),
        (
            {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ipFamilies": ["IPv6"]},
            'spec.clusterIPs[0]: Invalid value: "10.96.0.5": expected an IPv6 value as indicated by `ipFamilies[0]`',
        ),
        (
            {"clusterIP": "None", "clusterIPs": ["None", "10.96.0.6"]},
            'spec.clusterIPs: Invalid value: ["None","10.96.0.6"]: \'None\' must be the first and only value',
        ),
        (
            {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
        ),
        (
            {"type": "ExternalName", "externalName": "a_b", "clusterIP": ""},
            'spec.externalName: Invalid value: "a_b": a lowercase RFC 1123 subdomain must consist of',
        ),
        (
            {"type": "ExternalName", "externalName": "a.b.", "ipFamilies": ["IPv4"]},
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
        ),
        ({"type": "ExternalName", "externalName": "a.b."}, ""),
        ({"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"}, ""),
        (
            {"externalTrafficPolicy": "Local"},
            'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services',
        ),
    ],
)
def test_services_of_other_types(spec: Object, text: str) -> None:
    found = problems(
        resources.SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], **spec}}
    )
    assert any(text in p for p in found) if text else found == []


@pytest.mark.parametrize(("path", "value", "text"), SERVICE_CASES)
def test_services(path: str, value: object, text: str) -> None:
    found = problems(resources.SERVICES, changed(SERVICE, path, value))
    assert any(text in p for p in found) if text else found == []


def test_service_updates() -> None:
    old = ready(resources.SERVICES, SERVICE)
    old["spec"] |= {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ipFamilies": ["IPv4"]}
    new = changed(old, "spec/clusterIP", "10.96.0.6")
    strategy.prepare_update(resources.SERVICES, new, old)
    assert [str(p) for p in validation.update(resources.SERVICES, new, old)] == [
        'spec.clusterIPs[0]: Invalid value: ["10.96.0.6"]: may not change once set'
    ]
    old["spec"] |= {"clusterIPs": ["10.96.0.5", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]}
    new = changed(old, "spec/clusterIPs", ["10.96.0.5", "fd00::2"])
    assert [str(p) for p in validation.update(resources.SERVICES, new, old)] == [
        'spec.clusterIPs[1]: Invalid value: ["10.96.0.5","fd00::2"]: may not change once set'
    ]


# The other kinds

TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
DEPLOYMENT: Object = {
    "metadata": {"name": "d"},
    "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
}
INGRESS: Object = {
    "metadata": {"name": "i"},
    "spec": {
        "rules": [
            {
                "host": "a.b",
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "s", "port": {"number": 80}}},
                        }
                    ]
                },
            }
        ]
    },
}
BINDING: Object = {
    "metadata": {"name": "b"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
    "subjects": [{"kind": "User", "name": "u"}],
}
SLICE: Object = {
    "metadata": {"name": "e"},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.0.0.1"]}],
    "ports": [{"port": 80}],
}
P = "spec/rules/0/http/paths/0/"
OTHER_CASES: list[tuple[Resource, Object, str, object, str]] = [
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/replicas", -1, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/selector", "~", "spec.selector: Required value"),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/selector", {}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/selector/matchLabels", {"a": "c"},
     'spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`'),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/template/spec/restartPolicy", "Never",
     'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/template/spec/containers", [], "spec.template.spec.containers: Required value"),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/strategy", {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}},
     "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/strategy", {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}},
     "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/strategy", {"rollingUpdate": {"maxSurge": "x"}},
     'spec.strategy.rollingUpdate.maxSurge: Invalid value: "x": a valid percent string must be'),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/strategy", {"type": "Rolling"},
     'spec.strategy.type: Unsupported value: "Rolling": supported values: "Recreate", "RollingUpdate"'),
    (resources.DEPLOYMENTS, DEPLOYMENT, "spec/progressDeadlineSeconds", 0,
     "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"),
    (resources.REPLICASETS, DEPLOYMENT, "spec/template", "~", "spec.template: Required value"),
    (resources.CONFIGMAPS, {"metadata": {"name": "c"}}, "data", {"a/b": ""}, 'data[a/b]: Invalid value: "a/b": a valid config key must consist of'),
    (resources.CONFIGMAPS, {"metadata": {"name": "c"}}, "data", {"..": ""}, "data[..]: Invalid value: \"..\": must not be '..'"),
    (resources.CONFIGMAPS, {"metadata": {"name": "c"}, "data": {"a": ""}}, "binaryData", {"a": "eA=="},
     'data[a]: Invalid value: "a": duplicate of key present in binaryData'),
    (resources.CONFIGMAPS, {"metadata": {"name": "c"}}, "data", {"a": "x" * (1024 * 1024 + 1)}, "Too long: may not be more than 1048576 bytes"),
    (resources.SECRETS, {"metadata": {"name": "s"}}, "type", "kubernetes.io/tls", "data[tls.crt]: Required value"),
    (resources.SECRETS, {"metadata": {"name": "s"}}, "type", "kubernetes.io/dockerconfigjson", "data[.dockerconfigjson]: Required value"),
    (resources.SECRETS, {"metadata": {"name": "s"}}, "type", "kubernetes.io/basic-auth", "data[username]: Required value"),
    (resources.NAMESPACES, {"metadata": {"name": "n"}}, "metadata/name", "a.b", 'metadata.name: Invalid value: "a.b": must not contain dots'),
    (resources.NAMESPACES, {"metadata": {"name": "n"}}, "metadata/namespace", "x", "metadata.namespace: Forbidden: not allowed on this type"),
    (resources.NODES, {"metadata": {"name": "n"}}, "spec/taints", [{"key": "a", "effect": "x"}], 'metadata.taints[0].effect: Unsupported value: "x"'),
    (resources.NODES, {"metadata": {"name": "n"}}, "spec/podCIDR", "x", 'spec.podCIDRs[0]: Invalid value: "x": must be a valid CIDR value'),
    (resources.LEASES, {"metadata": {"name": "l"}}, "spec/leaseDurationSeconds", 0, "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"),
    (resources.ENDPOINTS, {"metadata": {"name": "e"}}, "subsets", [{}], "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
    (resources.ENDPOINTS, {"metadata": {"name": "e"}}, "subsets", [{"addresses": [{"ip": "127.0.0.1"}]}], "may not be in the loopback range"),
    (resources.ENDPOINTSLICES, SLICE, "addressType", "IP", 'addressType: Unsupported value: "IP": supported values: "FQDN", "IPv4", "IPv6"'),
    (resources.ENDPOINTSLICES, SLICE, "endpoints/0/addresses", [], "endpoints[0].addresses: Required value: must contain at least 1 address"),
    (resources.ENDPOINTSLICES, SLICE, "endpoints/0/addresses", ["::1:1"], 'endpoints[0].addresses[0]: Invalid value: "::1:1": must be a valid IPv4 address'),
    (resources.ENDPOINTSLICES, SLICE, "endpoints/0/addresses", [f"10.0.0.{i}" for i in range(1, 103)],
     "endpoints[0].addresses: Too many: 102: must have at most 100 items"),
    (resources.INGRESSES, INGRESS, P + "pathType", "~", "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"),
    (resources.INGRESSES, INGRESS, P + "path", "x", 'path: Invalid value: "x": must be an absolute path'),
    (resources.INGRESSES, INGRESS, P + "path", "/x\ny", "must not contain control characters"),
    (resources.INGRESSES, INGRESS, P + "path", "/x\0", "must not contain control characters"),
    (resources.INGRESSES, INGRESS, P + "backend/service/port", {}, "backend: Required value: port name or number is required"),
    (resources.INGRESSES, INGRESS, "spec/rules/0/host", "1.2.3.4", 'spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address'),
    (resources.INGRESSES, INGRESS, "spec/rules", [], "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"),
    (resources.INGRESSCLASSES, {"metadata": {"name": "i"}, "spec": {"controller": "a.b/c"}}, "spec/controller", "x",
     'spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")'),
    (resources.ROLES, {"metadata": {"name": "r"}}, "rules", [{"verbs": ["get"]}], "rules[0].apiGroups: Required value: resource rules must supply at least one api group"),
    (resources.ROLES, {"metadata": {"name": "r"}}, "rules", [{"verbs": ["get"], "nonResourceURLs": ["/x"]}],
     'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs'),
    (resources.ROLEBINDINGS, BINDING, "metadata/name", "a/b", "metadata.name: Invalid value: \"a/b\": may not contain '/'"),
    (resources.ROLEBINDINGS, BINDING, "roleRef/kind", "Roles", 'roleRef.kind: Unsupported value: "Roles": supported values: "Role", "ClusterRole"'),
    (resources.CLUSTERROLEBINDINGS, BINDING, "subjects/0", {"kind": "ServiceAccount", "name": "a"}, "subjects[0].namespace: Required value"),
    (resources.EVENTS, {"metadata": {"name": "e"}}, "involvedObject", {"namespace": "other"},
     'involvedObject.namespace: Invalid value: "other": does not match event.namespace'),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "path", "value", "text"), OTHER_CASES)
def test_other_kinds(resource: Resource, obj: Object, path: str, value: object, text: str) -> None:
    found = problems(resource, changed(obj, path, value))
    assert any(text in p for p in found), found


@pytest.mark.parametrize(
    ("resource", "obj"),
    [
        (resources.SERVICES, SERVICE),
        (resources.DEPLOYMENTS, DEPLOYMENT),
        (resources.INGRESSES, INGRESS),
        (resources.ROLEBINDINGS, BINDING),
        (resources.ENDPOINTSLICES, SLICE),
        (resources.CONFIGMAPS, {"metadata": {"name": "c"}, "data": {"nginx.conf": "x"}}),
        (resources.SECRETS, {"metadata": {"name": "c"}, "stringData": {"a": "b"}}),
        (resources.CLUSTERROLES, {"metadata": {"name": "system:x"}, "rules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}),
        (resources.SERVICES, {"metadata": {"name": "s"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}}}),
        (resources.SERVICES, {"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "a.b."}}),
    ],
)  # fmt: skip
def test_good_objects(resource: Resource, obj: Object) -> None:
    assert problems(resource, obj) == []


@pytest.mark.parametrize(
    ("resource", "obj", "path", "value", "text"),
    [
        (resources.DEPLOYMENTS, DEPLOYMENT, "spec/selector/matchLabels", {"a": "c"}, "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"),
        (resources.CONFIGMAPS, {"metadata": {"name": "c"}, "immutable": True, "data": {"a": "b"}}, "data/a", "c",
         "data: Forbidden: field is immutable when `immutable` is set"),
        (resources.SECRETS, {"metadata": {"name": "c"}}, "type", "x/y", 'type: Invalid value: "x/y": field is immutable'),
        (resources.ROLEBINDINGS, BINDING, "roleRef/name", "s", "cannot change roleRef"),
        (resources.NODES, {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}}, "spec/podCIDRs", ["10.0.1.0/24"],
         'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'),
        (resources.ENDPOINTSLICES, SLICE, "addressType", "IPv6", "addressType: Invalid value: \"IPv6\": field is immutable"),
    ],
)  # fmt: skip
def test_updates(resource: Resource, obj: Object, path: str, value: object, text: str) -> None:
    old = ready(resource, obj)
    assert validation.update(resource, deep_copy(old), old) == []
    new = changed(old, path, value)
    strategy.prepare_update(resource, new, old)
    found = [str(p) for p in validation.update(resource, new, old)]
    assert any(text in p for p in found), found


def test_no_new_finalizers_while_being_deleted() -> None:
    old = ready(resources.CONFIGMAPS, {"metadata": {"name": "c", "finalizers": ["a/b"]}})
    old["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    new = changed(old, "metadata/finalizers", ["a/b", "a/c"])
    assert [str(p) for p in validation.update(resources.CONFIGMAPS, new, old)] == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new "
        'finalizers []string{"a/c"}'
    ]


def test_every_stored_kind_has_rules() -> None:
    from sampan.api.validation.kinds import RULES

    without = {(r.group, r.kind) for r in resources.stored()} - RULES.keys()
    assert without == {("", "ServiceAccount")}
