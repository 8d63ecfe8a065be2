"""The official Python client (`kubernetes`)."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward, stream

from tests.clients.conftest import deployment
from tests.real_cluster import Cluster


@pytest.fixture
def api(cluster: Cluster) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(cluster.kubeconfig)) as made:
        yield made


def test_objects(api: client.ApiClient, namespace: str) -> None:
    apps = client.AppsV1Api(api)
    utils.create_from_dict(api, deployment(), namespace=namespace)
    made = apps.read_namespaced_deployment("d", namespace)
    assert made.spec.strategy.rolling_update.max_surge == "25%"
    patched = apps.patch_namespaced_deployment("d", namespace, {"metadata": {"labels": {"a": "b"}}})
    assert patched.metadata.labels == {"a": "b"}
    scaled = apps.patch_namespaced_deployment_scale("d", namespace, {"spec": {"replicas": 1}})
    assert scaled.spec.replicas == 1
    assert [
        d.metadata.name for d in apps.list_namespaced_deployment(namespace, label_selector="a=b").items
    ] == ["d"]
    patched.spec.paused = True
    patched.metadata.resource_version = made.metadata.resource_version
    with pytest.raises(ApiException) as refused:
        apps.replace_namespaced_deployment("d", namespace, patched)
    assert refused.value.status == 409
    apps.delete_namespaced_deployment("d", namespace)
    with pytest.raises(ApiException) as gone:
        apps.read_namespaced_deployment("d", namespace)
    assert gone.value.status == 404


def test_watch(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}, "data": {"a": "1"}})
    core.patch_namespaced_config_map("c", namespace, [{"op": "replace", "path": "/data/a", "value": "2"}])
    core.delete_namespaced_config_map("c", namespace)
    seen = []
    watching = watch.Watch()
    for event in watching.stream(
        core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=30
    ):
        seen.append((event["type"], event["object"].metadata.name, event["object"].data))
        if event["type"] == "DELETED":
            watching.stop()
    assert seen == [("ADDED", "c", {"a": "1"}), ("MODIFIED", "c", {"a": "2"}), ("DELETED", "c", {"a": "2"})]


def test_dynamic_apply(api: client.ApiClient, namespace: str) -> None:
    deployments = dynamic.DynamicClient(api).resources.get(api_version="apps/v1", kind="Deployment")
    made = deployments.server_side_apply(
        body=deployment(), name="d", namespace=namespace, field_manager="tests"
    )
    assert [(m.manager, m.operation) for m in made.metadata.managedFields] == [("tests", "Apply")]
    body: dict[str, Any] = deployment(replicas=3)
    with pytest.raises(ApiException) as conflict:
        deployments.server_side_apply(body=body, name="d", namespace=namespace, field_manager="others")
    assert conflict.value.status == 409
    assert ".spec.replicas" in str(conflict.value.body)


def test_pod(api: client.ApiClient, namespace: str, web: str) -> None:
    core = client.CoreV1Api(api)
    assert core.read_namespaced_pod_log(web, namespace) == "serving\n"
    command = ["sh", "-c", "echo out; echo err >&2; cat; exit 3"]
    running: Any = stream(
        core.connect_get_namespaced_pod_exec, web, namespace, command=command,
        stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
    )  # fmt: skip
    running.write_stdin("in\n")
    output = ""
    while "in\n" not in output:  # each read ends with the first message of either stream
        output += running.read_stdout(timeout=10)
        assert running.is_open()
    running.close()
    said = stream(
        core.connect_get_namespaced_pod_exec, web, namespace, command=["cat", "/www/index.html"],
        stdin=False, stdout=True, stderr=True, tty=False,
    )  # fmt: skip
    assert said == "hello\n"
    forward = portforward(core.connect_get_namespaced_pod_portforward, web, namespace, ports="8080")
    connection = http.client.HTTPConnection("web", 8080)
    connection.sock = forward.socket(8080)
    connection.sock.setblocking(True)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello\n"
    assert (
        core.connect_get_namespaced_pod_proxy_with_path(f"{web}:8080", namespace, "index.html") == "hello\n"
    )


def test_token_and_rights(api: client.ApiClient, cluster: Cluster, namespace: str) -> None:
    core = client.CoreV1Api(api)
    token = core.create_namespaced_service_account_token("default", namespace, {"spec": {}}).status.token
    given = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=given)
    given.cert_file = given.key_file = None
    given.api_key = {"authorization": f"Bearer {token}"}
    with client.ApiClient(given) as limited:
        with pytest.raises(ApiException) as refused:
            client.CoreV1Api(limited).list_namespaced_pod(namespace)
        assert refused.value.status == 403
        assert f"system:serviceaccount:{namespace}:default" in str(refused.value.body)
        review = client.AuthenticationV1Api(limited).create_self_subject_review({})
        assert review.status.user_info.username == f"system:serviceaccount:{namespace}:default"
