"""Platforms: "linux/arm/v7" as Docker's requests want them."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}
_SYSTEMS = ("linux", "windows", "darwin", "freebsd")


def parse(text: str) -> list[str]:
    """[os, architecture, perhaps variant]; what is missing comes from this machine. Raises StatusError."""
    parts = text.split("/")
    if len(parts) > 3 or not all(part and part.replace("_", "").replace("-", "").isalnum() for part in parts):
        raise StatusError(f'"{text}": cannot parse platform specifier: invalid argument')
    machine = os.uname().machine
    if len(parts) == 1:
        parts = [parts[0], machine] if parts[0] in _SYSTEMS else ["linux", parts[0]]
    parts[1] = _ARCHITECTURES.get(parts[1], parts[1])
    return parts


def as_json(text: str) -> str:
    """One platform as the OCI object that load, save and inspect take."""
    from wherry.client.jsontext import dumps

    try:
        parts = parse(text)
    except StatusError as error:
        raise StatusError(f"invalid platform: {error}") from None
    platform: dict[str, Any] = {"architecture": parts[1], "os": parts[0]}
    if len(parts) > 2:
        platform["variant"] = parts[2]
    return dumps(platform)


def as_query(texts: list[str]) -> str:
    """Several platforms for one query parameter."""
    return "[" + ",".join(as_json(text) for text in texts) + "]"
