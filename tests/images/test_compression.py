"""Codecs: what the tools write is read; what is damaged ends in one kind of error, at once."""

import bz2
import gzip
import lzma
import os
import random
import zlib

import pytest

from wherry.errors import InvalidArgument
from wherry.images.archive import compression
from wherry.images.archive.compression import zstd
from wherry.images.archive.sources import DecompressedSource, StreamSource, open_plain

from .mkimg import Dribble

DATA = b"".join(b"line %d\n" % n for n in range(20_000)) + os.urandom(5000)
CODECS = {"gzip": gzip.compress, "zstd": zstd.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.fixture(params=["isal", "zlib"])
def backend(request, monkeypatch):
    if request.param == "zlib":
        monkeypatch.setattr(compression, "_isal", None)
        monkeypatch.setattr(compression, "_GzipError", zlib.error)


def read_all(data, piece=1000, limit=3000):
    source, kind = open_plain(StreamSource(Dribble(data, piece)))
    out = b""
    while chunk := source.read(limit):
        assert len(chunk) <= limit
        out += chunk
    assert source.read(limit) == b""
    return out, kind


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_round_trips_in_any_pieces(backend, kind, piece):
    data = DATA[:3000] if piece == 1 else DATA
    assert read_all(CODECS[kind](data), piece) == (data, kind)


@pytest.mark.parametrize("kind", CODECS)
def test_members_in_a_row(backend, kind):
    compress = CODECS[kind]
    assert read_all(compress(b"one") + compress(b"") + compress(DATA))[0] == b"one" + DATA
    assert read_all(compress(DATA) + bytes(512))[0] == DATA


def skippable(content, kind=0):
    return bytes((0x50 | kind, 0x2A, 0x4D, 0x18)) + len(content).to_bytes(4, "little") + content


def test_frames_of_zstd_that_are_skipped():
    """zstd:chunked has its table of contents in such, pzstd the sizes of its frames."""
    one, two = zstd.compress(b"one"), zstd.compress(DATA)
    for data in (
        one + two + skippable(b"toc" * 1000),
        skippable(b"\x0c\0\0\0") + one + skippable(b"", 15) + two,
        one + skippable(os.urandom(70_000), 7) + two + skippable(b"") + skippable(b"x"),
    ):
        for piece in (7, 1000, 1 << 20):
            assert read_all(data, piece) == (b"one" + DATA, "zstd")
    for damaged in (one + skippable(b"x" * 50)[:-9], one + b"\x50\x2a\x4d\x19" + bytes(8)):
        with pytest.raises(InvalidArgument):
            read_all(damaged)


def test_gzip_with_the_footer_of_estargz(backend):
    """Members with a field of their own in the header, the last one empty."""
    field = b"SG\x16\0" + b"%016xSTARGZ" % 1000
    footer = b"\x1f\x8b\x08\x04" + bytes(6) + len(field).to_bytes(2, "little") + field
    footer += b"\x01\x00\x00\xff\xff" + bytes(8)
    assert len(footer) == 51
    assert read_all(gzip.compress(b"one") + gzip.compress(DATA) + footer, 100)[0] == b"one" + DATA


@pytest.mark.parametrize("kind", CODECS)
def test_truncation_and_garbage(backend, kind):
    whole = CODECS[kind](DATA)
    for cut in (7, len(whole) // 2, len(whole) - 1):
        with pytest.raises(InvalidArgument):
            read_all(whole[:cut])
    with pytest.raises(InvalidArgument):
        read_all(whole + b"garbage!")


def test_plain_data_passes():
    assert read_all(DATA) == (DATA, "")
    assert read_all(b"") == (b"", "")
    assert read_all(b"\x1f\x8b") == (b"\x1f\x8b", "")


@pytest.mark.parametrize("kind", CODECS)
def test_mutations_raise_or_differ_but_never_hang(backend, kind):
    whole = CODECS[kind](DATA[:2000])
    chance = random.Random(20)
    for _ in range(300):
        mutant = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            mutant[chance.randrange(6, len(mutant))] = chance.randrange(256)
        source = DecompressedSource(kind, StreamSource(Dribble(bytes(mutant), 500)))
        total = 0
        try:
            while chunk := source.read(1000):
                total += len(chunk)
                assert total < 1 << 24
        except InvalidArgument:
            pass


def test_windows_that_would_cost_gigabytes_are_refused():
    # a frame header that asks for a 2 GiB window
    with pytest.raises(InvalidArgument):
        read_all(b"\x28\xb5\x2f\xfd\x00" + bytes((0b10101_000,)) + b"\x01\x00\x00" + b"x" * 64)
