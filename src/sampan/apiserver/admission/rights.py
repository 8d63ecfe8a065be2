"""Whether the one who writes may also do something else: what several plugins ask the authorizer."""

from __future__ import annotations

from sampan.api.resources import Resource
from sampan.apiserver.types import Authorizer, Decision, RequestInfo, User


def ask(
    authorizer: Authorizer,
    user: User,
    verb: str,
    resource: Resource,
    namespace: str = "",
    name: str = "",
    subresource: str = "",
) -> Decision:
    """The decision about an action on an object."""
    return authorizer.authorize(
        user,
        RequestInfo(
            verb,
            resource.path(namespace, name, subresource),
            True,
            resource.group,
            resource.version,
            resource.plural,
            namespace,
            name,
            subresource,
        ),
    )


def may_act_for_signer(authorizer: Authorizer, user: User, verb: str, signer: str) -> bool:
    """Whether a user may `approve` or `sign` what a signer is asked for: by its name, or by its whole domain."""
    group, version, plural = "certificates.k8s.io", "v1", "signers"
    domain = signer.partition("/")[0]
    return any(
        authorizer.authorize(user, RequestInfo(verb, "", True, group, version, plural, "", name)).allowed
        for name in (signer, f"{domain}/*")
    )
