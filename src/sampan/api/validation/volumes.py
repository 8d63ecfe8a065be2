"""Volumes of a pod, and where containers mount them."""

from __future__ import annotations

from collections.abc import Callable

from sampan.api import quantity
from sampan.api.errors import (
    ErrorType,
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from sampan.api.validation import formats
from sampan.api.validation.downward import field_reference, resource_reference
from sampan.api.validation.values import (
    Problems,
    descending_path,
    file_mode,
    file_path,
    named,
    no_backsteps,
    one_of,
    present,
)

HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")


def volumes(given: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, volume in enumerate(given):
        at = f"{path}[{i}]"
        name = volume.get("name") or ""
        out += _source(volume, at)
        out += named(f"{at}.name", name, formats.dns1123_label)
        if name in seen:
            out.append(duplicate(f"{at}.name", name))
        seen.add(name)
    return out


def _source(volume: Object, path: str) -> Problems:
    sources = [name for name in volume if name != "name"]
    if not sources:
        return [required(path, "must specify a volume type")]
    out: list[FieldError] = []
    # Upstream looks at the sources in a fixed order: emptyDir first, then as the schema's fields come.
    for i, name in enumerate(sorted(sources, key=lambda s: (s != "emptyDir", s))):
        if i:
            out.append(forbidden_field(f"{path}.{name}", "may not specify more than 1 volume type"))
        elif name in _SOURCES:
            out += _SOURCES[name](volume[name], f"{path}.{name}")
    return out


def _empty_dir(source: Object, path: str) -> Problems:
    limit = source.get("sizeLimit")
    if limit is not None and quantity.parse(limit) < 0:
        return [forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def _host_path(source: Object, path: str) -> Problems:
    if not source.get("path"):
        return [required(f"{path}.path")]
    out = no_backsteps(f"{path}.path", source["path"])
    kind = source.get("type")
    if kind is not None and kind not in HOST_PATH_TYPES:
        out.append(not_supported(f"{path}.type", kind, HOST_PATH_TYPES))
    return out


def _items(source: Object, path: str) -> Problems:
    out: list[FieldError] = []
    for i, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{i}]"
        out += present(f"{at}.key", item.get("key"))
        out += file_path(f"{at}.path", item["path"]) if item.get("path") else [required(f"{at}.path")]
        out += file_mode(f"{at}.mode", item.get("mode"))
    return out


def _config_map(source: Object, path: str) -> Problems:
    out = present(f"{path}.name", source.get("name"))
    return out + file_mode(f"{path}.defaultMode", source.get("defaultMode")) + _items(source, path)


def _secret(source: Object, path: str) -> Problems:
    out = present(f"{path}.secretName", source.get("secretName"))
    return out + file_mode(f"{path}.defaultMode", source.get("defaultMode")) + _items(source, path)


def _projected_named(source: Object, path: str) -> Problems:
    return present(f"{path}.name", source.get("name")) + _items(source, path)


def _downward(source: Object, path: str) -> Problems:
    out = file_mode(f"{path}.defaultMode", source.get("defaultMode"))
    for i, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{i}]"
        out += file_path(f"{at}.path", item["path"]) if item.get("path") else [required(f"{at}.path")]
        out += file_mode(f"{at}.mode", item.get("mode"))
        if item.get("fieldRef"):
            out += field_reference(item["fieldRef"], f"{at}.fieldRef", _FIELDS)
            if item.get("resourceFieldRef"):
                detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
                out.append(invalid_value(at, "resource", detail))
        elif item.get("resourceFieldRef"):
            out += resource_reference(item["resourceFieldRef"], f"{at}.resourceFieldRef", in_volume=True)
        else:
            out.append(required(at, "one of fieldRef and resourceFieldRef is required"))
    return out


def _token(source: Object, path: str) -> Problems:
    out: list[FieldError] = []
    seconds = source.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        out.append(
            invalid_value(
                f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"
            )
        )
    elif seconds is not None and seconds > 1 << 32:
        detail = "may not specify a duration larger than 2^32 seconds"
        out.append(invalid_value(f"{path}.expirationSeconds", seconds, detail))
    if not source.get("path"):
        return [*out, required(f"{path}.path")]
    return out + file_path(f"{path}.path", source["path"])


_PROJECTIONS: dict[str, Callable[[Object, str], Problems]] = {
    "secret": _projected_named,
    "configMap": _projected_named,
    "downwardAPI": _downward,
    "serviceAccountToken": _token,
}


def _projected(source: Object, path: str) -> Problems:
    out = file_mode(f"{path}.defaultMode", source.get("defaultMode"))
    paths: set[str] = set()
    for i, part in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{i}]"
        kinds = [k for k in part if part[k] is not None]
        if not kinds:
            out.append(required(at, "must specify a volume type"))
        for j, kind in enumerate(kinds):
            if j:
                out.append(forbidden_field(f"{at}.{kind}", "may not specify more than 1 volume type"))
                continue
            if kind in _PROJECTIONS:
                out += _PROJECTIONS[kind](part[kind], f"{at}.{kind}")
            for item in [*(part[kind].get("items") or ()), part[kind]]:
                where = item.get("path")
                if where and where in paths:
                    out.append(invalid_value(at, where, "conflicting duplicate paths"))
                elif where:
                    paths.add(where)
    return out


