"""`make demo` as a newcomer runs it: with kubectl, where kubectl cannot be had, and without root."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import real_cluster

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def programs(directory: Path, *without: str, **instead: str) -> str:
    """A PATH with all programs of this machine but some; for others a script stands in."""
    directory.mkdir()
    for place in reversed(os.get_exec_path()):
        for program in Path(place).glob("*"):
            if program.name not in without:
                (directory / program.name).unlink(missing_ok=True)
                (directory / program.name).symlink_to(program)
    for name, script in instead.items():
        file = directory / name.replace("_", "-")
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    return str(directory)


@pytest.fixture
def name(tmp_path: Path) -> Iterator[str]:
    name = f"t{os.getpid()}-demo"
    yield name
    subprocess.run([ROOT / ".venv/bin/sampan", "delete", "--name", name], capture_output=True, check=False)


@pytest.fixture
def for_all() -> Iterator[Path]:
    """A directory that whoever is not root can read, too."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def run(command: str, *arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home), "KUBECONFIG": str(home / "config"), **more}
    environment.pop("SUDO_USER", None)
    return subprocess.run(
        [ROOT / "scripts" / command, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.root
@pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing())
def test_it_prints_url_and_answer_with_kubectl_and_without(name: str, tmp_path: Path) -> None:
    first = run("demo", name, home=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"cluster {name} is ready" in first.stdout
    assert "service/mc3 created" in first.stdout
    assert "demo: nodeIP:nodePort is http://172.29." in first.stdout
    assert "\nHello world!\n" in first.stdout
    assert f"sampan delete --name {name}" in first.stdout
    # Again, where kubectl cannot be had; the Pod is to be made anew.
    subprocess.run(
        ["kubectl", f"--context=sampan-{name}", "delete", "pod", "mc3", "--now"],
        env={**os.environ, "KUBECONFIG": str(tmp_path / "config")},
        check=True,
        capture_output=True,
    )
    path = programs(tmp_path / "bin", "kubectl", apt_get="echo no such package >&2; exit 100")
    second = run("demo", name, home=tmp_path, PATH=path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "https://kubernetes.io/docs/tasks/tools/ says how to get kubectl" in second.stdout
    assert "demo: pod mc3 is as examples/lesson/mc3.yaml wants it" in second.stdout
    assert "\nHello world!\n" in second.stdout


@pytest.mark.root
@pytest.mark.parametrize("there", [True, False], ids=["with sudo", "without sudo"])
def test_without_root(for_all: Path, there: bool) -> None:
    instead = {"sudo": 'echo "sudo $*"'} if there else {}
    path = programs(for_all / "bin", "sudo", **instead)
    script = for_all / "scripts/demo"
    script.parent.mkdir()
    script.write_text((ROOT / "scripts/demo").read_text())
    script.chmod(0o755)
    done = subprocess.run(
        [script, "dev"], env={"PATH": path}, user=NOBODY, group=NOBODY, extra_groups=[],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    if there:
        assert done.stdout.splitlines()[-1] == f"sudo -- {for_all}/scripts/demo dev", done.stderr
    else:
        assert (done.returncode, done.stderr) == (
            1,
            "demo: a cluster needs root, and there is no sudo here: run this as root\n",
        )
