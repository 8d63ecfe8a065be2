"""`sampan store`: backups of clusters that run, restored; objects moved between SQLite and etcd, there and back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests import real_cluster
from tests.cluster.test_lifecycle import Owner, owner  # noqa: F401

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed"),
]


class Store:
    """The commands, for one cluster."""

    def __init__(self, owner: Owner, name: str) -> None:  # noqa: F811
        self._owner = owner
        self._name = name

    def __call__(self, verb: str, *arguments: str) -> str:
        done = self._owner.run("store", verb, *arguments, "--name", self._name)
        return done.stdout

    def refused(self, verb: str, *arguments: str) -> str:
        done = self._owner.run("store", verb, *arguments, "--name", self._name, check=False)
        assert done.returncode == 1
        return done.stderr or done.stdout


def versions(owner: Owner, name: str) -> dict[str, int]:  # noqa: F811
    """The resourceVersion of every ConfigMap of ours."""
    listed = json.loads(owner.kubectl(name, "get", "configmaps", "-l", "ours=yes", "-o", "json"))
    return {o["metadata"]["name"]: int(o["metadata"]["resourceVersion"]) for o in listed["items"]}


def make(owner: Owner, name: str, *names: str) -> None:  # noqa: F811
    for each in names:
        owner.kubectl(name, "create", "configmap", each, "--from-literal=a=b")
        owner.kubectl(name, "label", "configmap", each, "ours=yes")


def must_start_anew(owner: Owner, name: str, version: int) -> None:  # noqa: F811
    """A watch from a revision of before is told that it is too old."""
    path = f"/api/v1/configmaps?watch=true&timeoutSeconds=1&resourceVersion={version}"
    assert '"code":410' in owner.kubectl(name, "get", "--raw", path)


def test_there_and_back(owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    name = owner.name()
    store = Store(owner, name)
    root = Path("/var/lib/sampan", name)
    file = tmp_path / "backup"
    owner.run("up", "--name", name)
    make(owner, name, "one", "two")
    uid = owner.kubectl(name, "get", "node", "node-1", "-o", "jsonpath={.metadata.uid}")

    # a backup while it runs; what came after it is gone with the restore
    assert f"are in {file}" in store("backup", str(file))
    make(owner, name, "three")
    owner.kubectl(name, "delete", "configmap", "one")
    before = versions(owner, name)
    for verb in (("restore", str(file)), ("migrate", "etcd"), ("check",)):
        assert f"cluster {name} runs: `sampan stop --name {name}` first" in store.refused(*verb)
    owner.run("stop", "--name", name)
    assert store("check") == f"the store of cluster {name} is sound\n"
    assert "before-restore" in store("restore", str(file))
    owner.run("up", "--name", name)
    after = versions(owner, name)
    assert set(after) == {"one", "two"}
    assert min(after.values()) > max(before.values())
    must_start_anew(owner, name, max(before.values()))
    assert owner.kubectl(name, "get", "node", "node-1", "-o", "jsonpath={.metadata.uid}") == uid

    # to an etcd of its own, whose backup is taken while it runs too
    owner.run("stop", "--name", name)
    store("migrate", "etcd")
    owner.run("up", "--name", name)
    moved = versions(owner, name)
    assert set(moved) == {"one", "two"}
    assert min(moved.values()) > max(after.values())
    must_start_anew(owner, name, max(after.values()))
    make(owner, name, "four")
    store("backup", str(file))
    owner.kubectl(name, "delete", "configmap", "four", "two")
    newest = versions(owner, name)
    assert store("check") == f"the store of cluster {name} is sound\n"
    owner.run("stop", "--name", name)
    store("restore", str(file))
    assert "is on etcd already" in store.refused("migrate", "etcd")
    store("migrate", "sqlite")
    owner.run("up", "--name", name)
    back = versions(owner, name)
    assert set(back) == {"one", "two", "four"}
    assert min(back.values()) > max(newest.values())
    must_start_anew(owner, name, max(newest.values()))
    owner.kubectl(name, "wait", "--for=condition=Ready", "node/node-1", "--timeout=60s")

    # damage is told, of backups and of the store
    owner.run("stop", "--name", name)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "damaged" in store.refused("restore", str(file))
    with sqlite3.connect(root / "store") as connection:
        value = bytes(
            connection.execute("SELECT value FROM log WHERE key LIKE '%/default/four'").fetchone()[0]
        )
        connection.execute("UPDATE log SET value = ? WHERE key LIKE '%/default/four'", (value[:-3],))
        key = "/registry/configmaps/default/moved"
        connection.execute("UPDATE log SET key = ? WHERE key LIKE '%/default/one'", (key,))
    connection.close()
    told = store.refused("check").splitlines()
    assert len(told) == 2
    assert "/registry/configmaps/default/four at revision" in told[0]
    assert told[1] == f"{key}: the object in it belongs at /registry/configmaps/default/one"
