"""PersistentVolumes and PersistentVolumeClaims. Upstream: `pkg/apis/core/validation`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from sampan.api import quantity
from sampan.api.errors import (
    FieldError,
    Object,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from sampan.api.objects import deep_copy
from sampan.api.strategy import same
from sampan.api.validation import formats, metadata, resources, scheduling
from sampan.api.validation.values import Problems, formatted, named, no_backsteps, one_of, present, within
from sampan.api.validation.volumes import HOST_PATH_TYPES

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
_RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_RESIZE_STATES = (
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
)

# ---- the sources of a volume


def driver_name(path: str, name: str) -> Problems:
    """The name of a CSI driver: a DNS subdomain that may have capitals."""
    out: list[FieldError] = [] if name else [required(path)]
    if len(name) > 63:
        out.append(too_long(path, 63))
    return out + [invalid_value(path, name, m) for m in formats.dns1123_subdomain(name.lower())]


def _secret(reference: Object | None, path: str) -> Problems:
    if reference is None:
        return []
    out = named(f"{path}.name", reference.get("name"), formats.dns1123_subdomain)
    return out + named(f"{path}.namespace", reference.get("namespace"), formats.dns1123_label)


def _needs(*names: str) -> Callable[[Object, str], Problems]:
    def check(source: Object, path: str) -> Problems:
        return [p for name in names for p in present(f"{path}.{name}", source.get(name))]

    return check


def _host_path(source: Object, path: str) -> Problems:
    if not source.get("path"):
        return [required(f"{path}.path")]
    out = no_backsteps(f"{path}.path", source["path"])
    return out + one_of(f"{path}.type", source.get("type") or None, HOST_PATH_TYPES, absent=True)


def _local(source: Object, path: str) -> Problems:
    where = source.get("path")
    return no_backsteps(f"{path}.path", where) if where else [required(f"{path}.path")]


def _nfs(source: Object, path: str) -> Problems:
    out = _needs("server", "path")(source, path)
    if source.get("path") and not source["path"].startswith("/"):
        out.append(invalid_value(f"{path}.path", source["path"], "must be an absolute path"))
    return out


def _csi(source: Object, path: str) -> Problems:
    out = driver_name(f"{path}.driver", source.get("driver") or "")
    out += present(f"{path}.volumeHandle", source.get("volumeHandle"))
    for name in ("controllerPublish", "controllerExpand", "nodePublish", "nodeExpand"):
        out += _secret(source.get(f"{name}SecretRef"), f"{path}.{name}SecretRef")
    return out


_IQN = re.compile(
    r"iqn\.\d{4}-\d{2}\.([a-z0-9.-]+)(:[^,;*&$|\s]+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{32}"
)


def _iscsi(source: Object, path: str) -> Problems:
    out = present(f"{path}.targetPortal", source.get("targetPortal"))
    iqn = source.get("iqn") or ""
    if not iqn:
        out.append(required(f"{path}.iqn"))
    elif not _IQN.fullmatch(iqn):
        out.append(invalid_value(f"{path}.iqn", iqn, "must be valid format"))
    out += within(f"{path}.lun", source.get("lun"), 0, 255)
    chap = source.get("chapAuthDiscovery") or source.get("chapAuthSession")
    return out + (present(f"{path}.secretRef", source.get("secretRef")) if chap else [])


def _fibre_channel(source: Object, path: str) -> Problems:
    names, wwids, lun = source.get("targetWWNs"), source.get("wwids"), source.get("lun")
    if not names and not wwids:
        detail = "must specify either targetWWNs or wwids, but not both"
        return [required(f"{path}.targetWWNs", detail)]
    if names and wwids:
        detail = "targetWWNs and wwids can not be specified simultaneously"
        return [invalid_value(f"{path}.targetWWNs", names, detail)]
    if names and lun is None:
        return [required(f"{path}.lun", "lun is required if targetWWNs is specified")]
    return within(f"{path}.lun", lun, 0, 255) if names else []


def _flex(source: Object, path: str) -> Problems:
    out = present(f"{path}.driver", source.get("driver"))
    for key in source.get("options") or ():
        if f".{key.partition('/')[0].lower()}".endswith((".kubernetes.io", ".k8s.io")):
            detail = "kubernetes.io and k8s.io namespaces are reserved"
            out.append(invalid_value(f"{path}.options[{key}]", key, detail))
    return out


_SOURCES: dict[str, Callable[[Object, str], Problems]] = {
    "awsElasticBlockStore": _needs("volumeID"),
    "azureDisk": _needs("diskName", "diskURI"),
    "azureFile": _needs("secretName", "shareName"),
    "cephfs": _needs("monitors"),
    "cinder": _needs("volumeID"),
    "csi": _csi,
    "fc": _fibre_channel,
    "flexVolume": _flex,
    "flocker": lambda source, path: [],
    "gcePersistentDisk": _needs("pdName"),
    "glusterfs": _needs("endpoints", "path"),
    "hostPath": _host_path,
    "iscsi": _iscsi,
    "local": _local,
    "nfs": _nfs,
    "photonPersistentDisk": _needs("pdID"),
    "portworxVolume": _needs("volumeID"),
    "quobyte": _needs("registry", "volume"),
    "rbd": _needs("monitors", "image"),
    "scaleIO": _needs("gateway", "system", "volumeName"),
    "storageos": _needs("volumeName"),
    "vsphereVolume": _needs("volumePath"),
}
"""What each type of volume requires; of two that are given the second is told to be one too many."""


def _sources(spec: Object, path: str) -> Problems:
    given = [name for name in _SOURCES if spec.get(name) is not None]
    if not given:
        return [required(path, "must specify a volume type")]
    out = _SOURCES[given[0]](spec[given[0]], f"{path}.{given[0]}")
    return out + [
        forbidden_field(f"{path}.{n}", "may not specify more than 1 volume type") for n in given[1:]
    ]


# ---- PersistentVolume


def access_modes(modes: list[str], path: str) -> Problems:
    out: list[FieldError] = [not_supported(path, m, ACCESS_MODES) for m in modes if m not in ACCESS_MODES]
    if "ReadWriteOncePod" in modes and any(m in ACCESS_MODES and m != "ReadWriteOncePod" for m in modes):
        out.append(forbidden_field(path, "may not use ReadWriteOncePod with other access modes"))
    return out


def _positive(path: str, value: str) -> Problems:
    if quantity.parse(value) > 0:
        return []
    return [invalid_value(path, value, "must be greater than zero")]


def persistent_volume(obj: Object) -> Problems:
    return volume_spec(obj.get("spec") or {}, "spec")


def volume_spec(spec: Object, path: str) -> Problems:
    modes, capacity = spec.get("accessModes") or [], spec.get("capacity") or {}
    out = present(f"{path}.accessModes", modes) + access_modes(modes, f"{path}.accessModes")
    out += present(f"{path}.capacity", capacity)
    if set(capacity) != {"storage"}:
        out.append(not_supported(f"{path}.capacity", capacity, ("storage",)))
    for name, value in capacity.items():
        out += _positive(f"{path}.capacity[{name}]", value)
    policy = spec.get("persistentVolumeReclaimPolicy")
    out += one_of(f"{path}.persistentVolumeReclaimPolicy", policy, _RECLAIM_POLICIES, absent=True)
    affinity = (spec.get("nodeAffinity") or {}).get("required")
    if spec.get("nodeAffinity") is not None:
        at = f"{path}.nodeAffinity.required"
        out += [required(at)] if affinity is None else scheduling.node_selector(affinity, at)
    out += _sources(spec, path)
    if spec.get("local") is not None and affinity is None:
        out.append(required(f"{path}.nodeAffinity", "Local volume requires node affinity"))
    host = (spec.get("hostPath") or {}).get("path") or ""
    if host and posixpath.normpath(host) in ("/", "//") and policy == "Recycle":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        out.append(forbidden_field(f"{path}.persistentVolumeReclaimPolicy", detail))
    if spec.get("storageClassName"):
        out += formatted(f"{path}.storageClassName", spec["storageClassName"], formats.dns1123_subdomain)
    out += one_of(f"{path}.volumeMode", spec.get("volumeMode"), VOLUME_MODES, absent=True)
    attributes = spec.get("volumeAttributesClassName")
    if attributes is not None:
        at = f"{path}.volumeAttributesClassName"
        if attributes:
            out += formatted(at, attributes, formats.dns1123_subdomain)
        else:
            out.append(required(at, "an empty string is disallowed"))
        detail = "has to be specified when using volumeAttributesClassName"
        out += present(f"{path}.csi", spec.get("csi"), detail)
    return out


def inline_spec(spec: Object, path: str) -> Problems:
    """The spec of a volume that has no object of its own, in a VolumeAttachment."""
    where = "may not be specified in the context of inline volumes"
    out = [
        forbidden_field(f"{path}.{name}", where)
        for name in ("claimRef", "capacity", "nodeAffinity", "storageClassName")
        if spec.get(name)
    ]
    modes = spec.get("accessModes") or []
    if spec.get("csi") is None:
        out.append(required(f"{path}.csi", "has to be specified in the context of inline volumes"))
    out += present(f"{path}.accessModes", modes) + access_modes(modes, f"{path}.accessModes")
    if spec.get("persistentVolumeReclaimPolicy") not in (None, "", "Retain"):
        detail = "may only be Retain in the context of inline volumes"
        out.append(forbidden_field(f"{path}.persistentVolumeReclaimPolicy", detail))
    if spec.get("volumeMode") not in (None, "Filesystem"):
        detail = "may not specify volumeMode other than Filesystem in the context of inline volumes"
        out.append(forbidden_field(f"{path}.volumeMode", detail))
    return out + _sources(spec, path)


def persistent_volume_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return []
    out = persistent_volume(new)
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if not same(_source_of(spec, before), _source_of(before, before)):
        detail = "spec.persistentvolumesource is immutable after creation"
        out.append(forbidden_field("spec.persistentvolumesource", detail))
    out += metadata.immutable("volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity") is not None and not same(spec.get("nodeAffinity"), before["nodeAffinity"]):
        out.append(invalid_value("nodeAffinity", spec.get("nodeAffinity"), formats.IMMUTABLE))
    if before.get("volumeAttributesClassName") is not None and spec.get("volumeAttributesClassName") is None:
        detail = "update from non-nil value to nil is forbidden"
        out.append(forbidden_field("spec.volumeAttributesClassName", detail))
    return out


def _source_of(spec: Object, before: Object) -> Object:
    """The source of a volume, without the one part that may be added later."""
    found = {name: spec[name] for name in _SOURCES if spec.get(name) is not None}
    csi, csi_before = found.get("csi"), before.get("csi") or {}
    if csi is not None and csi_before.get("controllerExpandSecretRef") is None:
        found["csi"] = {k: v for k, v in csi.items() if k != "controllerExpandSecretRef"}
    return found


# ---- PersistentVolumeClaim


def persistent_volume_claim(obj: Object) -> Problems:
    return claim_spec(obj.get("spec") or {}, "spec")


def claim_spec(spec: Object, path: str) -> Problems:
    """The spec of a claim, or of a template of claims."""
    modes = spec.get("accessModes") or []
    out = present(f"{path}.accessModes", modes, "at least 1 access mode is required")
    out += metadata.label_selector(spec.get("selector"), f"{path}.selector")
    out += access_modes(modes, f"{path}.accessModes")
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    at = f"{path}.resources[storage]"
    out += [required(at)] if size is None else _positive(at, size)
    for name in ("storageClassName", "volumeAttributesClassName"):
        if spec.get(name):
            out += formatted(f"{path}.{name}", spec[name], formats.dns1123_subdomain)
    out += one_of(f"{path}.volumeMode", spec.get("volumeMode"), VOLUME_MODES, absent=True)
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None:
        out += _data_source(source, f"{path}.dataSource")
    if reference is not None:
        out += _data_source(reference, f"{path}.dataSourceRef")
        if reference.get("namespace"):
            at = f"{path}.dataSourceRef.namespace"
            out += formatted(at, reference["namespace"], formats.dns1123_label)
    if source is not None and reference is not None:
        at = f"{path}.dataSource"
        if reference.get("namespace"):
            detail = "may not be specified when dataSourceRef.namespace is specified"
            out.append(invalid_value(path, at, detail))
        elif any(source.get(n) != reference.get(n) for n in ("apiGroup", "kind", "name")):
            out.append(invalid_value(path, at, "must match dataSourceRef"))
    return out


def _data_source(source: Object, path: str) -> Problems:
    out = present(f"{path}.name", source.get("name")) + present(f"{path}.kind", source.get("kind"))
    group, kind = source.get("apiGroup") or "", source.get("kind") or ""
    if group:
        return out + formatted(f"{path}.apiGroup", group, formats.dns1123_subdomain)
    if kind != "PersistentVolumeClaim":
        detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        out.append(invalid_value(path, kind, detail))
    return out


def persistent_volume_claim_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return _claim_status(new)
    out = persistent_volume_claim(new)
    spec, before = deep_copy(new.get("spec") or {}), deep_copy(old.get("spec") or {})
    # A volume is given once; a class may be filled in where there was none.
    if not before.get("volumeName"):
        before.pop("volumeName", None)
        spec.pop("volumeName", None)
    out += _class(
        spec, before, new["metadata"].get("annotations") or {}, old["metadata"].get("annotations") or {}
    )
    if (new.get("status") or {}).get("phase") == "Bound":
        requests, requests_before = (_requests(s) for s in (spec, before))
        if requests is not None and "storage" in requests:
            requests["storage"] = (requests_before or {}).get("storage")
        if spec.get("volumeAttributesClassName") is not None:
            spec["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
    if not same(spec, before):
        detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        out.append(forbidden_field("spec", detail))
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    size, size_before = ((_requests(s) or {}).get("storage", "0") for s in (spec, before))
    has = ((old.get("status") or {}).get("capacity") or {}).get("storage", "0")
    if quantity.compare(size, size_before) < 0 and quantity.compare(size, has) <= 0:
        detail = "field can not be less than status.capacity"
        out.append(forbidden_field("spec.resources.requests.storage", detail))
    out += metadata.immutable("volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    klass = "volumeAttributesClassName"
    if before.get(klass) is not None and not spec.get(klass):
        what = "nil" if spec.get(klass) is None else "an empty string"
        out.append(forbidden_field(f"spec.{klass}", f"update from non-nil value to {what} is forbidden"))
    return out


def _requests(spec: Object) -> Object | None:
    return (spec.get("resources") or {}).get("requests")


def _class(spec: Object, before: Object, notes: Object, notes_before: Object) -> Problems:
    """The class of a claim, in its field or in the old annotation, cannot change once it is there; both specs are
    made alike where a change of the field is allowed."""
    klass, noted = spec.get("storageClassName"), notes_before.get(_BETA_CLASS)
    fills_in = klass is not None and before.get("storageClassName") is None
    if fills_in and noted in (None, klass):
        before["storageClassName"] = klass
        if noted is not None and notes.get(_BETA_CLASS) in (None, noted):
            return []
    return metadata.immutable(
        f"metadata.annotations[{_BETA_CLASS}]", notes.get(_BETA_CLASS) or "", noted or ""
    )


def _claim_status(claim: Object) -> Problems:
    status = claim.get("status") or {}
    out: list[FieldError] = []
    for name, value in (status.get("capacity") or {}).items():
        out += _valid_amount(f"status.capacity[{name}]", value)
    for name, state in (status.get("allocatedResourceStatuses") or {}).items():
        out += _claim_resource("status.allocatedResourceStatus", name)
        if state not in _RESIZE_STATES:
            out.append(not_supported("status.allocatedResourceStatus", name, sorted(_RESIZE_STATES)))
    for name, value in (status.get("allocatedResources") or {}).items():
        wrong = _claim_resource("status.allocatedResources", name)
        out += wrong or _valid_amount(f"status.allocatedResources[{name}]", value)
    return out


def _valid_amount(path: str, value: str) -> Problems:
    if quantity.parse(value) >= 0:
        return []
    return [invalid_value(path, value, "must be a valid resource quantity")]


def _claim_resource(path: str, name: str) -> Problems:
    out = formatted(path, name, formats.qualified_name)
    if not out and resources.native(name) and name != "storage":
        out.append(not_supported(path, name, ("storage",)))
    return out
