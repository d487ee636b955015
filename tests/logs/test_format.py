"""json-file byte for byte, lines and their pieces, times."""

import json
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.logs.lab import DRIVERS, T0, fetch, framed, writer
from wherry.runtime.logs.jsonfile import JsonFormat, escape
from wherry.runtime.logs.lines import PIECE, Lines
from wherry.runtime.logs.stamp import Clock, fixed

ODD = (
    b"\x00|\x01\t\x0b\x0c\r\x1b \"#$%&'()<=>?@\\ ~\x7f \x80\xff\xc0\xaf "
    b"\xe2\x80\xa8\xe2\x80\xa9\xc3\xa9\xf0\x9f\x98\x80 \xe2\x82A \xed\xa0\x80\n"
)


def test_the_record_is_what_docker_writes(tmp_path: Path):
    """The expected bytes are from a container of Docker 28.5 that wrote `ODD`, except for the time."""
    log = writer(tmp_path / "log", attributes={"foo": "b", "tag": "mm1", "z": '<a&"b'})
    log.write(1, ODD, 1795377696988841014)
    log.close()
    assert (tmp_path / "log").read_bytes() == (
        rb'{"log":"\u0000|\u0001\u0009\u000b\u000c\r\u001b \"#$%\u0026' + b"'()"
        rb"\u003c=\u003e?@\\ ~" + b"\x7f" + rb" \ufffd\ufffd\ufffd\ufffd \u2028\u2029" + "é😀".encode() + b" "
        rb"\ufffd\ufffdA \ufffd\ufffd\ufffd\n"
        rb'","stream":"stdout","attrs":{"foo":"b","tag":"mm1","z":"\u003ca\u0026\"b"},'
        rb'"time":"2026-11-22T20:01:36.988841014Z"}' + b"\n"
    )
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


@given(st.binary(max_size=300))
def test_escape_agrees_with_json(data: bytes):
    text = escape(data.replace(b"\n", b"")).decode()
    expected = data.replace(b"\n", b"").decode("utf-8", "surrogateescape")
    expected = "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in expected)
    assert json.loads(f'"{text}"') == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=20))
def test_decode_reverses_encode(texts: list[str]):
    records = b"".join(
        b'{"log":'
        + json.dumps(text, ensure_ascii=False).encode()
        + b',"stream":"stderr","time":"2026-01-02T03:04:05Z"}\n'
        for text in texts
    )
    messages, used = JsonFormat().decode(records + b'{"log":"torn')
    assert messages.payloads == [text.encode() for text in texts]
    assert set(messages.times) <= {b"2026-01-02T03:04:05.000000000Z"}
    assert used == len(records)


def model_lines(data: bytes) -> list[bytes]:
    out = []
    for line in data.split(b"\n"):
        while len(line) >= PIECE:
            out.append(line[:PIECE])
            line = line[PIECE:]
        out.append(line + b"\n")
    last = out.pop()[:-1]
    return out + ([last] if last else [])


@given(
    st.lists(
        st.sampled_from([(b"\n", 1), (b"a", 1), (b"ab\n", 1), (b"x", PIECE - 1), (b"y", PIECE), (b"z", PIECE + 1)]),
        max_size=12,
    ),
    st.integers(1, 40000),
)
def test_lines_do_not_depend_on_how_they_were_read(parts: list[tuple[bytes, int]], step: int):
    data = b"".join(text * times for text, times in parts)
    lines = Lines()
    blocks = []
    for start in range(0, len(data), step):
        blocks += lines.feed(data[start : start + step])
    blocks += lines.end()
    got = []
    for block in blocks:
        got += [line + b"\n" for line in block[:-1].split(b"\n")] if block.endswith(b"\n") else [block]
    assert got == model_lines(data)


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_times_sort_as_text(time_ns: int):
    clock = Clock()
    assert fixed(clock.nano(time_ns)) == clock.fixed(time_ns)
    assert clock.fixed(time_ns) < clock.fixed(time_ns + 1)


def test_times_are_gos():
    clock = Clock()
    assert clock.nano(T0) == b"2023-11-14T22:13:20Z"
    assert clock.nano(T0 + 120_000_000) == b"2023-11-14T22:13:20.12Z"
    assert clock.nano(T0 + 7) == b"2023-11-14T22:13:20.000000007Z"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_torn_end_is_cut_and_the_log_goes_on(tmp_path: Path, driver: str):
    path = tmp_path / "log"
    log = writer(path, driver)
    log.write(1, b"one\ntwo\n", T0)
    log.write(2, b"three\n", T0)
    log.close()
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        log = writer(path, driver)
        log.write(1, b"after\n", T0)
        log.close()
        expected = [(1, b"one\n"), (1, b"two\n"), (2, b"three\n")]
        got = fetch(path, driver) if length % 9 == 0 or length > len(whole) - 3 else None
        if got is not None:
            assert got in [framed([*expected[:n], (1, b"after\n")]) for n in range(4)]
    assert got == framed([*expected, (1, b"after\n")])


def test_a_damaged_record_is_skipped(tmp_path: Path):
    path = tmp_path / "log"
    log = writer(path)
    for n in range(3):
        log.write(1, b"%d\n" % n, T0)
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * 70 + b"\n" + lines[2])
    assert fetch(path) == framed([(1, b"0\n"), (1, b"2\n")])


def test_a_full_disk_loses_records_but_never_half_of_one(tmp_path: Path):
    path = tmp_path / "log"
    log = writer(path)
    log.write(1, b"first\n", T0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 30, limits[1]))
    try:
        log.write(1, b"does not fit\n", T0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    log.write(1, b"last\n", T0)
    log.close()
    assert fetch(path) == framed([(1, b"first\n"), (1, b"last\n")])
