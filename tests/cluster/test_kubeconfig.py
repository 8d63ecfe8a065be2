"""A user's kubeconfig: what is ours comes and goes, everything else stays as it was."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from sampan.cluster import config as configuration
from sampan.cluster import kubeconfig, pki, teardown
from sampan.cluster.config import ClusterConfig
from sampan.cluster.control_plane import renew_certificates
from sampan.cluster.errors import ClusterError

OTHERS = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {},
    "clusters": [{"name": "work", "cluster": {"server": "https://192.0.2.1"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
    "current-context": "work",
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterConfig:
    """A cluster that has its certificates and is in no kubeconfig."""
    monkeypatch.setattr(configuration, "STATE", tmp_path / "state")
    monkeypatch.setattr(configuration, "RUN", tmp_path / "run")
    made = ClusterConfig(
        name="t-kc", number=-1, api_port=6443, service_cidr="10.96.0.0/16", pod_cidr="10.244.0.0/16",
        node_subnet="172.29.0.0/24", nodes=("node-1",),
    )  # fmt: skip
    pki.ensure(made)
    return made


def test_the_context_comes_and_goes_and_the_rest_stays(config: ClusterConfig, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(OTHERS))
    path.chmod(0o644)
    os.chown(path, 1234, 1234)
    kubeconfig.merge(config, path)
    merged = yaml.safe_load(path.read_text())
    assert [c["name"] for c in merged["contexts"]] == ["work", "sampan-t-kc"]
    assert merged["current-context"] == "sampan-t-kc"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "it has a private key now"
    assert path.stat().st_uid == 1234, "root who acts for a user does not take his file away"
    kubeconfig.unmerge(config.context, path)
    assert yaml.safe_load(path.read_text()) == {**OTHERS, "current-context": ""}
    kubeconfig.unmerge(config.context, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config", "state"]


def test_a_file_with_nothing_else_goes(config: ClusterConfig, tmp_path: Path) -> None:
    path = tmp_path / "config"
    kubeconfig.merge(config, path)
    kubeconfig.unmerge(config.context, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: b: c", "is not YAML, line 1"),
        (b"- a list\n", "is no kubeconfig"),
        (b"kind: Pod\n", "is no kubeconfig"),
        (b"contexts: 7\n", "is no kubeconfig"),
        (b"contexts: [sampan]\n", "is no kubeconfig"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_foreign_file_is_refused_and_left(
    config: ClusterConfig, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "config"
    path.write_bytes(content)
    with pytest.raises(ClusterError, match=words):
        kubeconfig.merge(config, path)
    with pytest.raises(ClusterError, match=words):
        kubeconfig.unmerge(config.context, path)
    assert path.read_bytes() == content


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_delete_looks_where_up_merged_and_warns_of_what_it_cannot_change(
    config: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, broken = tmp_path / "first", tmp_path / "second", tmp_path / "broken"
    for path in (first, second):
        kubeconfig.merge(config, path)
    broken.write_text("a: b: c")
    (tmp_path / "directory").mkdir()
    files = (str(first), str(second), str(broken), str(tmp_path / "directory"), str(tmp_path / "none"))
    config = ClusterConfig(**{f: getattr(config, f) for f in config.__slots__} | {"kubeconfigs": files})
    config.save()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "elsewhere"))
    assert configuration.load("t-kc") == config
    with caplog.at_level(logging.WARNING):
        teardown.delete(config)
    assert not first.exists()
    assert not second.exists()
    assert [r.getMessage() for r in caplog.records] == [
        f"warning: context sampan-t-kc is not removed: {broken} is not YAML, line 1",
        f"warning: context sampan-t-kc is not removed from {tmp_path}/directory: Is a directory",
    ]
    assert not config.directory.exists()


def test_certificates_that_end_soon_are_renewed_in_every_kubeconfig(
    config: ClusterConfig, tmp_path: Path
) -> None:
    path, left = tmp_path / "config", tmp_path / "left"
    path.write_text(yaml.safe_dump(OTHERS))
    for file in (path, left):
        kubeconfig.merge(config, file)
    kubeconfig.unmerge(config.context, left)
    assert not left.exists()
    merged = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**merged, "current-context": "work"}))
    config = replace(config, kubeconfigs=(str(path), str(left)))
    config.save()
    renew_certificates(config)
    assert yaml.safe_load(path.read_text())["users"] == merged["users"], "nothing ends soon"
    for stamp in (config.directory / "pki").rglob("*.stamp"):
        soon = (datetime.now(UTC) + timedelta(days=100)).isoformat()
        stamp.write_text(f"{soon}\n{stamp.read_text().partition(chr(10))[2]}")
    renew_certificates(config)
    now = yaml.safe_load(path.read_text())
    assert now["current-context"] == "work"
    assert [u["name"] for u in now["users"]] == ["me", config.context]
    assert now["users"][0] == merged["users"][0]
    assert now["users"][1] != merged["users"][1]
    assert now["users"] == [OTHERS["users"][0], yaml.safe_load(kubeconfig.text(config))["users"][0]]  # type: ignore[index]
    assert not left.exists()
