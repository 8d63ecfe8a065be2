"""Bootstrap signer: signs ConfigMap `cluster-info` of kube-public with every bootstrap token that may.

Whoever has a token can so be sure that what he reads without any identity is his cluster's. There is nothing to do where there
is no `cluster-info`. Upstream: `pkg/controller/bootstrap/bootstrapsigner.go`.
"""

from __future__ import annotations

import time

from sampan.api import bootstrap_tokens as tokens
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import CONFIGMAPS, SECRETS
from sampan.controllers.controller import Context, Controller

_KEY = f"{tokens.CLUSTER_INFO_NAMESPACE}/{tokens.CLUSTER_INFO}"


class BootstrapSigner(Controller):
    name = "bootstrapsigner"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._tokens: dict[str, Object] = {}
        self._maps = context.informers.of(CONFIGMAPS)
        self._maps.add_handler(self._map_changed)
        context.informers.of(SECRETS).add_handler(self._secret_changed)

    def _map_changed(self, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        if meta["name"] == tokens.CLUSTER_INFO and meta["namespace"] == tokens.CLUSTER_INFO_NAMESPACE:
            self.queue.add(_KEY)

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        secret = new or old or {}
        if not tokens.is_token(secret):
            return
        if new is None:
            self._tokens.pop(secret["metadata"]["name"], None)
        else:
            self._tokens[secret["metadata"]["name"]] = new
        self.queue.add(_KEY)

    async def sync(self, key: str) -> None:
        info = self._maps.get(tokens.CLUSTER_INFO_NAMESPACE, tokens.CLUSTER_INFO)
        content = (info or {}).get("data", {}).get(tokens.KUBECONFIG)
        if info is None or not content:
            return
        moment = time.time()
        usable = [s for s in self._tokens.values() if tokens.may_sign(s, moment)]
        wanted = {k: v for k, v in info["data"].items() if not k.startswith(tokens.SIGNATURE_PREFIX)}
        for secret in usable:
            token_id = tokens.text(secret, "token-id")
            wanted[tokens.SIGNATURE_PREFIX + token_id] = tokens.sign(
                content, token_id, tokens.text(secret, "token-secret")
            )
        # One that ends takes its signature with it, whether or not its Secret goes.
        ends = min(map(tokens.expiration, usable), default=tokens.FOREVER)
        if ends < tokens.FOREVER:
            self.queue.add_after(key, ends - moment)
        if wanted != info["data"]:
            changed = deep_copy(info)
            changed["data"] = wanted
            await self._client.update(CONFIGMAPS, changed)
