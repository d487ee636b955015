"""The frames that carry stdout and stderr over one byte stream (Docker's "stdcopy" format).

A frame is `[stream, 0, 0, 0, length as big-endian uint32]` and `length` bytes. One write of the program is one frame;
a frame may be empty. Where a terminal is allocated there are no frames at all.
"""

import struct
from collections.abc import Iterator

STDIN = 0
STDOUT = 1
STDERR = 2
SYSTEM_ERROR = 3
HEADER_SIZE = 8

_HEADER = struct.Struct(">BxxxI")


def frame(stream: int, data: bytes) -> bytes:
    """One frame with `data` (under 4 GiB) for `stream` (STDOUT, STDERR or SYSTEM_ERROR)."""
    return _HEADER.pack(stream, len(data)) + data


class Deframer:
    """Bytes in, `(stream, payload)` pairs out; holds an incomplete frame until the rest of it comes.

    A payload is yielded as far as it has arrived, so that a long frame needs no buffer of its length.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take `data`; yield the payload bytes that are now known. Raises ValueError on a header no daemon writes."""
        self._buffer += data
        while self._buffer:
            if self._left == 0 and not self._next_header():
                return
            payload = bytes(self._buffer[: self._left])
            del self._buffer[: self._left]
            self._left -= len(payload)
            if payload:
                yield self._stream, payload

    @property
    def between_frames(self) -> bool:
        """True when everything fed so far ended with a whole frame."""
        return self._left == 0 and not self._buffer

    def _next_header(self) -> bool:
        if len(self._buffer) < HEADER_SIZE:
            return False
        stream, self._left = _HEADER.unpack_from(self._buffer)
        if stream > SYSTEM_ERROR or any(self._buffer[1:4]):
            raise ValueError(f"not a stream header: {bytes(self._buffer[:HEADER_SIZE])!r}")
        self._stream = stream
        del self._buffer[:HEADER_SIZE]
        return True
