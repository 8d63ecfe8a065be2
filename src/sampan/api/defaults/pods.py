"""Defaults of Pods and of the pod templates in other objects."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.images import tag_of

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_FALSE_IS_ABSENT = ("hostNetwork", "hostPID", "hostIPC")
_CONTAINER_FALSE_IS_ABSENT = ("stdin", "stdinOnce", "tty")


def pod(obj: Object) -> None:
    """A whole Pod. (Tolerations, priority and the service account are set by admission.)"""
    spec = obj.setdefault("spec", {})
    pod_spec(spec)
    for container in _containers(spec):
        _requests_from_limits(container)
    if spec.get("resources"):
        _pod_requests_from_limits(spec)
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    if spec.get("hostNetwork"):
        for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
            for port in container.get("ports") or ():
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort")


def pod_spec(spec: Object) -> None:
    """A pod's spec, in a Pod or in a template."""
    for name in _FALSE_IS_ABSENT:
        if spec.get(name) is False:
            del spec[name]
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    # `serviceAccount` is the deprecated name of `serviceAccountName`: both are always shown.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for item in _containers(spec):
        container(item)
    for item in spec.get("volumes") or ():
        volume(item)


def _containers(spec: Object) -> list[Object]:
    return [
        *(spec.get("containers") or ()),
        *(spec.get("initContainers") or ()),
        *(spec.get("ephemeralContainers") or ()),
    ]


def container(item: Object) -> None:
    for name in _CONTAINER_FALSE_IS_ABSENT:
        if item.get(name) is False:
            del item[name]
    if not item.get("imagePullPolicy"):
        item["imagePullPolicy"] = "Always" if tag_of(item.get("image") or "") == "latest" else "IfNotPresent"
    if not item.get("terminationMessagePath"):
        item["terminationMessagePath"] = "/dev/termination-log"
    if not item.get("terminationMessagePolicy"):
        item["terminationMessagePolicy"] = "File"
    if item.get("resources") is None:
        item["resources"] = {}
    for port in item.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in item.get("env") or ():
        source = variable.get("valueFrom")
        if source and source.get("fieldRef") and not source["fieldRef"].get("apiVersion"):
            source["fieldRef"]["apiVersion"] = "v1"
        if source and source.get("resourceFieldRef") and not source["resourceFieldRef"].get("divisor"):
            source["resourceFieldRef"]["divisor"] = "0"
        if source and source.get("fileKeyRef") and source["fileKeyRef"].get("optional") is None:
            source["fileKeyRef"]["optional"] = False
    for name in _PROBES:
        if item.get(name) is not None:
            _probe(item[name])
    for handler in (item.get("lifecycle") or {}).values():
        if isinstance(handler, dict) and handler.get("httpGet") is not None:
            _http_get(handler["httpGet"])


def _probe(probe: Object) -> None:
    for name, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not probe.get(name):
            probe[name] = value
    if probe.get("httpGet") is not None:
        _http_get(probe["httpGet"])
    if probe.get("grpc") is not None and probe["grpc"].get("service") is None:
        probe["grpc"]["service"] = ""


def _http_get(action: Object) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


def _requests_from_limits(item: Object) -> None:
    limits = (item.get("resources") or {}).get("limits")
    if limits:
        requests = item["resources"].get("requests")
        if requests is None:
            requests = item["resources"]["requests"] = {}
        for name, value in limits.items():
            requests.setdefault(name, value)


def _pod_requests_from_limits(spec: Object) -> None:
    """Requests of the whole pod: where it has a limit but neither a request nor containers that ask for it."""
    resources = spec["resources"]
    for name, value in (resources.get("limits") or {}).items():
        requests = resources.setdefault("requests", {})
        if name not in requests and not any(
            name in ((c.get("resources") or {}).get("requests") or {}) for c in _containers(spec)
        ):
            requests[name] = value


def volume(item: Object) -> None:
    sources = [name for name in item if name != "name"]
    if not sources:
        # A volume without a source is an emptyDir.
        item["emptyDir"] = {}
        return
    for name in sources:
        source = item[name]
        if not isinstance(source, dict):
            continue
        if name in ("configMap", "secret", "downwardAPI"):
            if source.get("defaultMode") is None:
                source["defaultMode"] = 0o644
            if name == "downwardAPI":
                _downward(source)
        elif name == "projected":
            if source.get("defaultMode") is None:
                source["defaultMode"] = 0o644
            for part in source.get("sources") or ():
                token = part.get("serviceAccountToken")
                if token is not None and token.get("expirationSeconds") is None:
                    token["expirationSeconds"] = 3600
                if part.get("downwardAPI"):
                    _downward(part["downwardAPI"])
        elif name == "hostPath":
            if source.get("type") is None:
                source["type"] = ""
        elif name == "iscsi":
            if not source.get("iscsiInterface"):
                source["iscsiInterface"] = "default"
        elif name == "rbd":
            for key, value in (("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")):
                if not source.get(key):
                    source[key] = value
        elif name == "azureDisk":
            for key, chosen in (
                ("cachingMode", "ReadWrite"),
                ("fsType", "ext4"),
                ("readOnly", False),
                ("kind", "Shared"),
            ):
                if source.get(key) is None:
                    source[key] = chosen
        elif name == "scaleIO":
            for key, value in (("storageMode", "ThinProvisioned"), ("fsType", "xfs")):
                if not source.get(key):
                    source[key] = value
        elif name == "ephemeral" and source.get("volumeClaimTemplate"):
            claim = source["volumeClaimTemplate"].setdefault("spec", {})
            if claim.get("volumeMode") is None:
                claim["volumeMode"] = "Filesystem"


def _downward(source: Object) -> None:
    for entry in source.get("items") or ():
        field = entry.get("fieldRef")
        if field and not field.get("apiVersion"):
            field["apiVersion"] = "v1"
        if entry.get("resourceFieldRef") and not entry["resourceFieldRef"].get("divisor"):
            entry["resourceFieldRef"]["divisor"] = "0"
