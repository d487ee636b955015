"""Non-blocking log files: a disk that stalls (a FIFO that nobody reads) does not stall the container."""

import os
import select
from pathlib import Path

import pytest

from tests.logs.lab import DRIVERS, T0, Forks, fetch, writer
from wherry.runtime.logs.forward.spooled import Spooled
from wherry.runtime.monitor.poller import Poller

BLOCK = b"".join(b"%07d\n" % n for n in range(8000))


def reap(log: Spooled, forks: Forks) -> None:
    """Wait for the writing child, as the monitor does when it is told of its end."""
    pid = forks.pop()
    assert log.reaped(*os.waitpid(pid, 0))


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_log_is_complete_once_it_is_closed(tmp_path: Path, driver: str):
    log = writer(tmp_path / "log", driver, Forks(), limit=1 << 24, max_size=300_000, max_file=90, compress=True)
    assert isinstance(log, Spooled)
    for _ in range(20):
        log.write(1, BLOCK, T0)
    log.write(2, b"unfinished", T0)
    log.close()
    assert log.lost == 0
    assert fetch(tmp_path / "log", driver, tty=True) == BLOCK * 20 + b"unfinished"


def test_a_stalled_disk_costs_output_not_time(tmp_path: Path):
    path, forks = tmp_path / "log", Forks()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = writer(path, "json-file", forks, limit=1 << 20)
    log.attend(Poller(), lambda: None)
    for _ in range(100):
        log.write(1, BLOCK, T0)
        assert not log.blocked
    assert log.lost > 50
    # once the disk goes on, so does the log
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(20_000)
    assert os.read(reader, 100).startswith(b'{"log":"0000000\\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}\n')
    os.close(reader)
    log._last_words_s = 0.2
    log.close()
    os.waitpid(forks.pop(), 0)


def test_without_the_mode_the_same_disk_stalls(tmp_path: Path):
    path, forks = tmp_path / "log", Forks()
    os.mkfifo(path)
    pid = os.fork()
    if not pid:
        log = writer(path, "json-file", forks)
        for _ in range(100):
            log.write(1, BLOCK, T0)
        os._exit(0)
    reader = os.open(path, os.O_RDONLY)
    os.read(reader, 1)  # it writes, and fills what nobody reads
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(reader)


@pytest.mark.parametrize("driver", DRIVERS)
def test_clearing(tmp_path: Path, driver: str):
    path, forks = tmp_path / "log", Forks()
    log = writer(path, driver, forks, limit=1 << 24, max_size=100_000, max_file=9)
    outcome: list[OSError | None] = []
    log.attend(Poller(), lambda: None)
    for _ in range(20):
        log.write(1, BLOCK, T0)
    log.clear(outcome.append)
    log.write(1, b"while it is cleared\n", T0)
    assert outcome == []
    refused: list[OSError | None] = []
    log.clear(refused.append)
    assert "being cleared already" in str(refused)
    reap(log, forks)
    assert outcome == [None]
    log.write(1, b"afterwards\n", T0)
    log.close()
    assert fetch(path, driver, tty=True) == b"while it is cleared\nafterwards\n"


def test_clearing_what_was_never_written(tmp_path: Path):
    log = writer(tmp_path / "log", limit=1000)
    outcome: list[OSError | None] = []
    log.clear(outcome.append)
    assert outcome == [None]
    log.close()


def test_a_child_that_is_killed_is_replaced(tmp_path: Path):
    path, forks = tmp_path / "log", Forks()
    poller = Poller()
    log = writer(path, "local", forks, limit=1 << 24)
    log.attend(poller, lambda: None)
    log.write(1, b"one\n", T0)
    os.kill(forks[0], 9)
    reap(log, forks)
    log.write(1, b"two\n", T0)
    while not forks:
        poller.turn()
    log.close()
    assert fetch(path, "local", tty=True).endswith(b"two\n")
