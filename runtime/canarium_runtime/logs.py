"""Structured logs: one JSON object a line on standard output; at a person's terminal, lines of text."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

VARIABLE = "CANARIUM_LOG_FORMAT"
"""Environment variable: `json` (the default) or `text`."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
    "taskName",
}


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger, message and whatever `extra` holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """Writes one line for a person: time, level, message and whatever `extra` holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        more = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        clock = datetime.fromtimestamp(record.created).astimezone()
        line = f"{clock:%H:%M:%S} {record.levelname.lower()}: {record.getMessage()}"
        if more:
            line += (
                " (" + ", ".join(f"{name}: {_plain(value)}" for name, value in more.items()) + ")"
            )
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _plain(value: Any) -> Any:
    return value["message"] if isinstance(value, dict) and "message" in value else value


def configure(level: str) -> None:
    """Send all logs of this process through the formatter.

    Args:
        level: debug, info, warning or error.
    """
    handler = logging.StreamHandler(sys.stdout)
    text = os.environ.get(VARIABLE) == "text"
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Warnings of Python and numpy, too, which a request can cause: else they are lines that are not JSON.
    logging.captureWarnings(True)
    # httpx logs whole URLs, which may hold signatures.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
