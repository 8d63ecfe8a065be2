"""Tokens known from the start: given by whoever starts the server, or in a file as for `--token-auth-file`.

Upstream: `k8s.io/apiserver/pkg/authentication/token/tokenfile`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from sampan.apiserver.authentication.verdicts import Verdict, digest
from sampan.apiserver.types import User

log = logging.getLogger(__name__)


class TokenFileError(ValueError):
    """The file cannot be used; the text says which line is wrong."""


class StaticTokens:
    def __init__(self, users: Mapping[str, User]) -> None:
        self._verdicts = {digest(token): Verdict(user) for token, user in users.items()}

    def authenticate(self, token: str, key: bytes, now: float) -> Verdict | None:
        return self._verdicts.get(key)


def read_token_file(path: Path) -> dict[str, User]:
    """Users by token, from lines `token,user,uid[,"group,group"]`. Raises OSError, TokenFileError."""
    import csv

    users: dict[str, User] = {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file, skipinitialspace=False)
        for row in rows:
            if not row or row[0].startswith("#"):
                continue
            where = f"{path}:{rows.line_num}"
            if len(row) < 3:
                raise TokenFileError(f"{where}: at least a token, a user name and a user uid are expected, found {len(row)} columns")  # fmt: skip
            token, name, uid = row[:3]
            if not token:
                log.warning("%s: the token is empty; the line is ignored", where)
                continue
            if token in users:
                log.warning("%s: the same token again; the later line counts", where)
            groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
            users[token] = User(name, uid, groups)
    return users
