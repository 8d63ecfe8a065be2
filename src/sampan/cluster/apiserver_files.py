"""The files that `sampan up` hands to the API server, under the names of kube-apiserver's flags.

A file stays where its owner keeps it; the cluster remembers its absolute path and reads it at every start. Each is read once
before anything starts: what is wrong with it is better told there than by a server that does not come up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.cluster.config import ClusterConfig
    from sampan.cluster.wishes import Wishes


def _authentication(path: Path) -> None:
    from sampan.apiserver.authentication.configuration import load

    load(path)


def _tokens(path: Path) -> None:
    from sampan.apiserver.authentication.static_tokens import read_token_file

    read_token_file(path)


def _encryption(path: Path) -> None:
    from sampan.apiserver.encryption.configuration import load

    load(path)


def _audit_policy(path: Path) -> None:
    from sampan.apiserver.audit.policy import load

    load(path)


def _audit_log(path: Path) -> None:
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the directory {path.parent} is not there")


FILES: Mapping[str, Callable[[Path], None]] = {
    "authentication_config": _authentication,
    "token_auth_file": _tokens,
    "encryption_provider_config": _encryption,
    "audit_policy_file": _audit_policy,
    "audit_log_path": _audit_log,
}
"""Each field of `Wishes` and of the cluster's configuration, and what reads it; that raises OSError, ValueError."""


def problems(wishes: Wishes, present: ClusterConfig | None = None) -> list[str]:
    """What is wrong with the files that are wished for, for a new cluster or one that is `present`."""
    found = []
    policy = wishes.audit_policy_file
    if policy is None and present is not None:
        policy = present.audit_policy_file
    if wishes.audit_log_path and not policy:
        found.append("--audit-log-path: nothing is audited without --audit-policy-file")
    for name, check in FILES.items():
        if file := getattr(wishes, name):
            try:
                check(Path(os.path.abspath(file)))
            except (OSError, ValueError) as e:
                found.append(f"--{name.replace('_', '-')}: {e}")
    return found


def wished(wishes: Wishes) -> dict[str, str]:
    """The absolute path of each file that is wished for; "" for one that is no longer wanted."""
    given = {name: getattr(wishes, name) for name in FILES}
    return {name: os.path.abspath(file) if file else "" for name, file in given.items() if file is not None}
