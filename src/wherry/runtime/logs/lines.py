"""Cutting a stream of output into what a log records: whole lines, long ones in pieces."""

PIECE = 16384  # bytes; Docker's daemon/logger/copier.go cuts longer lines there, counted from the line's start


class Lines:
    """The lines of one stream. An unfinished line is held back until it ends, fills a piece, or the stream ends."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read; return what is complete: blocks of whole lines, which end in a newline and hold no line
        longer than a piece, and single pieces of exactly `PIECE` bytes without a newline."""
        if self._held:
            data = self._held + data
        out: list[bytes] = []
        start = position = 0
        while len(data) - position >= PIECE:
            newline = data.rfind(b"\n", position, position + PIECE)
            if newline >= 0:
                position = newline + 1
                continue
            if position > start:
                out.append(data[start:position])
            start = position + PIECE
            out.append(data[position:start])
            position = start
        position = max(position, data.rfind(b"\n", position) + 1)
        if position > start:
            out.append(data[start:position])
        self._held = data[position:]
        return out

    def end(self) -> list[bytes]:
        """What was held back, now that no more comes: at most one piece."""
        held, self._held = self._held, b""
        return [held] if held else []
