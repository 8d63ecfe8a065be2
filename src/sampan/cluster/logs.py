"""What a process of a cluster writes to its log: lines for people, or (`--logging-format=json`) objects for programs.

The members of a line in JSON are those of upstream's (`k8s.io/component-base/logs/json`): ts, v, msg, logger, err.
"""

from __future__ import annotations

import json
import logging
from typing import TextIO

FORMATS = ("text", "json")
_LEVELS = {"WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}


class JsonFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": round(record.created * 1000, 3),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        level = _LEVELS.get(record.levelname)
        line |= {"v": 0} if level is None else {"level": level}
        if record.exc_info and record.exc_info[1] is not None:
            line["err"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            line["stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(form: str = "text", stream: TextIO | None = None) -> None:
    """Have everything that is logged from now on written to `stream` (stderr)."""
    handler = logging.StreamHandler(stream)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def problems(form: str | None) -> list[str]:
    """What is wrong with a wish."""
    if form is None or form in FORMATS:
        return []
    return [f"--logging-format {form}: there are {' and '.join(FORMATS)}"]
