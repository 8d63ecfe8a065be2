"""What the client is warned of, what is refused, and that no field of Pods and Services was forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sampan.api import defaults, resources, schema, service_warnings, support
from sampan.api.errors import Object
from sampan.api.support_table import KINDS, POD, SERVICE, Support


def leaves(node: schema.Node, path: str = "", seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Every field of a type, as a path without indices."""
    if node.type in ("array", "map") and node.items is not None:
        yield from leaves(node.items, path, seen)
    elif node.type == "object" and node.fields and node.definition not in seen:
        for name, inner in node.fields.items():
            yield from leaves(inner, f"{path}.{name}" if path else name, seen | {node.definition})
    else:
        yield path


def matching(path: str, table: dict[str, Support]) -> list[str]:
    parts = path.split(".")
    wildcards = [".".join([*parts[:i], "*"]) for i in range(1, len(parts) + 1)]
    return [key for key in (path, *wildcards) if key in table]


@pytest.mark.parametrize(
    ("definition", "table"), [("io.k8s.api.core.v1.Pod", POD), ("io.k8s.api.core.v1.Service", SERVICE)]
)
def test_each_field_is_listed_exactly_once(definition: str, table: dict[str, Support]) -> None:
    paths = list(leaves(schema.node(definition)))
    assert len(paths) > 20
    found = {path: matching(path, table) for path in paths}
    assert not {path: keys for path, keys in found.items() if len(keys) != 1}
    used = {key for keys in found.values() for key in keys}
    assert not table.keys() - used


def test_kinds_that_are_warned_of_are_served() -> None:
    served = {(r.group, r.kind) for r in resources.RESOURCES}
    assert KINDS.keys() <= served


def pod(spec: Object | None = None, **container: object) -> Object:
    obj = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i", **container}], **(spec or {})},
    }
    defaults.apply(resources.PODS, obj)
    return obj


