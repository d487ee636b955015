"""The options of log drivers (`--log-opt`): which there are, what they may say, in dockerd's words.

Checked when a container is created; what only shows when the log is opened (a server that does not answer, a tag that
cannot be expanded) fails the start.
"""

import os
import re
from collections.abc import Callable
from math import inf
from typing import Any
from urllib.parse import SplitResult, urlsplit

from wherry.errors import InvalidArgument

Options = dict[str, str]

_EXTRA = {"labels", "labels-regex", "env", "env-regex", "tag"}
_ROTATION = {"max-size", "max-file", "compress"}
_GENERAL = {"mode", "max-buffer-size"}
_CACHE = {"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"}

_SYSLOG = {"address", "facility", "format", "tls-ca-cert", "tls-cert", "tls-key", "tls-skip-verify"}
_GELF = {"address", "compression-level", "compression-type", "tcp-max-reconnect", "tcp-reconnect-delay"}
_FLUENTD = {"address", "async", "async-reconnect-interval", "buffer-limit", "max-retries", "request-ack", "retry-wait"}
_FLUENTD |= {"sub-second-precision", "write-timeout"}

_OPTIONS = {
    "json-file": _EXTRA | _ROTATION,
    "local": _ROTATION,
    "syslog": _EXTRA | {f"syslog-{name}" for name in _SYSLOG},
    "gelf": _EXTRA | {f"gelf-{name}" for name in _GELF},
    "fluentd": _EXTRA | {f"fluentd-{name}" for name in _FLUENTD},
    "journald": _EXTRA,
}

NAMES = sorted([*_OPTIONS, "none"])
FORWARDING = ("syslog", "gelf", "fluentd", "journald")
"""Drivers that send the log elsewhere; what they send is also kept here, for `docker logs`."""

FACILITIES = {
    name: number
    for number, name in enumerate(
        ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
    )
} | {f"local{n}": 16 + n for n in range(8)}

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+|[+-]?0")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def check(driver: str, options: Options) -> None:
    """Raise `InvalidArgument` for a driver that does not exist, an option it does not have or a value without sense."""
    if driver not in ("", *NAMES):
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    _check_mode(options)
    _check_cache(options)
    driver = driver or "json-file"
    if driver == "none":
        return
    if driver == "gelf" and "gelf-address" not in options:
        raise InvalidArgument("gelf-address is a required parameter")
    for name in options:
        if name not in _OPTIONS[driver] | _GENERAL | _CACHE:
            text = f"for {driver} log driver" if driver != "local" else "for log driver local"
            raise InvalidArgument(f"unknown log opt '{name}' {text}")
    if driver in _SETTINGS:
        _SETTINGS[driver](options)


def settings(driver: str, options: Options) -> dict[str, Any]:
    """What a forwarding driver must know of its options (`runtime.logs.forward`). Raises `InvalidArgument`."""
    return _SETTINGS[driver](options)


def size(text: str) -> int:
    """Bytes of "10m". Raises ValueError with Go's words."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid size: '{text}'")
    number = float(found[1])
    if number == inf:
        raise ValueError(f'strconv.ParseFloat: parsing "{found[1]}": value out of range')
    return int(number * _UNITS[found[2].lower()])


def truth(text: str) -> bool:
    """As Go's strconv.ParseBool. Raises ValueError with its words."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def duration(text: str) -> float:
    """Seconds of "1m30s". Raises ValueError with Go's words."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f'time: invalid duration "{text}"')
    seconds = sum(float(n) * _SECONDS[unit] for n, unit in re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", text))
    return -seconds if text.startswith("-") else seconds


def _check_mode(options: Options) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" not in options:
        return
    if mode != "non-blocking":
        raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    try:
        size(options["max-buffer-size"])
    except ValueError as error:
        raise InvalidArgument(f"error parsing option max-buffer-size: {error}") from None


def _check_cache(options: Options) -> None:
    try:
        truth(options.get("cache-disabled") or "false")
    except ValueError:
        raise InvalidArgument(f"invalid value for option cache-disabled: {options['cache-disabled']}") from None


def _syslog(options: Options) -> dict[str, Any]:
    protocol, address = _syslog_address(options.get("syslog-address", ""))
    form = options.get("syslog-format", "")
    if form not in ("", "rfc3164", "rfc5424", "rfc5424micro"):
        raise InvalidArgument("Invalid syslog format")
    return {
        "protocol": protocol,
        "address": address,
        "facility": _facility(options.get("syslog-facility", "")),
        "format": form,
        "ca": options.get("syslog-tls-ca-cert", ""),
        "certificate": options.get("syslog-tls-cert", ""),
        "key": options.get("syslog-tls-key", ""),
        "verify": "syslog-tls-skip-verify" not in options,
    }


def _syslog_address(text: str) -> tuple[str, Any]:
    """("", None) is the machine's own syslog."""
    if not text:
        return "", None
    url = _url(text)
    if url.scheme in ("unix", "unixgram"):
        try:
            os.stat(url.path)
        except OSError as error:
            raise InvalidArgument(f"stat {url.path}: {_lower(error)}") from None
        return url.scheme, url.path
    if url.scheme not in ("udp", "tcp", "tcp+tls"):
        raise InvalidArgument(f"unsupported scheme: '{url.scheme}'")
    return url.scheme, _host_and_port(text, 514)


