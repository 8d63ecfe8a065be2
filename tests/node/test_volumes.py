"""Volumes on a real file system: content, modes, live updates, and no way out of them."""

from __future__ import annotations

import base64
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.api.resources import CONFIGMAPS, SECRETS
from sampan.linux.syscalls import MS_BIND, mount
from sampan.node.volumes.atomic_writer import AtomicWriter, FileContent
from sampan.node.volumes.host_path import HostPath
from sampan.node.volumes.pod_volumes import PodVolumes, remove_pod_directory
from sampan.node.volumes.subpath import SubPathFailure, prepare_subpath, release_subpath
from sampan.node.volumes.tmpfs import is_mount
from sampan.node.volumes.types import VolumeContext, VolumeFailure
from tests.linux.test_mounts import make_deep
from tests.node.fakes import FakeClient
from tests.node.harness import Node

root = pytest.mark.root
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Volumes:
    """The volumes of one pod that does not run."""

    def __init__(self, directory: Path) -> None:
        self.client = FakeClient()
        self.directory = directory / "pod"

    def of(self, *volumes: Object, **spec: Any) -> PodVolumes:
        pod = {
            "metadata": {
                "name": "web",
                "namespace": "default",
                "uid": "u1",
                "labels": {"app": "web", "tier": 'a"b'},
            },
            "spec": {"volumes": list(volumes), "containers": [{"name": "c"}], **spec},
        }

        async def lookup(resource: Any, name: str) -> Object | None:
            return self.client.find(resource, "default", name)

        async def token(request: Object) -> Object:
            answer = await self.client.create(SECRETS, request, subresource="token")
            status: Object = answer["status"]
            return status

        context = VolumeContext(
            pod, "", self.directory, lookup, token, "node-1", ("172.30.0.2",), 2.0, 1 << 30
        )
        return PodVolumes(self.directory, context)

    def path(self, plugin: str, name: str) -> Path:
        return self.directory / "volumes" / f"kubernetes.io~{plugin}" / name

    def config_map(self, name: str, **data: str) -> None:
        self.client.put(CONFIGMAPS, {"metadata": {"name": name, "namespace": "default"}, "data": data})

    def secret(self, name: str, **data: str) -> None:
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
        self.client.put(SECRETS, {"metadata": {"name": name, "namespace": "default"}, "data": encoded})


