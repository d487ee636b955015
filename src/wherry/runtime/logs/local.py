"""The compact format of driver "local": whole blocks of lines as they were read, no escapes.

    record  = length u32 | stream u8 | time u64, ns since the epoch | data, `length` bytes | size of the record u32
    stream  = 1 stdout, 2 stderr, 0 attributes (JSON) of the records that follow; big endian

Data that ends in a newline is whole lines; other data is one piece of a longer line. The size at the end lets a
reader walk backwards and shows a torn record.
"""

import os
import struct
import time
from collections.abc import Iterator

from wherry.runtime.logs.base import STDERR, STDOUT, Messages
from wherry.runtime.logs.filewriter import FileWriter
from wherry.runtime.logs.jsonfile import encode_attributes
from wherry.runtime.logs.lines import Lines
from wherry.runtime.logs.rotation import Fork, RotatingFile
from wherry.runtime.logs.stamp import Clock

_HEADER = struct.Struct(">IBQ")
_TRAILER = struct.Struct(">I")
_OVERHEAD = _HEADER.size + _TRAILER.size
_LONGEST = 1 << 20  # bytes of data; what is read at once is far below
_BLOCK = 1 << 18


class Local(FileWriter):
    """The writer; see `wherry.runtime.logs.base.Writer`."""

    def __init__(
        self,
        path: str,
        max_size: int = -1,
        max_files: int = 1,
        *,
        compress: bool = False,
        attributes: dict[str, str] | None = None,
        fork: Fork = os.fork,
    ) -> None:
        self._attributes = encode_attributes(attributes) if attributes else b""
        self._generation = 0
        self._file = RotatingFile(
            path, max_size, max_files, compress=compress, repair=LocalFormat().sound_length, fork=fork
        )
        self._lines = {STDOUT: Lines(), STDERR: Lines()}

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        for block in self._lines[stream].feed(data):
            self._append(stream, block, time_ns)

    def flush(self) -> None:
        for stream, lines in self._lines.items():
            for block in lines.end():
                self._append(stream, block, time.time_ns())

    def _append(self, stream: int, block: bytes, time_ns: int) -> None:
        while block:
            room = self._file.room()
            end = len(block)
            if end > room:
                end = block.find(b"\n", room - 1) + 1 or end
            self._name_attributes(time_ns)
            self._write(stream, block[:end], time_ns)
            block = block[end:]

    def _name_attributes(self, time_ns: int) -> None:
        """Each file begins with the attributes, and each run of the container repeats them."""
        if self._attributes and self._generation != self._file.generation:
            self._generation = self._file.generation
            self._write(0, self._attributes, time_ns)

    def _write(self, stream: int, data: bytes, time_ns: int) -> None:
        size = len(data) + _OVERHEAD
        self._file.append(_HEADER.pack(len(data), stream, time_ns), data, _TRAILER.pack(size))


class LocalFormat:
    """See `wherry.runtime.logs.base.Format`. One reader per file sequence: it remembers the attributes."""

    def __init__(self) -> None:
        self._attributes = b""
        self._clock = Clock()

    def decode(self, data: bytes, *, joined: bool = False) -> tuple[Messages, int]:
        messages = Messages([], [], [], [])
        position = 0
        while (record := _record_at(data, position)) is not None:
            length, stream, time_ns = record
            start = position + _HEADER.size
            position = start + length + _TRAILER.size
            body = data[start : start + length]
            if stream:
                self._add(messages, stream, self._clock.fixed(time_ns), [body] if joined else _messages(body))
            else:
                self._attributes = body
        if position == 0 and len(data) > _LONGEST + _OVERHEAD:
            return messages, _next_record(data)
        return messages, position

    def _add(self, messages: Messages, stream: int, stamp: bytes, payloads: list[bytes]) -> None:
        count = len(payloads)
        messages.streams.extend([stream] * count)
        messages.times.extend([stamp] * count)
        messages.payloads.extend(payloads)
        messages.attributes.extend([self._attributes] * count)

    def tail(self, fd: int, size: int, count: int) -> tuple[int, int, int]:
        found = 0
        for start, end, stream in _backwards(fd, size):
            body = os.pread(fd, end - start - _OVERHEAD, start + _HEADER.size)
            if not stream:
                continue
            lines = body.count(b"\n") if body.endswith(b"\n") else 1
            if found + lines >= count:
                return start, found + lines - count, count
            found += lines
        return 0, 0, found

    def sound_length(self, fd: int) -> int:
        size = os.fstat(fd).st_size
        if not size or next(_backwards(fd, size), None):
            return size
        sound = 0
        data = b""
        while chunk := os.pread(fd, _BLOCK, sound + len(data)):
            data += chunk
            position = 0
            while (record := _record_at(data, position)) is not None:
                position += record[0] + _OVERHEAD
            sound += position
            data = data[position:]
            if not position and len(data) > _LONGEST + _OVERHEAD:
                break
        return sound


def _messages(body: bytes) -> list[bytes]:
    if not body.endswith(b"\n"):
        return [body]
    return [line + b"\n" for line in body[:-1].split(b"\n")]


def _record_at(data: bytes, position: int) -> tuple[int, int, int] | None:
    """(length, stream, time) of the record at `position`; None when it is not whole, or not one."""
    if len(data) - position < _OVERHEAD:
        return None
    length, stream, time_ns = _HEADER.unpack_from(data, position)
    end = position + length + _HEADER.size
    if length > _LONGEST or stream > STDERR or end + _TRAILER.size > len(data):
        return None
    if _TRAILER.unpack_from(data, end)[0] != length + _OVERHEAD:
        return None
    return length, stream, time_ns


def _next_record(data: bytes) -> int:
    """Where a damaged file makes sense again."""
    for position in range(1, len(data) - _OVERHEAD):
        if _record_at(data, position) is not None:
            return position
    return len(data) - _OVERHEAD


def _backwards(fd: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, stream) of the records before `size`, the last first; ends at the first that makes no sense."""
    end = size
    while end >= _OVERHEAD:
        (total,) = _TRAILER.unpack(os.pread(fd, _TRAILER.size, end - _TRAILER.size))
        start = end - total
        if total < _OVERHEAD or start < 0:
            return
        length, stream, _ = _HEADER.unpack(os.pread(fd, _HEADER.size, start))
        if length + _OVERHEAD != total or stream > STDERR:
            return
        yield start, end, stream
        end = start
