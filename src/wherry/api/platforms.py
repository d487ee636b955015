"""Platforms in queries: one OCI object in JSON, where a version of the API takes it."""

from wherry.api import gojson
from wherry.api.context import Context
from wherry.api.versions import Version
from wherry.errors import InvalidArgument
from wherry.images.oci import Platform

_FIELDS = ("architecture", "os", "variant")


def first(ctx: Context, since: Version) -> Platform | None:
    """The first `platform` of the query; None when there is none, or when the version asked for is before `since`.
    Raises InvalidArgument."""
    text = ctx.text("platform") if ctx.version >= since else ""
    return parse(text) if text else None


def only(ctx: Context, name: str, since: Version, *, too_many: str) -> Platform | None:
    """As `first`, of the parameter `name`, which may be there once. Raises InvalidArgument with `too_many`."""
    given = ctx.request.query.get(name, []) if ctx.version >= since else []
    if len(given) > 1:
        raise InvalidArgument(too_many)
    return parse(given[0]) if given and given[0] else None


def parse(text: str) -> Platform:
    """The platform that `text`, `{"os": …, "architecture": …, "variant": …}`, names. Raises InvalidArgument."""
    try:
        decoded = gojson.decode(text.encode("utf-8", "surrogateescape"))
    except InvalidArgument as error:
        raise InvalidArgument(f"failed to parse platform: {error.message.removeprefix('invalid JSON: ')}") from None
    if not isinstance(decoded, dict) or any(not isinstance(decoded.get(name, ""), str) for name in _FIELDS):
        raise InvalidArgument("failed to parse platform: json: cannot unmarshal into Go value of type v1.Platform")
    platform = Platform(*(decoded.get(name, "") for name in _FIELDS))
    if not (platform.os and platform.architecture):
        raise InvalidArgument("both OS and Architecture must be provided")
    return platform
