"""JSON without the json package, progress streams, multiplexed frames: however the bytes are cut."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.client.errors import BrokenReply
from wherry.client.progress import messages
from wherry.client.stdcopy import Demux
from wherry.jsontext import dumps, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES, st.sampled_from(["", "    "]), st.booleans())
def test_json_round_trip(value, indent, html):
    text = dumps(value, indent=indent, html=html)
    assert json.loads(text) == value
    assert loads(text) == value
    if html:
        assert not set(text) & set("<>&")


@given(VALUES)
def test_indentation_is_that_of_json(value):
    assert dumps(value, indent="  ").count("\n") == json.dumps(value, indent=2).count("\n")


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{} x", "nul"])
def test_broken_json(text):
    with pytest.raises(ValueError, match=r"."):
        loads(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e21, "1e+21"), (1e20, "100000000000000000000"), (1.5, "1.5"), (1e-7, "1e-7"), (0.000001, "0.000001")],
)
def test_numbers_as_go_prints_them(value, text):
    assert dumps(value) == text


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(), max_size=3), max_size=6), st.data())
def test_messages_cut_anywhere(objects, data):
    whole = "".join(
        json.dumps(each, ensure_ascii=False) + data.draw(st.sampled_from(["", "\n", "\r\n"])) for each in objects
    )
    raw = whole.encode("utf-8", "surrogatepass") if whole.isascii() else whole.encode("utf-8", "replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    expected = json.loads("[" + ",".join(json.dumps(each) for each in objects) + "]")
    assert len(list(messages(pieces))) == len(expected)
    if whole.encode("utf-8", "replace").decode() == whole:
        assert list(messages(pieces)) == expected


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8), st.integers(1, 30))
def test_frames_cut_anywhere(frames, step):
    raw = b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in frames)
    demux, out = Demux(), {1: b"", 2: b""}
    for at in range(0, len(raw), step):
        for stream, piece in demux.feed(raw[at : at + step]):
            out[stream] += piece
    assert out == {stream: b"".join(data for each, data in frames if each == stream) for stream in (1, 2)}


def test_what_is_no_frame():
    with pytest.raises(BrokenReply, match="Unrecognized input header: 72"):
        Demux().feed(b"HTTP/1.1 500")
