"""What a cluster left behind is found by its name alone, removed, and nothing beside it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.cluster import config as configuration
from sampan.cluster import processes, teardown
from sampan.cluster.errors import ClusterError
from sampan.network import namespaces
from tests.cluster.test_lifecycle import SAMPAN

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def left_over() -> Iterator[tuple[str, list[Path]]]:
    """The empty cgroups of a cluster that nothing else is left of, in two hierarchies where there are two."""
    name = f"t{os.getpid()}-left"
    tops = [root / "sampan" / name for root in processes.roots()[:2]]
    for top in tops:
        (top / "node-1" / "agent").mkdir(parents=True)
        (top / "control").mkdir()
    yield name, tops
    processes.remove_cgroups(f"sampan/{name}")


def test_delete_takes_cgroups_away_that_nothing_else_is_left_of(
    left_over: tuple[str, list[Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for module in (configuration, teardown):  # elsewhere than the machine's clusters, whose lock may be held
        monkeypatch.setattr(module, "STATE", tmp_path / "state")
        monkeypatch.setattr(module, "RUN", tmp_path / "run")
    name, tops = left_over
    with pytest.raises(ClusterError, match=f"there is no cluster '{name}x'"):
        teardown.delete_named(f"{name}x")
    assert all(top.is_dir() for top in tops)
    teardown.delete_named(name)
    assert not any(top.exists() for top in tops)
    with pytest.raises(ClusterError, match="there is no cluster"):
        teardown.delete_named(name)


@pytest.mark.parametrize("hide", ["mount -t tmpfs none {top}", "mount -t tmpfs none /sys/fs/cgroup"])
def test_delete_removes_cgroups_that_its_own_mounts_hide(
    left_over: tuple[str, list[Path]], tmp_path: Path, hide: str
) -> None:
    name, tops = left_over
    script = f"{hide.format(top=processes.roots()[0])} && exec {SAMPAN} delete --name {name}"
    # What finds it: of a cluster whose cgroups are all hidden, some other trace is left.
    run = tmp_path / "run" / name
    run.mkdir(parents=True)
    places = {"SAMPAN_STATE": str(tmp_path / "state"), "SAMPAN_RUN": str(tmp_path / "run")}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env={**os.environ, **places, "KUBECONFIG": str(tmp_path / "config")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not run.exists()
    assert not any(top.exists() for top in tops)


def test_removal_waits_for_the_last_process_to_end(left_over: tuple[str, list[Path]]) -> None:
    name, tops = left_over
    with subprocess.Popen(["sleep", "1000"]) as process:
        for top in tops:
            (top / "node-1" / "agent" / "cgroup.procs").write_text(str(process.pid))
        waiting = threading.Thread(target=processes.remove_cgroups, args=[f"sampan/{name}"])
        waiting.start()
        try:
            assert all((top / "node-1" / "agent").is_dir() for top in tops)
        finally:
            process.kill()
            process.wait()
            waiting.join()
    assert not any(top.exists() for top in tops)


def test_a_name_that_begins_another_name_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(namespaces, "NETNS_DIRECTORY", tmp_path)
    for name in ("sampan-a-node-1", "sampan-a-node-10", "sampan-a-b-node-1", "sampan-a-node-1-node-1"):
        (tmp_path / name).touch()
    assert list(teardown._nodes_left("a")) == ["node-1", "node-10"]
    assert list(teardown._nodes_left("a-b")) == ["node-1"]
