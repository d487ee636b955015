"""Docker's json-file format, byte for byte: one JSON object a line, in moby's field order and with its escapes
(moby: daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go). Encoding and decoding work on whole blocks of lines.

    {"log":"text\\n","stream":"stdout","attrs":{"k":"v"},"time":"2026-01-02T03:04:05.678901234Z"}
"""

import codecs
import json
import os
import re
import time

from wherry.runtime.logs.base import STDERR, STDOUT, Messages
from wherry.runtime.logs.filewriter import FileWriter
from wherry.runtime.logs.lines import Lines
from wherry.runtime.logs.rotation import Fork, RotatingFile
from wherry.runtime.logs.stamp import Clock, fixed

_NAMES = {STDOUT: b"stdout", STDERR: b"stderr"}
_HEAD = b'{"log":"'
_BLOCK = 65536

# The newline is safe here: it separates the lines of a block and is replaced by the record boundary.
_SAFE = bytes(b for b in range(128) if (b >= 0x20 and b not in b'\\"<>&') or b == 0x0A)
_ESCAPES = [(b"\\", b"\\\\"), (b'"', b'\\"'), (b"\r", b"\\r")] + [
    (bytes([b]), b"\\u%04x" % b) for b in (*range(10), 11, 12, *range(14, 32), *b"<>&")
]


def _one_per_byte(error: UnicodeError) -> tuple[str, int]:
    """Go writes one escaped U+FFFD for each byte that is not UTF-8."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "\\ufffd" * (error.end - error.start), error.end


codecs.register_error("wherry.ufffd", _one_per_byte)


def escape(block: bytes) -> bytes:
    """The inside of a JSON string for each line of `block`; newlines stay as they are."""
    special = block.translate(None, _SAFE)
    if not special:
        return block
    for plain, escaped in _ESCAPES:
        if plain in special:
            block = block.replace(plain, escaped)
    if special.isascii():
        return block
    try:
        block.decode()
    except UnicodeDecodeError:
        block = block.decode("utf-8", "surrogateescape").encode("utf-8", "wherry.ufffd")
    return block.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


def encode_attributes(attributes: dict[str, str]) -> bytes:
    """As Go's encoding/json: keys sorted, no spaces, <>& escaped, the rest as UTF-8."""
    text = json.dumps(attributes, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for plain, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(plain, escaped)
    return text.encode("utf-8", "replace")


class JsonFile(FileWriter):
    """The writer; see `wherry.runtime.logs.base.Writer`. `attributes` go into every record."""

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
        self._file = RotatingFile(
            path, max_size, max_files, compress=compress, repair=JsonFormat().sound_length, fork=fork
        )
        self._lines = {STDOUT: Lines(), STDERR: Lines()}
        self._clock = Clock()
        extra = b',"attrs":' + encode_attributes(attributes) if attributes else b""
        self._stream_part = {n: b'","stream":"' + name + b'"' + extra + b',"time":"' for n, name in _NAMES.items()}

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        self._record(stream, self._lines[stream].feed(data), time_ns)

    def flush(self) -> None:
        for stream, lines in self._lines.items():
            self._record(stream, lines.end(), time.time_ns())

    def _record(self, stream: int, blocks: list[bytes], time_ns: int) -> None:
        if not blocks:
            return
        tail = self._stream_part[stream] + self._clock.nano(time_ns) + b'"}\n'
        self._append(b"".join([_encode(block, tail) for block in blocks]))

    def _append(self, records: bytes) -> None:
        """Write, starting a new file where Docker does: before the first record that finds this one full."""
        position = 0
        while position < len(records):
            room = self._file.room()
            end = len(records)
            if end - position > room:
                end = records.index(b"\n", position + room - 1) + 1
            self._file.append(records[position:end])
            position = end


def _encode(block: bytes, tail: bytes) -> bytes:
    if not block.endswith(b"\n"):
        return b"".join((_HEAD, escape(block), tail))
    tail = b"\\n" + tail
    return b"".join((_HEAD, escape(block[:-1]).replace(b"\n", tail + _HEAD), tail))


_RECORD = re.compile(
    rb'\{"log":"([^"\\]*(?:\\.[^"\\]*)*)","stream":"(stdout|stderr)"(?:,"attrs":(\{.*?\}))?,"time":"([^"]+Z)"\}\n'
)
_STREAM = b'","stream":"'
_SHORT_RUN = 1024  # bytes
_RUN = 28000  # CPython's search is at its best up to 30000 bytes
_SOME = 16384
_UNICODE = re.compile(rb"\\u([0-9a-fA-F]{4})")
_STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}
# Characters no JSON text holds: stand-ins while a batch of strings is unescaped as one.
_BOUNDARY = b"\x01"
_BACKSLASH = b"\x02"