def test_what_the_scheduler_reads_gives_no_warning() -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    spread = {**term, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    obj = pod(
        {
            "affinity": {"podAffinity": required, "podAntiAffinity": required},
            "topologySpreadConstraints": [spread],
            "schedulingGates": [{"name": "example.com/wait"}],
            "preemptionPolicy": "Never",
            "priorityClassName": "system-node-critical",
        }
    )
    assert support.unsupported(resources.PODS, obj) == ([], [])


def test_an_ordinary_pod_and_service_give_no_warning() -> None:
    obj = pod(
        {"volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {"runAsUser": 1, "fsGroup": 2}},
        ports=[{"containerPort": 80}],
        volumeMounts=[{"name": "v", "mountPath": "/etc/nginx"}],
        resources={"limits": {"cpu": "1", "memory": "64Mi"}},
        readinessProbe={"httpGet": {"port": 80}},
    )
    assert support.unsupported(resources.PODS, obj) == ([], [])
    service: Object = {"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}], "type": "NodePort"}}
    defaults.apply(resources.SERVICES, service)
    assert support.unsupported(resources.SERVICES, service) == ([], [])


@pytest.mark.parametrize(
    ("obj", "warning"),
    [
        (pod(volumeMounts=[{"name": "v", "mountPath": "/ect/nginx/nginx.conf"}]),
         'spec.containers[0].volumeMounts[0].mountPath: did you mean "/etc/nginx/nginx.conf"?'),
        (pod(volumeMounts=[{"name": "v", "mountPath": "/etc/nginx.conf subPath:nginx.conf"}]),
         'a blank after ":" is missing in "subPath:nginx.conf"'),
        (pod({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}),
         "spec.volumes[0].emptyDir.sizeLimit: the limit is enforced only where"),
        (pod(resources={"limits": {"ephemeral-storage": "1Gi"}}), "resources.limits: the limit of ephemeral-storage"),
        (pod({"ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "c"}]}),
         "spec.ephemeralContainers[0].targetContainerName: joining the processes"),
        (pod({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
         'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'),
        (pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
         'spec.containers[0].env[1]: hides previous definition of "A"'),
        (pod({"terminationGracePeriodSeconds": -1}), "negative values are invalid and will be treated as 1"),
        (pod(resources={"limits": {"memory": "100m"}}), 'fractional byte value "100m" is invalid'),
    ],
)  # fmt: skip
def test_warnings_of_pods(obj: Object, warning: str) -> None:
    warnings, refusals = support.unsupported(resources.PODS, obj)
    assert not refusals
    assert any(warning in w for w in warnings), warnings


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        (pod(securityContext={"appArmorProfile": {"type": "RuntimeDefault"}}),
         "spec.containers[0].securityContext.appArmorProfile.type"),
        (pod({"ephemeralContainers": [{"name": "e", "image": "i", "securityContext": {"procMount": "Unmasked"}}]}),
         "spec.ephemeralContainers[0].securityContext.procMount"),
        (pod({"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]}), "spec.volumes[0].emptyDir.medium"),
        (pod({"securityContext": {"seLinuxOptions": {"level": "s0"}}}), "spec.securityContext.seLinuxOptions"),
        (pod({"hostUsers": False}), "spec.hostUsers"),
        (pod({"volumes": [{"name": "v", "nfs": {"server": "a", "path": "/"}}]}), "spec.volumes[0].nfs"),
        (pod({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "a"}}]}),
         "spec.volumes[0].persistentVolumeClaim"),
        (pod(livenessProbe={"grpc": {"port": 1}}), "spec.containers[0].livenessProbe.grpc"),
        (pod(securityContext={"procMount": "Unmasked"}), "spec.containers[0].securityContext.procMount"),
    ],
)  # fmt: skip
def test_refusals_of_pods(obj: Object, path: str) -> None:
    warnings, refusals = support.unsupported(resources.PODS, obj)
    assert [r.path for r in refusals] == [path]
    assert not warnings


def test_values_that_mean_nothing_special_are_not_refused() -> None:
    obj = pod(
        {
            "hostUsers": True,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "hostNetwork": True,
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
            "ephemeralContainers": [{"name": "e", "image": "i"}],
        },
        securityContext={"procMount": "Default"},
        ports=[{"containerPort": 80}],
    )
    assert support.unsupported(resources.PODS, obj) == ([], [])


def test_templates_are_held_to_the_same() -> None:
    obj: Object = {"spec": {"template": pod({"hostUsers": False})}}
    _, refusals = support.unsupported(resources.DEPLOYMENTS, obj)
    assert [r.path for r in refusals] == ["spec.template.spec.hostUsers"]


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        (
            {"trafficDistribution": "PreferClose"},
            'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"',
        ),
        (
            {"clusterIP": "None", "sessionAffinity": "ClientIP"},
            "spec.SessionAffinity is ignored for headless",
        ),
        (
            {"clusterIP": "None", "externalIPs": ["192.0.2.1"]},
            "spec.externalIPs is ignored for headless services",
        ),
        ({"externalIPs": ["192.0.2.1"]}, "spec.externalIPs is deprecated and may no longer be implemented"),
        (
            {"clusterIPs": ["10.0.0.1", "2001:db8:0:0::2"], "clusterIP": "10.0.0.1"},
            'spec.clusterIPs[1]: IPv6 address "2001:db8:0:0::2" should be in RFC 5952 canonical format ("2001:db8::2")',
        ),
        (
            {"loadBalancerIP": "::ffff:192.12.2.2"},
            'spec.loadBalancerIP: non-standard IP address "::ffff:192.12.2.2" will be considered invalid in a future '
            'Kubernetes release: use "192.12.2.2"',
        ),
    ],
)
def test_warnings_of_services(spec: Object, warning: str) -> None:
    warnings, refusals = support.unsupported(resources.SERVICES, {"spec": spec})
    assert not refusals
    assert any(warning in w for w in warnings), warnings


def test_a_source_range_that_is_none() -> None:
    spec = {
        "type": "LoadBalancer",
        "loadBalancerSourceRanges": ["10.0.0.0/8", "192.12.2.8/24", "2001:DB8::/32"],
    }
    assert list(service_warnings.of({"spec": spec})) == [
        'spec.loadBalancerSourceRanges[1]: CIDR value "192.12.2.8/24" is ambiguous in this context (should be '
        '"192.12.2.0/24" or "192.12.2.8/32"?)',
        'spec.loadBalancerSourceRanges[2]: IPv6 CIDR value "2001:DB8::/32" should be in RFC 5952 canonical format '
        '("2001:db8::/32")',
    ]


def test_other_warnings() -> None:
    assert support.unsupported(resources.CRONJOBS, {})[0] == [
        "CronJob is stored, but its controller does not run here yet: no pods are made"
    ]
    finalized = {"metadata": {"finalizers": ["mine"]}}
    assert "prefer a domain-qualified" in support.unsupported(resources.CONFIGMAPS, finalized)[0][0]


@pytest.mark.parametrize(
    ("resource", "obj", "warning"),
    [
        (resources.DEPLOYMENTS, {"metadata": {"name": "a.b"}},
         "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is "
         "recommended: [must not contain dots]"),
        (resources.PODS, {"metadata": {"name": "a.b"}}, "metadata.name: this is used in the Pod's hostname, which can"),
        (resources.STATEFULSETS, {"spec": {"revisionHistoryLimit": -1}},
         "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"),
        (resources.JOBS, {"spec": {"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001}},
         "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4"),
        (resources.CRONJOBS, {"spec": {"schedule": "TZ=UTC * * * * *"}}, "cannot use TZ or CRON_TZ in spec.schedule"),
        (resources.PODDISRUPTIONBUDGETS, {}, "no running pod that it selects can be evicted"),
    ],
)  # fmt: skip
def test_warnings_of_workloads(resource: resources.Resource, obj: Object, warning: str) -> None:
    warnings, refusals = support.unsupported(resource, obj)
    assert not refusals
    assert any(warning in w for w in warnings), warnings
