"""Who a whole cluster believes: the files that `sampan up` is given, and tokens made by its own kubectl."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests import real_cluster
from tests.apiserver.test_oidc import Issuer, issuer, settings  # noqa: F401
from tests.cluster.test_lifecycle import Owner, owner  # noqa: F401

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
]


def who(owner: Owner, name: str, token: str) -> Any:  # noqa: F811
    """The user that a token stands for; None where it is refused. The client certificate stays at home."""
    view = ["config", "view", "--raw", "-o", "json", "--minify"]
    config = json.loads(owner.kubectl(name, *view))
    config["users"][0]["user"] = {"token": token}
    file = owner.home / "token-config"
    file.write_text(json.dumps(config))
    told = owner.kubectl(name, "--kubeconfig", str(file), "auth", "whoami", "-o", "json", check=False)
    return json.loads(told)["status"]["userInfo"] if told else None


async def test_files_of_tokens_and_issuers(owner: Owner, issuer: Issuer, tmp_path: Path) -> None:  # noqa: F811
    name = owner.name()
    tokens, configuration = tmp_path / "tokens.csv", settings(issuer, tmp_path)
    tokens.write_text('s3cret,tina,t1,"testers"\n')
    broken = tmp_path / "broken.yaml"
    broken.write_text(configuration.read_text().replace("https://", "http://"))

    def up(*arguments: str, check: bool = True) -> str:
        done = owner.run("up", "--name", name, *arguments, check=check)
        return done.stdout + done.stderr

    refused = await asyncio.to_thread(up, "--authentication-config", str(broken), check=False)
    assert "jwt[0].issuer.url: Invalid value" in refused
    await asyncio.to_thread(
        up, "--authentication-config", str(configuration), "--token-auth-file", str(tokens)
    )
    believed = await asyncio.to_thread(who, owner, name, issuer.token(hd="example.org"))
    assert believed["username"] == "oidc:jane"
    assert await asyncio.to_thread(who, owner, name, issuer.token(hd="example.com")) is None
    tina = {"username": "tina", "uid": "t1", "groups": ["testers", "system:authenticated"]}
    assert await asyncio.to_thread(who, owner, name, "s3cret") == tina
    # They stay after a stop, and go when they are taken back.
    await asyncio.to_thread(owner.run, "stop", "--name", name)
    await asyncio.to_thread(up)
    assert await asyncio.to_thread(who, owner, name, "s3cret") == tina
    await asyncio.to_thread(owner.run, "stop", "--name", name)
    await asyncio.to_thread(up, "--token-auth-file", "")
    assert await asyncio.to_thread(who, owner, name, "s3cret") is None
    assert await asyncio.to_thread(who, owner, name, issuer.token(1, hd="example.org")) is not None

    # A token kept in a Secret is filled in by the controllers.
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "kept", "annotations": {"kubernetes.io/service-account.name": "default"}},
        "type": "kubernetes.io/service-account-token",
    }

    def kept() -> str:
        owner.kubectl(name, "apply", "-f", "-", input=json.dumps(secret))
        owner.kubectl(name, "wait", "--for=jsonpath={.data.token}", "secret/kept", "--timeout=20s")
        return owner.kubectl(
            name, "get", "secret", "kept", "-o", "go-template={{.data.token | base64decode}}"
        )

    account = await asyncio.to_thread(who, owner, name, await asyncio.to_thread(kept))
    assert account["username"] == "system:serviceaccount:default:default"
