"""Containers of all three sorts: what they share, and what only some may have."""

from __future__ import annotations

from collections.abc import Callable

from sampan.api.errors import (
    ErrorType,
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    too_many,
)
from sampan.api.validation import formats, resources, security, volumes
from sampan.api.validation.downward import field_reference, resource_reference
from sampan.api.validation.values import (
    Problems,
    formatted,
    named,
    non_negative,
    one_of,
    port_number,
    port_or_name,
    present,
    protocol,
)

_ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_EPHEMERAL_FORBIDDEN = ("ports", "lifecycle", "resources", "resizePolicy", "restartPolicy", *_PROBES)


def regular(spec: Object, path: str) -> Problems:
    """`spec.containers`."""
    given: list[Object] = spec.get("containers") or []
    if not given:
        return [required(path)]
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, container in enumerate(given):
        at = f"{path}[{i}]"
        out += _common(container, spec, at) + _own_name(container, at, seen)
        out += _lifecycle(container, spec, at) + _probes(container, spec, at)
        out += _restart(container, at)
    return out + _host_ports(given, path)


_RESTARTS = ("Always", "Never", "OnFailure")
_MAX_RULES = 20
_MAX_EXIT_CODES = 255


def _restart(container: Object, path: str) -> Problems:
    """A container's own restart policy, and the rules that refine it."""
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    out = one_of(f"{path}.restartPolicy", policy, _RESTARTS, absent=True)
    if rules and policy is None:
        detail = "must specify restartPolicy when restart rules are used"
        out.append(required(f"{path}.restartPolicy", detail))
    if len(rules) > _MAX_RULES:
        out.append(too_many(f"{path}.restartPolicyRules", len(rules), _MAX_RULES))
    for i, rule in enumerate(rules):
        at = f"{path}.restartPolicyRules[{i}]"
        out += one_of(f"{at}.action", rule.get("action"), ("Restart",))
        codes = rule.get("exitCodes")
        if codes is None:
            out.append(required(f"{at}.exitCodes", "must be specified"))
            continue
        values = codes.get("values") or []
        out += one_of(f"{at}.exitCodes.operator", codes.get("operator"), ("In", "NotIn"))
        if len(values) > _MAX_EXIT_CODES:
            out.append(too_many(f"{at}.exitCodes.values", len(values), _MAX_EXIT_CODES))
    return out


def init(spec: Object, path: str) -> Problems:
    """`spec.initContainers`: sidecars (restartPolicy Always) may have probes and hooks, the others not."""
    out: list[FieldError] = []
    seen = {c.get("name") or "" for c in spec.get("containers") or ()}
    for i, container in enumerate(spec.get("initContainers") or ()):
        at = f"{path}[{i}]"
        out += _common(container, spec, at) + _own_name(container, at, seen)
        out += _restart(container, at) + _host_ports([container], path)
        if container.get("restartPolicy") == "Always":
            out += _lifecycle(container, spec, at) + _probes(container, spec, at)
            continue
        for name in ("lifecycle", *_PROBES):
            if container.get(name) is not None:
                detail = "may not be set for init containers without restartPolicy=Always"
                out.append(forbidden_field(f"{at}.{name}", detail))
    return out


def ephemeral(spec: Object, path: str) -> Problems:
    """`spec.ephemeralContainers`: for debugging, so nothing that a workload would rely on."""
    out: list[FieldError] = []
    targets = {c.get("name") for k in ("containers", "initContainers") for c in spec.get(k) or ()}
    seen = {t for t in targets if t}
    for i, container in enumerate(spec.get("ephemeralContainers") or ()):
        at = f"{path}[{i}]"
        out += _common(container, spec, at) + image_blanks(container, at) + _own_name(container, at, seen)
        target = container.get("targetContainerName")
        if target and target not in targets:
            out.append(FieldError(ErrorType.NOT_FOUND, f"{at}.targetContainerName", target))
        for name in _EPHEMERAL_FORBIDDEN:
            if container.get(name):
                out.append(forbidden_field(f"{at}.{name}", "cannot be set for an Ephemeral Container"))
        for j, mount in enumerate(container.get("volumeMounts") or ()):
            for name in ("subPath", "subPathExpr"):
                if mount.get(name):
                    where = f"{at}.volumeMounts[{j}].{name}"
                    out.append(forbidden_field(where, "cannot be set for an Ephemeral Container"))
    return out


