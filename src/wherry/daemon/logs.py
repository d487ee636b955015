"""The daemon's own log, on stderr, as text or JSON lines."""

import json
import logging
import sys
import time

_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}


class _TextFormatter(logging.Formatter):
    """logfmt, as dockerd prints when it has no terminal."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        level = "warning" if record.levelno == logging.WARNING else record.levelname.lower()
        text = f'time="{stamp}.{int(record.msecs):03d}Z" level={level} msg={json.dumps(record.getMessage())}'
        return text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = {"level": record.levelname.lower(), "msg": record.getMessage(), "time": stamp}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_up_logging(level: str, form: str, *, debug: bool) -> None:
    """Send the log of all rooms to stderr; call again to change the level or the form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else _LEVELS[level])
    logging.getLogger("asyncio").setLevel(logging.WARNING)
