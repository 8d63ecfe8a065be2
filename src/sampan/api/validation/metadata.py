"""Metadata of every object, and label selectors.

Upstream: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sampan.api.errors import (
    FieldError,
    Object,
    forbidden_field,
    invalid_value,
    required,
    too_long,
)
from sampan.api.validation import formats

Format = Callable[[str], tuple[str, ...]]

ANNOTATIONS_MAX = 256 * 1024
"""Bytes of all keys and values of an object's annotations."""


def create(meta: Object, namespaced: bool, name_format: Format) -> list[FieldError]:
    out: list[FieldError] = []
    base = meta.get("generateName")
    if base:
        # Only the beginning of a name: what must not end a name may end it.
        masked = base[:-1] + "a" if base.endswith("-") and len(base) > 1 else base
        out += [invalid_value("metadata.generateName", base, m) for m in name_format(masked)]
    name = meta.get("name")
    if not name:
        out.append(required("metadata.name", "name or generateName is required"))
    else:
        out += [invalid_value("metadata.name", name, m) for m in name_format(name)]
    namespace = meta.get("namespace")
    if namespaced:
        if not namespace:
            out.append(required("metadata.namespace"))
        else:
            out += [
                invalid_value("metadata.namespace", namespace, m) for m in formats.dns1123_label(namespace)
            ]
    elif namespace:
        out.append(forbidden_field("metadata.namespace", "not allowed on this type"))
    return out + _parts(meta)


_IMMUTABLE = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def update(new: Object, old: Object) -> list[FieldError]:
    out: list[FieldError] = []
    if old.get("deletionTimestamp"):
        extra = sorted(set(new.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if extra:
            listed = "[]string{" + ", ".join(f'"{e}"' for e in extra) + "}"
            detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {listed}"
            out.append(forbidden_field("metadata.finalizers", detail))
    if (new.get("generation") or 0) < (old.get("generation") or 0):
        out.append(
            invalid_value("metadata.generation", new.get("generation") or 0, "must not be decremented")
        )
    for name in _IMMUTABLE:
        out += immutable(f"metadata.{name}", new.get(name), old.get(name))
    return out + _parts(new)


def immutable(path: str, new: Any, old: Any) -> list[FieldError]:
    """A problem if the value changed; absent and empty are the same."""
    if new == old or (not new and not old and not isinstance(new, bool) and not isinstance(old, bool)):
        return []
    return [invalid_value(path, new, formats.IMMUTABLE)]


def _parts(meta: Object) -> list[FieldError]:
    """What creation and update check alike."""
    out: list[FieldError] = []
    if meta.get("labels"):
        out += labels(meta["labels"], "metadata.labels")
    notes = meta.get("annotations")
    if notes:
        out += annotation_map(notes, "metadata.annotations")
    references = meta.get("ownerReferences")
    if references:
        out += _owner_references(references)
    finalizers = meta.get("finalizers")
    if finalizers:
        path = "metadata.finalizers"
        out += [invalid_value(path, f, m) for f in finalizers for m in formats.qualified_name(f)]
        if "orphan" in finalizers and "foregroundDeletion" in finalizers:
            detail = "finalizer orphan and foregroundDeletion cannot be both set"
            out.append(invalid_value(path, finalizers, detail))
    return out


def labels(given: Mapping[str, str], path: str) -> list[FieldError]:
    out: list[FieldError] = []
    for key, value in given.items():
        out += [invalid_value(path, key, m) for m in formats.qualified_name(key)]
        out += [invalid_value(path, value, m) for m in formats.label_value(value)]
    return out


def annotation_map(given: Mapping[str, str], path: str) -> list[FieldError]:
    out: list[FieldError] = []
    size = 0
    for key, value in given.items():
        size += len(key.encode()) + len(value.encode())
        out += [invalid_value(path, key, m) for m in formats.qualified_name(key.lower())]
    if size > ANNOTATIONS_MAX:
        out.append(too_long(path, ANNOTATIONS_MAX))
    return out


def _owner_references(references: list[Object]) -> list[FieldError]:
    path = "metadata.ownerReferences"
    out: list[FieldError] = []
    first = ""
    for reference in references:
        if not (reference.get("apiVersion") or "").rpartition("/")[2]:
            given = reference.get("apiVersion", "")
            out.append(invalid_value(f"{path}.apiVersion", given, "version must not be empty"))
        for name in ("kind", "name", "uid"):
            if not reference.get(name):
                out.append(invalid_value(f"{path}.{name}", "", "must not be empty"))
        if reference.get("apiVersion") == "v1" and reference.get("kind") == "Event":
            out.append(invalid_value(path, reference, "/v1, Kind=Event is disallowed from being an owner"))
        if reference.get("controller"):
            named = f"{reference.get('kind', '')}/{reference.get('name', '')}"
            if first:
                detail = (
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{first} and {named}"
                )
                out.append(invalid_value(path, references, detail))
            first = first or named
    return out


def label_selector(selector: Object | None, path: str) -> list[FieldError]:
    """A `metav1.LabelSelector`."""
    if not selector:
        return []
    out = labels(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for i, expression in enumerate(selector.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{i}]"
        operator, values = expression.get("operator", ""), expression.get("values")
        if operator in ("In", "NotIn"):
            if not values:
                out.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                out.append(forbidden_field(f"{at}.values", detail))
        else:
            out.append(invalid_value(f"{at}.operator", operator, "not a valid selector operator"))
        key = expression.get("key", "")
        out += [invalid_value(f"{at}.key", key, m) for m in formats.qualified_name(key)]
        for j, value in enumerate(values or ()):
            out += [invalid_value(f"{at}.values[{j}]", value, m) for m in formats.label_value(value)]
    return out
