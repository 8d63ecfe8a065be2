"""Looking for damage: in a store file that nobody has open, and among the members of an etcd."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path

from sampan.store import messages
from sampan.store.members import Members, Tls
from sampan.store.types import Entry, StoreError

MOST = 100
"""Problems told of one kind."""


def check_sqlite(path: Path) -> tuple[list[str], list[Entry]]:
    """(everything that is wrong with a store file, the newest values that can be read). Nothing is changed. Blocks."""
    if not path.is_file():
        return [f"there is no file {path}"], []
    problems: list[str] = []
    entries: dict[str, Entry] = {}
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            said = [row[0] for row in connection.execute(f"PRAGMA quick_check({MOST})")]
            problems += [f"{path}: {line}" for line in said if line != "ok"]
            replaced = {row[0] for row in connection.execute("SELECT previous FROM log WHERE previous > 0")}
            rows = connection.execute(
                "SELECT revision, key, created, deleted, checksum, value FROM log ORDER BY revision"
            )
            for revision, key, created, deleted, checksum, value in rows:
                if deleted:
                    continue
                if value is None or zlib.crc32(value) != checksum:
                    problems.append(
                        f"{path}: the value of {key} at revision {revision} is not what was written"
                    )
                elif revision not in replaced:
                    if key in entries:
                        problems.append(f"{path}: two newest values of {key}")
                    entries[key] = Entry(key, value, revision, created)
    except (sqlite3.Error, TypeError) as e:
        problems.append(f"{path}: {e}")
    return problems, list(entries.values())


async def check_members(endpoints: Sequence[str], tls: Tls | None, timeout: float = 10.0) -> list[str]:
    """What is wrong with an etcd: members that do not answer, alarms, members that hold something else than others."""
    problems: list[str] = []
    statuses: dict[str, messages.StatusAnswer] = {}
    everybody = Members(endpoints, tls, timeout)
    each = {endpoint: Members([endpoint], tls, timeout) for endpoint in endpoints}
    try:
        for endpoint, member in each.items():
            try:
                statuses[endpoint] = messages.status_answer(await member.call("Maintenance/Status", b""))
            except StoreError as e:
                problems.append(str(e))
        if not statuses:
            return problems
        if len({s.leader for s in statuses.values()}) > 1 or not all(s.leader for s in statuses.values()):
            problems.append("the members do not agree on a leader")
        asked = await everybody.call("KV/Range", messages.range_request(b"\0", count_only=True))
        revision = messages.range_answer(asked).revision
        for number, alarm in messages.alarms_of(await everybody.call("Maintenance/Alarm", b"")):
            problems.append(f"member {number:x} has raised the alarm {alarm}")
        hashes: dict[messages.HashAnswer, list[str]] = {}
        for endpoint in statuses:
            answer = await each[endpoint].call("Maintenance/HashKV", messages.hash_request(revision))
            hashes.setdefault(messages.hash_answer(answer), []).append(endpoint)
        if len({h.compacted for h in hashes}) == 1 and len(hashes) > 1:
            groups = "; ".join(", ".join(g) for g in hashes.values())
            problems.append(f"the members hold different data at revision {revision}: {groups}")
    except StoreError as e:
        problems.append(str(e))
    finally:
        for member in (everybody, *each.values()):
            await member.close()
    return problems
