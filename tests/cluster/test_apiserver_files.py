"""Files for the API server: checked before anything starts, used at every start."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cluster.test_faults import pytestmark  # noqa: F401
from tests.cluster.test_lifecycle import Owner, owner  # noqa: F401

ENCRYPTION = """
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm: {keys: [{name: one, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}
  - identity: {}
"""
POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, resources: [{group: "", resources: [secrets]}]}]
"""


def test_secrets_are_sealed_and_audited(owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    name = owner.name()
    (tmp_path / "encryption.yaml").write_text(ENCRYPTION)
    (tmp_path / "policy.yaml").write_text(POLICY)
    owner.run("up", "--name", name, "--encryption-provider-config", str(tmp_path / "encryption.yaml"),
              "--audit-policy-file", str(tmp_path / "policy.yaml"))  # fmt: skip
    owner.kubectl(name, "create", "secret", "generic", "s", "--from-literal=k=a-hidden-word")
    state = Path("/var/lib/sampan", name)
    log = state / "logs/audit.log"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    made = next(e for e in events if e["verb"] == "create" and e["objectRef"].get("resource") == "secrets")
    assert made["responseStatus"]["code"] == 201
    assert log.stat().st_mode & 0o777 == 0o600
    owner.run("stop", "--name", name)
    with closing(sqlite3.connect(f"file:{state / 'store'}?mode=ro", uri=True)) as database:
        dump = "\n".join(repr(row) for row in database.execute("SELECT * FROM log"))
    assert "k8s:enc:aesgcm:v1:one:" in dump
    assert "YS1oaWRkZW4td29yZA" not in dump
    owner.run("up", "--name", name)
    value = owner.kubectl(name, "get", "secret", "s", "-o", "jsonpath={.data.k}")
    assert value == "YS1oaWRkZW4td29yZA=="


def test_faulty_files_are_told_together_and_nothing_is_made(owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    name = owner.name()
    (tmp_path / "e.yaml").write_text(ENCRYPTION.replace("secrets", "secretz"))
    (tmp_path / "p.yaml").write_text(POLICY.replace("Metadata", "Meta"))
    done = owner.run(
        "up", "--name", name, "--encryption-provider-config", str(tmp_path / "e.yaml"),
        "--audit-policy-file", str(tmp_path / "p.yaml"), "--token-auth-file", str(tmp_path / "none"),
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    for problem in (
        "--encryption-provider-config: ",
        "secretz",
        "--audit-policy-file: ",
        '"Meta"',
        "--token-auth-file: ",
    ):
        assert problem in done.stderr
    assert not Path("/var/lib/sampan", name).exists()
