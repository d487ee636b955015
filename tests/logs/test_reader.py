"""Reading: tail, times, streams, rotation, following; against a model."""

import asyncio
import os
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.logs.lab import DRIVERS, T0, Forks, fetch, framed, writer
from wherry.http.stdcopy import Deframer
from wherry.runtime.logs.jsonfile import JsonFormat
from wherry.runtime.logs.reader import Cursor, Query, read
from wherry.runtime.logs.stamp import Clock

entries = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),
        st.sampled_from([b"a\n", b"bb\n", b"\n", b"c" * 150 + b"\n", b"x\ny\nz\n", b"line\n" * 60]),
    ),
    max_size=40,
)


def model(
    wrote: list[tuple[int, bytes]], tail: int | None, since: int | None, until: int | None, want: tuple[bool, bool]
) -> list[tuple[int, bytes]]:
    messages = [
        (T0 + n, stream, line + b"\n") for n, (stream, text) in enumerate(wrote) for line in text[:-1].split(b"\n")
    ]
    if tail is not None:
        messages = messages[len(messages) - min(tail, len(messages)) :]
    return [
        (s, p)
        for t, s, p in messages
        if (since is None or t >= T0 + since) and (until is None or t <= T0 + until) and want[s - 1]
    ]


@pytest.mark.parametrize("driver", DRIVERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wrote=entries,
    tail=st.none() | st.integers(0, 90),
    since=st.none() | st.integers(-1, 45),
    until=st.none() | st.integers(-1, 45),
    want=st.sampled_from([(True, True), (True, False), (False, True)]),
    max_size=st.sampled_from([-1, 200, 1000]),
    compress=st.booleans(),
)
def test_reading_agrees_with_a_model(tmp_path_factory, driver, wrote, tail, since, until, want, max_size, compress):
    path = tmp_path_factory.mktemp("log") / "log"
    forks = Forks()
    log = writer(path, driver, forks, max_size=max_size, max_file=1000, compress=compress)
    for n, (stream, text) in enumerate(wrote):
        log.write(stream, text, T0 + n)
        if n % 7 == 6:
            forks.reap(log)
    log.close()
    query = {
        "tail": tail,
        "since_ns": None if since is None else T0 + since,
        "until_ns": None if until is None else T0 + until,
        "stdout": want[0],
        "stderr": want[1],
    }
    expected = model(wrote, tail, since, until, want)
    assert fetch(path, driver, **query) == framed(expected)
    assert merged(Deframer().feed(fetch(path, driver, joined=True, **query))) == merged(expected)


