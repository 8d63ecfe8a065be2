"""ServiceAccount tokens kept in Secrets: a Secret of type kubernetes.io/service-account-token gets its token, and goes
with its ServiceAccount.

Upstream: `pkg/controller/serviceaccount/tokens_controller.go`.
"""

from __future__ import annotations

import base64

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import SECRETS, SERVICEACCOUNTS
from sampan.client.informer import key_of
from sampan.controllers.controller import Context, Controller, delete_as_seen, deleting, split_key

SECRET_TYPE = "kubernetes.io/service-account-token"
_NAME = "kubernetes.io/service-account.name"
_UID = "kubernetes.io/service-account.uid"


class ServiceAccountTokensController(Controller):
    name = "serviceaccount-token"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._sign = context.sign_token
        self._ca = base64.b64encode(context.cluster_ca.encode()).decode()
        self._secrets = context.informers.of(SECRETS)
        self._accounts = context.informers.of(SERVICEACCOUNTS)
        self._of_account: dict[tuple[str, str], set[str]] = {}
        """Keys of the token Secrets of each ServiceAccount, by its namespace and name."""
        self._secrets.add_handler(self._secret_changed)
        self._accounts.add_handler(self._account_changed)

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        for obj, there in ((old, False), (new, True)):
            if obj is None or obj.get("type") != SECRET_TYPE:
                continue
            keys = self._of_account.setdefault(_account_of(obj), set())
            (keys.add if there else keys.discard)(key_of(obj))
            if there:
                self.enqueue(obj)
            elif not keys:
                del self._of_account[_account_of(obj)]

    def _account_changed(self, old: Object | None, new: Object | None) -> None:
        account = new if new is not None else old
        assert account is not None
        meta = account["metadata"]
        for key in self._of_account.get((meta["namespace"], meta["name"]), ()):
            self.queue.add(key)

    async def sync(self, key: str) -> None:
        secret = self._secrets.get(*split_key(key))
        if secret is None or secret.get("type") != SECRET_TYPE or deleting(secret):
            return
        account = await self._account(secret)
        if account is None:
            await delete_as_seen(self._client, SECRETS, secret)
        elif self._sign is not None:
            await self._fill(secret, account)

    async def _account(self, secret: Object) -> Object | None:
        """The ServiceAccount of a Secret, None if there is none (any more). Asked of the API itself: a copy that lags
        behind would have a Secret deleted whose ServiceAccount was made just before it."""
        namespace, name = _account_of(secret)
        account = self._accounts.get(namespace, name)
        uid = (secret["metadata"].get("annotations") or {}).get(_UID)
        if account is None or (uid and uid != account["metadata"]["uid"]):
            try:
                account = await self._client.get(SERVICEACCOUNTS, namespace, name)
            except StatusError as e:
                if e.code != 404:
                    raise
                return None
        return account if not uid or uid == account["metadata"]["uid"] else None

    async def _fill(self, secret: Object, account: Object) -> None:
        assert self._sign is not None
        meta, data = secret["metadata"], secret.get("data") or {}
        wanted = {"ca.crt": self._ca, "namespace": base64.b64encode(meta["namespace"].encode()).decode()}
        annotations = {_NAME: account["metadata"]["name"], _UID: account["metadata"]["uid"]}
        missing = {k: v for k, v in wanted.items() if data.get(k) != v}
        marked = annotations.items() <= (meta.get("annotations") or {}).items()
        if not missing and marked and data.get("token"):
            return
        changed = deep_copy(secret)
        kept = changed.setdefault("data", {}) or {}
        changed["data"] = {**kept, **missing}
        if not data.get("token"):
            changed["data"]["token"] = base64.b64encode(self._sign(account, secret).encode()).decode()
        changed["metadata"]["annotations"] = {**(meta.get("annotations") or {}), **annotations}
        try:
            await self._client.update(SECRETS, changed)
        except StatusError as e:
            if e.code not in (404, 409):
                raise


def _account_of(secret: Object) -> tuple[str, str]:
    meta = secret["metadata"]
    return meta["namespace"], (meta.get("annotations") or {}).get(_NAME, "")
