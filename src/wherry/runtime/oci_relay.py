"""In the foreground: pass signals and a terminal on to a process of a container, until it ends."""

import errno
import os
import select
import signal
import termios
from typing import Any

from wherry.linux import tty
from wherry.linux.pidfd import pidfd_send_signal
from wherry.runtime.lifecycle import Process

_PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGTSTP,
)
_CHUNK = 65536


def block_signals() -> None:
    """Keep what comes for the process until there is one: called before it is made."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_PASSED_ON, signal.SIGWINCH))


def accompany(process: Process) -> int:
    """Relay until the process ends; its exit code, 128 + N after signal N. The signals must be blocked."""
    saved = _raw_terminal() if process.console >= 0 else None
    try:
        _relay(process)
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
    _, status = os.waitpid(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _raw_terminal() -> list[Any] | None:
    """Our own terminal set to pass every key on; what to restore."""
    if not os.isatty(0):
        return None
    saved = termios.tcgetattr(0)
    raw = termios.tcgetattr(0)
    raw[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    raw[1] &= ~termios.OPOST
    raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    termios.tcsetattr(0, termios.TCSAFLUSH, raw)
    return saved


def _resize(console: int) -> None:
    try:
        tty.set_size(console, *tty.get_size(0))
    except OSError:
        pass  # our input is no terminal


def _relay(process: Process) -> None:
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_end)
    watched = (*_PASSED_ON, signal.SIGWINCH)
    for number in watched:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)
    poller = select.poll()
    poller.register(process.pidfd, select.POLLIN)
    poller.register(read_end, select.POLLIN)
    if process.console >= 0:
        _resize(process.console)
        poller.register(process.console, select.POLLIN)
        poller.register(0, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        if read_end in ready:
            _pass_signals(os.read(read_end, 256), process)
        if process.console in ready and not _copy(process.console, 1):
            poller.unregister(process.console)
        if process.console >= 0 and 0 in ready and not _copy(0, process.console):
            poller.unregister(0)
        if process.pidfd in ready and process.console not in ready:
            return


def _pass_signals(numbers: bytes, process: Process) -> None:
    for number in numbers:
        if number == signal.SIGWINCH:
            if process.console >= 0:
                _resize(process.console)
            continue
        try:
            pidfd_send_signal(process.pidfd, number)
        except ProcessLookupError:
            pass


def _copy(source: int, destination: int) -> bool:
    """Copy what is there; False at the end."""
    try:
        data = os.read(source, _CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal nobody holds any more
            return False
        raise
    view = memoryview(data)
    while view:
        view = view[os.write(destination, view) :]
    return bool(data)
