"""Images from archives and from a real registry on loopback."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.node.images.service import LocalImages
from sampan.node.images.skopeo import Registries, write_settings
from sampan.node.images.store import ImageStore
from sampan.node.images.types import Credentials, ImageError
from tests.node.images.archives import docker_archive, layer

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("skopeo"), reason="needs root and skopeo"),
]


@pytest.fixture
def images(tmp_path: Path) -> LocalImages:
    return LocalImages(ImageStore(tmp_path / "images"), tmp_path / "registries.yaml")


async def test_a_loaded_archive_is_pinned_and_keeps_its_configuration(
    images: LocalImages, tmp_path: Path
) -> None:
    config = {"Entrypoint": ["/a"], "Cmd": ["b"], "Env": ["X=1=2"], "User": "7:8", "WorkingDir": "/w"}
    path = docker_archive(tmp_path / "a:1.tar", [layer([("a", "hello")])], ["one:1", "two:2"], config)
    (image,) = await images.load(path)
    assert image.pinned
    assert image.tags == ("docker.io/library/one:1", "docker.io/library/two:2")
    assert image.config.entrypoint == ("/a",)
    assert image.config.env == (("X", "1=2"),)
    assert Path(image.layers[0], "a").read_text() == "hello"
    assert await images.image_status("one:1") == image
    assert await images.image_status("one:2") is None


async def test_an_oci_archive(images: LocalImages, tmp_path: Path) -> None:
    source = docker_archive(tmp_path / "a.tar", [layer([("a", "hello")])], ["one:1"], {"Cmd": ["b"]})
    for target, tag in (("one:1", "docker.io/library/one:1"), ("example.com/b/two:2", "example.com/b/two:2")):
        archive = tmp_path / f"{tag.rpartition(':')[2]}.tar"
        done = await asyncio.create_subprocess_exec(
            "skopeo",
            "copy",
            "--quiet",
            "--insecure-policy",
            f"docker-archive:{source}",
            f"oci-archive:{archive}:{target}",
        )
        assert await done.wait() == 0
        (image,) = await images.load(archive)
        assert image.pinned
        assert tag in image.tags
        assert image.config.cmd == ("b",)
        assert Path(image.layers[0], "a").read_text() == "hello"


async def test_a_tag_moves_to_the_newest_image(images: LocalImages, tmp_path: Path) -> None:
    for text in ("first", "second"):
        await images.load(docker_archive(tmp_path / f"{text}.tar", [layer([("a", text)])], ["x:1"]))
    image = await images.image_status("x:1")
    assert image is not None
    assert Path(image.layers[0], "a").read_text() == "second"
    assert sorted(len(i.tags) for i in await images.list_images()) == [0, 1]


async def test_whiteouts_hide_what_lower_layers_have(images: LocalImages, tmp_path: Path) -> None:
    lower = layer(
        [("keep", "k"), ("gone", "g"), ("d/", ""), ("d/old", "o"), ("bin", "-> usr/bin"), ("usr/bin/", "")]
    )
    upper = layer([(".wh.gone", ""), ("d/.wh..wh..opq", ""), ("d/new", "n"), ("bin/tool", "t")])
    (image,) = await images.load(docker_archive(tmp_path / "w.tar", [lower, upper], ["w:1"]))
    assert stat.S_ISCHR(os.lstat(f"{image.layers[1]}/gone").st_mode), "as overlayfs marks a removal"
    root = tmp_path / "root"
    root.mkdir()
    lowers = ":".join(reversed(image.layers))
    subprocess.run(["mount", "-t", "overlay", "t-images", "-o", f"lowerdir={lowers}", str(root)], check=True)
    try:
        assert sorted(p.name for p in root.iterdir()) == ["bin", "d", "keep", "usr"]
        assert [p.name for p in (root / "d").iterdir()] == ["new"]
        assert (root / "usr/bin/tool").read_text() == "t", "through the lower layer's symlink"
        assert (root / "bin").is_symlink()
    finally:
        subprocess.run(["umount", str(root)], check=True)


async def test_no_entry_leads_out_of_the_layer(images: LocalImages, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    hostile = layer(
        [
            ("../../../../../../../../../../../../" + str(outside) + "/dotdot", "x"),
            (f"{outside}/absolute", "x"),
            ("link", f"-> {outside}"),
            ("link/through", "x"),
            ("up", "-> ../../../../../../../../../.."),
            (f"up{outside}/up", "x"),
        ]
    )
    (image,) = await images.load(docker_archive(tmp_path / "h.tar", [hostile], ["h:1"]))
    assert not list(outside.iterdir())
    inside = Path(image.layers[0] + str(outside))
    assert sorted(p.name for p in inside.iterdir()) == ["absolute", "dotdot", "through", "up"]


async def test_a_hard_link_to_a_file_of_the_host_is_refused(images: LocalImages, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    with pytest.raises(ImageError, match="cannot unpack"):
        await images.load(docker_archive(tmp_path / "l.tar", [layer([("x", f"=> {secret}")])], ["l:1"]))
    assert not await images.list_images()
    assert not list((tmp_path / "images/layers").iterdir())
    assert not list((tmp_path / "images/work").iterdir())


async def test_devices_are_left_out_and_modes_and_owners_are_kept(
    images: LocalImages, tmp_path: Path
) -> None:
    device = tarfile.TarInfo("dev/sda")
    device.type, device.devmajor, device.devminor = tarfile.BLKTYPE, 8, 0
    tool = tarfile.TarInfo("su")
    tool.mode, tool.uid, tool.gid = 0o4755, 12, 34
    (image,) = await images.load(
        docker_archive(tmp_path / "d.tar", [layer([("", device), ("", tool)])], ["d:1"])
    )
    assert not os.path.lexists(f"{image.layers[0]}/dev/sda")
    found = os.lstat(f"{image.layers[0]}/su")
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o4755, 12, 34)


async def test_an_image_that_is_removed_takes_only_its_own_layers_along(
    images: LocalImages, tmp_path: Path
) -> None:
    base, extra = layer([("base", "b")]), layer([("extra", "e")])
    await images.load(docker_archive(tmp_path / "1.tar", [base], ["one:1"]))
    await images.load(docker_archive(tmp_path / "2.tar", [base, extra], ["two:1"]))
    await images.remove_image("two:1")
    (image,) = await images.list_images()
    assert image.tags == ("docker.io/library/one:1",)
    assert len(list((tmp_path / "images/layers").iterdir())) == 1


async def test_a_file_that_is_no_archive_is_one_clear_error(images: LocalImages, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("no tar")
    with pytest.raises(ImageError, match="is no image archive"):
        await images.load(tmp_path / "x.tar")
    with pytest.raises(ImageError, match="there is no file"):
        await images.load(tmp_path / "y.tar")


class Registry:
    def __init__(self, root: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        config = root / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/registry}}}}\n"
            f"http: {{addr: '127.0.0.1:{self.port}'}}\n"
        )
        self.process = subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL)

    async def push(self, archive: Path, name: str) -> None:
        for _ in range(200):  # the registry has no way to say that it listens
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            await asyncio.sleep(0.02)
        process = await asyncio.create_subprocess_exec(
            "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false",
            f"docker-archive:{archive}", f"docker://127.0.0.1:{self.port}/{name}",
        )  # fmt: skip
        assert await process.wait() == 0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    if not shutil.which("docker-registry"):
        pytest.skip("needs docker-registry")
    made = Registry(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


async def test_pull_from_a_registry_through_a_mirror(
    images: LocalImages, registry: Registry, tmp_path: Path
) -> None:
    archive = docker_archive(tmp_path / "n.tar", [layer([("a", "1")]), layer([("b", "2")])], ["nginx:1"])
    await registry.push(archive, "library/nginx:1")
    (tmp_path / "registries.yaml").write_text(
        f"mirrors:\n  docker.io:\n    endpoint: ['http://127.0.0.1:{registry.port}']\n"
    )
    first, again = await asyncio.gather(
        images.pull_image("nginx:1"), images.pull_image("docker.io/library/nginx:1")
    )
    assert first == again
    assert first.tags == ("docker.io/library/nginx:1",)
    assert not first.pinned
    (digest,) = first.digests
    assert digest.startswith("docker.io/library/nginx@sha256:")
    assert await images.image_status(digest) == first
    assert await images.pull_image(digest) == first
    assert Path(first.layers[1], "b").read_text() == "2"


async def test_what_a_registry_does_not_have_is_said_with_its_words(
    images: LocalImages, registry: Registry, tmp_path: Path
) -> None:
    await registry.push(docker_archive(tmp_path / "n.tar", [layer([("a", "1")])], ["n:1"]), "some/thing:1")
    (tmp_path / "registries.yaml").write_text(
        f"configs:\n  '127.0.0.1:{registry.port}':\n    tls: {{insecure_skip_verify: true}}\n"
    )
    with pytest.raises(ImageError, match="manifest unknown") as e:
        await images.pull_image(f"127.0.0.1:{registry.port}/some/thing:nope")
    assert e.value.reason == "ErrImagePull"
    assert not list((tmp_path / "images/work").iterdir())


async def test_a_registries_file_of_the_wrong_form_is_named(images: LocalImages, tmp_path: Path) -> None:
    (tmp_path / "registries.yaml").write_text("mirrors: [docker.io]\n")
    with pytest.raises(ImageError, match=r"registries\.yaml is not of the form"):
        await images.pull_image("nginx")


@pytest.mark.parametrize("lie", ["sha256:../../host", "../../host", "sha256:" + "A" * 64, "sha256:", 7])
async def test_digests_that_are_none_never_become_paths(
    images: LocalImages, tmp_path: Path, lie: str
) -> None:
    """A directory called `fs` anywhere on the host could else be had as a layer, for the asking."""
    (tmp_path / "host" / "fs").mkdir(parents=True)
    (tmp_path / "host" / "fs" / "secret").write_text("s")
    path = docker_archive(tmp_path / "l.tar", [layer([("a", "a")])], ["l:1"], diff_ids=[lie])
    with pytest.raises(ImageError):
        await images.load(path)
    assert not await images.list_images()


@pytest.mark.parametrize("name", [".wh...", "d/.wh...", ".wh..", "d/.wh.", ".wh."])
async def test_a_whiteout_of_a_directory_itself_is_refused(
    images: LocalImages, tmp_path: Path, name: str
) -> None:
    layers = [layer([("keep", "k"), ("d/", ""), ("d/x", "x")]), layer([(name, "")])]
    with pytest.raises(ImageError, match="cannot unpack a layer: the layer removes"):
        await images.load(docker_archive(tmp_path / "w.tar", layers, ["w:1"]))


def _named(**headers: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo("x")
    entry.pax_headers = headers
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        _named(path="a\0b"),
        _named(mtime="inf"),
        _named(uid=str(2**70)),
        _named(path="/".join(["d"] * 1900)),
        _named(path="n" * 300),
    ],
    ids=["nul", "time", "owner", "deep", "long"],
)
async def test_headers_out_of_all_reason_are_one_clear_error(
    images: LocalImages, tmp_path: Path, entry: tarfile.TarInfo
) -> None:
    path = docker_archive(tmp_path / "h.tar", [layer([("x", entry)])], ["h:1"])
    with pytest.raises(ImageError) as told:
        await images.load(path)
    assert "Traceback" not in str(told.value)
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "images/work").iterdir())


async def test_the_overlays_own_marks_cannot_be_set_by_a_layer(images: LocalImages, tmp_path: Path) -> None:
    mark = tarfile.TarInfo("d")
    mark.type = tarfile.DIRTYPE
    mark.pax_headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
    }
    (image,) = await images.load(docker_archive(tmp_path / "m.tar", [layer([("", mark)])], ["m:1"]))
    marks = os.listxattr(f"{image.layers[0]}/d")
    assert not {"trusted.overlay.redirect", "trusted.overlay.opaque"} & set(marks)


async def test_a_layer_that_another_removed_meanwhile_is_missed_at_once(
    images: LocalImages, tmp_path: Path
) -> None:
    (image,) = await images.load(docker_archive(tmp_path / "a.tar", [layer([("a", "a")])], ["a:1"]))
    store = ImageStore(tmp_path / "images")
    chain = "sha256:" + Path(image.layers[0]).parent.name
    assert store.remove("docker.io/library/a:1")
    with pytest.raises(ImageError, match="was removed while the image was fetched"):
        store.put({}, "sha256:" + "0" * 64, [chain], tags=["docker.io/library/b:1"], size=1)
    assert store.images() == []


def test_credentials_are_for_their_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("{}")
    (tmp_path / "auth.json").chmod(0o666)
    write_settings(tmp_path, Registries(), [Credentials("r.example", "me", "secret")])
    assert stat.S_IMODE((tmp_path / "auth.json").stat().st_mode) == 0o600
