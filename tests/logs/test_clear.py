"""Clearing a log that is being written and followed."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.logs.lab import DRIVERS, T0, Forks, fetch, writer
from wherry.runtime.logs.drivers import open_format
from wherry.runtime.logs.reader import Cursor, Query, read
from wherry.runtime.logs.rotation import clear_files


def cleared(log: object) -> list[OSError | None]:
    outcome: list[OSError | None] = []
    log.clear(outcome.append)  # type: ignore[attr-defined]
    return outcome


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("compress", [False, True])
def test_nothing_is_left_but_what_comes_later(tmp_path: Path, driver: str, compress: bool):
    path, forks = tmp_path / "log", Forks()
    log = writer(path, driver, forks, max_size=1000, max_file=4, compress=compress, attributes={"a": "b"})
    for n in range(100):
        log.write(1, b"line %d\n" % n, T0 + n)
        if n % 3:
            forks.reap(log)
    log.write(1, b"begun ", T0)
    assert len(os.listdir(tmp_path)) > 2
    assert cleared(log) == [None]
    assert os.listdir(tmp_path) == ["log"]
    assert fetch(path, driver) == b""
    log.write(1, b"before, ended after\n", T0 + 1000)
    log.write(2, b"new\n", T0 + 1001)
    assert fetch(path, driver, tty=True, details=True) == b"a=b begun before, ended after\na=b new\n"
    for n in range(60):
        log.write(1, b"again %d\n" % n, T0 + 2000 + n)
    log.close()
    assert os.path.exists(tmp_path / "log.1")
    assert fetch(path, driver, tty=True, tail=1) == b"again 59\n"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_follower_goes_on_with_new_lines(tmp_path: Path, driver: str):
    path = tmp_path / "log"
    log = writer(path, driver, max_size=2000, max_file=3)
    log.write(1, b"old\n", T0)

    async def main() -> list[bytes]:
        stopped = asyncio.Event()
        reading = read(str(path), driver, follow=True, tty=True, stopped=stopped)
        got = [await anext(reading)]
        waiting = asyncio.ensure_future(anext(reading))
        for generation in range(3):
            assert cleared(log) == [None]
            # longer than what was there: a reader that only compared sizes would begin in its middle
            log.write(1, b"new %d " % generation + b"x" * 500 + b"\n", T0 + generation)
            got += (await asyncio.wait_for(waiting, 60)).split(b"\n")[:-1]
            waiting = asyncio.ensure_future(anext(reading))
        stopped.set()
        log.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 60)
        return got

    assert asyncio.run(main()) == [b"old\n", *(b"new %d " % n + b"x" * 500 for n in range(3))]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("query", [Query(follow=True), Query(follow=True, tail=3)])
def test_a_reader_in_the_middle_of_old_files_shows_no_more_of_them(tmp_path: Path, driver: str, query: Query):
    path = tmp_path / "log"
    log = writer(path, driver, max_size=1000, max_file=5)
    for n in range(60):
        log.write(1, b"old %d\n" % n, T0 + n)
    cursor = Cursor(str(path), open_format(driver), query._replace(framed=False))
    try:
        assert cleared(log) == [None]
        for n in range(5):
            log.write(1, b"new %d\n" % n, T0 + 100 + n)
        got = b"".join(iter(cursor.step, None))
    finally:
        cursor.close()
    assert got == b"".join(b"new %d\n" % n for n in range(5))
    log.close()


def test_files_nobody_writes(tmp_path: Path):
    path = tmp_path / "log"
    log = writer(path, max_size=300, max_file=3)
    for n in range(20):
        log.write(1, b"line %d\n" % n, T0 + n)
    log.close()
    (tmp_path / "log.notes").write_text("another's")
    clear_files(str(path))
    assert sorted(os.listdir(tmp_path)) == ["log", "log.notes"]
    assert path.stat().st_size == 0


def test_what_cannot_be_cleared_stays(tmp_path: Path):
    path = tmp_path / "log"
    log = writer(path)
    log.write(1, b"kept\n", T0)
    os.mkdir(tmp_path / "log.new")
    (error,) = cleared(log)
    assert isinstance(error, IsADirectoryError)
    log.write(1, b"and more\n", T0)
    log.close()
    assert fetch(path, tty=True) == b"kept\nand more\n"
