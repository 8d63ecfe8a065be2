"""Tables of ours that never change once they are made (the masquerading of pods): put back when somebody empties them.

Only what is gone is put back: a table whose rules are others than before may have been changed by whoever made it.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess

from sampan.network.nftables import Family
from sampan.network.nftables_monitor import NftablesMonitor

log = logging.getLogger(__name__)


class StaticTable:
    """One table of the network namespace that the process is in; `run` keeps it as it is found when that begins."""

    def __init__(self, monitor: NftablesMonitor, family: Family, name: str) -> None:
        self._family, self._name = family.name.lower(), name
        self._whole = ""
        self._changed_by = ""
        self._wake = asyncio.Event()
        monitor.watch(family, name, self._changed)

    async def run(self) -> None:
        """Until cancelled."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            present = await asyncio.to_thread(self._listed)
            # What puts it back is told as a change as well, and found to be whole.
            if _rules(present) >= _rules(self._whole):
                self._whole = present
                continue
            log.warning("the table %s was emptied by %s: put back", self._name, self._changed_by)
            await asyncio.to_thread(self._restore)

    def _changed(self, who: str) -> None:
        self._changed_by = who
        self._wake.set()

    def _listed(self) -> str:
        done = subprocess.run(
            ["nft", "-s", "list", "table", self._family, self._name], capture_output=True, text=True, check=False
        )  # fmt: skip
        return done.stdout

    def _restore(self) -> None:
        anew = (
            f"table {self._family} {self._name} {{}}\ndelete table {self._family} {self._name}\n{self._whole}"
        )
        done = subprocess.run(["nft", "-f", "-"], input=anew, capture_output=True, text=True, check=False)
        if done.returncode:
            log.warning("the table %s cannot be put back: %s", self._name, done.stderr.strip())


def _rules(listed: str) -> int:
    """How much there is in a table, in lines."""
    return len(listed.splitlines())
