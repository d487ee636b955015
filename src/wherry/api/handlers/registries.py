"""What is asked of registries: sign-in, search, what a name stands for there, and pushing."""

from collections.abc import Callable
from typing import Any

from wherry.api import credentials, decode, gojson, progress
from wherry.api.context import Context, json_response
from wherry.engine import transfers
from wherry.errors import Internal, InvalidArgument, WherryError
from wherry.http.message import Response
from wherry.images import oci
from wherry.images.references import parse, parse_tag
from wherry.registry.credentials import ANONYMOUS

_SEARCH_FILTERS = frozenset({"is-official", "is-automated", "stars"})


async def log_in(ctx: Context) -> Response:
    """POST /auth. Its decoder is simpler than the others': all that is wrong is a 500."""
    document = await _auth_config(ctx)
    given = credentials.from_document(document) or ANONYMOUS
    status, token = await transfers.log_in(ctx.engine, str(document.get("serveraddress", "")), given)
    return json_response({"IdentityToken": token, "Status": status})


async def _auth_config(ctx: Context) -> dict[str, Any]:
    raw = await ctx.request.body.read(decode.MAX_JSON) if ctx.request.has_body else b""
    if not raw.strip():
        raise Internal("EOF")
    try:
        document = gojson.decode(raw)
    except InvalidArgument as error:
        raise Internal(error.message.removeprefix("invalid JSON: ")) from None
    if not isinstance(document, dict):
        raise Internal("json: cannot unmarshal into Go value of type registry.AuthConfig")
    lowered = {key.lower(): value for key, value in document.items()}
    for key in ("username", "password", "serveraddress", "identitytoken", "registrytoken"):
        if not isinstance(lowered.get(key, ""), str):
            kind = "number" if isinstance(lowered[key], int | float) else "object"
            raise Internal(f"json: cannot unmarshal {kind} into Go struct field .{key} of type string")
    return lowered


async def search(ctx: Context) -> Response:
    limit = _limit(ctx.text("limit"))
    given = decode.accept_filters(ctx.filters(), _SEARCH_FILTERS)
    filters = transfers.SearchFilters(
        official=_choice(given, "is-official"), automated=_choice(given, "is-automated"), stars=_stars(given)
    )
    found = await transfers.search(
        ctx.engine,
        ctx.text("term"),
        limit=limit,
        filters=filters,
        credentials=credentials.from_request(ctx.request),
    )
    return json_response(found)


def _limit(text: str) -> int:
    if not text:
        return 0
    try:
        limit = int(text)
    except ValueError:
        raise InvalidArgument(f'invalid limit specified: strconv.Atoi: parsing "{text}": invalid syntax') from None
    if not 0 <= limit <= 100:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, 100]")
    return limit


def _choice(given: decode.Filters, name: str) -> bool | None:
    return decode.filter_flag(given, name, False) if given.get(name) else None


def _stars(given: decode.Filters) -> int:
    most = 0
    for value in given.get("stars", []):
        try:
            most = max(most, int(value))
        except ValueError:
            raise InvalidArgument(
                f"invalid filter 'stars={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
            ) from None
    return most


async def distribution(ctx: Context) -> Response:
    reference = parse(ctx.name).tagged()
    given = credentials.from_request(ctx.request)
    descriptor, platforms = await transfers.describe_remote(ctx.engine, reference, given)
    return json_response({"Descriptor": descriptor, "Platforms": platforms})


async def push(ctx: Context) -> Response:
    """POST /images/{name}/push: answers 200 unless the request itself is wrong, and tells errors in band."""
    reference, tag = parse(ctx.name), ctx.text("tag")
    if tag:
        reference = reference._replace(tag=parse_tag(tag), digest="")
    platform = _platform(ctx.text("platform")) if ctx.version >= (1, 46) else None
    given = credentials.from_request(ctx.request)

    async def work(report: Callable[[progress.Step], None]) -> None:
        await transfers.push_(ctx.engine, reference, platform=platform, credentials=given, report=report)

    return await progress.respond(work)


def _platform(text: str) -> oci.Platform | None:
    """A platform as JSON. Raises `InvalidArgument`."""
    if not text:
        return None
    try:
        gojson.decode(text.encode())
        return oci.decode(text.encode(), oci.Platform, "platform")
    except WherryError as error:
        raise InvalidArgument(f"failed to parse platform: {error.message.removeprefix('invalid JSON: ')}") from None
