"""Requests for a fuzzer: valid objects of every kind, changed here and there with the type of each place in mind.

Everything comes from one `random.Random`, so that a seed says what was asked.
"""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sampan.api import conversion, schema
from sampan.api.resources import RESOURCES, Resource
from sampan.api.schema import Node

NAMESPACE = "default"
NAMES = ("f0", "f1", "f2")
LABELS = {"app": "f"}
SELECTOR = {"matchLabels": LABELS}
POD = {
    "containers": [
        {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}]}
    ]
}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": POD}
JOB = {"template": {"spec": {**POD, "restartPolicy": "Never"}}}
RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
ROLE_REF = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
SUBJECTS = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"}]
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
DEVICES = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "d"}}]}}
METRIC = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}},
}
SCALED = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "f0"}, "maxReplicas": 3}
ABOUT = {"kind": "Pod", "namespace": NAMESPACE, "name": "f0"}
FLOW = {
    "subjects": [{"kind": "User", "user": {"name": "u"}}],
    "resourceRules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "namespaces": ["*"]}],
}
ATTRIBUTES = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": NAMESPACE}}

_KEY = ec.generate_private_key(ec.SECP256R1())
_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "f")])
_REQUEST = x509.CertificateSigningRequestBuilder().subject_name(_NAME).sign(_KEY, hashes.SHA256())
REQUEST = base64.b64encode(_REQUEST.public_bytes(serialization.Encoding.PEM)).decode()

