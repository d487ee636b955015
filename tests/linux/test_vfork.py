"""A child in our memory: it executes, fails and gives up as told, and leaves the interpreter sound."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wherry.linux import vfork
from wherry.linux.vfork import Program

pytestmark = pytest.mark.skipif(not vfork.available, reason="this interpreter or libc cannot")


def told(path: bytes, number: int) -> None:
    os.write(2, b"%s: errno %d" % (path, number))


def status(prepare: Callable[[], Program | None]) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(vfork.spawn(prepare, told), 0)[1])


def test_executes_with_arguments_and_environment(tmp_path: Path) -> None:
    script = b'test "$0 $1 $A" = "name word value" && pwd > out && exit 7'
    here, mask = os.getcwd(), os.umask(0o022)

    def prepare() -> Program:
        os.chdir(tmp_path)
        os.umask(0)
        return Program(b"/bin/sh", [b"sh", b"-c", script, b"name", b"word"], {b"A": b"value"})

    assert status(prepare) == 7
    assert (tmp_path / "out").read_text() == f"{tmp_path}\n"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o666
    assert os.getcwd() == here
    assert os.umask(mask) == 0o022


def test_what_it_computes_is_ours_too() -> None:
    seen: list[int] = []

    def prepare() -> Program:
        seen.append(os.getpid())
        return Program(b"/bin/true", [b"true"], {})

    pid = vfork.spawn(prepare, told)
    assert seen == [pid]
    assert os.waitpid(pid, 0)[1] == 0


def test_a_program_that_cannot_be_executed(capfd: pytest.CaptureFixture[str]) -> None:
    assert status(lambda: Program(b"/nowhere", [b"x"], {})) == vfork.EXEC_FAILED
    assert capfd.readouterr().err == "/nowhere: errno 2"


def test_giving_up() -> None:
    assert status(lambda: None) == 1


def test_the_interpreter_is_as_before() -> None:
    """Deep calls, exceptions and generators on the child's stack must not show in the frames of the parent."""

    class Base:
        def depth(self, n: int) -> int:
            return 0 if n == 0 else 1 + self.depth(n - 1)

    class Derived(Base):
        def depth(self, n: int) -> int:
            return super().depth(n)

    def prepare() -> Program | None:
        try:
            raise ValueError(Derived().depth(150))
        except ValueError as error:
            number = sum(i for i in range(10) if error.args[0] == 150)
        return Program(b"/bin/true", [b"true"], {}) if number == 45 else None

    for _ in range(300):
        assert status(prepare) == 0
        assert Derived().depth(150) == 150
        assert sys._getframe().f_code.co_name == "test_the_interpreter_is_as_before"
        assert sys.exc_info() == (None, None, None)
    gc.collect()


def test_signals_and_descriptors_are_its_own() -> None:
    caught: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
    read, write = os.pipe()
    try:

        def prepare() -> Program:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.close(read)
            os.dup2(write, 1)
            return Program(b"/bin/grep", [b"grep", b"-E", b"^Sig(Blk|Ign)", b"/proc/self/status"], {})

        assert status(prepare) == 0
        blocked, ignored = os.read(read, 100).splitlines()
        assert blocked == b"SigBlk:\t0000000000000000"
        assert int(ignored.split()[1], 16) & 1 << signal.SIGUSR1 - 1
        os.kill(os.getpid(), signal.SIGUSR1)
        assert caught == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(read)
        os.close(write)
