"""A streaming reader of tar archives of any dialect, made for hostile input.

Theory of operation: `TarReader` pulls plain bytes from a source, parses one header (with the pax and GNU records
before it) per step, and hands out the content of the current entry as views into its own buffer. Everything is
bounded: an extension record by `EXTENSION_MAX`, a sparse map by `EXTENTS_MAX`, the number of entries and the sum of
sizes by `Limits`. Nothing is seeked; no name is interpreted.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from wherry.errors import InvalidArgument
from wherry.images.archive import headers
from wherry.images.archive.headers import BLOCK, ZERO_BLOCK, Extents, Header, Pax

# As archive/tar of Go, which Docker's archives must fit as well.
EXTENSION_MAX = 1 << 20
EXTENTS_MAX = 100_000
READ_SIZE = 1 << 20
# Where content can be skipped: what is read to find the next header.
_HEADERS_SIZE = 64 << 10
_NS = 10**9


class Source(Protocol):
    """Where plain bytes come from."""

    def read(self, limit: int, /) -> bytes:
        """Between 1 and `limit` bytes; b"" at the end, and again after it."""
        ...


@runtime_checkable
class SkippingSource(Source, Protocol):
    """One that can leave bytes out without reading them."""

    def skip(self, length: int, /) -> int:
        """Pass over `length` bytes; returns how many there were, fewer only at the end."""
        ...


class Limits(NamedTuple):
    """What one archive may cost: `entries` in number, `content` the sum of the files' sizes in bytes, holes counted."""

    entries: int = 10_000_000
    content: int = 1 << 44


class Entry(NamedTuple):
    """One file of an archive: raw names, `mtime_ns` in nanoseconds, `size` of the file as it shall be on disk.

    `extents` is None for ordinary files, else the (offset, length) pieces whose bytes are the content.
    """

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes] | None
    extents: Extents | None


