"""The multiplexed stream of a container without a terminal: frames of `[stream,0,0,0, length BE32]` and payload."""

from __future__ import annotations

from wherry.client.errors import BrokenReply

STDIN, STDOUT, STDERR, SYSTEM_ERROR = range(4)
_HEADER = 8  # bytes


class Demux:
    """Takes bytes as they come and yields (stream, payload) pieces; frames need not arrive whole."""

    def __init__(self) -> None:
        self._held = b""  # of a header
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The pieces that became complete enough to show, neighbours of one stream as one; raises BrokenReply on a
        frame of an unknown stream."""
        if self._held:
            data, self._held = self._held + data, b""
        runs: list[tuple[int, list[bytes]]] = []
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                if end - at < _HEADER:
                    self._held = data[at:]
                    break
                self._open(data, at)
                at += _HEADER
            if piece := data[at : at + self._left]:
                if not runs or runs[-1][0] != self._stream:
                    runs.append((self._stream, []))
                runs[-1][1].append(piece)
                at += len(piece)
                self._left -= len(piece)
        return [(stream, pieces[0] if len(pieces) == 1 else b"".join(pieces)) for stream, pieces in runs]

    def _open(self, data: bytes, at: int) -> None:
        self._stream = data[at]
        if self._stream > SYSTEM_ERROR:
            raise BrokenReply(f"Unrecognized input header: {self._stream}")
        self._left = int.from_bytes(data[at + 4 : at + _HEADER], "big")