def merged(messages: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Neighbours of one stream as one."""
    return [(stream, b"".join(p for _, p in run)) for stream, run in groupby(messages, itemgetter(0))]


@pytest.mark.parametrize("driver", DRIVERS)
def test_joined_lines_share_frames(tmp_path: Path, driver: str):
    path = tmp_path / "log"
    log = writer(path, driver)
    text = b'the "quick"\t\x01\\n fox\n' * 3000
    log.write(1, text, T0)
    log.write(2, b"oops\n", T0)
    log.close()
    frames = list(Deframer().feed(fetch(path, driver, joined=True)))
    assert merged(frames) == [(1, text), (2, b"oops\n")]
    assert len(frames) < 30


@pytest.mark.parametrize("driver", DRIVERS)
def test_timestamps_details_and_plain_output(tmp_path: Path, driver: str):
    path = tmp_path / "log"
    log = writer(path, driver, attributes={"b": "2", "a": "x y&"})
    log.write(1, b"one\ntwo\n", T0 + 5)
    log.close()
    stamp = Clock().fixed(T0 + 5)
    assert stamp == b"2023-11-14T22:13:20.000000005Z"
    assert fetch(path, driver, timestamps=True, tty=True) == stamp + b" one\n" + stamp + b" two\n"
    assert fetch(path, driver, details=True, tty=True) == b"a=x+y%26,b=2 one\na=x+y%26,b=2 two\n"
    assert fetch(path, driver, details=True, timestamps=True, tty=True, tail=1) == stamp + b" a=x+y%26,b=2 two\n"


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_number_and_size_of_files_are_bounded(tmp_path: Path, driver: str):
    log = writer(tmp_path / "log", driver, max_size=2000, max_file=3)
    for n in range(1000):
        log.write(1, b"%d\n" % n, T0 + n)
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    assert all(os.stat(tmp_path / name).st_size < 2100 for name in os.listdir(tmp_path))
    lines = fetch(tmp_path / "log", driver, tty=True).split()
    assert lines == [b"%d" % n for n in range(1000 - len(lines), 1000)]


def test_files_are_cut_where_docker_cuts_them(tmp_path: Path):
    """Docker 28.5 with max-size=2k wrote `seq 1 100` as 2042 bytes, the same, and a rest; its records are 71 to 73."""
    log = writer(tmp_path / "log", max_size=2000, max_file=5)
    log.write(1, b"".join(b"%d\n" % n for n in range(1, 101)), 1795377697450602579)
    log.close()
    sizes = [os.stat(tmp_path / name).st_size for name in ("log.3", "log.2", "log.1", "log")]
    assert all(2000 <= size < 2074 for size in sizes[:3])
    assert sizes[3] < 2000


def test_one_file_only_starts_anew_when_full(tmp_path: Path):
    log = writer(tmp_path / "log", max_size=1000, max_file=1)
    for n in range(100):
        log.write(1, b"%d\n" % n, T0 + n)
    log.close()
    assert os.listdir(tmp_path) == ["log"]
    assert fetch(tmp_path / "log", tty=True).endswith(b"98\n99\n")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("compress", [False, True])
def test_a_follower_sees_every_line_once_across_rotations(tmp_path: Path, driver: str, compress: bool):
    path = tmp_path / "log"
    count = 3000
    forks = Forks()
    size = 8000 if driver == "json-file" else 3000  # some thirty files of either
    log = writer(path, driver, forks, max_size=size, max_file=1000, compress=compress)

    def produce() -> None:
        for n in range(count):
            log.write(1, b"%d\n" % n, T0 + n)
            if n % 500 == 499:
                forks.reap(log)
        log.close()

    producer = os.fork()
    if not producer:
        try:
            produce()
        finally:
            os._exit(0)
    ended = []

    def running() -> bool:
        if not ended:
            ended.extend([producer] if os.waitpid(producer, os.WNOHANG)[0] else [])
        return not ended

    async def follow() -> bytes:
        return b"".join([c async for c in read(str(path), driver, follow=True, tty=True, running=running)])

    assert asyncio.run(follow()).split() == [b"%d" % n for n in range(count)]
    assert len(os.listdir(tmp_path)) > 10


def test_old_files_are_not_read_for_recent_lines(tmp_path: Path):
    path = tmp_path / "log"
    log = writer(path, max_size=1000, max_file=9)
    for n in range(30):
        log.write(1, b"%d\n" % n, T0 + n)
    log.close()
    os.utime(tmp_path / "log.2", ns=(T0 - 1, T0 - 1))
    (tmp_path / "log.2").write_bytes(b"")
    os.utime(tmp_path / "log.2", ns=(T0 - 1, T0 - 1))
    assert fetch(path, tty=True, since_ns=T0).split() == [b"%d" % n for n in range(14, 30)]
    cursor = Cursor(str(path), JsonFormat(), Query(since_ns=T0))
    assert len(cursor._files) == 2
    cursor.close()


def test_a_slow_follower_misses_only_what_was_deleted(tmp_path: Path):
    path = tmp_path / "log"
    log = writer(path, max_size=1000, max_file=3)
    log.write(1, b"first\n", T0)

    async def main() -> list[bytes]:
        stopped = asyncio.Event()
        reading = read(str(path), "json-file", follow=True, tty=True, stopped=stopped)
        got = [await anext(reading)]
        for n in range(200):
            log.write(1, b"%d\n" % n, T0 + n)
        log.close()
        stopped.set()
        async for chunk in reading:
            got += chunk.split()
        return got

    got = asyncio.run(main())
    kept = fetch(path, tty=True).split()
    assert got[0] == b"first\n"
    assert got[-len(kept) :] == kept
    numbers = [int(line) for line in got[1:]]
    assert numbers == sorted(set(numbers))


def test_a_follower_wakes_for_a_line_and_ends_with_its_container(tmp_path: Path):
    path = tmp_path / "log"
    log = writer(path)

    async def main() -> list[bytes]:
        stopped = asyncio.Event()
        reading = read(str(path), "json-file", follow=True, tty=True, tail=0, stopped=stopped)
        waiting = asyncio.ensure_future(anext(reading))
        await asyncio.sleep(0.05)
        log.write(1, b"now\n", T0)
        got = [await asyncio.wait_for(waiting, 60)]
        log.write(1, b"last", T0)
        log.close()
        stopped.set()
        got += [chunk async for chunk in reading]
        return got

    assert asyncio.run(main()) == [b"now\n", b"last"]


def test_driver_none_cannot_be_read(tmp_path: Path):
    writer(tmp_path / "log", "none").write(1, b"x\n", T0)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="does not support reading"):
        fetch(tmp_path / "log", "none")
    with pytest.raises(ValueError, match="no log driver named 'x'"):
        writer(tmp_path / "log", "x")


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_one_run_left_uncompressed_the_next_compresses(tmp_path: Path, driver: str):
    path = tmp_path / "log"
    lines = b"".join(b"line %d\n" % n for n in range(200))
    log = writer(path, driver, Forks(), max_size=1000, max_file=1000, compress=True)
    for line in lines.splitlines(keepends=True):
        log.write(1, line, T0)
    log.close()  # ends the compression that is under way
    plain = {file.name for file in tmp_path.glob("log.[0-9]*")}
    assert plain
    assert not [name for name in plain if name.endswith(".gz")]
    forks = Forks()
    log = writer(path, driver, forks, max_size=1 << 20, max_file=1000, compress=True)
    assert not forks
    log.write(1, b"again\n", T0)
    while forks:
        forks.reap(log)
    log.close()
    assert {file.name for file in tmp_path.glob("log.[0-9]*")} == {f"{name}.gz" for name in plain}
    assert fetch(path, driver, tty=True) == lines + b"again\n"
