"""Sources of plain bytes for the tar reader, stacked: raw bytes → decompressed → hashed."""

import hashlib
from typing import BinaryIO

from wherry.errors import InvalidArgument
from wherry.images.archive.compression import MAGIC_LENGTH, Decompressor, detect
from wherry.images.archive.reader import SkippingSource, Source

_INPUT_SIZE = 256 << 10
# Compression beyond this ratio is no software: gzip's own limit, reached by zeros only, is 1032.
RATIO_MAX = 200
# Below this much output any ratio will do: small layers of zeros exist and harm nobody.
RATIO_FREE = 1 << 30


class StreamSource:
    """The bytes of a binary stream (a socket's file, a pipe)."""

    def __init__(self, stream: BinaryIO) -> None:
        self._read = getattr(stream, "read1", stream.read)

    def read(self, limit: int, /) -> bytes:
        """The next 1 to `limit` bytes; b"" at the end."""
        data: bytes = self._read(limit)
        return data


class PushBackSource:
    """A source with some bytes put back in front."""

    def __init__(self, head: bytes, source: Source) -> None:
        self._head = head
        self._source = source

    def read(self, limit: int, /) -> bytes:
        """The next 1 to `limit` bytes; b"" at the end."""
        if self._head:
            data, self._head = self._head[:limit], self._head[limit:]
            return data
        return self._source.read(limit)


class _SkippingPushBackSource(PushBackSource):
    """The same of a source that can skip."""

    def __init__(self, head: bytes, source: SkippingSource) -> None:
        super().__init__(head, source)
        self._skipping = source

    def skip(self, length: int, /) -> int:
        """Pass over `length` bytes, or as many as there are."""
        put_back = len(self._head[:length])
        self._head = self._head[put_back:]
        return put_back + (self._skipping.skip(length - put_back) if length > put_back else 0)


class DecompressedSource:
    """The plain bytes of a compressed source. Raises `InvalidArgument` for damaged data and for bombs."""

    def __init__(self, kind: str, source: Source) -> None:
        self._decompressor = Decompressor(kind)
        self._source = source
        self._taken = 0
        self._given = 0

    def read(self, limit: int, /) -> bytes:
        """The next 1 to `limit` bytes; b"" at the end."""
        decompressor = self._decompressor
        while not decompressor.finished:
            if decompressor.needs_input:
                data = self._source.read(_INPUT_SIZE)
                self._taken += len(data)
                decompressor.feed(data)
            plain = decompressor.read(limit)
            if plain:
                self._given += len(plain)
                self._check_ratio()
                return plain
        return b""

    def _check_ratio(self) -> None:
        if self._given > RATIO_FREE and self._given > RATIO_MAX * self._taken:
            raise InvalidArgument(f"compressed data expands more than {RATIO_MAX} times: refused as a bomb")


class HashedSource:
    """A source whose bytes are hashed on their way."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, limit: int, /) -> bytes:
        """The next 1 to `limit` bytes; b"" at the end."""
        data = self._source.read(limit)
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        """The digest of what was read so far."""
        return f"sha256:{self._hash.hexdigest()}"


def _head(source: Source, length: int) -> bytes:
    head = b""
    while len(head) < length and (more := source.read(length - len(head))):
        head += more
    return head


def open_plain(source: Source) -> tuple[Source, str]:
    """Look at the first bytes of `source` and return the source of its plain bytes with the kind of compression
    found ("" for none)."""
    head = _head(source, MAGIC_LENGTH)
    kind = detect(head)
    if isinstance(source, SkippingSource):
        source = _SkippingPushBackSource(head, source)
    else:
        source = PushBackSource(head, source)
    return (DecompressedSource(kind, source) if kind else source), kind
