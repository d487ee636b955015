"""Frames survive any cut of the byte stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.http.stdcopy import STDERR, STDOUT, Deframer, frame

writes = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=40)))


def test_header_of_a_frame():
    assert frame(STDERR, b"oops\n") == b"\x02\x00\x00\x00\x00\x00\x00\x05oops\n"


@given(writes, st.integers(1, 13))
def test_what_is_framed_comes_out_in_order(written, step):
    wire = b"".join(frame(stream, data) for stream, data in written)
    deframer = Deframer()
    out = [pair for at in range(0, len(wire), step) for pair in deframer.feed(wire[at : at + step])]
    assert [(s, bytes([b])) for s, d in out for b in d] == [(s, bytes([b])) for s, d in written for b in d]
    assert deframer.between_frames


def test_raw_output_is_not_mistaken_for_frames():
    with pytest.raises(ValueError, match="not a stream header"):
        list(Deframer().feed(b"hello world"))
