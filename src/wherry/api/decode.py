"""What clients send, read as Docker's daemon reads it: query values, filters, JSON bodies."""

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import msgspec

from wherry.api import gojson, mediatype
from wherry.engine.model import from_wire
from wherry.errors import Internal, InvalidArgument
from wherry.http.message import Request

T = TypeVar("T")
Query = Mapping[str, list[str]]
Filters = dict[str, list[str]]

MAX_JSON = 8 * 1024 * 1024
_FALSE = frozenset({"", "0", "no", "false", "none"})
_DECIMAL = re.compile(r"[+-]?[0-9]+")
_INT64 = range(-(2**63), 2**63)
_UNSIGNED_FIELDS = {"blkioweight": 16, "weight": 16, "rate": 64, "consolesize": 64}
"""Their names in lower case and their bits."""

# -- the query


def text(query: Query, name: str, default: str = "") -> str:
    """The first value of `name`."""
    values = query.get(name)
    return values[0] if values else default


def flag(query: Query, name: str, default: bool = False) -> bool:
    """A truth value: only "", 0, no, false and none are false, in any case. `default` counts when it is absent."""
    values = query.get(name)
    return default if not values else values[0].strip().lower() not in _FALSE


def number(query: Query, name: str) -> int | None:
    """An integer, or None when absent or empty. Raises Internal: Docker answers 500 to a bad one."""
    value = text(query, name)
    if not value:
        return None
    if not _DECIMAL.fullmatch(value):
        raise Internal(f'strconv.Atoi: parsing "{value}": invalid syntax')
    if int(value[:40]) not in _INT64:
        raise Internal(f'strconv.Atoi: parsing "{value}": value out of range')
    return int(value)


def dimension(query: Query, name: str, what: str) -> int:
    """A terminal's height or width (`what`): an unsigned number that must be there."""
    value = text(query, name)
    if not (value.isascii() and value.isdigit()):
        raise InvalidArgument(f'invalid resize {what} "{value}": invalid syntax')
    if len(value) > 10 or int(value) > 0xFFFFFFFF:
        raise InvalidArgument(f'invalid resize {what} "{value}": value out of range')
    return int(value)


def timestamp(query: Query, name: str) -> int | None:
    """`seconds[.fraction]` since the epoch as nanoseconds; None when absent or 0. Raises Internal, as Docker does."""
    value = text(query, name)
    if not value or value == "0":
        return None
    seconds, _, fraction = value.partition(".")
    for part in (seconds, fraction or "0"):
        if not _DECIMAL.fullmatch(part):
            raise Internal(f'strconv.ParseInt: parsing "{part}": invalid syntax')
        if len(part) > 18:
            raise Internal(f'strconv.ParseInt: parsing "{part}": value out of range')
    return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])


def filters(query: Query) -> Filters:
    """The `filters` parameter: `{"label": {"a=b": true}}` of today's clients or `{"label": ["a=b"]}` of old ones."""
    raw = text(query, "filters")
    if not raw:
        return {}
    try:
        decoded = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgument("invalid filter") from error
    if decoded is None:
        return {}
    if not isinstance(decoded, dict):
        raise InvalidArgument("invalid filter")
    return {key: _filter_values(values) for key, values in decoded.items()}


def _filter_values(values: Any) -> list[str]:
    if values is None:
        return []
    if isinstance(values, dict) and all(isinstance(on, bool) for on in values.values()):
        return list(values)
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return values
    raise InvalidArgument("invalid filter")


def accept_filters(given: Filters, accepted: Collection[str]) -> Filters:
    """`given`, if it has only keys that are `accepted`. Raises InvalidArgument."""
    for key in given:
        if key not in accepted:
            raise InvalidArgument(f"invalid filter '{key}'")
    return given


def filter_flag(given: Filters, name: str, default: bool) -> bool:
    """A filter that is a truth value. Raises InvalidArgument for anything else or for a contradiction."""
    values = given.get(name)
    if not values:
        return default
    yes = all(value in ("1", "true") for value in values)
    if not yes and not all(value in ("0", "false") for value in values):
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'")
    return yes


# -- JSON bodies