def image_blanks(container: Object, path: str) -> Problems:
    """A pod's image has no blanks around it (a template's may: it may be a placeholder)."""
    image = container.get("image") or ""
    if image != image.strip():
        return [invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace")]
    return []


def _own_name(container: Object, path: str, seen: set[str]) -> Problems:
    name = container.get("name") or ""
    if name and name in seen:
        return [duplicate(f"{path}.name", name)]
    seen.add(name)
    return []


def _common(container: Object, spec: Object, path: str) -> Problems:
    out = named(f"{path}.name", container.get("name"), formats.dns1123_label)
    out += present(f"{path}.image", container.get("image"))
    policies = ("File", "FallbackToLogsOnError")
    out += one_of(f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), policies)
    ports = container.get("ports")
    if ports:
        out += _ports(ports, f"{path}.ports")
    if container.get("env"):
        out += _environment(container["env"], f"{path}.env")
    if container.get("envFrom"):
        out += _environment_from(container["envFrom"], f"{path}.envFrom")
    known = {v.get("name") or "": v for v in spec.get("volumes") or ()}
    if container.get("volumeMounts"):
        out += volumes.mounts(container["volumeMounts"], container, known, f"{path}.volumeMounts")
    if container.get("volumeDevices"):
        out += volumes.devices(container["volumeDevices"], container, known, f"{path}.volumeDevices")
    pulls = ("Always", "IfNotPresent", "Never")
    out += one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), pulls)
    claims = {c.get("name") or "" for c in spec.get("resourceClaims") or ()}
    out += resources.requirements(container.get("resources"), f"{path}.resources", claims)
    out += _resize(container.get("resizePolicy") or [], spec, f"{path}.resizePolicy")
    host_users = spec.get("hostUsers") is not False
    return out + security.container(container.get("securityContext"), f"{path}.securityContext", host_users)


