"""Archives that cost more than they are worth."""

import io
import os
import tarfile

import pytest

from wherry.errors import InvalidArgument
from wherry.images.archive.extract import LayerExtractor
from wherry.images.archive.reader import TarReader
from wherry.images.load import Archive

pytestmark = pytest.mark.root


class Stream:
    """An archive of `count` entries, made as it is read; `taken` tells how many were."""

    def __init__(self, make, count):
        self._make, self._count = make, count
        self.taken = 0

    def read(self, limit):
        if self.taken == self._count:
            return b""
        self.taken += 1
        return self._make(self.taken).tobuf(format=tarfile.PAX_FORMAT)


def link(number, length=0):
    info = tarfile.TarInfo(f"{('n' * 200 + '/') * length}{number}")
    info.type, info.linkname = tarfile.SYMTYPE, "x"
    return info


@pytest.mark.parametrize(("length", "most"), [(0, 50_001), (15, 25_000)], ids=["many", "long"])
def test_links_between_members_are_bounded(length, most):
    """CVE-2023-25153's kind: a few megabytes of gzip would otherwise become as many gigabytes of names."""
    stream = Stream(lambda number: link(number, length), 1_000_000)
    archive = Archive(None, lambda report: None, lambda digest: None)
    with pytest.raises(InvalidArgument, match="too many documents"):
        archive.receive(stream)
    assert stream.taken <= most


def test_a_name_of_very_many_levels_is_refused(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("d/" * 1500 + "file"))
    out.seek(0)
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(InvalidArgument, match="no possible file name"):
            LayerExtractor(root).extract(TarReader(out))
    finally:
        os.close(root)
    assert list(tmp_path.iterdir()) == []