async def json_body(request: Request, *, optional: bool = False) -> Any:
    """The decoded body: objects as dicts. With `optional`, None when there is no body.

    Raises InvalidArgument with the words of Docker's decoder.
    """
    if not request.has_body:
        if optional:
            return None
        _check_content_type(request, b"")
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    raw = await request.body.read(MAX_JSON)
    if optional and not raw:
        return None
    _check_content_type(request, raw)
    if not raw.strip():
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    return parse_json(raw)


def _check_content_type(request: Request, raw: bytes) -> None:
    given = request.headers.get("content-type")
    if given or raw:
        mediatype.check_json(given or "")


def parse_json(raw: bytes) -> Any:
    """One JSON value and nothing behind it; every integer fits 64 bits."""
    decoded = gojson.decode(raw)
    _check_numbers(decoded, "")
    if rb"\u0000" in raw:
        _check_texts(decoded, "")
    return decoded


def _check_texts(value: Any, path: str) -> None:
    """No string may hold a NUL: the kernel's interfaces would take what stands before it for the whole."""
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidArgument(f"invalid JSON: NUL character in a string at {path or '.'}")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_texts(key, path)
            _check_texts(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, path)


def _check_numbers(value: Any, path: str, under: str = "") -> None:
    """Python's integers have no end, the API's have. `under` is the key that holds `value`."""
    if isinstance(value, dict):
        for key, item in value.items():
            if type(item) is int:
                _check_number(item, f"{path}.{key}", key)
            elif isinstance(item, dict | list):
                _check_numbers(item, f"{path}.{key}", key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if type(item) is int:
                _check_number(item, f"{path}.{index}", under)
            elif isinstance(item, dict | list):
                _check_numbers(item, f"{path}.{index}")


def _check_number(value: int, path: str, key: str) -> None:
    kind, fits = "int64", value in _INT64
    if bits := _UNSIGNED_FIELDS.get(key.lower()):
        kind, fits = f"uint{bits}", 0 <= value < 1 << bits
    if not fits:
        raise InvalidArgument(
            f"invalid JSON: json: cannot unmarshal number {value} into Go struct field {path} of type {kind}"
        )


def pop_any_case(data: dict[str, Any], name: str) -> Any:
    """Remove `name`, written in any case, from `data` and return its value, or None."""
    found = None
    for key in [key for key in data if key.lower() == name.lower()]:
        found = data.pop(key)
    return found


def convert(cls: type[T], data: Any, *, go_type: str, at: str = "") -> T:
    """`data` as a `cls` (a struct in the manner of `wherry.engine.model`); null is an empty one.

    `go_type` is what Docker calls the type, `at` where it stands in the body: errors name both. Raises InvalidArgument
    in the words of Docker's decoder.
    """
    if data is None:
        return cls()
    if not isinstance(data, dict):
        target = f"Go struct field {at} of type {go_type}" if at.startswith(".") else f"Go value of type {go_type}"
        raise InvalidArgument(f"invalid JSON: json: cannot unmarshal {_JSON_KINDS[type(data)]} into {target}")
    try:
        return from_wire(cls, data)
    except InvalidArgument as error:
        raise InvalidArgument(_in_gos_words(error.message, at)) from error


_JSON_KINDS: dict[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}
_MISMATCH = re.compile(r"invalid JSON: Expected `(?P<want>[^`]+)`, got `(?P<got>\w+)`(?: - at `\$(?P<path>[^`]*)`)?")
_GOT = {"str": "string", "int": "number", "float": "number", "bool": "bool", "array": "array", "object": "object"}
_WANT = {"str": "string", "int": "int64", "bool": "bool", "array": "[]string", "object": "map[string]string"}


def _in_gos_words(message: str, at: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.A.B`" as Go's decoder would have put it."""
    match = _MISMATCH.match(message)
    if match is None:
        return message
    want = match["want"].partition(" |")[0]
    path = re.sub(r"\[(\.\.\.|\d+)\]", "", match["path"] or "")
    return (
        f"invalid JSON: json: cannot unmarshal {_GOT.get(match['got'], match['got'])} "
        f"into Go struct field {at}{path} of type {_WANT.get(want, want)}"
    )
