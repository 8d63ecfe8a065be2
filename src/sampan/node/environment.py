"""The environment of a container: the pod's own `env` and `envFrom`, `$(VAR)` expansion, and the service variables.

Upstream: `kubelet_pods.go` (makeEnvironmentVariables), `envvars`, `third_party/forked/golang/expansion`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from sampan.api.errors import Object
from sampan.api.resources import CONFIGMAPS, SECRETS, Resource
from sampan.node.fieldref import FieldRefError, field_value, resource_value
from sampan.node.references import data_of

Lookup = Callable[[Resource, str], Awaitable[Object | None]]
"""An object of the pod's namespace by resource and name, or None."""

_REFERENCE = re.compile(r"\$(\$|\([^)]*\))")
_NAME = re.compile(r"[ -<>-~]+")
"""Any printable ASCII but `=`."""


class EnvironmentFailure(Exception):
    """Something that a variable refers to is not there; the message is what the container's status shows."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where NAME is known and left alone where it is not; `$$` is a plain `$`."""

    def value(found: re.Match[str]) -> str:
        inside = found[1]
        if inside == "$":
            return "$"
        return variables.get(inside[1:-1], found[0])

    return _REFERENCE.sub(value, text)


def service_variables(services: Iterable[Object]) -> dict[str, str]:
    """The variables that tell of Services: `{NAME}_SERVICE_HOST`, `..._PORT`, and the Docker-link forms."""
    out: dict[str, str] = {}
    for service in services:
        spec = service["spec"]
        address = spec.get("clusterIP") or ""
        ports = spec.get("ports") or []
        if address in ("", "None") or not ports:
            continue
        prefix = service["metadata"]["name"].upper().replace("-", "_")
        host = f"[{address}]" if ":" in address else address
        out[f"{prefix}_SERVICE_HOST"] = address
        out[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                out[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
        for index, port in enumerate(ports):
            protocol = port.get("protocol") or "TCP"
            url = f"{protocol.lower()}://{host}:{port['port']}"
            link = f"{prefix}_PORT_{port['port']}_{protocol}"
            if index == 0:
                out[f"{prefix}_PORT"] = url
            out[link] = url
            out[f"{link}_PROTO"] = protocol.lower()
            out[f"{link}_PORT"] = str(port["port"])
            out[f"{link}_ADDR"] = address
    return out


def services_for(pod: Object, services: Iterable[Object]) -> list[Object]:
    """The Services whose variables a pod gets: those of its namespace if it wants links, and the API's own always."""
    namespace, links = pod["metadata"]["namespace"], pod["spec"].get("enableServiceLinks", True)
    found: dict[str, Object] = {}
    for service in services:
        meta = service["metadata"]
        if meta["namespace"] == "default" and meta["name"] == "kubernetes":
            found.setdefault(meta["name"], service)
        elif links and meta["namespace"] == namespace:
            found[meta["name"]] = service
    return list(found.values())


async def container_environment(
    pod: Object,
    container: Object,
    *,
    lookup: Lookup,
    services: Iterable[Object],
    node_name: str,
    host_ips: tuple[str, ...],
    pod_ips: tuple[str, ...],
    machine_cpus: float,
    machine_memory: int,
) -> dict[str, str]:
    """The variables of one container, in order. Raises EnvironmentFailure."""
    namespace = pod["metadata"]["namespace"]
    service_env = service_variables(services_for(pod, services))
    result: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        for kind, resource in (("configMapRef", CONFIGMAPS), ("secretRef", SECRETS)):
            ref = source.get(kind)
            if ref is None:
                continue
            obj = await _object(lookup, resource, ref)
            for key, value in _texts(obj, resource).items() if obj is not None else ():
                name = (source.get("prefix") or "") + key
                if _NAME.fullmatch(name):
                    result[name] = value
    known: dict[str, str] = {}
    for variable in container.get("env") or ():
        name = variable["name"]
        # A variable of the pod's own hides the service's of that name, also from $(...).
        service_env.pop(name, None)
        if variable.get("value"):
            value = expand(variable["value"], {**service_env, **result, **known})
        elif variable.get("valueFrom"):
            found = await _from(
                pod, container, variable["valueFrom"], namespace, lookup, node_name, host_ips, pod_ips,
                machine_cpus, machine_memory,
            )  # fmt: skip
            if found is None:
                continue
            value = found
        else:
            value = ""
        known[name] = value
        result.pop(name, None)
        result[name] = value
    for name, value in service_env.items():
        result.setdefault(name, value)
    return result


async def _object(lookup: Lookup, resource: Resource, ref: Mapping[str, Any]) -> Object | None:
    """The object referred to; None only where the reference is optional."""
    obj = await lookup(resource, ref.get("name", ""))
    if obj is None and not ref.get("optional"):
        raise EnvironmentFailure(f'{resource.singular} "{ref.get("name", "")}" not found')
    return obj


def _texts(obj: Object, resource: Resource) -> dict[str, str]:
    if resource is CONFIGMAPS:
        return dict(obj.get("data") or {})
    return {k: v.decode(errors="surrogateescape") for k, v in data_of(obj, resource).items()}


async def _from(
    pod: Object,
    container: Object,
    source: Mapping[str, Any],
    namespace: str,
    lookup: Lookup,
    node_name: str,
    host_ips: tuple[str, ...],
    pod_ips: tuple[str, ...],
    machine_cpus: float,
    machine_memory: int,
) -> str | None:
    """The value of a `valueFrom`; None where an optional one is not there."""
    try:
        if "fieldRef" in source:
            path = source["fieldRef"]["fieldPath"]
            return field_value(pod, path, node_name=node_name, host_ips=host_ips, pod_ips=pod_ips)
        if "resourceFieldRef" in source:
            return resource_value(
                pod,
                source["resourceFieldRef"],
                default_container=container["name"],
                machine_cpus=machine_cpus,
                machine_memory=machine_memory,
            )
    except (FieldRefError, ValueError) as e:
        raise EnvironmentFailure(str(e)) from None
    for kind, resource in (("configMapKeyRef", CONFIGMAPS), ("secretKeyRef", SECRETS)):
        if kind not in source:
            continue
        ref = source[kind]
        obj = await _object(lookup, resource, ref)
        texts = _texts(obj, resource) if obj is not None else {}
        if ref["key"] not in texts:
            if ref.get("optional"):
                return None
            raise EnvironmentFailure(
                f"couldn't find key {ref['key']} in {resource.kind} {namespace}/{ref.get('name', '')}"
            )
        return texts[ref["key"]]
    raise EnvironmentFailure(f"unsupported valueFrom: {', '.join(source)}")
