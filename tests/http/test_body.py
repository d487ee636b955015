"""The framing of bodies: pieces of any size in, the same bytes out, and nothing that two readers could read twice."""

import pytest

from wherry.http.body import BodyFraming, FramingError

CHUNKED = b"5\r\nhello\r\nA;name=value\r\n0123456789\r\n00\r\nTrailer: x\r\n\r\nGET /next"


def feed(framing: BodyFraming, data: bytes, step: int) -> bytes:
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    return b"".join(part for piece in pieces for part in framing.feed(piece))


@pytest.mark.parametrize("step", range(1, len(CHUNKED) + 1))
def test_chunks_in_pieces_of_any_size(step):
    framing = BodyFraming(None)
    assert feed(framing, CHUNKED, step) == b"hello0123456789"
    assert framing.complete
    assert framing.rest() == b"GET /next"


@pytest.mark.parametrize("step", [1, 4, 5, 6, 100])
def test_a_length(step):
    framing = BodyFraming(5)
    assert feed(framing, b"helloGET", step) == b"hello"
    assert framing.complete
    assert framing.rest() == b"GET"


def test_no_body():
    framing = BodyFraming(0)
    assert framing.complete
    assert framing.feed(b"GET") == []
    assert framing.rest() == b"GET"


@pytest.mark.parametrize(
    "data",
    [
        *(b"-1\r\n", b"+5\r\nhello", b"0x5\r\nhello", b" 5\r\nhello", b"5\nhello", b"\r\n", b"g\r\n", b"5_0\r\n"),
        *(b"1" * 17 + b"\r\n", b"5\r\nhelloX\r\n", b"5\r\nhello\n", b"5;\x00\r\nhello", b"\n", b"1" * 5000),
        b"0\r\n" + (b"T: " + b"x" * 4000 + b"\r\n") * 20,
    ],
)
def test_what_is_no_chunk(data):
    with pytest.raises(FramingError):
        BodyFraming(None).feed(data)
