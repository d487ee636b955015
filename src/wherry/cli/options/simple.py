"""Small values of `run`: hosts, addresses, environment, labels, rates, limits. Each refuses with Docker's words."""

from __future__ import annotations

import os

from wherry.cli.errors import ValueRefused
from wherry.cli.values import parse_number, size_of
from wherry.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Any
else:
    import _socket

_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_ULIMITS = frozenset(
    (
        "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
        "rttime", "sigpending", "stack",
    )
)  # fmt: skip
_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"


def canonical_ip(text: str) -> str | None:
    """An IP address in its canonical form, None when it is none."""
    family = _socket.AF_INET6 if ":" in text else _socket.AF_INET
    try:
        return _socket.inet_ntop(family, _socket.inet_pton(family, text))
    except (OSError, ValueError):
        return None


def parse_ip(text: str) -> str:
    address = canonical_ip(text.strip())
    if address is None:
        raise ValueRefused(f"IP address is not correctly formatted: {text}")
    return address


def parse_stream(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueRefused("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def parse_extra_host(text: str) -> str:
    """ "name:address" or "name=address", as name:address."""
    name, found, address = text.partition("=")
    if not found:
        name, found, address = text.partition(":")
    if not found or not name or ":" in name:
        raise ValueRefused(f"bad format for add-host: {quote(text)}")
    if address == "host-gateway":
        return f"{name}:{address}"
    if len(address) > 2 and address[0] == "[" and address[-1] == "]":
        address = address[1:-1]
    if canonical_ip(address) is None:
        raise ValueRefused(f"invalid IP address in add-host: {quote(address)}")
    return f"{name}:{address}"


def parse_search_domain(text: str) -> str:
    import re

    domain = text.strip(" ")
    if domain == ".":
        return domain
    match = re.match(rf"({_LABEL}(?:\.{_LABEL})*)\.?\s*$", domain)
    if not match or not re.search("[a-zA-Z]", domain) or len(match[1]) >= 255:
        raise ValueRefused(f"{text} is not a valid domain")
    return match[1]


def parse_env(text: str) -> str:
    """NAME=VALUE, or NAME: with the client's own value when it has one."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueRefused(f"invalid environment variable: {text}")
    if not equals and name in os.environ:
        return f"{name}={os.environ[name]}"
    return text


def parse_label(text: str) -> str:
    if not text.partition("=")[0]:
        raise ValueRefused(f"invalid label '{text}': empty name")
    return text


def parse_link(text: str) -> str:
    parts = text.split(":")
    if not text:
        raise ValueRefused("empty string specified for links")
    if len(parts) > 2:
        raise ValueRefused(f"bad format for links: {text}")
    return text


def parse_sysctl(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not equals or not (key in _SYSCTLS or key.startswith(("net.", "fs.mqueue."))):
        raise ValueRefused(f"sysctl '{text}' is not allowed")
    return text


def parse_device_rule(text: str) -> str:
    import re

    if not re.fullmatch(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}", text):
        raise ValueRefused(f"invalid device cgroup format '{text}'")
    return text


def parse_weight_device(text: str) -> dict[str, Any]:
    path, figure = _device_and_figure(text)
    try:
        weight = parse_number(figure, bits=16, signed=False, base=10)
    except ValueRefused:
        weight = 1
    if weight and not 10 <= weight <= 1000:
        raise ValueRefused(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": weight}


def parse_rate_bytes(text: str) -> dict[str, Any]:
    path, figure = _device_and_figure(text)
    rate = size_of(figure)
    if rate is None:
        raise ValueRefused(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    return {"Path": path, "Rate": rate}


def parse_rate_count(text: str) -> dict[str, Any]:
    path, figure = _device_and_figure(text)
    try:
        rate = parse_number(figure, signed=False, base=10)
    except ValueRefused:
        raise ValueRefused(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        ) from None
    return {"Path": path, "Rate": rate}


def _device_and_figure(text: str) -> tuple[str, str]:
    path, found, figure = text.partition(":")
    if not found:
        raise ValueRefused(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueRefused(f"bad format for device path: {text}")
    return path, figure


def parse_ulimit(text: str) -> dict[str, Any]:
    """ "nofile=1024:2048" as the API's Ulimit."""
    name, found, limits = text.partition("=")
    if not found:
        raise ValueRefused(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueRefused(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueRefused(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    hard = parse_number(parts[-1], base=10)
    soft = parse_number(parts[0], base=10)
    if hard != -1 and soft == -1:
        raise ValueRefused(
            f"ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
        )
    if hard != -1 and soft > hard:
        raise ValueRefused(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def custom_headers(text: str) -> dict[str, str]:
    """DOCKER_CUSTOM_HEADERS: one line of CSV, name=value each. Raises StatusError."""
    from wherry.cli.errors import StatusError
    from wherry.cli.options.csvline import split_csv

    refusal = "Failed to initialize: failed to set custom headers from DOCKER_CUSTOM_HEADERS environment variable: "
    try:
        pairs = split_csv(text)
    except ValueRefused as error:
        raise StatusError(f"{refusal}value must be formatted as comma-separated key=value pairs: {error}") from None
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name.strip():
            raise StatusError(f"{refusal}value contains a key=value pair with an empty key: '{pair}'")
        if not equals:
            raise StatusError(f"{refusal}missing \"=\" in key=value pair: '{pair}'")
        found[name.strip()] = value
    return found