VALID: dict[str, dict[str, Any]] = {
    "pods": {"spec": POD},
    "services": {"spec": {"selector": LABELS, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}},
    "endpoints": {"subsets": [{"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 80}]}]},
    "configmaps": {"data": {"a": "1"}, "binaryData": {"b": "MQ=="}},
    "secrets": {"data": {"a": "MQ=="}, "stringData": {"b": "2"}},
    "events": {"involvedObject": ABOUT, "reason": "R", "message": "m", "type": "Normal"},
    "replicationcontrollers": {"spec": {"selector": LABELS, "template": TEMPLATE}},
    "podtemplates": {"template": TEMPLATE},
    "limitranges": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "9"}, "default": {"cpu": "1"}}]}},
    "resourcequotas": {"spec": {"hard": {"pods": "99", "requests.cpu": "100"}}},
    "persistentvolumes": {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/f"}}},
    "persistentvolumeclaims": {"spec": CLAIM},
    "controllerrevisions.apps": {"revision": 1, "data": {"a": 1}},
    "daemonsets.apps": {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
    "deployments.apps": {"spec": {"selector": SELECTOR, "template": TEMPLATE, "replicas": 2}},
    "replicasets.apps": {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
    "statefulsets.apps": {"spec": {"selector": SELECTOR, "template": TEMPLATE, "serviceName": "f0", "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": CLAIM}]}},
    "events.events.k8s.io": {"regarding": ABOUT, "reason": "R", "note": "m", "type": "Normal", "action": "A", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "f/c", "reportingInstance": "i"},
    "horizontalpodautoscalers.autoscaling": {"spec": SCALED},
    "jobs.batch": {"spec": JOB},
    "cronjobs.batch": {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": JOB}}},
    "certificatesigningrequests.certificates.k8s.io": {"spec": {"signerName": "f.io/s", "usages": ["client auth"], "request": REQUEST}},
    "ingresses.networking.k8s.io": {"spec": {"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "f0", "port": {"number": 80}}}}]}}]}},
    "ingressclasses.networking.k8s.io": {"spec": {"controller": "f.io/c"}},
    "networkpolicies.networking.k8s.io": {"spec": {"podSelector": SELECTOR, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}]}},
    "servicecidrs.networking.k8s.io": {"spec": {"cidrs": ["10.200.0.0/24"]}},
    "ipaddresses.networking.k8s.io": {"spec": {"parentRef": {"resource": "services", "namespace": NAMESPACE, "name": "f0"}}},
    "poddisruptionbudgets.policy": {"spec": {"selector": SELECTOR, "minAvailable": 1}},
    "roles.rbac.authorization.k8s.io": {"rules": RULES},
    "clusterroles.rbac.authorization.k8s.io": {"rules": RULES},
    "rolebindings.rbac.authorization.k8s.io": {"roleRef": ROLE_REF, "subjects": SUBJECTS},
    "clusterrolebindings.rbac.authorization.k8s.io": {"roleRef": ROLE_REF, "subjects": SUBJECTS},
    "storageclasses.storage.k8s.io": {"provisioner": "f.io/p"},
    "csidrivers.storage.k8s.io": {"spec": {"attachRequired": True}},
    "csinodes.storage.k8s.io": {"spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": ["k"]}]}},
    "csistoragecapacities.storage.k8s.io": {"storageClassName": "f0", "capacity": "1Gi"},
    "volumeattachments.storage.k8s.io": {"spec": {"attacher": "f.io", "nodeName": "f0", "source": {"persistentVolumeName": "f0"}}},
    "volumeattributesclasses.storage.k8s.io": {"driverName": "f.io", "parameters": {"a": "b"}},
    "priorityclasses.scheduling.k8s.io": {"value": 5},
    "leases.coordination.k8s.io": {"spec": {"holderIdentity": "f", "leaseDurationSeconds": 5}},
    "runtimeclasses.node.k8s.io": {"handler": "f"},
    "endpointslices.discovery.k8s.io": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}], "ports": [{"name": "a", "port": 80}]},
    "flowschemas.flowcontrol.apiserver.k8s.io": {"spec": {"priorityLevelConfiguration": {"name": "f0"}, "matchingPrecedence": 9000, "rules": [FLOW]}},
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": {"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 5}}}}},
    "ipaddresspools.loadbalancer.sampan.io": {"spec": {"addresses": ["192.0.2.0/28", "192.0.2.100-192.0.2.110"]}},
    "gatewayclasses.gateway.networking.k8s.io": {"spec": {"controllerName": "f.io/c"}},
    "gateways.gateway.networking.k8s.io": {"spec": {"gatewayClassName": "f0", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}},
    "httproutes.gateway.networking.k8s.io": {"spec": {"parentRefs": [{"name": "f0"}], "hostnames": ["a.b"], "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/a"}}], "backendRefs": [{"name": "f0", "port": 80}]}]}},
    "grpcroutes.gateway.networking.k8s.io": {"spec": {"parentRefs": [{"name": "f0"}], "rules": [{"matches": [{"method": {"service": "s", "method": "m"}}], "backendRefs": [{"name": "f0", "port": 80}]}]}},
    "referencegrants.gateway.networking.k8s.io": {"spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}], "to": [{"group": "", "kind": "Service"}]}},
    "deviceclasses.resource.k8s.io": {"spec": {"selectors": [{"cel": {"expression": "true"}}]}},
    "resourceclaims.resource.k8s.io": {"spec": DEVICES},
    "resourceclaimtemplates.resource.k8s.io": {"spec": {"spec": DEVICES}},
    "resourceslices.resource.k8s.io": {"spec": {"driver": "f.io", "nodeName": "f0", "pool": {"name": "p", "resourceSliceCount": 1}, "devices": [{"name": "d"}]}},
    "subjectaccessreviews.authorization.k8s.io": {"spec": {"user": "u", **ATTRIBUTES}},
    "selfsubjectaccessreviews.authorization.k8s.io": {"spec": ATTRIBUTES},
    "selfsubjectrulesreviews.authorization.k8s.io": {"spec": {"namespace": NAMESPACE}},
    "localsubjectaccessreviews.authorization.k8s.io": {"metadata": {"namespace": NAMESPACE}, "spec": {"user": "u", **ATTRIBUTES}},
    "tokenreviews.authentication.k8s.io": {"spec": {"token": "x"}},
}  # fmt: skip
"""By resource, as `kubectl` names it; kinds that are not here need nothing but a name. Of several versions, any."""

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, -0.0, 65536, 2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 1e300,
    "", " ", "x", "X", "a/b", "..", "*", "\x00", "é", "\U0001f600", "x" * 300, "1Gi", "1e1000", "-5", "0x10", "10.0.0.0/33",
    "::1", "0.0.0.0", "2026-01-01T00:00:00Z", "9999-99-99T99:99:99Z", "0001-01-01T00:00:00Z", "None", "null", "a,b", "$(A)",
    "MQ==", "%", "{}", "[", "(", "a=b", "100%", "-1%", "101%",
    [], {}, [[]], [None], [{}], [""], {"": ""}, {"a": None}, ["a", "a"], [{"name": "a"}, {"name": "a"}],
]  # fmt: skip
TEXTS = [
    "f0",
    "c",
    "a.b",
    "f.io/a",
    "10.0.0.1",
    "default",
    "80",
    "1Gi",
    "5%",
    "app",
    "v1",
    "*",
    "Pod",
    "true",
    "",
]
FORMATS: dict[str, list[Any]] = {
    "quantity": ["1", "100m", "1Gi", "1e3", "-1", "0", "9999999999999999999999Ei", "1.5e-20"],
    "time": ["2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2026-01-01T00:00:00+25:00", None],
    "micro-time": ["2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00Z"],
    "byte": ["", "MQ==", "////"],
}
_DEEP = "DEEP"
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
JSON_PATCH, MERGE, STRATEGIC, APPLY = (
    f"application/{kind}" for kind in ("json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
)  # fmt: skip
_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_DIRECTIVES = [
    {"$patch": "delete"}, {"$patch": "replace"}, {"$patch": "x"}, {"$retainKeys": ["a"]}, {"$retainKeys": 3},
    {"$setElementOrder/containers": [{"name": "c"}]}, {"$setElementOrder/ports": []}, {"$deleteFromPrimitiveList/finalizers": ["a"]},
]  # fmt: skip


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    media: str = ""
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.method} {self.target} {self.media}\n{self.body[:3000]!r}"


