"""A tree of processes is ended whole, with few descriptors, and nobody else is."""

import os
import resource
import signal
import time

from wherry.engine.proctree import kill_tree
from wherry.linux.subreaper import become_subreaper

COUNT = 60


def tree(ready: int) -> int:
    """A subreaper with `COUNT` children, each with a child that leaves its session; every one writes its pid."""
    pid = os.fork()
    if pid:
        return pid
    become_subreaper()
    for _ in range(COUNT):
        if not os.fork():
            if not os.fork():
                os.setsid()
            os.write(ready, b"%8d" % os.getpid())
            time.sleep(1000)
    os.write(ready, b"%8d" % os.getpid())
    time.sleep(1000)
    os._exit(0)


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] not in b"ZX"
    except OSError:
        return False


def test_all_of_it_with_few_descriptors() -> None:
    reading, writing = os.pipe()
    root = tree(writing)
    os.close(writing)
    try:
        with open(reading, "rb") as file:
            pids = [int(file.read(8)) for _ in range(2 * COUNT + 1)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limits[1]))
        try:
            kill_tree(root, os.getpid())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert os.waitpid(root, 0)[1] == signal.SIGKILL
        assert [pid for pid in pids if lives(pid)] == []
    finally:
        for pid in pids:
            if lives(pid):
                os.kill(pid, signal.SIGKILL)


def test_not_another_ones_child() -> None:
    reading, writing = os.pipe()
    root = os.fork()
    if not root:
        os.close(writing)
        os.read(reading, 1)
        os._exit(5)
    os.close(reading)
    kill_tree(root, os.getppid())
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(root, 0)[1]) == 5
