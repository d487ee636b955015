"""JSON as Go reads and writes it, without the cost of importing the `json` package (7 ms, most of it `re` and `enum`).

The C scanner and string quoter of the standard library are used directly; both have kept their signatures since
Python 3.1. Where an interpreter lacks them, `json` itself takes over.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WHITESPACE = " \t\n\r"


class _Context:
    """The attributes that the C scanner reads from its decoder."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _make_scanner() -> Callable[[str, int], tuple[Any, int]]:
    try:
        import _json

        context: Any = _Context()
        scanner: Callable[[str, int], tuple[Any, int]] = _json.make_scanner(context)
    except (ImportError, AttributeError):
        from json import JSONDecoder

        scanner = JSONDecoder(strict=False).raw_decode
    return scanner


def _make_quoter() -> Callable[[str], str]:
    try:
        from _json import encode_basestring
    except ImportError:
        from json.encoder import encode_basestring
    quoter: Callable[[str], str] = encode_basestring
    return quoter


_scan = _make_scanner()
_quote = _make_quoter()


def decode(text: str, start: int = 0) -> tuple[Any, int]:
    """The value that begins at or after `start`, and the index after it. Raises ValueError in encoding/json's words."""
    while start < len(text) and text[start] in _WHITESPACE:
        start += 1
    try:
        return _scan(text, start)
    except StopIteration as stop:
        raise ValueError(_no_value(text, stop.value)) from None
    except SystemError:  # the scanner means to raise an error of json.decoder, which is not imported
        import json.decoder  # noqa: F401 - for the scanner to find

        return decode(text, start)
    except ValueError as error:
        raise ValueError(_translated(text, error)) from None


def _translated(text: str, error: Any) -> str:
    """A JSONDecodeError in Go's words."""
    reason: str = error.msg
    if reason.startswith(("Expecting property name", "Illegal trailing comma")):
        return _complaint(text, error.pos, "looking for beginning of object key string")
    if reason.startswith("Expecting ':'"):
        return _complaint(text, error.pos, "after object key")
    if reason.startswith("Expecting ','"):
        return _complaint(text, error.pos, f"after {_enclosing(text, error.pos)}")
    return "unexpected end of JSON input" if reason.startswith("Unterminated") else str(error)


def _enclosing(text: str, end: int) -> str:
    """What a comma would separate at `end`."""
    open_ones: list[str] = []
    quoted = escaped = False
    for character in text[:end]:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            open_ones.append(character)
        elif character in "]}":
            open_ones.pop()
    return "array element" if open_ones and open_ones[-1] == "[" else "object key:value pair"


def loads(data: str | bytes | bytearray) -> Any:
    """Decode one document; raises ValueError when there is none or something follows it."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    value, end = decode(text)
    if text[end:].strip(_WHITESPACE):
        raise ValueError(f"invalid character {text[end:].lstrip()[0]!r} after top-level value")
    return value


def _complaint(text: str, at: int, where: str) -> str:
    if at >= len(text):
        return "unexpected end of JSON input"
    return f"invalid character {text[at]!r} {where}"


def _no_value(text: str, at: int) -> str:
    """What is wrong where a value should begin: perhaps a misspelt literal."""
    for literal in ("true", "false", "null"):
        if text[at : at + 1] == literal[0]:
            end = next(n for n, letter in enumerate(literal) if text[at + n : at + n + 1] != letter)
            return _complaint(text, at + end, f"in literal {literal} (expecting {literal[end]!r})")
    return _complaint(text, at, "looking for beginning of value")


def quote(text: str, *, html: bool = True) -> str:
    """A JSON string literal; with `html` the characters that Go escapes by default are escaped too."""
    quoted = _quote(text)
    if html and ("<" in quoted or ">" in quoted or "&" in quoted):
        quoted = quoted.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    if "\u2028" in quoted or "\u2029" in quoted:
        quoted = quoted.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return quoted


def number(value: float) -> str:
    """A number as encoding/json prints it: integers plain, floats in the shortest form, exponents only at extremes."""
    if isinstance(value, int):
        return str(value)
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    if not mark:
        return text
    if abs(value) >= 1e-6 and int(exponent) < 0:
        return f"{value:.{len(mantissa.partition('.')[2]) - int(exponent)}f}".rstrip("0")
    return f"{mantissa.removesuffix('.0')}e{exponent[0] if exponent[0] in '+-' else '+'}{exponent.lstrip('+-0')}"


def dumps(value: Any, *, html: bool = True, indent: str = "") -> str:
    """Encode compactly, or with `indent` (e.g. four spaces) in json.Indent's layout; dicts keep their order."""
    parts: list[str] = []
    _write(value, parts.append, html, indent, "\n" if indent else "")
    return "".join(parts)


def _write(value: Any, emit: Callable[[str], None], html: bool, indent: str, newline: str) -> None:
    if value is None:
        emit("null")
    elif value is True or value is False:
        emit("true" if value else "false")
    elif isinstance(value, str):
        emit(quote(value, html=html))
    elif isinstance(value, (int, float)):
        emit(number(value))
    elif isinstance(value, dict):
        colon = ": " if indent else ":"
        _write_items(
            "{}",
            ((quote(str(key), html=html) + colon, item) for key, item in value.items()),
            emit,
            html,
            indent,
            newline,
        )
    elif isinstance(value, (list, tuple)):
        _write_items("[]", (("", item) for item in value), emit, html, indent, newline)
    else:
        raise TypeError(f"{type(value).__name__} has no JSON form")


def _write_items(brackets: str, items: Any, emit: Any, html: bool, indent: str, newline: str) -> None:
    deeper = newline + indent if newline else ""
    separator = brackets[0] + deeper
    for prefix, item in items:
        emit(separator + prefix)
        _write(item, emit, html, indent, deeper)
        separator = "," + deeper
    if separator[0] == ",":
        emit(newline + brackets[1])
    else:
        emit(brackets)
