"""One layer as two files: its tar, and the image that points into it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from wherry.images.archive.reader import Source, TarReader
from wherry.images.archive.rules import Unpacked
from wherry.images.erofs import Unsuitable, format
from wherry.images.erofs.builder import TreeBuilder
from wherry.images.erofs.image import Image


class _CopiedSource:
    """A source whose bytes are written to a file on their way."""

    def __init__(self, source: Source, file: BinaryIO, spend: Callable[[int], None]) -> None:
        self._source = source
        self._file = file
        self._spend = spend

    def read(self, limit: int, /) -> bytes:
        """The next 1 to `limit` bytes; b"" at the end."""
        data = self._source.read(limit)
        self._spend(len(data))
        _write(self._file, data)
        return data


def _write(file: BinaryIO, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def write_layer(source: Source, image: Path, tar: Path, blob: Path | None, spend: Callable[[int], None]) -> Unpacked:
    """Read all of an uncompressed tar from `source` and make the files `image` and `tar`. Where the tar is a file
    already, `blob`, that has all of it when `source` ends, `tar` becomes a hard link of it.

    `spend` is told the bytes about to be written and may raise to stop. Raises as `LayerExtractor.extract` does, and
    `Unsuitable`; what was made until then is the caller's to delete.
    """
    builder = TreeBuilder()
    if blob is None:
        with open(tar, "xb", buffering=0) as file:
            unpacked = _read(builder, _CopiedSource(source, file, spend))
            file.truncate(-(-file.tell() // format.BLOCK) * format.BLOCK)  # some tars lack the padding at their end
    else:
        unpacked = _read(builder, source)
        _link(blob, tar)
    size = os.stat(tar).st_size
    if size % format.BLOCK or builder.tar_end > size:
        raise Unsuitable("its tar is not in whole blocks")
    with open(image, "xb", buffering=0) as file:
        _write_image(Image(builder.tree, size // format.BLOCK), file, spend)
    return unpacked


def _write_image(image: Image, file: BinaryIO, spend: Callable[[int], None]) -> None:
    def write(data: bytes | bytearray) -> None:
        spend(len(data))
        _write(file, data)

    image.write(write)


def _read(builder: TreeBuilder, source: Source) -> Unpacked:
    reader = TarReader(source)
    unpacked = builder.build(reader)
    reader.drain()
    return unpacked


def _link(blob: Path, tar: Path) -> None:
    try:
        os.link(blob, tar)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
            raise
        raise Unsuitable(f"its blob cannot be linked: {error.strerror}") from error