def _facility(text: str) -> int:
    if not text:
        return FACILITIES["daemon"]
    if text in FACILITIES:
        return FACILITIES[text]
    if text.isascii() and text.isdigit() and int(text) <= 23:
        return int(text)
    raise InvalidArgument("invalid syslog facility")


def _gelf(options: Options) -> dict[str, Any]:
    url = _url(options["gelf-address"])
    if url.scheme not in ("udp", "tcp"):
        raise InvalidArgument("gelf: endpoint needs to be TCP or UDP")
    try:
        port = url.port
    except ValueError:
        port = None
    if port is None:
        raise InvalidArgument("gelf: please provide gelf-address as proto://host:port")
    udp = url.scheme == "udp"
    for name in options:
        if udp and name.startswith("gelf-tcp-"):
            raise InvalidArgument(f'"{name}" is only valid for TCP')
        if not udp and name.startswith("gelf-compression-"):
            raise InvalidArgument("compression is only supported on UDP")
    return {
        "protocol": url.scheme,
        "address": [url.hostname or "", port],
        "compression": _one_of(options, "gelf-compression-type", ("gzip", "zlib", "none"), "gzip"),
        "level": int(_one_of(options, "gelf-compression-level", [str(n) for n in range(-1, 10)], "1")),
        "reconnects": _natural(options, "gelf-tcp-max-reconnect", 3),
        "delay": _natural(options, "gelf-tcp-reconnect-delay", 1),
    }


def _one_of(options: Options, name: str, values: Any, default: str) -> str:
    value = options.get(name, default)
    if value not in values:
        raise InvalidArgument(f'unknown value "{value}" for log opt "{name}" for gelf log driver')
    return value


def _natural(options: Options, name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(f'"{name}" must be a positive integer')
    return int(text)


def _fluentd(options: Options) -> dict[str, Any]:
    protocol, address = _fluentd_address(options.get("fluentd-address", ""))
    return {
        "protocol": protocol,
        "address": address,
        "async": _value(options, "fluentd-async", truth, False),
        "buffer": _value(options, "fluentd-buffer-limit", size, 1 << 20),
        "retry_wait": _value(options, "fluentd-retry-wait", duration, 1.0),
        "max_retries": _value(options, "fluentd-max-retries", _unsigned, (1 << 31) - 1),
        "reconnect": _reconnect_interval(options.get("fluentd-async-reconnect-interval", "")),
        "sub_second": _value(options, "fluentd-sub-second-precision", truth, False),
        "ack": _value(options, "fluentd-request-ack", truth, False),
        "timeout": _write_timeout(options.get("fluentd-write-timeout", "")),
    }


def _fluentd_address(text: str) -> tuple[str, Any]:
    if not text:
        return "tcp", ["127.0.0.1", 24224]
    full = text if "://" in text else f"tcp://{text}"
    try:
        url = _url(full)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid fluentd-address ({text}): {error}") from None
    if url.scheme == "unix":
        if not url.path.strip("/"):
            raise InvalidArgument(f"invalid fluentd-address ({text}): path is empty")
        return "unix", url.path
    if url.scheme not in ("tcp", "tls"):
        raise InvalidArgument(f"invalid fluentd-address ({text}): unsupported scheme: '{url.scheme}'")
    try:
        return url.scheme, _host_and_port(full, 24224)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid fluentd-address ({text}): {error}") from None


def _value(options: Options, name: str, parse: Callable[[str], Any], default: Any) -> Any:
    if not options.get(name):
        return default
    try:
        return parse(options[name])
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def _unsigned(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def _reconnect_interval(text: str) -> float:
    name = "fluentd-async-reconnect-interval"
    try:
        interval = duration(text) if text else 0.0
    except ValueError as error:
        raise InvalidArgument(f"invalid value for {name}: {error}") from None
    if interval and not 0.1 <= interval <= 10:
        raise InvalidArgument(f'invalid value for {name}: value ("{text}") must be between 100ms and 10s')
    return interval


def _write_timeout(text: str) -> float:
    try:
        timeout = duration(text) if text else 0.0
    except ValueError as error:
        text = f"invalid value for fluentd-write-timeout: value must be a duration: {error}"
        raise InvalidArgument(text) from None
    if timeout < 0:
        raise InvalidArgument("invalid value for fluentd-write-timeout: value must not be negative")
    return timeout


def _url(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError as error:
        reason = "missing ']' in host" if text.count("[") > text.count("]") else str(error)
        raise InvalidArgument(f'parse "{text}": {reason}') from None


def _host_and_port(text: str, default: int) -> list[Any]:
    url = _url(text)
    try:
        return [url.hostname or "", url.port or default]
    except ValueError:
        port = url.netloc.rpartition(":")[2]
        if port.isdigit():
            return [url.hostname or "", int(port)]
        raise InvalidArgument(f'parse "{text}": invalid port ":{port}" after host') from None


def _journald(options: Options) -> dict[str, Any]:
    return {}


def _lower(error: OSError) -> str:
    return (error.strerror or "").lower()


_SETTINGS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "syslog": _syslog,
    "gelf": _gelf,
    "fluentd": _fluentd,
    "journald": _journald,
}
