"""The kinds of storage.k8s.io. Upstream: `pkg/apis/storage/validation`."""

from __future__ import annotations

from sampan.api import quantity
from sampan.api.errors import (
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    too_long,
)
from sampan.api.strategy import same
from sampan.api.validation import formats, metadata
from sampan.api.validation.persistent_volumes import driver_name, inline_spec
from sampan.api.validation.values import Problems, formatted, non_negative, one_of

_MOST_PARAMETERS = 512
_MOST_BYTES = 256 * 1024
_LONGEST_MESSAGE = 1024
_LONGEST_NODE_ID = 256

# ---- StorageClass, VolumeAttributesClass


def storage_class(obj: Object) -> Problems:
    out = _provisioner("provisioner", obj.get("provisioner") or "")
    out += _parameters(obj.get("parameters") or {})
    out += one_of("reclaimPolicy", obj.get("reclaimPolicy"), ("Delete", "Retain"), absent=True)
    modes = ("Immediate", "WaitForFirstConsumer")
    return out + one_of("volumeBindingMode", obj.get("volumeBindingMode"), modes) + _topologies(obj)


def storage_class_update(new: Object, old: Object, subresource: str) -> Problems:
    out = _fixed(new, old, ("parameters", "provisioner", "reclaimPolicy"))
    modes = (o.get("volumeBindingMode") for o in (new, old))
    return out + metadata.immutable("volumeBindingMode", *modes)


def volume_attributes_class(obj: Object) -> Problems:
    out = _provisioner("driverName", obj.get("driverName") or "")
    out += _parameters(obj.get("parameters") or {})
    if not obj.get("parameters"):
        out.append(required("parameters", "must contain at least one key/value pair"))
    return out


def volume_attributes_class_update(new: Object, old: Object, subresource: str) -> Problems:
    return _fixed(new, old, ("driverName", "parameters")) + volume_attributes_class(new)


def _fixed(new: Object, old: Object, names: tuple[str, ...]) -> Problems:
    return [
        forbidden_field(n, f"updates to {n} are forbidden.")
        for n in names
        if (new.get(n) or None) != (old.get(n) or None)
    ]


def _provisioner(path: str, name: str) -> Problems:
    if not name:
        return [required(path)]
    return formatted(path, name.lower(), formats.qualified_name)


def _parameters(given: dict[str, str]) -> Problems:
    if len(given) > _MOST_PARAMETERS:
        return [too_long("parameters", _MOST_PARAMETERS)]
    out: list[FieldError] = []
    if "" in given:
        out.append(invalid_value("parameters", "", "field can not be empty."))
    if sum(len(k.encode()) + len(v.encode()) for k, v in given.items()) > _MOST_BYTES:
        out.append(too_long("parameters", _MOST_BYTES))
    return out


def _topologies(obj: Object) -> Problems:
    out: list[FieldError] = []
    seen: list[dict[str, set[str]]] = []
    for i, term in enumerate(obj.get("allowedTopologies") or ()):
        at = f"allowedTopologies[{i}]"
        wanted: dict[str, set[str]] = {}
        for j, rule in enumerate(term.get("matchLabelExpressions") or ()):
            where = f"{at}.matchLabelExpressions[{j}]"
            key, values = rule.get("key") or "", rule.get("values") or []
            if not values:
                out.append(required(f"{where}.values"))
            for k, value in enumerate(values):
                if value in values[:k]:
                    out.append(duplicate(f"{where}.values[{k}]", value))
            out += formatted(f"{where}.key", key, formats.qualified_name)
            if key in wanted:
                out.append(duplicate(f"{where}.key", key))
            wanted[key] = set(values)
        if wanted in seen:
            out.append(duplicate(f"{at}.matchLabelExpressions", ""))
        seen.append(wanted)
    return out


# ---- VolumeAttachment


