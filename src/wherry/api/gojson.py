"""JSON as Go's decoder reads it, and what it says of text that is none (encoding/json).

The text is decoded by msgspec. Only what that refuses is looked at again: Go takes bytes that are no UTF-8, and halves
of surrogate pairs, for U+FFFD; and of a syntax error it tells the character and where in the grammar it stood.
"""

import codecs
import json
import math
import re
from typing import Any

import msgspec

from wherry.errors import InvalidArgument

_SURROGATE = re.compile("[\ud800-\udfff]")


def _replace_bytes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "�" * (error.end - error.start), error.end


codecs.register_error("wherry.go", _replace_bytes)


def decode(raw: bytes) -> Any:
    """The one value in `raw`. Raises InvalidArgument in Go's words."""
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _patiently(raw.decode("utf-8", "wherry.go"))


def _patiently(text: str) -> Any:
    """What msgspec refused; slowly, since hardly anybody sends it."""
    decoder = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
    try:
        decoded, end = decoder.raw_decode(text, len(text) - len(text.lstrip(_SPACE)))
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"invalid JSON: {_syntax_error(text, error)}") from None
    except ValueError:
        raise InvalidArgument("invalid JSON: json: cannot unmarshal number: out of range") from None
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None
    if text[end:].strip(_SPACE):
        raise InvalidArgument("unexpected content after JSON")
    return _without_surrogates(decoded)


_SPACE = " \t\r\n"


def _no_constant(name: str) -> Any:
    raise json.JSONDecodeError("Expecting value", name, 0)


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(number)
    return value


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("�", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


# What Python's decoder expected, and what Go says of the character that was there instead.
_PLACES = (
    ("Expecting value", "looking for beginning of value"),
    ("Expecting property name", "looking for beginning of object key string"),
    ("Illegal trailing comma", "looking for beginning of object key string"),
    ("Expecting ':' delimiter", "after object key"),
    ("Invalid control character", "in string"),
)


def _syntax_error(text: str, error: json.JSONDecodeError) -> str:
    where = error.pos if error.doc == text else text.find(error.doc)
    if error.msg.startswith("Invalid \\escape"):
        return f"invalid escape sequence `{text[where : where + 2]}` in string"
    if error.msg.startswith("Unterminated string") or where >= len(text.rstrip(_SPACE)) or _cut_short(text[where:]):
        return "unexpected EOF"
    for said, place in _PLACES:
        if error.msg.startswith(said):
            return f"invalid character {_quoted(text[where])} {place}"
    inside = "array element" if _in_array(text[:where]) else "object key:value pair"
    return f"invalid character {_quoted(text[where])} after {inside}"


def _cut_short(rest: str) -> bool:
    return any(word.startswith(rest.rstrip(_SPACE)) for word in ("null", "true", "false"))


def _in_array(before: str) -> bool:
    """Whether the innermost bracket still open is a square one."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", before)
    depth = 0
    for character in reversed(bare):
        depth += (character in "]}") - (character in "[{")
        if depth < 0:
            return character == "["
    return False


def _quoted(character: str) -> str:
    """As Go quotes a character: '\\x00', '\\t', '\\ufeff', 'x'."""
    if character in "'\\":
        return f"'\\{character}'"
    names = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
    if character in names:
        return f"'{names[character]}'"
    if character.isprintable():
        return f"'{character}'"
    number = ord(character)
    return f"'\\x{number:02x}'" if number < 0x80 else f"'\\u{number:04x}'"
