"""API versions: which one a request asks for, and whether it is served."""

import re

from wherry.errors import InvalidArgument

Version = tuple[int, ...]
"""`(1, 44)`."""

MINIMUM: Version = (1, 40)
MAXIMUM: Version = (1, 51)
JSON_ERRORS_SINCE: Version = (1, 24)
"""Clients older than this expect errors as plain text."""

_PREFIX = re.compile(r"/v([0-9.]+)(/.*)")


def text(version: Version) -> str:
    """`1.44`."""
    return ".".join(map(str, version))


def split(path: str) -> tuple[Version | None, str]:
    """The version a path asks for (None if it names none) and the path without it."""
    match = _PREFIX.fullmatch(path)
    if match is None:
        return None, path
    numbers = [number for number in match[1].split(".") if number]
    return tuple(int(number[:9]) for number in numbers[:3]), match[2]


def check(version: Version) -> None:
    """Raises InvalidArgument, with Docker's words, when `version` is not served."""
    if version > MAXIMUM:
        raise InvalidArgument(
            f"client version {text(version)} is too new. Maximum supported API version is {text(MAXIMUM)}"
        )
    if version < MINIMUM:
        raise InvalidArgument(
            f"client version {text(version)} is too old. Minimum supported API version is {text(MINIMUM)}, "
            "please upgrade your client to a newer version"
        )
