"""Log driver options (`--log-opt`) as the monitor's log writer takes them."""

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wherry.engine import log_drivers, regex
from wherry.engine.log_drivers import FORWARDING
from wherry.engine.log_tag import expand
from wherry.engine.model import Container
from wherry.errors import Internal
from wherry.runtime.logs.stamp import Clock

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

# Without options Docker lets the log grow for ever; here it is bounded.
DEFAULT_SIZE, DEFAULT_FILES = 20 << 20, 5

log = logging.getLogger("wherry.engine")

_PREFIX = "failed to create task for container: failed to initialize logging driver: "
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)b?", re.IGNORECASE)


def log_settings(engine: "Engine", record: Container) -> dict[str, Any]:
    """The `log` part of the spawner's request (runtime.logs.drivers.open_writer). Raises `Internal` with Docker's
    words for values that make no sense."""
    driver, options = record.host_config.LogConfig.Type, record.host_config.LogConfig.Config or {}
    if driver == "none":
        return {"driver": "none"}
    path = str(engine.paths.log(record.id))
    if driver in FORWARDING:
        return _forwarded(driver, options, record, path)
    size, files, compress = _rotation(driver, options)
    return {
        "driver": driver,
        "path": path,
        "max_size": size,
        "max_file": files,
        "compress": compress,
        "attributes": _attributes(record, options, path) or None,
        "limit": _limit(options),
    }


def _limit(options: dict[str, str]) -> int | None:
    """How many bytes may wait for a log that is slow before output is dropped; None: the container waits."""
    if options.get("mode") != "non-blocking":
        return None
    return log_drivers.size(options.get("max-buffer-size", "1m"))


def _forwarded(driver: str, options: dict[str, str], record: Container, path: str) -> dict[str, Any]:
    """A forwarded log is also kept here, in the form of `local`, for `docker logs`."""
    forward = {"driver": driver, **log_drivers.settings(driver, options), **_identity(driver, options, record, path)}
    kept: dict[str, Any] = {"driver": "none"}
    if not cache_disabled(options):
        size, files, compress = _cache_rotation(options)
        extra = _chosen(record, options) or None
        kept = {"driver": "local", "path": path, "max_size": size, "max_file": files, "compress": compress}
        kept["attributes"] = extra
    return {**kept, "forward": forward, "limit": _limit(options)}


def cache_disabled(options: dict[str, str]) -> bool:
    """Whether a forwarded log is not kept here."""
    return log_drivers.truth(options.get("cache-disabled") or "false")


def _cache_rotation(options: dict[str, str]) -> tuple[int, int, bool]:
    """A cache that makes no sense is no reason not to start: Docker's own rule."""
    given = {name.removeprefix("cache-"): text for name, text in options.items() if name.startswith("cache-max-")}
    if "cache-compress" in options:
        given["compress"] = options["cache-compress"]
    try:
        return _rotation("local", given)
    except Internal as error:
        log.warning("log cache: %s", str(error).removeprefix(_PREFIX))
        return DEFAULT_SIZE, DEFAULT_FILES, True


def _identity(driver: str, options: dict[str, str], record: Container, path: str) -> dict[str, Any]:
    """How a driver names the container to its server."""
    extra = _chosen(record, options)
    tag = expand(record, options.get("tag") or "{{.ID}}", path, extra)
    if driver == "gelf":
        return {"fields": _gelf_fields(record, tag, extra)}
    if driver == "fluentd":
        named = {"container_id": record.id, "container_name": f"/{record.name}"}
        return {"tag": tag, "extra": extra, **named}
    if driver == "journald":
        return {"fields": _journal_fields(record, tag), "extra": extra}
    return {"tag": tag}


def _gelf_fields(record: Container, tag: str, extra: dict[str, str]) -> dict[str, str]:
    fields = {
        "container_id": record.id,
        "container_name": record.name,
        "image_id": record.image_id,
        "image_name": record.config.Image,
        "command": _command(record),
        "tag": tag,
        "created": Clock().nano(record.created).decode(),
    }
    return {f"_{name}": text for name, text in (fields | extra).items()}


def _journal_fields(record: Container, tag: str) -> dict[str, str]:
    return {
        "CONTAINER_ID": record.id[:12],
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": record.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": record.config.Image,
        "SYSLOG_IDENTIFIER": tag,
    }


def _command(record: Container) -> str:
    return " ".join([record.path, *record.args])


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
    try:
        return log_drivers.truth(text)
    except ValueError as error:
        raise Internal(f"{_PREFIX}{error}") from None


def _attributes(record: Container, options: dict[str, str], path: str) -> dict[str, str]:
    """What each line carries besides itself: chosen labels and variables, and the tag."""
    chosen = _chosen(record, options)
    return {**chosen, "tag": expand(record, options["tag"], path, chosen)} if options.get("tag") else chosen


def _chosen(record: Container, options: dict[str, str]) -> dict[str, str]:
    labels = record.config.Labels or {}
    variables = dict(item.split("=", 1) for item in record.config.Env or [] if "=" in item)
    chosen: dict[str, str] = {}
    for option, values in (("labels", labels), ("env", variables)):
        names = [name.strip() for name in options.get(option, "").split(",")]
        chosen |= {name: values[name] for name in names if name in values}
        pattern = options.get(f"{option}-regex", "")
        if pattern:
            matches = _search(pattern)
            chosen |= {name: value for name, value in values.items() if matches(name)}
    return chosen


def _search(pattern: str) -> Callable[[str], bool]:
    try:
        return regex.compile_search(pattern)
    except ValueError as error:
        raise Internal(f"{_PREFIX}{error}") from None
