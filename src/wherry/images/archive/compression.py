"""Decompression of layers and archives: gzip, zstd, bzip2, xz or none, told apart by their first bytes.

A `Decompressor` is sans-IO: compressed bytes in, a bounded amount of plain bytes out, so that a bomb costs no memory.
Multi-member gzip and multi-frame zstd files are read to their end, as the tools do. All codecs release the GIL.
"""

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from wherry.errors import InvalidArgument

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_isal: Any = None
_isal_zlib: Any = None
try:
    from isal import igzip_lib, isal_zlib
except ImportError:  # no wheel for this machine: zlib, at half the speed
    pass
else:
    _isal = igzip_lib
    _isal_zlib = isal_zlib

_GzipError: type[Exception] = zlib.error if _isal is None else _isal.IsalError

MAGIC_LENGTH = 6
_MAGICS = ((b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
# xz dictionaries may be 4 GiB; the default preset of every tool needs 9 to 65 MiB.
_XZ_MEMORY = 128 << 20
# The window a zstd frame may ask for, as a power of two: what the registries' clients accept.
_ZSTD_WINDOW_LOG = 27


def detect(head: bytes | memoryview) -> str:
    """The compression that data beginning with `head` (at least `MAGIC_LENGTH` bytes if there are as many) has:
    "gzip", "zstd", "bzip2", "xz" or "" for none."""
    start = bytes(head[:MAGIC_LENGTH])
    for magic, name in _MAGICS:
        if start.startswith(magic):
            return name
    # what decoders skip (RFC 8878, 3.1.2): zstd:chunked ends with such frames, pzstd begins with one
    return "zstd" if start[1:4] == _ZSTD_SKIPPABLE and start[0] & 0xF0 == 0x50 else ""


class Compressor(Protocol):
    """Of zlib's interface."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def gzip_compressor() -> Compressor:
    """What compresses layers: as small as `gzip -1` at ten times its speed where isal is. Without a time in the
    header, so that the same layer always gives the same bytes."""
    if _isal_zlib is None:
        return zlib.compressobj(1, zlib.DEFLATED, 31)
    compressor: Compressor = _isal_zlib.compressobj(2, zlib.DEFLATED, 31)
    return compressor


class _Member(Protocol):
    """One gzip member, zstd frame, bzip2 or xz stream, as the standard library's decompressor objects have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _ZlibMember:
    """zlib's decompressobj with the interface the other decompressors share."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(wbits=31)
        self._tail = b""
        self.eof = False
        self.unused_data = b""
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._object.decompress(self._tail + data, max(max_length, 0))
        self._tail = self._object.unconsumed_tail
        self.eof = self._object.eof
        self.unused_data = self._object.unused_data
        self.needs_input = not self.eof and not self._tail and len(out) < max_length
        return out


def _gzip() -> _Member:
    member: _Member = _ZlibMember() if _isal is None else _isal.IgzipDecompressor(flag=_isal.DECOMP_GZIP)
    return member


def _zstd() -> _Member:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


_MEMBERS: dict[str, Callable[[], Any]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
}


class Decompressor:
    """A stream of members of one kind.

    `feed` and `read` alternate: while `needs_input`, feed the next compressed bytes (b"" at the end of input), then
    `read(limit)` gives up to `limit` plain bytes; b"" with `finished` set is the end.
    """

    def __init__(self, kind: str) -> None:
        """`kind` as `detect` names it; not ""."""
        self._new = _MEMBERS[kind]
        self._kind = kind
        self._member: _Member = self._new()
        self._pending = b""
        self._started = False
        self._ended = False
        self.finished = False
        self.needs_input = True

    def feed(self, data: bytes) -> None:
        """Hand in compressed bytes; b"" says that there are no more."""
        if data:
            self._pending = self._pending + data if self._pending else data
        else:
            self._ended = True
        self.needs_input = False

    def read(self, limit: int) -> bytes:
        """Up to `limit` plain bytes; b"" when more input is needed or all is done. Raises `InvalidArgument` for
        damaged or truncated data."""
        try:
            out = self._advance(limit)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, _GzipError) as error:
            raise InvalidArgument(f"invalid {self._kind} data: {error}") from None
        return out

    def _advance(self, limit: int) -> bytes:
        if self._member.eof and not self._next_member():
            return b""
        data, self._pending = self._pending, b""
        self._started = self._started or bool(data)
        out = self._member.decompress(data, limit)
        if self._member.eof:
            self._pending = self._member.unused_data
        elif not out and self._member.needs_input:
            if self._ended:
                raise EOFError("unexpected end of data")
            self.needs_input = True
        return out

    def _next_member(self) -> bool:
        """Go on to the member that follows; False when there is none (yet)."""
        if len(self._pending) < MAGIC_LENGTH and not self._ended:
            self.needs_input = True
            return False
        if not self._pending.strip(b"\0"):  # zero padding after the last member, as gzip(1) tolerates
            self._pending = b""
            self.finished = self._ended
            self.needs_input = not self._ended
            return False
        if detect(self._pending) != self._kind:
            raise OSError("trailing garbage")
        self._member = self._new()
        return True