def _ports(ports: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    names: set[str] = set()
    for i, port in enumerate(ports):
        at = f"{path}[{i}]"
        name = port.get("name")
        if name:
            wrong = formatted(f"{at}.name", name, formats.port_name)
            out += wrong
            if not wrong and name in names:
                out.append(duplicate(f"{at}.name", name))
            names.add(name)
        if not port.get("containerPort"):
            out.append(required(f"{at}.containerPort"))
        else:
            out += port_number(f"{at}.containerPort", port["containerPort"])
        if port.get("hostPort"):
            out += port_number(f"{at}.hostPort", port["hostPort"])
        out += protocol(f"{at}.protocol", port.get("protocol"))
    return out


def _host_ports(containers: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, container in enumerate(containers):
        for j, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort"):
                key = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
                if key in seen:
                    out.append(duplicate(f"{path}[{i}].ports[{j}].hostPort", key))
                seen.add(key)
    return out


def _environment(variables: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    for i, variable in enumerate(variables):
        at = f"{path}[{i}]"
        out += named(f"{at}.name", variable.get("name"), formats.environment_name)
        if variable.get("valueFrom") is not None:
            out += _value_from(variable, f"{at}.valueFrom")
    return out


def _value_from(variable: Object, path: str) -> Problems:
    out: list[FieldError] = []
    source = variable["valueFrom"]
    kinds = [k for k in _VALUE_SOURCES if source.get(k) is not None]
    for kind in kinds:
        out += _VALUE_SOURCES[kind](source[kind], f"{path}.{kind}")
    if not kinds:
        detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        out.append(invalid_value(path, "", detail))
    elif variable.get("value"):
        out.append(invalid_value(path, "", "may not be specified when `value` is not empty"))
    elif len(kinds) > 1:
        out.append(invalid_value(path, "", "may not have more than one field specified at a time"))
    return out


def _key_reference(reference: Object, path: str) -> Problems:
    out = formatted(f"{path}.name", reference.get("name") or "", formats.dns1123_subdomain)
    return out + named(f"{path}.key", reference.get("key"), formats.config_map_key)


def _file_key(reference: Object, path: str) -> Problems:
    return [p for n in ("key", "path", "volumeName") for p in present(f"{path}.{n}", reference.get(n))]


_VALUE_SOURCES: dict[str, Callable[[Object, str], Problems]] = {
    "fieldRef": lambda r, p: field_reference(r, p, _ENV_FIELDS),
    "resourceFieldRef": resource_reference,
    "configMapKeyRef": _key_reference,
    "secretKeyRef": _key_reference,
    "fileKeyRef": _file_key,
}


def _environment_from(sources: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    for i, source in enumerate(sources):
        at = f"{path}[{i}]"
        if source.get("prefix"):
            out += formatted(f"{at}.prefix", source["prefix"], formats.environment_name)
        kinds = [k for k in ("configMapRef", "secretRef") if source.get(k) is not None]
        for kind in kinds:
            out += named(f"{at}.{kind}.name", source[kind].get("name"), formats.dns1123_subdomain)
        if not kinds:
            out.append(invalid_value(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(kinds) > 1:
            out.append(invalid_value(path, "", "may not have more than one field specified at a time"))
    return out


def _probes(container: Object, spec: Object, path: str) -> Problems:
    out: list[FieldError] = []
    for name in _PROBES:
        probe = container.get(name)
        if probe is None:
            continue
        at = f"{path}.{name}"
        out += _handler(probe, spec, at, ("exec", "httpGet", "tcpSocket", "grpc"))
        for number in (
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ):
            out += non_negative(f"{at}.{number}", probe.get(number))
        grace = probe.get("terminationGracePeriodSeconds")
        if name == "readinessProbe":
            if grace is not None:
                detail = "must not be set for readinessProbes"
                out.append(invalid_value(f"{at}.terminationGracePeriodSeconds", grace, detail))
        else:
            if grace is not None and grace <= 0:
                out.append(
                    invalid_value(f"{at}.terminationGracePeriodSeconds", grace, "must be greater than 0")
                )
            if probe.get("successThreshold") != 1:
                out.append(
                    invalid_value(f"{at}.successThreshold", probe.get("successThreshold"), "must be 1")
                )
    return out


def _lifecycle(container: Object, spec: Object, path: str) -> Problems:
    out: list[FieldError] = []
    for name in ("postStart", "preStop"):
        hook = (container.get("lifecycle") or {}).get(name)
        if hook is not None:
            out += _handler(hook, spec, f"{path}.lifecycle.{name}", ("exec", "httpGet", "tcpSocket", "sleep"))
    return out


def _handler(handler: Object, spec: Object, path: str, kinds: tuple[str, ...]) -> Problems:
    given = [k for k in kinds if handler.get(k) is not None]
    if not given:
        return [required(path, "must specify a handler type")]
    out = [forbidden_field(f"{path}.{k}", "may not specify more than 1 handler type") for k in given[1:]]
    kind = given[0]
    action, at = handler[kind], f"{path}.{kind}"
    if kind == "exec":
        out += present(f"{at}.command", action.get("command"))
    elif kind == "httpGet":
        out += present(f"{at}.path", action.get("path")) + port_or_name(f"{at}.port", action.get("port"))
        out += one_of(f"{at}.scheme", action.get("scheme"), ("HTTP", "HTTPS"))
        for header in action.get("httpHeaders") or ():
            out += formatted(f"{at}.httpHeaders", header.get("name") or "", formats.header_name)
    elif kind in ("tcpSocket", "grpc"):
        out += port_or_name(f"{at}.port", action.get("port"))
    else:
        seconds, grace = action.get("seconds") or 0, spec.get("terminationGracePeriodSeconds")
        if grace is not None and not 0 <= seconds <= grace:
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            out.append(invalid_value(at, seconds, detail))
    return out


def _resize(policies: list[Object], spec: Object, path: str) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, policy in enumerate(policies):
        name = policy.get("resourceName") or ""
        if name in seen:
            out.append(duplicate(f"{path}[{i}]", name))
        seen.add(name)
        out += one_of(path, name, ("cpu", "memory"))
        out += one_of(path, policy.get("restartPolicy"), ("NotRequired", "RestartContainer"))
        if spec.get("restartPolicy") == "Never" and policy.get("restartPolicy") != "NotRequired":
            detail = "must be 'NotRequired' when `restartPolicy` is 'Never'"
            out.append(invalid_value(path, policy.get("restartPolicy"), detail))
    return out