@pytest.fixture
async def volumes(tmp_path: Path) -> AsyncIterator[Volumes]:
    made = Volumes(tmp_path)
    yield made
    remove_pod_directory(made.directory)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_config_map(volumes: Volumes) -> None:
    volumes.config_map("settings", **{"a.conf": "one", "b.conf": "two"})
    pod = volumes.of({"name": "v", "configMap": {"name": "settings", "defaultMode": 0o640}})
    assert await pod.set_up() == {}
    path = volumes.path("configmap", "v")
    assert (path / "a.conf").read_text() == "one"
    assert mode(path / "a.conf") == 0o640
    assert os.readlink(path / "a.conf") == "..data/a.conf"
    old = os.readlink(path / "..data")
    # The same content is not written again; a change comes at once for all files, and what is gone goes.
    assert await pod.set_up() == {}
    assert os.readlink(path / "..data") == old
    volumes.config_map("settings", **{"a.conf": "three", "c.conf": "new"})
    assert await pod.set_up() == {}
    assert {p.name: p.read_text() for p in path.iterdir() if not p.name.startswith("..")} == {
        "a.conf": "three",
        "c.conf": "new",
    }
    assert not (path / old).exists()
    (mount,) = pod.mounts({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/etc/app"}]}, {})
    assert (mount.container_path, mount.host_path, mount.readonly) == ("/etc/app", str(path), True)


async def test_items_modes_and_missing_keys(volumes: Volumes) -> None:
    volumes.config_map("settings", a="1", b="2")
    items = [{"key": "a", "path": "deep/er/x", "mode": 0o400}]
    pod = volumes.of({"name": "v", "configMap": {"name": "settings", "items": items}})
    assert await pod.set_up() == {}
    path = volumes.path("configmap", "v")
    assert (path / "deep/er/x").read_text() == "1"
    assert mode(path / "deep/er/x") == 0o400
    assert not (path / "b").exists()
    pod = volumes.of(
        {"name": "w", "configMap": {"name": "settings", "items": [{"key": "nope", "path": "x"}]}},
        {"name": "x", "configMap": {"name": "absent"}},
        {"name": "y", "configMap": {"name": "absent", "optional": True}},
        {"name": "z", "nfs": {"server": "s", "path": "/"}},
    )
    assert await pod.set_up() == {
        "w": "configmap references non-existent config key: nope",
        "x": 'configmap "absent" not found',
        "z": "no volume plugin matched: volumes of kind nfs are not supported",
    }
    assert not pod.ready


@root
@needs_root
async def test_secret_is_in_memory(volumes: Volumes) -> None:
    volumes.secret("keys", key="hidden")
    pod = volumes.of(
        {"name": "v", "secret": {"secretName": "keys", "defaultMode": 0o600}},
        securityContext={"fsGroup": 4242},
    )
    assert await pod.set_up() == {}
    path = volumes.path("secret", "v")
    assert is_mount(path)
    assert (path / "key").read_text() == "hidden"
    assert (mode(path / "key"), (path / "key").stat().st_gid) == (0o640, 4242)
    pod.tear_down()
    assert not volumes.directory.exists()


@root
@needs_root
async def test_projected(volumes: Volumes) -> None:
    volumes.config_map("ca", **{"ca.crt": "CA"})
    volumes.client.token_seconds = 600
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
        {"configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    pod = volumes.of({"name": "v", "projected": {"sources": sources}}, securityContext={"runAsUser": 1000})
    assert await pod.set_up() == {}
    path = volumes.path("projected", "v")
    assert {p: (path / p).read_text() for p in ("token", "ca.crt", "namespace")} == {
        "token": "token-1",
        "ca.crt": "CA",
        "namespace": "default",
    }
    assert (mode(path / "token"), (path / "token").stat().st_uid) == (0o600, 1000)
    assert mode(path / "ca.crt") == 0o644
    import time

    assert 470 < pod.refresh_at - time.time() < 490
    # Not asked for again before its time.
    assert await pod.set_up() == {}
    assert volumes.client.tokens == 1


async def test_downward_api(volumes: Volumes) -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
        {
            "path": "memory",
            "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"},
        },
    ]
    limits = {"limits": {"cpu": "1500m", "memory": "64Mi"}}
    pod = volumes.of(
        {"name": "v", "downwardAPI": {"items": items}}, containers=[{"name": "c", "resources": limits}]
    )
    assert await pod.set_up() == {}
    path = volumes.path("downward-api", "v")
    assert (path / "labels").read_text() == 'app="web"\ntier="a\\"b"'
    assert ((path / "cpu").read_text(), (path / "memory").read_text()) == ("2", "64")


async def test_empty_dir(volumes: Volumes) -> None:
    pod = volumes.of({"name": "v", "emptyDir": {}})
    assert await pod.set_up() == {}
    path = volumes.path("empty-dir", "v")
    assert mode(path) == 0o777
    (path / "kept").write_text("x")
    # As after a restart of the agent.
    assert await volumes.of({"name": "v", "emptyDir": {}}).set_up() == {}
    assert (path / "kept").exists()
    pod.tear_down()
    assert not volumes.directory.exists()


@root
@needs_root
async def test_empty_dir_in_memory(volumes: Volumes) -> None:
    pod = volumes.of({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    assert await pod.set_up() == {}
    path = volumes.path("empty-dir", "v")
    assert is_mount(path)
    with pytest.raises(OSError, match="No space left"):
        (path / "big").write_bytes(b"x" * (2 << 20))
    again = volumes.of({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    assert await again.set_up() == {}
    assert (path / "big").exists()


@pytest.mark.parametrize(
    ("type_", "name", "problem"),
    [
        ("Directory", "dir", ""),
        ("Directory", "file", "is not a directory"),
        ("Directory", "none", "is not a directory"),
        ("DirectoryOrCreate", "none", ""),
        ("File", "file", ""),
        ("File", "dir", "is not a file"),
        ("FileOrCreate", "none", ""),
        ("Socket", "socket", ""),
        ("Socket", "file", "is not a socket"),
        ("CharDevice", "file", "is not a character device"),
        ("BlockDevice", "file", "is not a block device"),
        ("", "none", ""),
    ],
)
async def test_host_path_types(tmp_path: Path, type_: str, name: str, problem: str) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        volume = HostPath(None, {"path": str(tmp_path / name), "type": type_})  # type: ignore[arg-type]
        if problem:
            with pytest.raises(VolumeFailure, match=problem):
                await volume.set_up()
        else:
            await volume.set_up()
            assert volume.path.exists()
            volume.tear_down()
            assert volume.path.exists()


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "..x", ""])
def test_the_writer_refuses_paths_that_lead_out(tmp_path: Path, path: str) -> None:
    with pytest.raises(VolumeFailure):
        AtomicWriter(tmp_path).write({path: FileContent(b"", 0o644)})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("host")
    return outside


@root
@needs_root
@pytest.mark.parametrize("subpath", ["../outside/secret", "/etc/passwd", "a/../../outside"])
def test_subpath_refuses_dots(tmp_path: Path, outside: Path, subpath: str) -> None:
    (tmp_path / "volume" / "a").mkdir(parents=True)
    with pytest.raises(SubPathFailure):
        prepare_subpath(tmp_path / "volume", subpath, tmp_path / "target")


@root
@needs_root
def test_subpath_never_leaves_by_links(tmp_path: Path, outside: Path) -> None:
    volume, target = tmp_path / "volume", tmp_path / "mounts" / "0"
    volume.mkdir()
    (volume / "relative").symlink_to("../outside")
    (volume / "absolute").symlink_to(outside)
    (volume / "magic").symlink_to("/proc/self/root")
    (volume / "inside").mkdir()
    (volume / "inside" / "file").write_text("mine")
    (volume / "good").symlink_to("inside/file")
    for subpath in ("relative", "relative/secret", "absolute", "absolute/secret", "magic/etc"):
        try:
            prepare_subpath(volume, subpath, target)
        except SubPathFailure:
            continue
        # Where a link is followed, then as if the volume were all there is.
        try:
            assert not (target / "secret").exists()
            assert not (target / "passwd").exists()
        finally:
            release_subpath(target)
    assert sorted(p.name for p in outside.iterdir()) == ["secret"]
    assert prepare_subpath(volume, "good", target).read_text() == "mine"
    release_subpath(target)
    assert not target.exists()


@root
@needs_root
def test_subpath_makes_what_is_missing(tmp_path: Path) -> None:
    volume, target = tmp_path / "volume", tmp_path / "mounts" / "0"
    volume.mkdir()
    volume.chmod(0o2775)
    prepare_subpath(volume, "new/deep", target)
    (target / "file").write_text("x")
    assert (volume / "new/deep/file").read_text() == "x"
    assert mode(volume / "new") == 0o2775
    # A container that starts again gets its mount anew.
    prepare_subpath(volume, "new/deep", target)
    release_subpath(target)
    (volume / "dangling").symlink_to("nowhere")
    with pytest.raises(SubPathFailure):
        prepare_subpath(volume, "dangling", target)


@root
@needs_root
async def test_subpath_of_a_config_map_does_not_change(volumes: Volumes) -> None:
    volumes.config_map("settings", **{"nginx.conf": "one"})
    pod = volumes.of({"name": "v", "configMap": {"name": "settings"}})
    await pod.set_up()
    container = {
        "name": "c",
        "volumeMounts": [
            {"name": "v", "mountPath": "/etc/nginx.conf", "subPath": "nginx.conf"},
            {"name": "v", "mountPath": "/all", "subPathExpr": "$(WHICH).conf"},
        ],
    }
    one, two = pod.mounts(container, {"WHICH": "nginx"})
    assert Path(one.host_path).read_text() == Path(two.host_path).read_text() == "one"
    volumes.config_map("settings", **{"nginx.conf": "two"})
    await pod.set_up()
    assert Path(one.host_path).read_text() == "one"
    assert (volumes.path("configmap", "v") / "nginx.conf").read_text() == "two"
    with pytest.raises(VolumeFailure, match="missing value"):
        pod.mounts(container, {})
    bad = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../.."}]}
    with pytest.raises(VolumeFailure, match='failed to prepare subPath for volumeMount "v" of container "c"'):
        pod.mounts(bad, {})
    pod.tear_down()
    assert not volumes.directory.exists()


@root
@needs_root
async def test_removal_never_goes_through_a_mount_or_link(volumes: Volumes, outside: Path) -> None:
    pod = volumes.of({"name": "v", "emptyDir": {}})
    await pod.set_up()
    path = volumes.path("empty-dir", "v")
    (path / "link").symlink_to(outside)
    (outside / "sub").mkdir()
    prepare_subpath(outside, "sub", volumes.directory / "volume-subpaths" / "v" / "c" / "0")
    (outside / "sub" / "file").write_text("x")
    pod.tear_down()
    assert not volumes.directory.exists()
    assert (outside / "secret").exists()
    assert (outside / "sub" / "file").exists()


async def test_a_running_pod_sees_changes(node: Node) -> None:
    node.client.put(CONFIGMAPS, {"metadata": {"name": "s", "namespace": "default"}, "data": {"x": "1"}})
    pod = node.add(
        labels={"app": "a"},
        volumes=[
            {"name": "v", "configMap": {"name": "s"}},
            {
                "name": "d",
                "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]},
            },
        ],
    )
    await node.until_ready()
    base = node.root / "pods" / pod["metadata"]["uid"] / "volumes"
    assert (base / "kubernetes.io~configmap/v/x").read_text() == "1"
    node.client.put(CONFIGMAPS, {"metadata": {"name": "s", "namespace": "default"}, "data": {"x": "2"}})
    await node.until_true(lambda: (base / "kubernetes.io~configmap/v/x").read_text() == "2")
    changed = dict(node.pod() or {})
    changed["metadata"] = {**changed["metadata"], "labels": {"app": "b"}}
    from sampan.api.resources import PODS

    node.client.put(PODS, changed)
    await node.until_true(lambda: (base / "kubernetes.io~downward-api/d/l").read_text() == 'app="b"')
    assert len(node.agent._objects) == 1
    node.client.graceful_delete("default", "web")
    await node.until_left(pod["metadata"]["uid"])
    assert len(node.agent._objects) == 0


@root
@needs_root
async def test_the_end_of_a_volume_never_reaches_what_was_mounted_into_it(
    volumes: Volumes, tmp_path: Path
) -> None:
    """As a container does whose mounts spread to the node (mountPropagation Bidirectional)."""
    pod = volumes.of({"name": "v", "emptyDir": {}})
    assert await pod.set_up() == {}
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "data").write_text("precious")
    point = volumes.path("empty-dir", "v") / "inner"
    point.mkdir()
    mount(str(tmp_path / "host"), str(point), flags=MS_BIND)
    pod.tear_down()
    assert not volumes.directory.exists()
    assert (tmp_path / "host" / "data").read_text() == "precious"


async def test_a_volume_as_deep_as_any_container_can_make_it_goes(volumes: Volumes) -> None:
    pod = volumes.of({"name": "v", "emptyDir": {}})
    assert await pod.set_up() == {}
    make_deep(volumes.path("empty-dir", "v") / "deep", 3000)
    pod.tear_down()
    assert not volumes.directory.exists()


async def test_names_with_a_nul_are_refused(volumes: Volumes) -> None:
    volumes.config_map("settings", a="1")
    items = [{"key": "a", "path": "x\0y"}]
    pod = volumes.of(
        {"name": "v", "configMap": {"name": "settings", "items": items}},
        {"name": "w", "hostPath": {"path": "/tmp/x\0y"}},
        {"name": "x", "emptyDir": {}},
    )
    assert await pod.set_up() == {
        "v": "invalid path: 'x\\x00y'",
        "w": "hostPath '/tmp/x\\x00y' must not contain '..' or a NUL",
    }
    mounts = [{"name": "x", "mountPath": "/x", "subPath": "a\0/../../.."}]
    with pytest.raises(VolumeFailure):
        pod.mounts({"name": "c", "volumeMounts": mounts}, {})
