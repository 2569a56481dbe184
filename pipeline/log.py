"""One line an event, `name key=value …` or JSON, on standard error. Settings mask their secrets themselves."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_FIELDS = "wattrate_fields"


class Log:
    """A named logger whose events carry fields: `log.info("batch rated", partition=3, rows=1000)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"wattrate.{name}")

    def debug(self, event: str, **fields: object) -> None:
        """For who repairs wattrate itself."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What happens when all is well."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """It goes on, but someone should look."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """It does not go on, or something is wrong with the books."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={_FIELDS: fields})


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, object] = getattr(record, _FIELDS, {})
        pairs = "".join(f" {key}={_plain(value)}" for key, value in fields.items())
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        name = record.name.removeprefix("wattrate.")
        return f"{_instant(record)} {record.levelname:<7} {name}: {record.getMessage()}{pairs}{trace}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("wattrate."),
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n') else text


def configure(level: str = "info", form: str = "text") -> None:
    """Send wattrate's events to standard error; `form` is text or json. Called once by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Line())
    root = logging.getLogger("wattrate")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
