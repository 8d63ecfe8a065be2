"""What cannot be had is said in one line, and nothing is left half made."""

from __future__ import annotations

import datetime
import json
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.cluster import preflight
from tests import real_cluster
from tests.cluster.machine import picture
from tests.cluster.test_lifecycle import SAMPAN, Owner, owner  # noqa: F401

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
]


def test_every_missing_program_is_named_with_its_package(owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    name = owner.name()
    before = picture(name)
    for program in ("python3", "ip"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    done = subprocess.run(
        [SAMPAN, "up", "--name", name],
        env={**owner.environment, "PATH": str(tmp_path), "SAMPAN_PROGRAMS": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "sampan: this host cannot run a cluster: programs are missing: apt-get install catatonit conmon crun nftables skopeo\n"
    )
    assert picture(name) == before


def test_without_root_it_says_so(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    code = (
        "import os; from sampan.cluster import preflight; os.setgid(65534); os.setuid(65534); "
        "print(preflight.problems_of_host())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "['sampan must run as root: use sudo']\n", done.stderr
    assert not Path("/var/lib/sampan", name).exists()


def test_kernels_without_overlay_or_nftables_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    none = tmp_path / "filesystems"
    none.write_text("nodev\tproc\n\text4\n")
    monkeypatch.setattr(preflight, "FILESYSTEMS", none)
    monkeypatch.setattr(preflight, "_load_module", lambda name: False)
    assert preflight.problems_of_host() == ["the kernel has no overlay filesystem: load the module `overlay`"]


def test_a_full_disk_is_told_and_leaves_nothing(owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    name = owner.name()
    before = picture(name)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "t-full", str(small)], check=True)
    try:
        (small / "filler").write_bytes(b"x" * 40_000)
        done = subprocess.run(
            [SAMPAN, "up", "--name", name],
            env={**owner.environment, "SAMPAN_STATE": str(small / "state")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert sorted(p.name for p in small.iterdir() if any(p.rglob("*")) or p.is_file()) in (
            ["filler"],
            ["filler", "state"],
        )
        assert not (small / "state" / name).exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert picture(name) == before


def test_a_cluster_resumed_after_a_year_has_fresh_certificates(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    owner.run("up", "--name", name)
    owner.run("stop", "--name", name)
    pki = Path("/var/lib/sampan", name, "pki")
    old = (pki / "apiserver.crt").read_bytes()
    past = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)).isoformat()
    for stamp in pki.rglob("*.stamp"):
        _, rest = stamp.read_text().split("\n", 1)
        stamp.write_text(f"{past}\n{rest}")
    said = owner.run("up", "--name", name).stdout
    assert (
        "renewed certificates: apiserver, admin, node-client, nodes/node-1/client, nodes/node-1/server"
        in said
    )
    assert (pki / "apiserver.crt").read_bytes() != old
    assert "Ready" in owner.kubectl(name, "get", "nodes"), "with the kubeconfig that was renewed, too"


def test_listen_and_names_are_as_asked_and_nothing_else_listens(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    owner.run(
        "up", "--name", name, "--listen", "127.0.0.77", "--tls-san", "kube.example", "--tls-san", "192.0.2.55"
    )
    config = json.loads(Path("/var/lib/sampan", name, "cluster.json").read_text())
    port = config["api_port"]
    context = ssl.create_default_context(cafile=str(Path("/var/lib/sampan", name, "pki/ca.crt")))
    for asked in ("kube.example", "192.0.2.55", "127.0.0.77", "localhost"):
        with (
            socket.create_connection(("127.0.0.77", port), 10) as raw,
            context.wrap_socket(raw, server_hostname=asked),
        ):
            pass
    shown = subprocess.run(
        ["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True
    ).stdout
    bridge = config["node_subnet"].rpartition(".")[0] + ".1"
    assert sorted(line.split()[3] for line in shown.splitlines()) == sorted(
        f"{a}:{port}" for a in ("127.0.0.1", "127.0.0.77", bridge)
    )
