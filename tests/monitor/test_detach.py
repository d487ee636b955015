import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.runtime.monitor.detach import DetachKeys

DEFAULT = b"\x10\x11"


def place_of(keys: bytes, text: bytes) -> int:
    """Where Docker sees `keys`: it compares byte by byte, and begins anew after one that differs."""
    seen = 0
    for place, byte in enumerate(text if keys else b""):
        seen = seen + 1 if byte == keys[seen] else 0
        if seen == len(keys):
            return place + 1 - seen
    return -1


@given(st.binary(max_size=4), st.lists(st.binary(max_size=6), max_size=8))
def test_detection_does_not_depend_on_how_keys_were_read(keys: bytes, parts: list[bytes]):
    # few different bytes, so that sequences begin and break off
    keys = bytes(b % 3 for b in keys)
    parts = [bytes(b % 3 for b in part) for part in parts]
    detector = DetachKeys(keys)
    passed, found = b"", False
    for part in parts:
        data, found = detector.feed(part)
        passed += data
        if found:
            break
    text = b"".join(parts)
    place = place_of(keys, text)
    assert found == (place >= 0)
    if found:
        assert passed == text[:place]
    else:
        assert passed + detector.end() == text


@pytest.mark.parametrize(
    ("keys", "typed", "detaches"),
    [  # as Docker 28.5 does it, attached to a terminal by its API
        (DEFAULT, [b"abc\x10\x11def\n"], True),
        (DEFAULT, [b"abc\x10\x10\x11def\n"], False),
        (DEFAULT, [b"\x10", b"\x10", b"\x11", b"x\n"], False),
        (DEFAULT, [b"\x10", b"\x11"], True),
        (DEFAULT, [b"\x10", b"a\x11\n"], False),
        (DEFAULT, [b"\x10\x10\x10\x11\n"], True),
        (b"aab", [b"aab\n"], True),
        (b"aab", [b"aaab\n"], False),
        (b"aab", [b"aacaab\n"], True),
    ],
)
def test_what_docker_detaches_at(keys: bytes, typed: list[bytes], detaches: bool):
    detector = DetachKeys(keys)
    assert any(detector.feed(part)[1] for part in typed) == detaches
