"""ServiceAccount tokens: how they are signed, what they say, how one is asked for, and how others verify them.

A token is a JWT about a ServiceAccount and the object that it lives and dies with. `requests` makes them,
`authentication` believes them: the signature (`keys`) says who issued a token; whether it is *still* good depends on
the objects it names (`claims`), which are looked up. `legacy` is about the tokens kept in Secrets.

Upstream: `pkg/serviceaccount` and `pkg/registry/core/serviceaccount/storage`.
"""

from __future__ import annotations

from sampan.apiserver.types import User

USER_PREFIX = "system:serviceaccount:"
GROUP = "system:serviceaccounts"
NODE_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"
EXTRA = "authentication.kubernetes.io/"
"""What the names of a user's extra values begin with: `credential-id`, `pod-name`, `node-uid`, ..."""


class InvalidToken(Exception):
    """A token that is not to be believed; the message says why and is for logs and TokenReviews. There is none where
    nobody here knows such a token."""


def user_name(namespace: str, account: str) -> str:
    """The user that a ServiceAccount is."""
    return f"{USER_PREFIX}{namespace}:{account}"


def split_user_name(name: str) -> tuple[str, str] | None:
    """Namespace and name of the ServiceAccount that a user is; None for anybody else."""
    if not name.startswith(USER_PREFIX):
        return None
    parts = name[len(USER_PREFIX) :].split(":")
    return (parts[0], parts[1]) if len(parts) == 2 and all(parts) else None


def groups(namespace: str) -> tuple[str, str]:
    """The groups of every ServiceAccount of a namespace."""
    return GROUP, f"{GROUP}:{namespace}"


def node_name(user: User) -> str | None:
    """The node that a user is, "" for a node without a name, None for anybody else."""
    if NODES_GROUP not in user.groups:
        return None
    return user.name.removeprefix(NODE_PREFIX) if user.name.startswith(NODE_PREFIX) else ""