def _required_fields(*names: str) -> Callable[[Object, str], Problems]:
    def check(source: Object, path: str) -> Problems:
        return [p for name in names for p in present(f"{path}.{name}", source.get(name))]

    return check


_SOURCES: dict[str, Callable[[Object, str], Problems]] = {
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
    "configMap": _config_map,
    "secret": _secret,
    "downwardAPI": _downward,
    "projected": _projected,
    "persistentVolumeClaim": _required_fields("claimName"),
    "nfs": _required_fields("server", "path"),
    "csi": _required_fields("driver"),
    "ephemeral": _required_fields("volumeClaimTemplate"),
    "image": _required_fields("reference"),
    "iscsi": _required_fields("targetPortal", "iqn"),
    "gitRepo": _required_fields("repository"),
    "flexVolume": _required_fields("driver"),
}
"""What each type of volume requires. Types that Sampan does not have are refused by `support`, by name."""

_PROPAGATION = ("Bidirectional", "HostToContainer", "None")


def mounts(given: list[Object], container: Object, pod_volumes: dict[str, Object], path: str) -> Problems:
    out: list[FieldError] = []
    points: set[str] = set()
    devices = {d.get("name"): d.get("devicePath") for d in container.get("volumeDevices") or ()}
    for i, mount in enumerate(given):
        at = f"{path}[{i}]"
        name, point = mount.get("name") or "", mount.get("mountPath") or ""
        out += present(f"{at}.name", name)
        if name not in pod_volumes:
            out.append(FieldError(ErrorType.NOT_FOUND, f"{at}.name", name))
        out += present(f"{at}.mountPath", point)
        if point in points:
            out.append(invalid_value(f"{at}.mountPath", point, "must be unique"))
        points.add(point)
        if name in devices:
            out.append(invalid_value(f"{at}.name", name, "must not already exist in volumeDevices"))
        if point and point in devices.values():
            detail = "must not already exist as a path in volumeDevices"
            out.append(invalid_value(f"{at}.mountPath", point, detail))
        sub, expression = mount.get("subPath"), mount.get("subPathExpr")
        # Upstream names the path of these two without the index of the mount; the index is more useful.
        if sub:
            out += descending_path(f"{at}.subPath", sub)
        if expression:
            if sub:
                detail = "subPathExpr and subPath are mutually exclusive"
                out.append(invalid_value(f"{at}.subPathExpr", expression, detail))
            out += descending_path(f"{at}.subPathExpr", expression)
        out += _propagation(mount, container, at)
        if mount.get("recursiveReadOnly") not in (None, "Disabled") and not mount.get("readOnly"):
            detail = "may only be specified when readOnly is true"
            out.append(forbidden_field(f"{at}.recursiveReadOnly", detail))
    return out


def _propagation(mount: Object, container: Object, path: str) -> Problems:
    mode = mount.get("mountPropagation")
    out = one_of(f"{path}.mountPropagation", mode, _PROPAGATION, absent=True)
    if mode == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        detail = "Bidirectional mount propagation is available only to privileged containers"
        out.append(forbidden_field(f"{path}.mountPropagation", detail))
    return out


def devices(given: list[Object], container: Object, pod_volumes: dict[str, Object], path: str) -> Problems:
    out: list[FieldError] = []
    names: set[str] = set()
    paths: set[str] = set()
    for i, device in enumerate(given):
        at = f"{path}[{i}]"
        name, where = device.get("name") or "", device.get("devicePath") or ""
        out += present(f"{at}.name", name) + present(f"{at}.devicePath", where)
        if name in names:
            out.append(invalid_value(f"{at}.name", name, "must be unique"))
        if where in paths:
            out.append(invalid_value(f"{at}.devicePath", where, "must be unique"))
        names.add(name)
        paths.add(where)
        volume = pod_volumes.get(name)
        if volume is None:
            out.append(FieldError(ErrorType.NOT_FOUND, f"{at}.name", name))
        elif not volume.keys() & {"persistentVolumeClaim", "ephemeral"}:
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            out.append(invalid_value(f"{at}.name", name, detail))
        if no_backsteps(at, where):
            out.append(invalid_value(f"{at}.devicePath", where, "can not contain backsteps ('..')"))
    return out
