"""Streams of JSON messages: pull, load, import, build, events."""

from __future__ import annotations

from wherry.jsontext import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_WHITESPACE = " \t\n\r"


def messages(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The objects in a byte stream, each as soon as it is whole, however the bytes are cut and separated."""
    from codecs import getincrementaldecoder

    decoder = getincrementaldecoder("utf-8")("replace")
    text = ""
    for piece in pieces:
        text += decoder.decode(piece)
        # An object ends with a brace, so anything else cannot complete one: no rescanning of long partial objects.
        if "}" not in piece.decode("latin-1"):
            continue
        found, text = _take(text)
        yield from found
    yield from _take(text)[0]


def _take(text: str) -> tuple[list[dict[str, Any]], str]:
    found: list[dict[str, Any]] = []
    at = 0
    while at < len(text):
        try:
            value, end = decode(text, at)
        except ValueError:
            break
        if isinstance(value, dict):
            found.append(value)
        at = end
    return found, text[at:].lstrip(_WHITESPACE)
