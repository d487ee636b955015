"""Go's %q, in which many of Docker's messages show what the user typed."""

from __future__ import annotations

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


def _escape(text: str, delimiter: str) -> str:
    if text.isascii() and text.isprintable() and "\\" not in text and delimiter not in text:
        return text
    return "".join(_escape_one(character, delimiter) for character in text)


def _escape_one(character: str, delimiter: str) -> str:
    if character == delimiter:
        return "\\" + character
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable():
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(text: str) -> str:
    """A double-quoted Go string literal."""
    return f'"{_escape(text, chr(34))}"'


def quote_rune(character: str) -> str:
    """A single-quoted Go rune literal."""
    return f"'{_escape(character, chr(39))}'"
