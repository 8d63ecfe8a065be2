"""Defaults of v1.36: what an object looks like that leaves everything out, and what a given value keeps."""

from __future__ import annotations

import pytest

from sampan.api import defaults, resources
from sampan.api.errors import Object
from sampan.api.images import tag_of
from sampan.api.resources import Resource


def defaulted(resource: Resource, obj: Object) -> Object:
    defaults.apply(resource, obj)
    return obj


def test_pod() -> None:
    obj = defaulted(resources.PODS, {"spec": {"containers": [{"name": "c", "image": "nginx"}]}})
    assert obj["spec"] == {
        "containers": [
            {
                "name": "c",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "resources": {},
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


@pytest.mark.parametrize(
    ("image", "tag", "policy"),
    [
        ("nginx", "latest", "Always"),
        ("nginx:latest", "latest", "Always"),
        ("nginx:1.2", "1.2", "IfNotPresent"),
        ("host:5000/nginx", "latest", "Always"),
        ("host:5000/a/nginx:1", "1", "IfNotPresent"),
        ("nginx@sha256:00", "", "IfNotPresent"),
        ("nginx:latest@sha256:00", "latest", "Always"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, tag: str, policy: str) -> None:
    assert tag_of(image) == tag
    obj = defaulted(resources.PODS, {"spec": {"containers": [{"image": image}]}})
    assert obj["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_container_parts() -> None:
    container: Object = {
        "image": "a:1",
        "tty": False,
        "ports": [{"containerPort": 80}],
        "env": [
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
        "livenessProbe": {"httpGet": {"port": 80}},
        "readinessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 5, "timeoutSeconds": 0},
        "lifecycle": {"preStop": {"httpGet": {"port": 80, "path": "/x"}}},
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
    }
    defaulted(resources.PODS, {"spec": {"containers": [container]}})
    assert "tty" not in container
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert container["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"] == "0"
    times = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    assert container["livenessProbe"] == {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, **times}
    assert container["readinessProbe"] == {"exec": {"command": ["x"]}, **times, "periodSeconds": 5}
    assert container["lifecycle"]["preStop"]["httpGet"] == {"port": 80, "path": "/x", "scheme": "HTTP"}
    assert container["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        ({"name": "v"}, {"emptyDir": {}}),
        ({"emptyDir": {}}, {"emptyDir": {}}),
        ({"configMap": {"name": "a"}}, {"configMap": {"name": "a", "defaultMode": 420}}),
        ({"secret": {"secretName": "a", "defaultMode": 256}}, {"secret": {"secretName": "a", "defaultMode": 256}}),
        ({"hostPath": {"path": "/"}}, {"hostPath": {"path": "/", "type": ""}}),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}], "defaultMode": 420}},
        ),
    ],
)  # fmt: skip
def test_volumes(volume: Object, expected: Object) -> None:
    defaulted(resources.PODS, {"spec": {"volumes": [volume]}})
    volume.pop("name", None)
    assert volume == expected


def test_host_network_ports_are_host_ports_in_a_pod_only() -> None:
    def spec() -> Object:
        return {"hostNetwork": True, "containers": [{"image": "a", "ports": [{"containerPort": 80}]}]}

    pod = defaulted(resources.PODS, {"spec": spec()})
    assert pod["spec"]["containers"][0]["ports"][0]["hostPort"] == 80
    owner = defaulted(resources.DEPLOYMENTS, {"spec": {"template": {"spec": spec()}}})
    assert "hostPort" not in owner["spec"]["template"]["spec"]["containers"][0]["ports"][0]


def test_service_account_has_two_names() -> None:
    obj = defaulted(resources.PODS, {"spec": {"serviceAccount": "a", "containers": []}})
    assert obj["spec"]["serviceAccountName"] == "a"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {"sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster"}),
        (
            {"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "targetPort": "web"}]},
            {
                "sessionAffinity": "None",
                "type": "NodePort",
                "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster",
                "ports": [
                    {"port": 80, "protocol": "TCP", "targetPort": 80},
                    {"port": 81, "protocol": "TCP", "targetPort": "web"},
                ],
            },
        ),
        (
            {"type": "LoadBalancer", "sessionAffinity": "ClientIP"},
            {
                "type": "LoadBalancer",
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster",
                "allocateLoadBalancerNodePorts": True,
            },
        ),
        ({"type": "ExternalName"}, {"type": "ExternalName", "sessionAffinity": "None"}),
    ],
)
def test_services(spec: Object, expected: Object) -> None:
    assert defaulted(resources.SERVICES, {"spec": spec})["spec"] == expected


def test_deployment() -> None:
    spec = defaulted(resources.DEPLOYMENTS, {"spec": {"template": {"spec": {"containers": []}}}})["spec"]
    template = spec.pop("template")
    assert spec == {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }
    assert "enableServiceLinks" not in template["spec"]
    assert template["spec"]["restartPolicy"] == "Always"
    kept = defaulted(resources.DEPLOYMENTS, {"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}})[
        "spec"
    ]
    assert kept["replicas"] == 0
    assert kept["strategy"] == {"type": "Recreate"}


def test_secret() -> None:
    obj = defaulted(
        resources.SECRETS, {"stringData": {"a": "b", "ü": "ü"}, "data": {"a": "eA==", "c": "eA=="}}
    )
    assert obj == {"type": "Opaque", "data": {"a": "Yg==", "c": "eA==", "ü": "w7w="}}


def test_namespace_has_its_name_as_a_label() -> None:
    obj = defaulted(resources.NAMESPACES, {"metadata": {"name": "n", "labels": {"a": "b"}}})
    assert obj["metadata"]["labels"] == {"a": "b", "kubernetes.io/metadata.name": "n"}


@pytest.mark.parametrize(
    ("resource", "obj", "expected"),
    [
        (resources.REPLICASETS, {"spec": {}}, {"spec": {"replicas": 1}}),
        (resources.ENDPOINTS, {"subsets": [{"ports": [{"port": 1}]}]}, {"subsets": [{"ports": [{"port": 1, "protocol": "TCP"}]}]}),
        (resources.ENDPOINTSLICES, {"endpoints": [], "ports": [{"port": 1}]}, {"endpoints": [], "ports": [{"port": 1, "name": "", "protocol": "TCP"}]}),
        (resources.ROLEBINDINGS, {"roleRef": {"name": "a"}, "subjects": [{"kind": "User"}, {"kind": "ServiceAccount"}]},
         {"roleRef": {"name": "a", "apiGroup": "rbac.authorization.k8s.io"},
          "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount"}]}),
        (resources.INGRESSCLASSES, {"spec": {"parameters": {"kind": "a"}}}, {"spec": {"parameters": {"kind": "a", "scope": "Cluster"}}}),
        (resources.BINDINGS, {"target": {"name": "n"}}, {"target": {"name": "n", "kind": "Node"}}),
        (resources.CONFIGMAPS, {"data": {}}, {"data": {}}),
    ],
)  # fmt: skip
def test_other_kinds(resource: Resource, obj: Object, expected: Object) -> None:
    assert defaulted(resource, obj) == expected


@pytest.mark.parametrize("resource", resources.RESOURCES, ids=lambda r: f"{r.group}/{r.kind}")
def test_defaults_are_a_fixed_point_and_of_the_type(resource: Resource) -> None:
    from sampan.api import decoding, schema
    from sampan.api.objects import deep_copy

    obj: Object = {"metadata": {"name": "n"}}
    defaults.apply(resource, obj)
    again = deep_copy(obj)
    defaults.apply(resource, again)
    assert again == obj
    assert decoding.check(schema.node(resource.definition), again) == []
    assert again == obj
