"""Digests: `algorithm:hex`, the names of what is addressed by its content."""

import hashlib
import re

from wherry.errors import InvalidArgument

LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_LOWER_HEX = re.compile(r"[a-f0-9]+")


def check_digest(text: str) -> str:
    """Return `text` when it is a well-formed digest of a known algorithm in lower-case hex; raise `InvalidArgument`
    otherwise. Whatever becomes part of a path or a URL must have passed here."""
    algorithm, colon, value = text.partition(":")
    if not colon or not algorithm or not value:
        raise InvalidArgument("invalid checksum digest format")
    if algorithm not in LENGTHS:
        raise InvalidArgument("unsupported digest algorithm")
    if len(value) != LENGTHS[algorithm]:
        raise InvalidArgument("invalid checksum digest length")
    if not _LOWER_HEX.fullmatch(value):
        raise InvalidArgument("invalid checksum digest format")
    return text


def digest_of(data: bytes, like: str = "sha256:") -> str:
    """The digest of `data`, by the algorithm of the digest `like`."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
