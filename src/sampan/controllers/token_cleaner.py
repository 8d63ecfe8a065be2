"""Bootstrap tokens go when their time is over. Upstream: `pkg/controller/bootstrap/tokencleaner.go`."""

from __future__ import annotations

import time

from sampan.api import bootstrap_tokens as tokens
from sampan.api.errors import Object
from sampan.api.resources import SECRETS
from sampan.controllers.controller import Context, Controller, delete_as_seen, split_key


class TokenCleaner(Controller):
    name = "token-cleaner"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._secrets = context.informers.of(SECRETS)
        self._secrets.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and tokens.is_token(new):
            self.enqueue(new)

    async def sync(self, key: str) -> None:
        secret = self._secrets.get(*split_key(key))
        if secret is None or not tokens.is_token(secret):
            return
        ends = tokens.expiration(secret)
        if ends == tokens.FOREVER:
            return
        left = ends - time.time()
        if left > 0:
            self.queue.add_after(key, left)
            return
        await delete_as_seen(self._client, SECRETS, secret)
