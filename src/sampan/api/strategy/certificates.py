"""CertificateSigningRequests: the request cannot change, approval and status have a subresource each."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.objects import deep_copy, now
from sampan.api.strategy.types import Strategy, empty_status, keep


def _update(new: Object, old: Object, _: str) -> None:
    keep(new, old, "spec")


def _status_update(new: Object, old: Object) -> None:
    """Decisions are kept as they are, unless there are more or fewer of them: validation speaks of that."""
    for kind in ("Approved", "Denied"):
        before, at = _places(old, kind), _places(new, kind)
        if len(before) == len(at):
            for i, j in zip(at, before, strict=True):
                new["status"]["conditions"][i] = deep_copy(old["status"]["conditions"][j])
    _date(new, old)


def _approval(new: Object, old: Object) -> None:
    """Only conditions are written here."""
    conditions = (new.get("status") or {}).get("conditions")
    keep(new, old, "spec")
    keep(new, old, "status")
    status = new.setdefault("status", {})
    status.pop("conditions", None)
    if conditions:
        status["conditions"] = conditions
    _date(new, old)


def _places(csr: Object, kind: str) -> list[int]:
    conditions = (csr.get("status") or {}).get("conditions") or ()
    return [i for i, c in enumerate(conditions) if c.get("type") == kind]


def _date(new: Object, old: Object) -> None:
    """Give conditions that say nothing of it the times of their last update and change."""
    before = {
        (c.get("type"), c.get("status")): c.get("lastTransitionTime")
        for c in (old.get("status") or {}).get("conditions") or ()
    }
    for condition in (new.get("status") or {}).get("conditions") or ():
        if not condition.get("lastUpdateTime"):
            condition["lastUpdateTime"] = now()
        if not condition.get("lastTransitionTime"):
            known = before.get((condition.get("type"), condition.get("status")))
            condition["lastTransitionTime"] = known or now()


STRATEGIES: dict[str, Strategy] = {
    "certificatesigningrequests.certificates.k8s.io": Strategy(
        first_status=empty_status,
        update=_update,
        status_update=_status_update,
        faces={"approval": _approval},
    )
}
