"""The framing of a request's body, without IO: bytes from the wire in, bytes of the body out.

Strict where intermediaries could read it differently (RFC 9112 section 7): chunk sizes are hexadecimal digits and
nothing else, lines end in CRLF, what follows a chunk is its CRLF. Extensions and trailers are skipped, within limits.
"""

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n\x00]*)?\Z")
_LINE_MAX = 4096
_TRAILER_MAX = 64 * 1024


class FramingError(ValueError):
    """The body is not framed as HTTP/1.1 wants it."""


class BodyFraming:
    """Takes a body out of what arrives. `length` is its announced size; None when it comes in chunks."""

    def __init__(self, length: int | None) -> None:
        self._chunked = length is None
        self._left = length or 0
        self._raw = bytearray()
        self._in_chunk = False
        self._trailer = 0
        self._in_trailer = False
        self.complete = length == 0

    def feed(self, data: bytes | bytearray, size: int = -1) -> list[memoryview]:
        """Bytes from the wire, the first `size` of `data` if that is given; returns those of the body among them, as
        views of `data`. Raises FramingError."""
        size = len(data) if size < 0 else size
        if self.complete:
            self._raw += memoryview(data)[:size]
            return []
        if not self._chunked:
            return self._plain(memoryview(data)[:size])
        if self._raw:
            data = bytes(self._raw) + memoryview(data)[:size]
            size = len(data)
            self._raw.clear()
        return self._chunks(data, size)

    def rest(self) -> bytes:
        """What arrived behind the body, or is not understood yet."""
        return bytes(self._raw)

    def _plain(self, data: memoryview) -> list[memoryview]:
        if len(data) > self._left:
            self._raw += data[self._left :]
            data = data[: self._left]
        self._left -= len(data)
        self.complete = not self._left
        return [data] if data else []

    def _chunks(self, data: bytes | bytearray, size: int) -> list[memoryview]:
        found = []
        view = memoryview(data)[:size]
        at = 0
        while at < size:
            if self._left:
                piece = view[at : at + self._left]
                found.append(piece)
                at += len(piece)
                self._left -= len(piece)
                continue
            line, at = self._line(data, at, size)
            if line is None:
                break
            self._interpret(line)
            if self.complete:
                break
        self._raw += view[at:]
        return found

    def _line(self, data: bytes | bytearray, at: int, size: int) -> tuple[bytes | None, int]:
        """The line that begins at `at` and where it ends; None when it is not all there."""
        end = data.find(b"\n", at, min(at + _LINE_MAX, size))
        if end < 0:
            if size - at >= _LINE_MAX:
                raise FramingError("chunk header too long")
            return None, at
        if data[end - 1 : end] != b"\r" or end == at:
            raise FramingError("illegal chunk header")
        return bytes(data[at : end - 1]), end + 1

    def _interpret(self, line: bytes) -> None:
        if self._in_trailer:
            self._trailer += len(line) + 2
            if self._trailer > _TRAILER_MAX:
                raise FramingError("trailers too long")
            self.complete = not line
        elif self._in_chunk:
            if line:
                raise FramingError("illegal end of a chunk")
            self._in_chunk = False
        else:
            match = _SIZE.match(line)
            if match is None:
                raise FramingError("illegal chunk header")
            self._left = int(match.group(1), 16)
            self._in_chunk = bool(self._left)
            self._in_trailer = not self._left
