"""The scale of everything that has one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.conftest import Api

TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
LABELS = {"matchLabels": {"app": "web"}}


@pytest.mark.parametrize(
    ("path", "selector"),
    [
        ("/apis/apps/v1/namespaces/default/deployments", LABELS),
        ("/apis/apps/v1/namespaces/default/replicasets", LABELS),
        ("/apis/apps/v1/namespaces/default/statefulsets", LABELS),
        ("/api/v1/namespaces/default/replicationcontrollers", {"app": "web"}),
    ],
)
async def test_scale(api: Api, path: str, selector: Any) -> None:
    spec = {"replicas": 2, "selector": selector, "template": TEMPLATE}
    made = await api.ok("POST", path, {"metadata": {"name": "w"}, "spec": spec})
    scale = await api.ok("GET", f"{path}/w/scale")
    meta = {
        k: made["metadata"][k] for k in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    assert scale == {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": 2},
        "status": {"replicas": 0, "selector": "app=web"},
    }
    scale["spec"]["replicas"] = 5
    assert (await api.ok("PUT", f"{path}/w/scale", scale))["spec"] == {"replicas": 5}
    after = await api.ok("GET", f"{path}/w")
    assert (after["spec"]["replicas"], after["metadata"]["generation"]) == (5, 2)
    assert (await api("PUT", f"{path}/w/scale", scale)).status == 409
    patch = {"spec": {"replicas": 0}}
    merge = "application/merge-patch+json"
    assert (await api.ok("PATCH", f"{path}/w/scale", patch, content_type=merge))["spec"]["replicas"] == 0
    wrong = await api("PATCH", f"{path}/w/scale", {"spec": {"replicas": -1}}, content_type=merge)
    assert wrong.status == 422
    assert "spec.replicas: Invalid value: -1: must be greater than or equal to 0" in wrong.json["message"]
