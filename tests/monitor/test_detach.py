from hypothesis import given
from hypothesis import strategies as st

from wherry.runtime.monitor.detach import DetachKeys


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
    place = text.find(keys) if keys else -1
    assert found == (place >= 0)
    if found:
        assert passed == text[:place]
    else:
        assert passed + detector.end() == text
