"""Trees as any container can make them are removed whole; what is mounted inside is never looked through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.linux.mounts import mount_points, mounts_below, remove_tree, unmount_below
from sampan.linux.syscalls import CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC, mount, unshare
from sampan.network.namespaces import run_forked


def make_deep(top: Path, depth: int) -> None:
    """Directories so deep that their path is longer than any path may be."""
    top.mkdir()
    at = os.open(top, os.O_PATH | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=at)
        inner = os.open("deeper", os.O_PATH | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    make_deep(tmp_path / "tree", 3000)
    (tmp_path / "tree" / "link").symlink_to(tmp_path)
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
    remove_tree(tmp_path / "tree")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_is_mounted_inside_is_safe(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    point = tree / os.fsdecode(b"a b\\\n\xc3\xa9\xff")
    outside.mkdir()
    (outside / "data").write_text("precious")
    point.mkdir(parents=True)

    def work() -> None:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        before = mount_points()
        mount(str(outside), str(point), flags=MS_BIND)
        assert mounts_below(tree) == [str(point)]
        with pytest.raises(OSError, match="is still a mount"):
            remove_tree(tree)
        assert point.is_dir()
        unmount_below(tree)
        assert mount_points() == before
        remove_tree(tree)

    run_forked(work)
    assert not tree.exists()
    assert (outside / "data").read_text() == "precious"