def _unescape(text: bytes) -> bytes:
    """The reverse of a JSON string's escapes, over many strings at once."""
    text = text.replace(b"\\\\", _BACKSLASH).replace(b"\\n", b"\n")
    if b"\\" in text:
        text = text.replace(b'\\"', b'"').replace(b"\\r", b"\r").replace(b"\\t", b"\t").replace(b"\\/", b"/")
        text = text.replace(b"\\b", b"\b").replace(b"\\f", b"\f")
        if b"\\u" in text:
            text = _UNICODE.sub(_character, text)
    return text.replace(_BACKSLASH, b"\\")


def _character(match: re.Match[bytes]) -> bytes:
    return chr(int(match[1], 16)).encode("utf-8", "surrogatepass")


class JsonFormat:
    """See `wherry.runtime.logs.base.Format`."""

    def decode(self, data: bytes, *, joined: bool = False) -> tuple[Messages, int]:
        messages = Messages([], [], [], [])
        length = data.rfind(b"\n") + 1
        position = 0
        while position < length:
            run = _decode_run(data, position, length, messages, joined)
            position = run or _decode_some(data, position, length, messages)
        return messages, length

    def tail(self, fd: int, size: int, count: int) -> tuple[int, int, int]:
        found = 0
        end = size
        while end > 0:
            start = max(0, end - _BLOCK)
            block = os.pread(fd, end - start, start)
            lines = block.count(b"\n")
            if found + lines > count:
                return start + _after_newline(block, lines - (count - found)), 0, count
            found += lines
            end = start
        return 0, 0, found

    def sound_length(self, fd: int) -> int:
        end = os.fstat(fd).st_size
        while end > 0:
            start = max(0, end - _BLOCK)
            newline = os.pread(fd, end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0


def _decode_run(data: bytes, position: int, length: int, messages: Messages, joined: bool) -> int:
    """Decode the records from `position` on that were written at once: all end alike, and what is between the equal
    ends is taken apart in one go. Returns the position behind them, 0 when there are too few to be worth it."""
    end = data.index(b"\n", position) + 1
    cut = data.find(_STREAM, position, end)
    second = data.find(b"\n", end) + 1
    tail = data[cut:end]
    if cut < 0 or not data.startswith(_HEAD, position) or data[max(second - len(tail), 0) : second] != tail:
        return 0
    last = data.rfind(tail, end, min(position + _SHORT_RUN * 2, length))
    if last < position + _SHORT_RUN:
        return 0
    last = data.rfind(tail, end, min(position + _RUN, length))
    text = (b"" if joined else _BOUNDARY).join(data[position + len(_HEAD) : last].split(tail + _HEAD))
    found = _RECORD.match(_HEAD + tail)
    if found is None or (b'"' in text and _STREAM in text):
        return 0
    plain = text.replace(b"\\n", b"\n")
    if b"\\" in plain:  # other escapes than that
        if b"\\u000" in text:
            return 0
        plain = _unescape(text)
    payloads = [plain] if joined else plain.split(_BOUNDARY)
    count = len(payloads)
    messages.streams.extend([_STREAMS[found[2]]] * count)
    messages.times.extend([fixed(found[4])] * count)
    messages.payloads.extend(payloads)
    messages.attributes.extend([found[3] or b""] * count)
    return last + len(tail)


def _decode_some(data: bytes, position: int, length: int, messages: Messages) -> int:
    """Decode records one by one, a good many at a time; returns the position behind them."""
    end = data.rfind(b"\n", position, position + _SOME) + 1 or data.index(b"\n", position) + 1
    records = _RECORD.findall(data, position, min(end, length))
    if records:
        texts, streams, attributes, times = zip(*records, strict=True)
        messages.streams.extend([_STREAMS[s] for s in streams])
        messages.times.extend([t if len(t) == 30 else fixed(t) for t in times])
        messages.payloads.extend(_split(texts))
        messages.attributes.extend(attributes)
    return min(end, length)


def _split(texts: tuple[bytes, ...]) -> list[bytes]:
    """Unescape all texts. An escaped control character could pass for a stand-in: then one by one."""
    joined = _BOUNDARY.join(texts)
    if b"\\u000" in joined:
        return [_unescape_exactly(text) for text in texts]
    return _unescape(joined).split(_BOUNDARY)


def _unescape_exactly(text: bytes) -> bytes:
    return json.loads(b'"' + text + b'"').encode("utf-8", "surrogatepass")  # type: ignore[no-any-return]


def _after_newline(block: bytes, number: int) -> int:
    """The position after the `number`-th newline of `block`."""
    position = 0
    for _ in range(number):
        position = block.index(b"\n", position) + 1
    return position
