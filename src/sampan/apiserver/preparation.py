"""What happens to an object between a request's body and the store: type check, defaults, strategy, validation.

Each step is a pure function of `sampan.api`; their order is upstream's and stands here alone, once for creates and
once for updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sampan.api import conversion, decoding, defaults, managed_fields, schema, strategy, support, validation
from sampan.api.errors import FieldError, Object, bad_request, invalid, show
from sampan.api.objects import new_uid, now
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS, Resource, hub
from sampan.apiserver.types import User

FieldValidation = Literal["Strict", "Warn", "Ignore"]


def _anyone() -> None:
    """Our own parts may do anything."""


@dataclass(slots=True)
class Writing:
    """Who writes and how: what the verbs need to know of a request apart from its object."""

    user: User
    manager: str = "unknown"
    """Field manager."""
    dry_run: bool = False
    field_validation: FieldValidation = "Warn"
    force: bool = False
    """Of server-side apply: take fields from their managers."""
    authorize_create: Callable[[], None] = _anyone
    """Raises StatusError 403 if whoever updates may not create what is not there."""
    warnings: list[str] = field(default_factory=list)
    """For the client; grows on the way."""


def check_type(
    definition: str,
    api_version: str,
    kind: str,
    obj: Object,
    writing: Writing,
    duplicates: Sequence[str] = (),
) -> None:
    """Hold `obj` against its type, in place: identity, types of values, unknown and duplicate fields as the request's
    fieldValidation wants. Raises StatusError 400."""
    given_version, given_kind = obj.get("apiVersion"), obj.get("kind")
    for name, given in (("apiVersion", given_version), ("kind", given_kind)):
        if given is not None and not isinstance(given, str):
            raise bad_request(
                f"couldn't get version/kind; json parse error: {name} is a text, not {show(given)[:80]}"
            )
    given_version, given_kind = given_version or api_version, given_kind or kind
    if given_version != api_version:
        raise bad_request(
            f"the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )
    if given_kind != kind:
        version = api_version.rpartition("/")[2]
        raise bad_request(
            f'{given_kind} in version "{version}" cannot be handled as a {kind}: '
            f"no kind {given_kind!r} is registered for this resource".replace("'", '"')
        )
    obj["apiVersion"], obj["kind"] = api_version, kind
    metadata = obj.get("metadata")
    if metadata is None:
        obj["metadata"] = {}
    problems = decoding.strict_problems(duplicates, decoding.check(schema.node(definition), obj))
    if problems and writing.field_validation == "Strict":
        raise decoding.strict_error(obj, problems)
    if problems and writing.field_validation == "Warn":
        writing.warnings += problems


def check_resource(resource: Resource, obj: Object, writing: Writing, duplicates: Sequence[str] = ()) -> None:
    """`check_type` for an object of a resource."""
    check_type(resource.definition, resource.api_version, resource.kind, obj, writing, duplicates)


def begin_create(resource: Resource, obj: Object, writing: Writing, applied: bool = False) -> None:
    """Give a new object (in its stored form) its defaults and what the server alone decides: uid, creation time, first
    status. `resource` is the one that was asked for. Who created it owns the defaults, but not what the server adds;
    of an object that was `applied` the managedFields stand."""
    row = hub(resource)
    metadata = obj["metadata"]
    for name in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(name, None)
    metadata["uid"] = new_uid()
    metadata["creationTimestamp"] = now()
    _drop_twin_owners(metadata, writing)
    defaults.apply(row, obj)
    if not applied:
        record_fields(resource, obj, None, writing)
    strategy.prepare_create(row, obj)
    if row is CERTIFICATESIGNINGREQUESTS:
        _note_requester(obj, writing.user)


def validate_create(resource: Resource, obj: Object, writing: Writing) -> None:
    """Raises StatusError 422 with every problem of a new object."""
    _refuse(resource, obj, validation.create(resource, obj))
    _check_support(resource, obj, writing)


def _note_requester(csr: Object, user: User) -> None:
    """A request for a certificate says who made it, whatever that one says."""
    spec = csr.setdefault("spec", {})
    for name, value in (
        ("username", user.name),
        ("uid", user.uid),
        ("groups", list(user.groups)),
        ("extra", {k: list(v) for k, v in user.extra.items()}),
    ):
        if value:
            spec[name] = value
        else:
            spec.pop(name, None)


_TWINS = (
    "metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such "
    "requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}"
)


def _drop_twin_owners(metadata: Object, writing: Writing) -> None:
    """Of owner references that say the same keep the first."""
    owners = metadata.get("ownerReferences")
    if not owners or len(owners) < 2:
        return
    kept: dict[str, Object] = {}
    twins: dict[str, None] = {}
    for owner in owners:
        said = show(dict(sorted(owner.items())))
        if said in kept:
            twins[owner.get("uid", "")] = None
        kept.setdefault(said, owner)
    if twins:
        writing.warnings.append(_TWINS.format(", ".join(twins)))
        metadata["ownerReferences"] = list(kept.values())


def begin_update(resource: Resource, new: Object, old: Object, subresource: str, writing: Writing) -> None:
    """Give an object that replaces `old` its defaults, and put back what an update cannot change."""
    _drop_twin_owners(new["metadata"], writing)
    defaults.apply(resource, new)
    strategy.prepare_update(resource, new, old, subresource)


def validate_update(resource: Resource, new: Object, old: Object, subresource: str, writing: Writing) -> None:
    """Raises StatusError 422 with every problem of an update."""
    _refuse(resource, new, validation.update(resource, new, old, subresource))
    if subresource in ("", "ephemeralcontainers"):
        _check_support(resource, new, writing, old)
    elif subresource == "resize":
        writing.warnings += support.of_resize(new, old)


def record_fields(
    resource: Resource, new: Object, old: Object | None, writing: Writing, subresource: str = ""
) -> None:
    """Note in `metadata.managedFields` who set what in this write. `resource` is the one that was asked for: the fields
    are named as in its version; both objects are in their stored form."""
    given = new
    if resource.storage:
        new = conversion.shown(resource, {**new, "metadata": dict(new["metadata"])})
        old = conversion.shown(resource, old) if old is not None else None
    managed_fields.record_update(
        schema.node(resource.definition),
        old,
        new,
        manager=writing.manager,
        api_version=resource.api_version,
        time=now(),
        subresource=subresource,
    )
    if new is not given:
        entries = new["metadata"].get("managedFields")
        given["metadata"].pop("managedFields", None)
        if entries:
            given["metadata"]["managedFields"] = entries


def _refuse(resource: Resource, obj: Object, problems: Sequence[FieldError]) -> None:
    if problems:
        row = hub(resource)
        raise invalid(row.kind, obj["metadata"].get("name", ""), problems, row.group)


def _check_support(resource: Resource, obj: Object, writing: Writing, old: Object | None = None) -> None:
    """Warn of, or refuse, fields that we do not implement; an update is not held against what was there before."""
    warnings, refusals = support.unsupported(resource, obj)
    if old is not None and (warnings or refusals):
        known = support.unsupported(resource, old)
        refusals = [r for r in refusals if r not in known[1]]
        warnings = [w for w in warnings if w not in known[0]]
    _refuse(resource, obj, refusals)
    writing.warnings += warnings


def same(new: Object, old: Object) -> bool:
    """Whether an update changes nothing but its own times in managedFields."""
    return _comparable(new) == _comparable(old)


def _comparable(obj: Object) -> Object:
    metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    managed = metadata.get("managedFields")
    if managed:
        metadata["managedFields"] = [{k: v for k, v in m.items() if k != "time"} for m in managed]
    return {**obj, "metadata": metadata}