class Fuzz:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.resources = [r for r in RESOURCES if r.verbs != ("get", "list")]
        self.wild = True
        """Whether the present request may be wrong in its form, or only in what it says."""

    def valid(self, resource: Resource, name: str) -> Any:
        """An object that is accepted where there is none of its name yet."""
        stem = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        obj = copy.deepcopy(VALID.get(resource.key_stem if resource.version == "v1beta1" else stem, {}))
        if resource.plural == "ipaddresses":
            name = f"10.96.200.{NAMES.index(name) + 1}"
        metadata = {"name": name, "labels": dict(LABELS), **obj.pop("metadata", {})}
        if resource.plural.endswith("reviews"):
            metadata = {}
        if resource.namespaced:
            metadata["namespace"] = NAMESPACE
        made = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **obj}
        return (
            conversion.shown(resource, made) if resource.version == "v1beta1" and resource.storage else made
        )

    # Values.

    def value(self, node: Node, depth: int = 2) -> Any:
        """Some value of a place's type, most often a sensible one."""
        random = self.random
        if self.wild and random.random() < 0.12:
            return copy.deepcopy(random.choice(ODD))
        match node.type:
            case "object":
                fields = list(node.fields)
                kept = {f for f in fields if random.random() < (2.5 / len(fields) if depth else 0)}
                return {f: self.value(node.fields[f], depth - 1) for f in fields if f in kept or (f in node.required and depth > -3)}  # fmt: skip
            case "map":
                assert node.items
                return {random.choice(TEXTS): self.value(node.items, depth - 1) for _ in range(random.randrange(3))}  # fmt: skip
            case "array":
                assert node.items
                return [
                    self.value(node.items, depth - 1) for _ in range(random.randrange(3 if depth > 0 else 1))
                ]
            case "integer" | "number":
                return random.choice([0, 1, 2, 80, 100, 1000, 65535, 30000, -1, 2**31 - 1])
            case "boolean":
                return random.random() < 0.5
            case "int-or-string":
                return random.choice([0, 1, 80, "a", "50%", "http"])
            case "any":
                return copy.deepcopy(random.choice(ODD))
        if node.enum:
            return random.choice(node.enum)
        sensible: list[Any] = FORMATS.get(node.format) or TEXTS
        return random.choice(sensible)

    def mutated(self, obj: Any, node: Node | None) -> Any:
        """A copy that is changed in one to three places."""
        out = copy.deepcopy(obj)
        for _ in range(self.random.choice((0, 1, 1, 1, 2, 3))):
            out = self._change(out, node)
        return out

    def _change(self, value: Any, node: Node | None) -> Any:
        random = self.random
        if isinstance(value, dict) and value and random.random() < 0.8:
            name = random.choice(list(value))
            below = node and (node.fields.get(name) if node.type == "object" else node.items)
            turn = random.random()
            if turn < 0.6:
                value[name] = self._change(value[name], below)
            elif turn < 0.7:
                del value[name]
            elif turn < 0.75 and self.wild:
                value[random.choice([name.upper(), name + "x", "", "a/b"])] = value[name]
            elif node and node.fields:
                new = random.choice(list(node.fields))
                value[new] = self.value(node.fields[new], 3)
            else:
                value[random.choice(TEXTS)] = value[name]
            return value
        if isinstance(value, list) and value and random.random() < 0.8:
            at = random.randrange(len(value))
            turn = random.random()
            if turn < 0.6:
                value[at] = self._change(value[at], node and node.items)
            elif turn < 0.75:
                value.append(copy.deepcopy(value[at]))
            elif turn < 0.85:
                del value[at]
            elif node and node.items:
                value.append(self.value(node.items, 3))
            else:
                value.reverse()
            return value
        turn = random.random()
        if (turn < 0.7 or not self.wild) and node is not None:
            return self.value(node, 3)
        if turn < 0.78:
            return [value]
        if turn < 0.81:
            return {"a": value}
        if turn < 0.83:
            return _DEEP
        return copy.deepcopy(random.choice(ODD))

    # Bodies.

    def encoded(self, value: Any, media: str) -> bytes:
        """The bytes of a body, now and then damaged."""
        random = self.random
        if media == PROTOBUF:
            # An envelope around nonsense: what is in one is fuzzed by value elsewhere.
            return b"k8s\0" + random.randbytes(random.randrange(60))
        body = yaml.safe_dump(value).encode() if media == YAML else json.dumps(value).encode()
        deep = random.choice((5, 150, 500, 20_000))
        body = body.replace(f'"{_DEEP}"'.encode(), b'{"a":' * deep + b"1" + b"}" * deep)
        body = body.replace(_DEEP.encode(), b"[" * deep + b"]" * deep)
        turn = random.random()
        if turn > 0.2 or not body or not self.wild:
            return body
        at = random.randrange(len(body))
        if turn < 0.04:
            return body[:at]
        if turn < 0.09:
            return body[:at] + random.randbytes(random.choice((1, 1, 4))) + body[at + 1 :]
        if turn < 0.12:
            return body[:at] + body[at:] * 2
        if turn < 0.17 and body.startswith(b"{") and b'": ' in body:
            inside = body[1:-1]
            return b"{" + inside + b", " + inside + b"}"  # every key twice
        return body.replace(b"1", b"1" * 30, 1)

    # Requests.

    def ask(self) -> Asked:
        self.wild = self.random.random() < 0.4
        resource = self.random.choice(self.resources)
        name = self.random.choice(NAMES)
        turn = self.random.random()
        if turn < 0.45:
            return self._create(resource, name)
        if turn < 0.6:
            return self._update(resource, name)
        if turn < 0.85:
            return self._patch(resource, name)
        if turn < 0.9:
            return self._delete(resource, name)
        return self._read(resource, name)

    def _path(self, resource: Resource, name: str = "", subresource: str = "") -> str:
        if name and resource.plural == "ipaddresses":
            name = f"10.96.200.{NAMES.index(name) + 1}"
        return resource.path(NAMESPACE if resource.namespaced else "", name, subresource)

    def _query(self, **more: str) -> str:
        random = self.random
        query = dict(more)
        if random.random() < 0.15:
            query["dryRun"] = "All"
        if random.random() < 0.3:
            query["fieldValidation"] = random.choice(("Strict", "Warn", "Ignore"))
        if random.random() < 0.03:
            query[random.choice(("dryRun", "fieldManager", "fieldValidation", "timeout", "pretty", "force"))] = str(random.choice(ODD))[:400]  # fmt: skip
        return "?" + urlencode(query, errors="replace") if query else ""

    def _media(self) -> str:
        return self.random.choices((JSON, YAML, PROTOBUF, "text/plain"), (85, 11, 3, 1))[0]

    def _create(self, resource: Resource, name: str) -> Asked:
        random = self.random
        below = [s for s in resource.subresources if "create" in s.verbs and s.name not in ("proxy", "attach", "exec", "portforward")]  # fmt: skip
        if below and random.random() < 0.3:
            sub = random.choice(below)
            obj: Any = {"metadata": {"name": name}}
            if sub.name == "binding":
                obj["target"] = {"kind": "Node", "name": "n"}
            elif sub.name == "token":
                obj["spec"] = {"audiences": ["a"], "expirationSeconds": 600}
            made, media = self.mutated(obj, None), self._media()
            return Asked("POST", self._path(resource, name, sub.name) + self._query(), media, self.encoded(made, media))  # fmt: skip
        media = self._media()
        obj = self.mutated(self.valid(resource, name), schema.node(resource.definition))
        return Asked("POST", self._path(resource) + self._query(), media, self.encoded(obj, media))

    def _face(self, resource: Resource, name: str) -> tuple[str, Any, Node]:
        """An object or one face of it: its path, a valid one, its type."""
        node = schema.node(resource.definition)
        faces = [
            "",
            "",
            *(s.name for s in resource.subresources if "update" in s.verbs and s.name != "proxy"),
        ]
        sub = self.random.choice(faces)
        obj = self.valid(resource, name)
        if sub == "scale":
            metadata = {"name": name, "namespace": NAMESPACE}
            obj = {
                "apiVersion": "autoscaling/v1",
                "kind": "Scale",
                "metadata": metadata,
                "spec": {"replicas": 3},
            }
            node = schema.node("io.k8s.api.autoscaling.v1.Scale")
        elif sub == "status" and "status" in node.fields:
            obj["status"] = self.value(node.fields["status"], 3)
        return self._path(resource, name, sub), obj, node

    def _update(self, resource: Resource, name: str) -> Asked:
        path, obj, node = self._face(resource, name)
        if self.random.random() < 0.1 and isinstance(obj.get("metadata"), dict):
            obj["metadata"]["resourceVersion"] = self.random.choice(["0", "1", "x", "99999999999"])
        media = self._media()
        return Asked("PUT", path + self._query(), media, self.encoded(self.mutated(obj, node), media))

    def _patch(self, resource: Resource, name: str) -> Asked:
        random = self.random
        path, obj, node = self._face(resource, name)
        media = random.choice((JSON_PATCH, MERGE, STRATEGIC, STRATEGIC, APPLY, APPLY))
        query: dict[str, str] = {}
        patch: Any
        if media == JSON_PATCH:
            patch = [self._operation(obj) for _ in range(random.randrange(1, 4))]
        else:
            patch = self.mutated(obj, node)
            if media == STRATEGIC and isinstance(patch, dict) and random.random() < 0.4:
                self._direct(patch)
        if media == APPLY:
            query = {"fieldManager": random.choice("ab")}
            if random.random() < 0.6:
                query["force"] = "true"
        elif random.random() < 0.1:
            query["fieldManager"] = random.choice("ab")
        return Asked("PATCH", path + self._query(**query), media, self.encoded(patch, media))

    def _direct(self, patch: dict[str, Any]) -> None:
        at: Any = patch
        while True:
            below = [
                v for v in (at.values() if isinstance(at, dict) else at) if isinstance(v, dict | list) and v
            ]
            if not below or self.random.random() < 0.3:
                break
            at = self.random.choice(below)
        directive: Any = copy.deepcopy(self.random.choice(_DIRECTIVES))
        if isinstance(at, dict):
            at.update(directive)
        else:
            at.append(directive)

    def _operation(self, obj: Any) -> Any:
        random = self.random
        path, at = "", obj
        while isinstance(at, dict | list) and at and random.random() < 0.8:
            key: Any = random.choice(list(at)) if isinstance(at, dict) else random.randrange(len(at))
            path += "/" + str(key).replace("~", "~0").replace("/", "~1")
            at = at[key]
        if random.random() < 0.15:
            path += random.choice(["/-", "/x", "/99999999999999999999", "/-1", "/01", "/~2", "//", "x"])
        value = copy.deepcopy(random.choice([at, random.choice(ODD), random.choice(ODD)]))
        out = {
            "op": random.choice(["add", "replace", "remove", "test", "copy", "move"]),
            "path": path,
            "value": value,
        }
        out["from"] = random.choice(["/metadata/labels", "/spec", path, "", "/metadata/name"])
        if random.random() < 0.1:
            out[random.choice(list(out))] = random.choice(ODD)
        return out

    def _delete(self, resource: Resource, name: str) -> Asked:
        random = self.random
        options = self.mutated(
            random.choice([{}, {"gracePeriodSeconds": 0}, {"propagationPolicy": "Foreground"}, {"preconditions": {"uid": "x"}}]),
            schema.node(_OPTIONS),
        )  # fmt: skip
        body = b"" if random.random() < 0.5 else self.encoded(options, JSON)
        return Asked("DELETE", self._path(resource, name) + self._query(), JSON, body)

    def _read(self, resource: Resource, name: str) -> Asked:
        random = self.random
        query = {}
        for key in ("limit", "continue", "resourceVersion", "resourceVersionMatch", "labelSelector", "fieldSelector", "timeoutSeconds", "sendInitialEvents", "allowWatchBookmarks"):  # fmt: skip
            if random.random() < 0.15:
                query[key] = random.choice(
                    ["0", "1", "-1", "true", "Exact", "NotOlderThan", "a=b", "a in (b,c)", "!a", "metadata.name=f0", "x", str(random.choice(ODD))[:200]]
                )  # fmt: skip
        one = name if random.random() < 0.4 else ""
        if not one and random.random() < 0.2:
            query["watch"] = "1"
        path = self._path(resource, one)
        if random.random() < 0.05:
            path += "/" + quote(str(random.choice(ODD))[:100], safe="")
        return Asked("GET", path + ("?" + urlencode(query, errors="replace") if query else ""))
