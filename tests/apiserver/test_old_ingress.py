"""Ingress as the lesson writes it, in versions that upstream has taken away: one object with networking.k8s.io/v1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sampan.apiserver.app import App
from sampan.store.sqlite import open_store
from tests.apiserver.conftest import Api, Kubectl, config

V1 = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
VERSIONS = ("extensions/v1beta1", "networking.k8s.io/v1beta1")


def old(version: str, **spec: Any) -> Any:
    """The lesson's Ingress."""
    return {
        "apiVersion": version,
        "kind": "Ingress",
        "metadata": {"name": "my-ingress"},
        "spec": {
            "backend": {"serviceName": "other", "servicePort": 8080},
            "rules": [
                {"host": "foo.mydomain.com", "http": {"paths": [{"backend": {"serviceName": "foo", "servicePort": "web"}}]}},
                {"host": "mydomain.com", "http": {"paths": [{"path": "/bar/*", "backend": {"serviceName": "bar", "servicePort": 8080}}]}},
            ],
            **spec,
        },
    }  # fmt: skip


def path(version: str, name: str = "") -> str:
    return f"/apis/{version}/namespaces/default/ingresses{name}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_is_stored_as_v1_and_shown_as_it_came(api: Api, version: str) -> None:
    reply = await api("POST", path(version), old(version))
    assert reply.status == 201
    said = "\n".join(reply.warnings)
    assert f"{version} Ingress is deprecated" in said
    assert "use networking.k8s.io/v1 Ingress" in said
    assert "spec.defaultBackend for spec.backend" in said
    new = await api.ok("GET", f"{V1}/my-ingress")
    assert new["apiVersion"] == "networking.k8s.io/v1"
    assert new["spec"] == {
        "defaultBackend": {"service": {"name": "other", "port": {"number": 8080}}},
        "rules": [
            {"host": "foo.mydomain.com", "http": {"paths": [{
                "pathType": "ImplementationSpecific",
                "backend": {"service": {"name": "foo", "port": {"name": "web"}}},
            }]}},
            {"host": "mydomain.com", "http": {"paths": [{
                "path": "/bar/*", "pathType": "ImplementationSpecific",
                "backend": {"service": {"name": "bar", "port": {"number": 8080}}},
            }]}},
        ],
    }  # fmt: skip
    again = await api.ok("GET", path(version, "/my-ingress"))
    assert (again["apiVersion"], again["spec"]) == (version, old(version)["spec"])


async def test_patches_and_updates_through_both(api: Api) -> None:
    version = VERSIONS[0]
    made = await api.ok("POST", path(version), old(version))
    patched = await api.ok(
        "PATCH", path(version, "/my-ingress"), {"spec": {"backend": {"serviceName": "third"}}},
        content_type="application/strategic-merge-patch+json",
    )  # fmt: skip
    assert patched["spec"]["backend"] == {"serviceName": "third", "servicePort": 8080}
    new = await api.ok("GET", f"{V1}/my-ingress")
    assert new["metadata"]["uid"] == made["metadata"]["uid"]
    assert new["metadata"]["generation"] == 2
    new["spec"]["defaultBackend"]["service"]["port"] = {"name": "http"}
    await api.ok("PUT", f"{V1}/my-ingress", new)
    seen = await api.ok("GET", path(version, "/my-ingress"))
    assert seen["spec"]["backend"] == {"serviceName": "third", "servicePort": "http"}
    applied = await api(
        "PATCH", f"{path(VERSIONS[1], '/my-ingress')}?fieldManager=m&force=true", old(VERSIONS[1]),
        content_type="application/apply-patch+yaml",
    )  # fmt: skip
    assert applied.status == 200
    assert (await api.ok("GET", f"{V1}/my-ingress"))["spec"]["defaultBackend"]["service"]["name"] == "other"


async def test_problems_are_named_as_they_were_written(api: Api) -> None:
    version = VERSIONS[0]
    wrong = old(version, backend={"serviceName": "other"})
    wrong["spec"]["rules"][1]["http"]["paths"][0]["backend"] = {"serviceName": "Bad_Name", "servicePort": 80}
    reply = await api("POST", path(version), wrong)
    assert reply.status == 422
    fields = [c["field"] for c in reply.json["details"]["causes"]]
    assert fields == ["spec.backend", "spec.rules[1].http.paths[0].backend.serviceName"]


