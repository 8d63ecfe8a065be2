"""Which certificates an Ingress wants: pairs of hosts and the Secret that has the certificate."""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api.errors import Object

ANNOTATION = "sampan.io/tls"
LOCAL = "local"


def is_local(ingress: Object) -> bool:
    """Whether the cluster's own authority is to make the certificates (annotation `sampan.io/tls: local`)."""
    return ((ingress["metadata"].get("annotations") or {}).get(ANNOTATION)) == LOCAL


def entries(ingress: Object) -> Iterator[tuple[tuple[str, ...], str]]:
    """(hosts, name of the Secret) of each entry of `spec.tls`.

    An Ingress with local certificates need not have any: then there is one for the hosts of its rules, in the Secret
    `NAME-local-tls`, which is also where an entry without a Secret has it. Otherwise such an entry is left out: the default
    certificate stands for it. An entry without hosts is for those of the rules.
    """
    spec = ingress.get("spec") or {}
    local = is_local(ingress)
    own = f"{ingress['metadata']['name']}-local-tls"
    of_rules = tuple(dict.fromkeys(r["host"] for r in spec.get("rules") or () if r.get("host")))
    given = spec.get("tls") or ([{}] if local else [])
    for entry in given:
        name = entry.get("secretName") or (own if local else "")
        if name:
            yield tuple(dict.fromkeys(entry.get("hosts") or of_rules)), name
