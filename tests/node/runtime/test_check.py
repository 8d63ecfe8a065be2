"""What is missing is named; the choice of the OCI runtime is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.node.runtime import check
from sampan.node.runtime.rootfs import mount_overlay, unmount_overlay
from sampan.node.runtime.types import RuntimeFailure

EVERYTHING = {name: f"/usr/bin/{name}" for name in ("crun", "runc", "conmon", "catatonit")}


def without(*names: str) -> dict[str, str]:
    return {name: path for name, path in EVERYTHING.items() if name not in names}


@pytest.mark.parametrize(
    ("hybrid", "missing", "runtime", "why"),
    [
        (False, (), "crun", "faster"),
        (False, ("runc",), "crun", "faster"),
        (False, ("crun",), "runc", "not installed"),
        (True, (), "runc", "unified is visible"),
    ],
)
def test_the_runtime_is_chosen(
    monkeypatch: pytest.MonkeyPatch, hybrid: bool, missing: tuple[str, ...], runtime: str, why: str
) -> None:
    monkeypatch.setattr(check, "hybrid_cgroups", lambda: hybrid)
    programs = check.find_programs(without(*missing).get)
    assert programs.runtime_name == runtime
    assert why in programs.why


@pytest.mark.parametrize(
    ("hybrid", "missing", "message"),
    [
        (False, tuple(EVERYTHING), "apt-get install catatonit conmon crun"),
        (False, ("conmon",), "apt-get install conmon"),
        (True, ("runc",), "apt-get install runc \\(crun alone does not do"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, hybrid: bool, missing: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(check, "hybrid_cgroups", lambda: hybrid)
    with pytest.raises(RuntimeFailure, match=message):
        check.find_programs(without(*missing).get)


@pytest.mark.root
def test_where_an_overlay_can_be(rootfs: str, tmp_path: Path) -> None:
    check.check_overlay(str(tmp_path))
    (tmp_path / "stacked").mkdir()
    root = mount_overlay((), str(tmp_path / "stacked"))
    try:
        with pytest.raises(RuntimeFailure, match=f"cannot mount an overlay under {root}"):
            check.check_overlay(root)
    finally:
        unmount_overlay(str(tmp_path / "stacked"))
