"""One JSON object per line on standard output, with the session's id once it is known."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

# Loguru adds a handler of its own when it is imported. Without it ours gets the number 0, which
# many bot files remove by number before they add their own.
_autoinit = os.environ.get("LOGURU_AUTOINIT")
os.environ["LOGURU_AUTOINIT"] = "0"
from loguru import logger  # noqa: E402

if _autoinit is None:
    del os.environ["LOGURU_AUTOINIT"]
else:
    os.environ["LOGURU_AUTOINIT"] = _autoinit

if TYPE_CHECKING:
    from loguru import Message

__all__ = ["announce", "configure", "logger", "set_session"]

_session_id: str | None = None


def configure(level: str) -> None:
    """Send loguru's and the standard library's records to standard output."""
    # diagnose would print the values of variables, secrets among them.
    logger.add(_write, level=level, format="{message}", backtrace=False, diagnose=False)
    # The server's own chatter (started, connection open) says nothing that we do not say.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    number = logger.level(level).no
    logging.basicConfig(handlers=[_FromStandardLibrary()], level=number, force=True)


def set_session(session_id: str) -> None:
    """Put this id on every line from now on."""
    global _session_id
    _session_id = session_id


def announce(message: str, **fields: Any) -> None:
    """Write a line that other programs wait for, whatever the level and the bot's own handlers."""
    _emit({"level": "INFO", "message": message, **fields})


def _write(message: Message) -> None:
    record = message.record
    line: dict[str, Any] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "logger": record["name"],
        "message": record["message"],
    }
    if record["extra"]:
        line["extra"] = record["extra"]
    if record["exception"] is not None:
        kind, value, trace = record["exception"]
        line["exception"] = "".join(traceback.format_exception(kind, value, trace))
    _emit(line)


def _emit(line: dict[str, Any]) -> None:
    if _session_id is not None:
        line["session_id"] = _session_id
    sys.stdout.write(json.dumps(line, ensure_ascii=False, default=repr) + "\n")
    sys.stdout.flush()


class _FromStandardLibrary(logging.Handler):
    """Hands records of the standard library's logging to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        named = logger.patch(lambda entry: entry.__setitem__("name", record.name))
        named.opt(exception=record.exc_info).log(level, "{}", record.getMessage())
