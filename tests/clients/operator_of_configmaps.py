"""An operator that keeps, for each ConfigMap labelled `mirror=me`, a Secret of the same content: run by kopf in a test."""

from __future__ import annotations

from typing import Any

import kopf
import pykube

_OURS = {"mirror": "me"}


@kopf.on.create("", "v1", "configmaps", labels=_OURS)
@kopf.on.update("", "v1", "configmaps", labels=_OURS, field="data")
def mirror(name: str, namespace: str, body: kopf.Body, **_: Any) -> dict[str, str]:
    api = pykube.HTTPClient(pykube.KubeConfig.from_env())
    wanted = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": dict(body.get("data") or {}),
    }
    kopf.adopt(wanted, owner=body)
    secret = pykube.Secret(api, wanted)
    if secret.exists():
        secret.update(is_strategic=False)
    else:
        secret.create()
    kopf.event(body, type="Normal", reason="Mirrored", message=f"secret {name} is up to date")
    return {"mirrored": name}


@kopf.on.delete("", "v1", "configmaps", labels=_OURS)
def forget(name: str, namespace: str, patch: kopf.Patch, **_: Any) -> None:
    api = pykube.HTTPClient(pykube.KubeConfig.from_env())
    note = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-gone", "namespace": namespace},
    }
    pykube.ConfigMap(api, note).create()
