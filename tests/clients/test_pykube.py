"""`pykube-ng`."""

from __future__ import annotations

import pykube
import pytest

from tests.clients.conftest import deployment
from tests.real_cluster import Cluster


@pytest.fixture
def api(cluster: Cluster, namespace: str) -> pykube.HTTPClient:
    settings = pykube.KubeConfig.from_file(str(cluster.kubeconfig))
    settings.contexts[settings.current_context]["namespace"] = namespace
    return pykube.HTTPClient(settings)


def test_objects(api: pykube.HTTPClient, namespace: str) -> None:
    made = pykube.Deployment(api, {**deployment(), "metadata": {"name": "d", "namespace": namespace}})
    made.create()
    made.patch({"metadata": {"labels": {"a": "b"}}})
    _scale(made, 1)
    found = list(pykube.Deployment.objects(api).filter(namespace=namespace, selector={"a": "b"}))
    assert [d.name for d in found] == ["d"]
    made.reload()
    assert made.obj["spec"]["replicas"] == 1
    made.delete()
    assert not made.exists()


def _scale(deployment: pykube.Deployment, replicas: int) -> None:
    """Its `scale` sends the version that it read; the controller may have written since."""
    while True:
        deployment.reload()
        try:
            return deployment.scale(replicas)
        except pykube.exceptions.HTTPError as e:
            if e.code != 409:
                raise


def test_watch(api: pykube.HTTPClient, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": namespace}}
    pykube.ConfigMap(api, body).create()
    query = pykube.ConfigMap.objects(api).filter(namespace=namespace, field_selector={"metadata.name": "c"})
    for event in query.watch():
        assert (event.type, event.object.name) == ("ADDED", "c")
        break


def test_pod(api: pykube.HTTPClient, namespace: str, web: str) -> None:
    pod = pykube.Pod.objects(api).filter(namespace=namespace).get_by_name(web)
    assert pod.ready
    assert pod.logs() == "serving\n"