async def test_the_old_way_to_say_a_class_is_warned_of(api: Api) -> None:
    noted = {"name": "noted", "annotations": {"kubernetes.io/ingress.class": "sampan"}}
    spec = {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}
    obj = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": noted, "spec": spec}
    said = (await api("POST", V1, obj)).warnings
    assert said == [
        '299 - "annotation \\"kubernetes.io/ingress.class\\" is deprecated, please use \'spec.ingressClassName\' instead"'
    ]
    both = {**obj, "metadata": {**noted, "name": "both"}, "spec": {**spec, "ingressClassName": "sampan"}}
    assert not (await api("POST", V1, both)).warnings


async def test_what_they_do_not_offer(api: Api) -> None:
    version = VERSIONS[0]
    await api.ok("POST", path(version), old(version))
    for method, target in (
        ("GET", path(version)),
        ("GET", f"{path(version)}?watch=1"),
        ("DELETE", path(version, "/my-ingress")),
        ("DELETE", path(version)),
    ):
        assert (await api(method, target)).status == 405
    listed = await api.ok("GET", V1)
    assert [i["metadata"]["name"] for i in listed["items"]] == ["my-ingress"]


async def test_they_come_last(api: Api) -> None:
    groups = (await api.ok("GET", "/apis"))["groups"]
    networking = next(g for g in groups if g["name"] == "networking.k8s.io")
    assert [v["version"] for v in networking["versions"]] == ["v1", "v1beta1"]
    assert networking["preferredVersion"]["version"] == "v1"
    names = [g["name"] for g in groups]
    assert names.index("extensions") > names.index("networking.k8s.io")
    rows = (await api.ok("GET", "/apis/extensions/v1beta1"))["resources"]
    assert [(r["name"], r["verbs"]) for r in rows] == [("ingresses", ["create", "get", "patch", "update"])]


async def test_a_server_can_do_without_them(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "db")
    app = App(store, config(disabled_versions=frozenset(VERSIONS)))
    await app.start()
    api = Api(app, store, tmp_path)
    for version in VERSIONS:
        assert (await api("GET", f"/apis/{version}")).status == 404
        assert (await api("GET", f"/openapi/v3/apis/{version}")).status == 404
        assert (await api("POST", path(version), old(version))).status == 404
    assert "extensions" not in [g["name"] for g in (await api.ok("GET", "/apis"))["groups"]]
    swagger = (await api.ok("GET", "/openapi/v2"))["paths"]
    assert not [p for p in swagger if "v1beta1/namespaces/{namespace}/ingresses" in p or "extensions" in p]
    assert (await api("GET", V1)).status == 200
    await app.close()
    await store.close()


async def test_kubectl_applies_the_lesson_as_printed(kubectl: Kubectl) -> None:
    printed = Path(__file__).parents[2] / "examples" / "lesson" / "as-printed" / "my-ingress.yaml"
    for expected in ("ingress.extensions/my-ingress created\n", "ingress.extensions/my-ingress unchanged\n"):
        code, out, err = await kubectl.run("apply", "-f", str(printed))
        assert (code, out) == (0, expected), err
        assert "Warning: extensions/v1beta1 Ingress is deprecated in v1.14+" in err
    path = "jsonpath={.apiVersion} {.spec.rules[1].http.paths[0].path}"
    for word in ("ing", "ingress", "ingresses"):
        shown = await kubectl.run("get", word, "my-ingress", "-o", path)
        assert shown == (0, "networking.k8s.io/v1 /bar/*", "")  # no warning, either
    code, _, err = await kubectl.run("delete", "-f", str(printed))
    assert code == 1
    assert "the server does not allow this method" in err
    code, out, err = await kubectl.run("delete", "ingress", "my-ingress")
    assert (code, err) == (0, "")
    assert out.startswith('ingress.networking.k8s.io "my-ingress" deleted')
