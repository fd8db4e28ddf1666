"""Logs: one JSON object a line, or on a terminal one line that a person reads."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LAST_STANDARD = 2


class JsonFormatter(logging.Formatter):
    """A JSON object a record: time, level, logger, message, the record's fields, and a traceback if any.

    Args:
        worker: Which of several worker processes this is; None if it is the only one, or none.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._always = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Time, level and message, then the record's fields as name=value.

    Args:
        worker: Which of several worker processes this is; None if it is the only one, or none.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
        self._always = {} if worker is None else {"worker": worker}

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, before any traceback."""
        fields = " ".join(f"{name}={_plain(value)}" for name, value in (self._always | _fields(record)).items())
        return f"{super().formatMessage(record)} {fields}".rstrip()


def configure(
    format_: Literal["auto", "json", "text"], level: str, stream: TextIO | None = None, worker: int | None = None
) -> None:
    """Send every record of `level` and above to `stream`, or standard error, replacing what was configured before.

    Each line says which worker process it is of, if there are several.
    """
    stream = stream or sys.stderr
    text = format_ == "text" or (format_ == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter(worker) if text else JsonFormatter(worker))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)


def take_standard_streams() -> None:
    """Let nothing be read or written where the process was started without a standard stream.

    Its number would go to the next file or connection that is opened, and whatever a library prints into that.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = os.fdopen(LAST_STANDARD, "w")


def _plain(value: object) -> str:
    # What a client sent must not end the line, begin another, or steer the terminal.
    text = str(value)
    return text if text.isprintable() else repr(text)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = dict(getattr(record, "fields", {}))
    if request_id := getattr(record, "request_id", None):
        fields["request_id"] = request_id
    return fields