def volume_attachment(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out = driver_name("spec.attacher", spec.get("attacher") or "")
    source = spec.get("source") or {}
    inline, volume = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
    exactly = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if inline is None and volume is None:
        out.append(required("spec.source", exactly))
    elif inline is not None and volume is not None:
        out.append(forbidden_field("spec.source", exactly))
    elif inline is not None:
        out += inline_spec(inline, "spec.source.inlineVolumeSpec")
    elif not volume:
        detail = "must specify non empty persistentVolumeName"
        out.append(required("spec.source.persistentVolumeName", detail))
    else:
        out += formatted("spec.source.persistentVolumeName", volume, formats.dns1123_subdomain)
    out += formatted("spec.nodeName", spec.get("nodeName") or "", formats.dns1123_subdomain)
    return out + _attachment_status(obj.get("status") or {})


def volume_attachment_update(new: Object, old: Object, subresource: str) -> Problems:
    out = volume_attachment(new)
    if not same(new.get("spec"), old.get("spec")):
        out.append(invalid_value("spec", new.get("spec"), formats.IMMUTABLE))
    return out


def _attachment_status(status: Object) -> Problems:
    out: list[FieldError] = []
    notes = status.get("attachmentMetadata") or {}
    if sum(len(k.encode()) + len(v.encode()) for k, v in notes.items()) > _MOST_BYTES:
        out.append(too_long("status.attachmentMetadata", _MOST_BYTES))
    for name in ("attachError", "detachError"):
        error = status.get(name) or {}
        if len((error.get("message") or "").encode()) > _LONGEST_MESSAGE:
            out.append(too_long(f"status.{name}.message", _LONGEST_MESSAGE))
        code = error.get("errorCode")
        if code is not None and code < 0:
            out.append(invalid_value(f"status.{name}.errorCode", code, formats.in_range(0, 2**31 - 1)))
    return out


# ---- CSINode, CSIDriver, CSIStorageCapacity


def csi_node(obj: Object) -> Problems:
    out: list[FieldError] = []
    names: set[str] = set()
    for i, driver in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        at = f"spec.drivers[{i}]"
        name, identity = driver.get("name") or "", driver.get("nodeID") or ""
        out += driver_name(f"{at}.name", name)
        if not identity:
            out.append(required(f"{at}.nodeID"))
        if len(identity) > _LONGEST_NODE_ID:
            detail = f"must be {_LONGEST_NODE_ID} characters or less"
            out.append(invalid_value(f"{at}.nodeID", identity, detail))
        out += non_negative(f"{at}.allocatable.count", (driver.get("allocatable") or {}).get("count"))
        if name in names:
            out.append(duplicate(f"{at}.name", name))
        names.add(name)
        keys = driver.get("topologyKeys") or []
        for j, key in enumerate(keys):
            if not key:
                out.append(required(at))
            if key in keys[:j]:
                out.append(duplicate(at, key))
            out += formatted(at, key, formats.qualified_name)
    return out


def csi_node_update(new: Object, old: Object, subresource: str) -> Problems:
    """A driver that is listed keeps its identity; only how many volumes it can have may change."""
    out = csi_node(new)
    before = {d.get("name"): d for d in (old.get("spec") or {}).get("drivers") or ()}
    for driver in (new.get("spec") or {}).get("drivers") or ():
        known = before.get(driver.get("name"))
        if known is not None and not same({**driver, "allocatable": None}, {**known, "allocatable": None}):
            out.append(invalid_value("spec.drivers", driver, formats.IMMUTABLE))
    return out


_LIFECYCLES = ("Persistent", "Ephemeral")


def csi_driver(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out: list[FieldError] = []
    # Upstream calls the first by a name of its own.
    for name, shown in (
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", ""),
        ("storageCapacity", ""),
    ):
        if spec.get(name) is None:
            out.append(required(f"spec.{shown or name}"))
    policies = ("File", "None", "ReadWriteOnceWithFSType")
    out += one_of("spec.fsGroupPolicy", spec.get("fsGroupPolicy"), policies, absent=True)
    out += _token_requests(spec.get("tokenRequests") or [])
    if spec.get("serviceAccountTokenInSecrets") is not None and not spec.get("tokenRequests"):
        detail = "may be set only when tokenRequests is"
        out.append(forbidden_field("spec.serviceAccountTokenInSecrets", detail))
    for mode in spec.get("volumeLifecycleModes") or ():
        out += one_of("spec.volumeLifecycleModes", mode, _LIFECYCLES)
    if spec.get("seLinuxMount") is None:
        out.append(required("spec.seLinuxMount"))
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < 10:
        detail = "must be greater than or equal to 10 seconds"
        out.append(invalid_value("spec.nodeAllocatableUpdatePeriodSeconds", period, detail))
    return out


def _token_requests(given: list[Object]) -> Problems:
    out: list[FieldError] = []
    audiences: set[str] = set()
    for i, request in enumerate(given):
        at = f"spec.tokenRequests[{i}]"
        audience, seconds = request.get("audience") or "", request.get("expirationSeconds")
        if audience in audiences:
            out.append(duplicate(f"{at}.audience", audience))
            continue
        audiences.add(audience)
        if seconds is not None and seconds < 600:
            detail = "may not specify a duration less than 10 minutes"
            out.append(invalid_value(f"{at}.expirationSeconds", seconds, detail))
        if seconds is not None and seconds > 1 << 32:
            detail = "may not specify a duration larger than 2^32 seconds"
            out.append(invalid_value(f"{at}.expirationSeconds", seconds, detail))
    return out


def csi_driver_update(new: Object, old: Object, subresource: str) -> Problems:
    out = csi_driver(new)
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    for name, shown in (
        ("attachRequired", "attachedRequired"),
        ("volumeLifecycleModes", "volumeLifecycleModes"),
    ):
        out += metadata.immutable(f"spec.{shown}", spec.get(name), before.get(name))
    return out


def csi_storage_capacity(obj: Object) -> Problems:
    out = metadata.label_selector(obj.get("nodeTopology"), "nodeTopology")
    out += formatted("storageClassName", obj.get("storageClassName") or "", formats.dns1123_subdomain)
    amount = obj.get("capacity")
    if amount is not None and quantity.parse(amount) < 0:
        out.append(invalid_value("capacity", amount, formats.NON_NEGATIVE))
    return out


def csi_storage_capacity_update(new: Object, old: Object, subresource: str) -> Problems:
    out: list[FieldError] = []
    for name in ("nodeTopology", "storageClassName"):
        if not same(new.get(name), old.get(name)):
            out.append(invalid_value(name, new.get(name), formats.IMMUTABLE))
    return out
