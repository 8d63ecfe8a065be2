"""The day on which a token kept in a Secret was last used, as a label of the Secret.

Authentication only takes note; writing is done beside it, by `run`.
"""

from __future__ import annotations

import asyncio
import datetime
import logging

from sampan.api.errors import StatusError
from sampan.api.resources import SECRETS
from sampan.apiserver.tokens.legacy import LAST_USED
from sampan.client.types import Client

log = logging.getLogger(__name__)
_DAY = 24 * 3600


def day_of(now: float) -> str:
    return datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%d")


def end_of_day(now: float) -> float:
    return (now // _DAY + 1) * _DAY


class LegacyTokenUse:
    """The Secrets to be marked, with the day."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, str], str] = {}
        self._something = asyncio.Event()

    def note(self, namespace: str, secret: str, day: str) -> None:
        self._noted[namespace, secret] = day
        self._something.set()

    async def run(self, client: Client) -> None:
        """Write the labels, for ever."""
        while True:
            await self._something.wait()
            self._something.clear()
            while self._noted:
                (namespace, name), day = self._noted.popitem()
                try:
                    await client.patch(SECRETS, namespace, name, {"metadata": {"labels": {LAST_USED: day}}})
                except StatusError as e:
                    if e.code != 404:
                        log.warning("cannot mark Secret %s/%s as used: %s", namespace, name, e.message)