class TarReader:
    """Iterate to get the entries in order; `content()` gives the current one's bytes, which may be left unread."""

    def __init__(self, source: Source, limits: Limits | None = None) -> None:
        self._source = source
        self._skipping = source if isinstance(source, SkippingSource) else None
        self._limits = limits or Limits()
        self._buffer = b""
        self._at = 0
        self._before = 0  # bytes of the archive before the buffer
        self._left = 0  # bytes of the current entry's content not handed out yet
        self._padding = 0
        self._entries = 0
        self._total = 0

    def __iter__(self) -> Iterator[Entry]:
        return self

    def __next__(self) -> Entry:
        """The next entry. Raises `InvalidArgument` for archives that are damaged, truncated or too large."""
        self._skip_content()
        pax: Pax | None = None
        long_name = long_link = None
        while (block := self._block()) is not None:
            header = headers.parse_header(block)
            if header.type == headers.PAX:
                pax = headers.parse_pax(self._extension(header))
            elif header.type == headers.PAX_GLOBAL:
                self._extension(header)
            elif header.type == headers.GNU_LONG_NAME:
                long_name = self._extension(header).partition(b"\0")[0]
            elif header.type == headers.GNU_LONG_LINK:
                long_link = self._extension(header).partition(b"\0")[0]
            else:
                if long_name is not None:
                    header = header._replace(name=long_name)
                if long_link is not None:
                    header = header._replace(linkname=long_link)
                return self._admit(self._entry(header, block, pax))
        raise StopIteration

    def content(self) -> Iterator[memoryview]:
        """The current entry's stored bytes in pieces, each valid until the next is asked for."""
        while self._left:
            view = self._view(self._left)
            self._left -= len(view)
            yield view

    def read(self, limit: int) -> bytes:
        """All the content of the current entry; raises `InvalidArgument` when it has more than `limit` bytes."""
        if self._left > limit:
            raise InvalidArgument(f"archive member is larger than {limit} bytes")
        return b"".join(map(bytes, self.content()))

    def peek(self, length: int) -> bytes:
        """The first `length` bytes of the current entry's content (fewer if it is shorter), without taking them."""
        length = min(length, self._left)
        self._need(length)
        return self._buffer[self._at : self._at + length]

    @property
    def left(self) -> int:
        """Bytes of the current entry's content that were not handed out yet."""
        return self._left

    @property
    def offset(self) -> int:
        """Where in the archive, in bytes from its beginning, what comes next lies: right after an entry was given its
        content, always at a multiple of `BLOCK`."""
        return self._before + self._at

    def drain(self) -> None:
        """Read the source to its end: what follows the archive counts for its digest."""
        self._before += len(self._buffer)
        self._buffer = b""
        self._at = 0
        if self._skipping is not None:
            while self._skipping.skip(READ_SIZE):
                pass
        while self._source.read(READ_SIZE):
            pass

    # headers

    def _entry(self, header: Header, block: bytes, pax: Pax | None) -> Entry:
        mtime_ns = header.mtime * _NS
        xattrs = None
        size: int | None = None
        if pax is not None:
            records = pax.records
            if records.get(b"mtime"):
                mtime_ns = headers.pax_time(records[b"mtime"])
            if records.get(b"size"):
                header = header._replace(size=headers.decimal(records[b"size"]))
            header = _apply_names(header, records)
            xattrs = pax.xattrs or None
        if header.type == headers.REGULAR and header.name.endswith(b"/"):  # only now: a cut name may end so, too
            header = header._replace(type=headers.DIRECTORY)
        self._expect(header)
        extents, size = self._sparse(header, block, pax)
        return Entry(
            header.name,
            headers.REGULAR if header.type == headers.GNU_SPARSE else header.type,
            header.mode,
            header.uid,
            header.gid,
            size,
            mtime_ns,
            header.linkname,
            header.device,
            xattrs,
            extents,
        )

    def _expect(self, header: Header) -> None:
        size = 0 if header.type in headers.HEADER_ONLY else header.size
        self._left = size
        self._padding = -size % BLOCK

    def _admit(self, entry: Entry) -> Entry:
        self._entries += 1
        self._total += max(entry.size, self._left)
        if self._entries > self._limits.entries:
            raise InvalidArgument(f"archive has more than {self._limits.entries} entries")
        if self._total > self._limits.content:
            raise InvalidArgument(f"archive unpacks to more than the {self._limits.content} bytes allowed")
        return entry

    def _extension(self, header: Header) -> bytes:
        if header.size > EXTENSION_MAX:
            raise headers.invalid("extended header too large")
        self._expect(header._replace(type=headers.REGULAR))
        data = self.read(EXTENSION_MAX)
        self._skip_content()
        return data

    def _block(self) -> bytes | None:
        """The next header block, or None at the end of the archive: two zero blocks, or the end of the data."""
        if not self._need(BLOCK, READ_SIZE if self._skipping is None else _HEADERS_SIZE):
            if self._at < len(self._buffer):
                raise InvalidArgument("unexpected EOF")
            return None
        block = self._take_block()
        if block != ZERO_BLOCK:
            return block
        if self._need(BLOCK) and self._take_block() != ZERO_BLOCK:
            raise headers.invalid("data after a zero block")
        return None

    # sparse files

    def _sparse(self, header: Header, block: bytes, pax: Pax | None) -> tuple[Extents | None, int]:
        """The extents of a sparse file of any of the four formats, and the file's size."""
        if header.type == headers.GNU_SPARSE:
            return self._old_sparse(block)
        if pax is None or header.type != headers.REGULAR:
            return None, self._left
        records = pax.records
        real = headers.decimal(records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"0")
        if records.get(b"GNU.sparse.major") == b"1":
            extents = self._sparse_map_in_content()
        elif b"GNU.sparse.map" in records:
            extents = _pairs([headers.decimal(n) for n in records[b"GNU.sparse.map"].split(b",") if n])
        elif pax.sparse_numbers:
            extents = _pairs(pax.sparse_numbers)
        else:
            return None, self._left
        return headers.check_extents(extents, self._left, real), real

    def _old_sparse(self, block: bytes) -> tuple[Extents, int]:
        extents = headers.old_sparse_extents(block, 386, 4)
        real = headers.number(block[483:495])
        more = block[482]
        while more:
            if not self._need(BLOCK) or len(extents) > EXTENTS_MAX:
                raise headers.invalid("bad sparse map")
            extension = self._take_block()
            extents += headers.old_sparse_extents(extension, 0, 21)
            more = extension[504]
        return headers.check_extents(extents, self._left, real), real

    def _sparse_map_in_content(self) -> Extents:
        """Format 1.0: the content begins with decimal lines (their count first), padded to a block."""
        text = bytearray()
        lines, wanted = 0, 1
        while lines < wanted:
            if self._left < BLOCK or not self._need(BLOCK) or len(text) > EXTENSION_MAX:
                raise headers.invalid("bad sparse map")
            block = self._take_block()
            self._left -= BLOCK
            text += block
            first, lines = lines == 0, lines + block.count(b"\n")
            if first and lines:
                wanted += 2 * headers.decimal(bytes(text.partition(b"\n")[0]))
        return _pairs([headers.decimal(line) for line in bytes(text).split(b"\n")[1:wanted]])

    # the buffer

    def _need(self, length: int, size: int = READ_SIZE) -> bool:
        """Have `length` bytes in the buffer, read in pieces of `size`; False when the data ends before."""
        while len(self._buffer) - self._at < length:
            more = self._source.read(size)
            if not more:
                return False
            self._before += self._at
            self._buffer = self._buffer[self._at :] + more if self._at < len(self._buffer) else more
            self._at = 0
        return True

    def _take_block(self) -> bytes:
        self._at += BLOCK
        return self._buffer[self._at - BLOCK : self._at]

    def _view(self, limit: int) -> memoryview:
        if self._at >= len(self._buffer) and not self._need(1):
            raise InvalidArgument("unexpected EOF")
        view = memoryview(self._buffer)[self._at : self._at + limit]
        self._at += len(view)
        return view

    def _skip_content(self) -> None:
        if not self._skip(self._left):
            raise InvalidArgument("unexpected EOF")
        self._skip(self._padding)  # a last file without its padding is tolerated, as by the tools
        self._left = self._padding = 0

    def _skip(self, length: int) -> bool:
        while length:
            ready = min(length, len(self._buffer) - self._at)
            self._at += ready
            length -= ready
            if length and self._skipping is not None:
                return self._leave_out(self._skipping, length)
            if length and not self._need(1):
                return False
        return True

    def _leave_out(self, source: SkippingSource, length: int) -> bool:
        """Pass over what comes after the buffer, which is used up."""
        skipped = source.skip(length)
        self._before += self._at + skipped
        self._buffer, self._at = b"", 0
        return skipped == length


def _apply_names(header: Header, records: dict[bytes, bytes]) -> Header:
    """The header with what pax records say of names and owners; an empty value takes a record back."""
    name = records.get(b"GNU.sparse.name") or records.get(b"path")
    if name:
        header = header._replace(name=name)
    if records.get(b"linkpath"):
        header = header._replace(linkname=records[b"linkpath"])
    if records.get(b"uid"):
        header = header._replace(uid=headers.decimal(records[b"uid"]))
    if records.get(b"gid"):
        header = header._replace(gid=headers.decimal(records[b"gid"]))
    return header


def _pairs(numbers: list[int]) -> Extents:
    if len(numbers) % 2 or len(numbers) > 2 * EXTENTS_MAX:
        raise headers.invalid("bad sparse map")
    return list(zip(numbers[::2], numbers[1::2], strict=True))
