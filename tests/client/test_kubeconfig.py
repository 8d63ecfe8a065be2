from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from sampan.client.access import Access
from sampan.client.https import HttpsClient
from sampan.client.kubeconfig import KubeconfigError, load


def config(user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
            {"name": "there", "context": {"cluster": "far", "user": "", "namespace": "ns"}},
            {"name": "lost", "context": {"cluster": "none", "user": "u"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://10.0.0.1:6443/", **(cluster or {})}},
            {"name": "far", "cluster": {"server": "http://far/prefix"}},
        ],
        "users": [{"name": "u", "user": user or {}}],
    }


def write(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_data_forms(tmp_path: Path) -> None:
    user = {"client-certificate-data": encoded(b"C"), "client-key-data": encoded(b"K"), "token": "t"}
    cluster = {"certificate-authority-data": encoded(b"A"), "tls-server-name": "k"}
    found = load(write(tmp_path / "config", config(user, cluster)))
    assert found == Access(
        "https://10.0.0.1:6443", ca=b"A", certificate=b"C", key=b"K", token="t", tls_server_name="k"
    )


def test_file_forms_are_relative_to_the_file(tmp_path: Path) -> None:
    user = {"client-certificate": "pki/c", "client-key": "/abs/k", "tokenFile": "t", "token": "stale"}
    found = load(write(tmp_path / "config", config(user, {"certificate-authority": "ca"})))
    assert found.ca == tmp_path / "ca"
    assert (found.certificate, found.key) == (tmp_path / "pki" / "c", Path("/abs/k"))
    assert found.token == tmp_path / "t"


def test_another_context(tmp_path: Path) -> None:
    path = write(tmp_path / "config", config())
    assert load(path, "there") == Access("http://far/prefix", "ns")
    client = HttpsClient.from_kubeconfig(path, "there")
    assert client.access.server == "http://far/prefix"


def test_several_files_are_merged_and_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path / "one", {"current-context": "there"})
    two = write(tmp_path / "two", config())
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{one}:{two}")
    assert load().server == "http://far/prefix"
    monkeypatch.setenv("KUBECONFIG", str(two))
    assert load().server == "https://10.0.0.1:6443"
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(KubeconfigError, match=r"\.kube/config: no such file"):
        load()


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"exec": {"command": "x"}}, "user 'u': exec is not supported"),
        ({"auth-provider": {"name": "x"}}, "auth-provider is not supported"),
        ({"username": "a", "password": "b"}, "username is not supported"),
        ({"client-certificate-data": encoded(b"C")}, "client-key is missing"),
        ({"client-certificate-data": "***", "client-key": "k"}, "client-certificate-data is not base64"),
        ({"token": 5}, "token is not a text"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, user: dict[str, Any], message: str) -> None:
    with pytest.raises(KubeconfigError, match=message):
        load(write(tmp_path / "config", config(user)))


def test_broken_files(tmp_path: Path) -> None:
    path = write(tmp_path / "config", config())
    with pytest.raises(KubeconfigError, match=r"no context 'x' \(there is: here, lost, there\)"):
        load(path, "x")
    with pytest.raises(KubeconfigError, match="no cluster 'none'"):
        load(path, "lost")
    path.write_text("kind: Pod")
    with pytest.raises(KubeconfigError, match="no kubeconfig"):
        load(path)
    path.write_text("a: [")
    with pytest.raises(KubeconfigError, match=str(path)):
        load(path)
    write(path, config(cluster={"server": "10.0.0.1"}))
    with pytest.raises(KubeconfigError, match="not an http"):
        load(path)
