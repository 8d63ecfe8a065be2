"""Bootstrap tokens go when their time is over. Upstream: `pkg/controller/bootstrap/tokencleaner.go`."""

from __future__ import annotations

import base64
import time

from sampan.api.errors import Object
from sampan.api.objects import parse_time
from sampan.api.resources import SECRETS
from sampan.controllers.controller import Context, Controller, delete_as_seen, split_key

NAMESPACE = "kube-system"
SECRET_TYPE = "bootstrap.kubernetes.io/token"


class TokenCleaner(Controller):
    name = "token-cleaner"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._secrets = context.informers.of(SECRETS)
        self._secrets.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and _is_token(new):
            self.enqueue(new)

    async def sync(self, key: str) -> None:
        secret = self._secrets.get(*split_key(key))
        if secret is None or not _is_token(secret):
            return
        left = _seconds_left(secret)
        if left is None:
            return
        if left > 0:
            self.queue.add_after(key, left)
            return
        await delete_as_seen(self._client, SECRETS, secret)


def _is_token(secret: Object) -> bool:
    return secret.get("type") == SECRET_TYPE and secret["metadata"].get("namespace") == NAMESPACE


def _seconds_left(secret: Object) -> float | None:
    """Until a token ends; None where it does not. A date that cannot be read is past."""
    try:
        text = base64.b64decode((secret.get("data") or {}).get("expiration", "")).decode()
        return parse_time(text) - time.time() if text else None
    except ValueError:
        return 0.0
