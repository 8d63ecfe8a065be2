"""What is remembered of a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampan.cluster import apiserver_files
from sampan.cluster import config as configuration
from sampan.cluster.config import ClusterConfig
from sampan.cluster.errors import ClusterError
from sampan.cluster.wishes import Wishes


def test_a_cluster_of_a_newer_version_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For whoever believes that deletes it."""
    monkeypatch.setattr(configuration, "STATE", tmp_path)
    made = ClusterConfig(
        name="t-new", number=-1, api_port=6443, service_cidr="10.96.0.0/16", pod_cidr="10.244.0.0/16",
        node_subnet="172.29.0.0/24", nodes=("node-1",),
    )  # fmt: skip
    made.save()
    assert configuration.load("t-new") == made
    file = tmp_path / "t-new" / "cluster.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "teleports": 3}))
    with pytest.raises(
        ClusterError, match="another version of Sampan: this one does not know teleports"
    ) as e:
        configuration.load("t-new")
    assert "delete" not in str(e.value)
    file.write_text("[]")
    with pytest.raises(ClusterError, match="is damaged"):
        configuration.load("t-new")


def test_another_cluster_that_cannot_be_read_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be understood of a newer version's is kept clear of; what is damaged is told and passed over."""
    monkeypatch.setattr(configuration, "STATE", tmp_path)
    made = ClusterConfig(
        name="t-new", number=-1, api_port=6443, service_cidr="10.96.0.0/16", pod_cidr="10.244.0.0/16",
        node_subnet="172.29.0.0/24", nodes=("node-1",),
    )  # fmt: skip
    made.save()
    file = tmp_path / "t-new" / "cluster.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "teleports": 3}))
    (tmp_path / "t-torn").mkdir()
    (tmp_path / "t-torn" / "cluster.json").write_text('{"name": "t-to')
    assert configuration.others("t-mine") == [made]
    assert capsys.readouterr().err.startswith("sampan: the cluster t-torn is passed over, its cluster.json")


def test_a_log_without_a_policy_is_refused(tmp_path: Path) -> None:
    """It would stay empty."""
    log = Wishes(name="t", audit_log_path=str(tmp_path / "audit.log"))
    assert apiserver_files.problems(log) == [
        "--audit-log-path: nothing is audited without --audit-policy-file"
    ]
    present = ClusterConfig(
        name="t", number=-1, api_port=6443, service_cidr="10.96.0.0/16", pod_cidr="10.244.0.0/16",
        node_subnet="172.29.0.0/24", nodes=("node-1",), audit_policy_file="/etc/policy.yaml",
    )  # fmt: skip
    assert apiserver_files.problems(log, present) == []
