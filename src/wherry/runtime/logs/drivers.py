"""Which driver writes and reads which log."""

import os
from typing import Any

from wherry.runtime.logs.base import Format, Writer
from wherry.runtime.logs.forward.spooled import Spooled
from wherry.runtime.logs.forward.writer import Forwarded
from wherry.runtime.logs.jsonfile import JsonFile, JsonFormat
from wherry.runtime.logs.local import Local, LocalFormat
from wherry.runtime.logs.none import Nothing
from wherry.runtime.logs.rotation import Fork

_WRITERS: dict[str, type[JsonFile] | type[Local]] = {"json-file": JsonFile, "local": Local}
_FORMATS: dict[str, type[JsonFormat] | type[LocalFormat]] = {"json-file": JsonFormat, "local": LocalFormat}


def open_writer(config: dict[str, Any], fork: Fork = os.fork) -> Writer:
    """The writer for {"driver": "json-file"|"local"|"none", "path", "max_size": bytes or -1, "max_file", "compress",
    "attributes": {str: str} or None, "forward": None or {"driver", …} (see `forward.process`), "limit": how many bytes
    may wait to be forwarded or written before output is dropped, None: the container waits}. `fork` makes the children
    that compress and forward. Raises ValueError for another driver, OSError when the file cannot be opened."""
    limit = config.get("limit")
    if config.get("forward"):
        return Forwarded(config["forward"], limit, open_writer(config | {"forward": None}, fork), fork)
    driver = config["driver"]
    if driver == "none":
        return Nothing()
    if limit is not None:
        return Spooled(config, limit, fork)
    if driver not in _WRITERS:
        raise ValueError(f"logger: no log driver named '{driver}' is registered")
    return _WRITERS[driver](
        config["path"],
        config.get("max_size", -1),
        config.get("max_file", 1),
        compress=config.get("compress", False),
        attributes=config.get("attributes"),
        fork=fork,
    )


def check_target(config: dict[str, Any]) -> None:
    """Raise OSError, in Docker's words, when the server that a log is to be forwarded to can't be had."""
    if config.get("forward"):
        from wherry.runtime.logs.forward.process import open_target

        target = open_target(config["forward"])
        target.connect()
        target.close()


def open_format(driver: str) -> Format:
    """How to read the files of `driver`. Raises ValueError for one that keeps none."""
    if driver not in _FORMATS:
        raise ValueError("configured logging driver does not support reading")
    return _FORMATS[driver]()
