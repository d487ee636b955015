"""Log driver options (`--log-opt`) as the monitor's log writer takes them."""

import re
from typing import TYPE_CHECKING, Any

from wherry.engine.model import Container
from wherry.errors import Internal

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

# Without options Docker lets the log grow for ever; here it is bounded.
DEFAULT_SIZE, DEFAULT_FILES = 20 << 20, 5

_PREFIX = "failed to create task for container: failed to initialize logging driver: "
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)b?", re.IGNORECASE)
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


def log_settings(engine: "Engine", record: Container) -> dict[str, Any]:
    """The `log` part of the spawner's request (runtime.logs.drivers.open_writer). Raises `Internal` with Docker's
    words for values that make no sense."""
    driver, options = record.host_config.LogConfig.Type, record.host_config.LogConfig.Config or {}
    if driver == "none":
        return {"driver": "none"}
    size, files, compress = _rotation(driver, options)
    return {
        "driver": driver,
        "path": str(engine.paths.log(record.id)),
        "max_size": size,
        "max_file": files,
        "compress": compress,
        "attributes": _attributes(record, options) or None,
    }


def _rotation(driver: str, options: dict[str, str]) -> tuple[int, int, bool]:
    bounded = driver == "local" or not {"max-size", "max-file", "compress"} & set(options)
    size = _size(options["max-size"]) if "max-size" in options else DEFAULT_SIZE if bounded else -1
    files = _count(options["max-file"]) if "max-file" in options else DEFAULT_FILES if bounded else 1
    compress = _truth(options.get("compress", "true" if driver == "local" else "false"))
    if compress and (files < 2 or size < 0):
        if driver == "local" and "compress" not in options:
            return size, files, False
        raise Internal(f"{_PREFIX}compress cannot be true when max-file is less than 2 or max-size is not set")
    return size, files, compress


def _size(text: str) -> int:
    if text == "-1":
        return -1
    found = _SIZE.fullmatch(text)
    if found is None:
        raise Internal(f"{_PREFIX}invalid size: '{text}'")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def _count(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise Internal(f'{_PREFIX}strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 1:
        raise Internal(f"{_PREFIX}max-file cannot be less than 1")
    return int(text)


def _truth(text: str) -> bool:
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise Internal(f'{_PREFIX}strconv.ParseBool: parsing "{text}": invalid syntax')


def _attributes(record: Container, options: dict[str, str]) -> dict[str, str]:
    """What each line carries besides itself: chosen labels and variables, and the tag."""
    labels = record.config.Labels or {}
    variables = dict(item.split("=", 1) for item in record.config.Env or [] if "=" in item)
    chosen: dict[str, str] = {}
    for option, values in (("labels", labels), ("env", variables)):
        names = [name.strip() for name in options.get(option, "").split(",")]
        chosen |= {name: values[name] for name in names if name in values}
        pattern = options.get(f"{option}-regex", "")
        if pattern:
            matcher = _regex(pattern)
            chosen |= {name: value for name, value in values.items() if matcher.search(name)}
    if options.get("tag"):
        chosen["tag"] = _tag(record, options["tag"])
    return chosen


def _regex(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise Internal(f"{_PREFIX}error parsing regexp {pattern}: {error}") from None


def _tag(record: Container, template: str) -> str:
    fields = {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "ImageName": record.config.Image,
        "ImageID": record.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": record.image_id,
        "DaemonName": "docker",
    }

    def value(found: re.Match[str]) -> str:
        if found[1] not in fields:
            raise Internal(f"{_PREFIX}template: log-tag: can't evaluate field {found[1]}")
        return fields[found[1]]

    return _FIELD.sub(value, template)
