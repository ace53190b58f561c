"""Logs: one line an event, a constant message and its facts; secrets and feature values are never among them."""

import logging
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError
from typing_extensions import override

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "extra", "data"}


class FactsFormatter(logging.Formatter):
    """Writes ``time level logger message key=value …``.

    >>> record = logging.makeLogRecord({"name": "agents", "levelname": "INFO", "msg": "flushed", "rows": 3})
    >>> FactsFormatter().format(record).split(" ", 1)[1]
    'INFO agents: flushed rows=3'
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.default_msec_format = "%s.%03d"
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        facts = " ".join(f"{key}={value}" for key, value in vars(record).items() if key not in _STANDARD)
        line = super().formatMessage(record)
        return f"{line} {facts}" if facts else line


class WithoutBytes(logging.Filter):
    """Tells of a request that is no HTTP in one line: the error quotes the bytes, and a key may be among them."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.error = type(error).__name__
        return True


def logging_config(level: str) -> dict[str, Any]:
    """Return the configuration of the root logger; libraries speak from WARNING on."""
    # At DEBUG Amazon's client tells its signed headers, and a session token is one of them.
    quiet = ("aiokafka", "faust", "mode", "asyncio", "aiohttp.access", "aiobotocore", "botocore")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"facts": {"()": FactsFormatter}},
        "filters": {"without_bytes": {"()": WithoutBytes}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "facts"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            **{name: {"level": "WARNING"} for name in quiet},
            "aiohttp.server": {"filters": ["without_bytes"]},
        },
    }
