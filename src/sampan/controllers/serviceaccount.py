"""ServiceAccount: every namespace has a `default` one. Upstream: `pkg/controller/serviceaccount`."""

from __future__ import annotations

from sampan.api.resources import SERVICEACCOUNTS
from sampan.controllers.controller import Context
from sampan.controllers.per_namespace import PerNamespace


class ServiceAccountController(PerNamespace):
    name = "serviceaccount"

    def __init__(self, context: Context) -> None:
        super().__init__(context, SERVICEACCOUNTS, "default", {})
