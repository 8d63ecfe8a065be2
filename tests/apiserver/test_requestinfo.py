"""What a request is about, from method and URL."""

from __future__ import annotations

import pytest

from sampan.api.resources import DEPLOYMENTS, NAMESPACES, NODES, PODS, SERVICES, Resource
from sampan.apiserver.requestinfo import modern_target, parse
from sampan.transport.types import Request


@pytest.mark.parametrize(
    ("method", "target", "verb", "resource", "namespace", "name", "subresource"),
    [
        ("GET", "/api/v1/pods", "list", PODS, "", "", ""),
        ("GET", "/api/v1/namespaces/a/pods", "list", PODS, "a", "", ""),
        ("GET", "/api/v1/namespaces/a/pods?watch=true", "watch", PODS, "a", "", ""),
        ("GET", "/api/v1/namespaces/a/pods?watch=0", "list", PODS, "a", "", ""),
        ("GET", "/api/v1/watch/namespaces/a/pods", "watch", PODS, "a", "", ""),
        ("GET", "/api/v1/watch/namespaces/a/pods/p", "watch", PODS, "a", "p", ""),
        ("GET", "/api/v1/namespaces/a/pods/p", "get", PODS, "a", "p", ""),
        ("HEAD", "/api/v1/namespaces/a/pods/p", "get", PODS, "a", "p", ""),
        ("POST", "/api/v1/namespaces/a/pods", "create", PODS, "a", "", ""),
        ("PUT", "/api/v1/namespaces/a/pods/p/status", "update", PODS, "a", "p", "status"),
        ("PATCH", "/api/v1/namespaces/a/pods/p", "patch", PODS, "a", "p", ""),
        ("DELETE", "/api/v1/namespaces/a/pods/p", "delete", PODS, "a", "p", ""),
        ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection", PODS, "a", "", ""),
        ("GET", "/api/v1/namespaces", "list", NAMESPACES, "", "", ""),
        ("GET", "/api/v1/namespaces/a", "get", NAMESPACES, "a", "a", ""),
        ("PUT", "/api/v1/namespaces/a/finalize", "update", NAMESPACES, "a", "a", "finalize"),
        ("GET", "/api/v1/nodes/n/proxy/logs/x", "get", NODES, "", "n", "proxy"),
        ("POST", "/api/v1/namespaces/a/services/s:80/proxy/x", "create", SERVICES, "a", "s:80", "proxy"),
        ("GET", "/apis/apps/v1/namespaces/a/deployments/d/scale", "get", DEPLOYMENTS, "a", "d", "scale"),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dp", "list", PODS, "", "p", ""),
        ("GET", "/api/v1/pods?fieldSelector=spec.x%3Dy,metadata.name%3D%3Dp", "list", PODS, "", "p", ""),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dp", "list", PODS, "", "", ""),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3D..", "list", PODS, "", "", ""),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Da%2Fb", "list", PODS, "", "", ""),
        ("DELETE", "/api/v1/pods?fieldSelector=metadata.name%3Dp", "deletecollection", PODS, "", "p", ""),
        ("GET", "/api/v1/pods?watch", "watch", PODS, "", "", ""),
        ("GET", "/api/v1/pods?watch=", "watch", PODS, "", "", ""),
        ("GET", "/api/v1/pods?watch=False", "list", PODS, "", "", ""),
        ("GET", "/api/v1/pods?watch=yes", "watch", PODS, "", "", ""),
        ("POST", "/api/v1/watch/pods", "watch", PODS, "", "", ""),
        ("OPTIONS", "/api/v1/pods", "", PODS, "", "", ""),
        ("GET", "/api/v1/namespaces/a/nothings/x", "get", None, "a", "x", ""),
        # What is escaped in a path is part of it like anything else; nothing leads up.
        ("GET", "/api/v1/namespaces/a/pods/%2e%2e/log", "get", PODS, "a", "..", "log"),
        ("GET", "/api/v1/namespaces/%2e%2e/pods/x", "get", PODS, "..", "x", ""),
        ("GET", "/api/v1/namespaces/a/pods/b%2Flog", "get", PODS, "a", "b", "log"),
        ("GET", "/api/v1//pods", "get", None, "", "pods", ""),
    ],
)
def test_resources(
    method: str,
    target: str,
    verb: str,
    resource: Resource | None,
    namespace: str,
    name: str,
    subresource: str,
) -> None:
    info = parse(Request(method, target, {}))
    assert info.is_resource
    assert info.verb == verb
    assert info.resource is resource
    assert (info.namespace, info.name, info.subresource) == (namespace, name, subresource)


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1", "/apis", "/apis/apps/v1", "/healthz", "/version"])
def test_paths_that_are_no_resource(path: str) -> None:
    info = parse(Request("GET", path, {}))
    assert (info.is_resource, info.verb, info.path) == (False, "get", path)


def test_rest_and_selectors() -> None:
    info = parse(Request("GET", "/api/v1/nodes/n/proxy/a/b", {}))
    assert info.rest == "a/b"
    info = parse(Request("GET", "/api/v1/pods?labelSelector=a%3Db&fieldSelector=spec.nodeName%3Dn", {}))
    assert (info.label_selector, info.field_selector) == ("a=b", "spec.nodeName=n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/api/v1/proxy/namespaces/a/services/s:http/", "/api/v1/namespaces/a/services/s:http/proxy/"),
        ("/api/v1/proxy/namespaces/a/services/s/x/y?q=1", "/api/v1/namespaces/a/services/s/proxy/x/y?q=1"),
        ("/api/v1/proxy/namespaces/a/pods/p", "/api/v1/namespaces/a/pods/p/proxy"),
        ("/api/v1/proxy/nodes/n/stats/x", "/api/v1/nodes/n/proxy/stats/x"),
        ("/api/v1/namespaces/a/pods/p", "/api/v1/namespaces/a/pods/p"),
    ],
)
def test_the_old_form_of_proxy_paths(old: str, new: str) -> None:
    assert modern_target(old) == new
