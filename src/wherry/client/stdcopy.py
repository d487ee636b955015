"""The multiplexed stream of a container without a terminal: frames of `[stream,0,0,0, length BE32]` and payload."""

from __future__ import annotations

from wherry.client.errors import BrokenReply

STDIN, STDOUT, STDERR, SYSTEM_ERROR = range(4)


class Demux:
    """Takes bytes as they come and yields (stream, payload) pieces; frames need not arrive whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The pieces that became complete enough to show; raises BrokenReply on a frame of an unknown stream."""
        self._buffer += data
        pieces: list[tuple[int, bytes]] = []
        while True:
            if self._left == 0 and not self._next_header():
                return pieces
            if not self._buffer and self._left:
                return pieces
            piece = bytes(self._buffer[: self._left])
            del self._buffer[: len(piece)]
            self._left -= len(piece)
            if piece:
                pieces.append((self._stream, piece))

    def _next_header(self) -> bool:
        if len(self._buffer) < 8:
            return False
        self._stream = self._buffer[0]
        if self._stream > SYSTEM_ERROR:
            raise BrokenReply(f"Unrecognized input header: {self._stream}")
        self._left = int.from_bytes(self._buffer[4:8], "big")
        del self._buffer[:8]
        return True
