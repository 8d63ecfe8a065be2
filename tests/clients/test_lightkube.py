"""`lightkube`."""

from __future__ import annotations

import pytest
from lightkube import ApiError, Client, KubeConfig
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import PatchType

from tests.kubectl.commands import IMAGE
from tests.real_cluster import Cluster


@pytest.fixture
def api(cluster: Cluster, namespace: str) -> Client:
    return Client(
        config=KubeConfig.from_file(str(cluster.kubeconfig)), namespace=namespace, field_manager="tests"
    )


def _deployment(replicas: int) -> Deployment:
    labels = {"app": "d"}
    container = Container(name="c", image=IMAGE, command=["sleep", "1000"])
    template = PodTemplateSpec(metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=[container]))
    spec = DeploymentSpec(replicas=replicas, selector=LabelSelector(matchLabels=labels), template=template)
    return Deployment(metadata=ObjectMeta(name="d"), spec=spec)


def test_objects(api: Client) -> None:
    api.create(_deployment(0))
    wanted = _deployment(0)
    wanted.apiVersion, wanted.kind = "apps/v1", "Deployment"
    wanted.metadata.labels = {"a": "b"}
    applied = api.apply(wanted, force=True)
    assert applied.metadata.labels == {"a": "b"}
    patched = api.patch(Deployment, "d", {"spec": {"paused": True}}, patch_type=PatchType.MERGE)
    assert patched.spec.paused
    scale = Deployment.Scale(metadata=ObjectMeta(name="d"), spec=ScaleSpec(replicas=1))
    assert api.replace(scale).spec.replicas == 1
    assert [d.metadata.name for d in api.list(Deployment, labels={"a": "b"})] == ["d"]
    api.delete(Deployment, "d")
    with pytest.raises(ApiError) as gone:
        api.get(Deployment, "d")
    assert gone.value.status.code == 404


def test_list_in_pages_and_watch(api: Client) -> None:
    for i in range(5):
        api.create(ConfigMap(metadata=ObjectMeta(name=f"c{i}"), data={"i": str(i)}))
    listed = api.list(ConfigMap, chunk_size=2, fields={"metadata.name!": "kube-root-ca.crt"})
    assert [c.metadata.name for c in listed] == ["c0", "c1", "c2", "c3", "c4"]
    api.patch(ConfigMap, "c0", {"data": {"i": "changed"}})
    for kind, item in api.watch(ConfigMap, fields={"metadata.name": "c0"}):
        assert (kind, item.data) == ("ADDED", {"i": "changed"})
        break


def test_log(api: Client, web: str) -> None:
    assert list(api.log(web)) == ["serving\n"]
    assert api.get(Pod, web).status.phase == "Running"


def test_exec(api: Client, web: str) -> None:
    done = api.exec(
        web, command=["sh", "-c", "cat; echo no >&2; exit 3"], stdin="in", stdout=True, stderr=True
    )
    assert (done.stdout, done.stderr, done.exit_code) == ("in", "no\n", 3)
