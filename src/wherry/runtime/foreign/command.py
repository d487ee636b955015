"""Calling the runtime's executable, and what it says when it fails."""

import json
import os
import select
import signal
from collections.abc import Sequence
from typing import Any

from wherry.linux.pidfd import pidfd_open
from wherry.runtime import late
from wherry.runtime.failure import StartError, words

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LARGEST_LOG = 1 << 20
_PATIENCE_S = late.PATIENCE_S - 2  # an exec's parent kills its helper, which can tell more, when its own is at an end


class Command:
    """The runtime's executable with its global arguments, called in the working directory `bundle`. The paths it is
    given are relative to that: an address of a socket holds 108 bytes only."""

    def __init__(self, words_: Sequence[str], bundle: str) -> None:
        self._words = list(words_)
        self._bundle = bundle

    def run(self, what: str, arguments: Sequence[str], stdio: tuple[int, int, int] | None = None) -> None:
        """Call it with descriptors `stdio`, or nothing, as 0, 1, 2 and wait; one that hangs is killed. Raises
        StartError "OCI runtime `what` failed: …", with the last error in its log (containerd's shim does the same)."""
        log = f"log-{os.getpid()}.json"
        try:
            try:
                code = _wait(self._spawn(log, arguments, stdio), _PATIENCE_S)
            except TimeoutError:
                reason = f"{os.path.basename(self._words[0])} did not end within {_PATIENCE_S:.0f} s"
                raise self._failure(what, reason) from None
            except OSError as error:
                reason = f"fork/exec {self._words[0]}: {words(error)}"
                raise self._failure(what, self._unexplained(log, reason)) from None
            if code:
                name = os.path.basename(self._words[0])
                reason = f"{name} did not terminate successfully: {_outcome(code)}"
                raise self._failure(what, _last_error(log) or self._unexplained(log, reason))
        finally:
            _unlink(log)

    def attempt(self, arguments: Sequence[str], patience_s: float) -> None:
        """Call it, whatever comes of that; it is killed when it takes longer than `patience_s`."""
        log = f"log-{os.getpid()}.json"
        try:
            _wait(self._spawn(log, arguments, None), patience_s)
        except OSError:
            pass
        finally:
            _unlink(log)

    def _spawn(self, log: str, arguments: Sequence[str], stdio: tuple[int, int, int] | None) -> int:
        os.chdir(self._bundle)
        root = os.path.join(self._bundle, "state")
        given = ["--root", root, "--log", os.path.join(self._bundle, log), "--log-format", "json", *arguments]
        return os.posix_spawn(
            self._words[0],
            [*self._words, *given],
            {"PATH": _PATH},
            file_actions=_onto_standard(stdio),
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them
        )

    @staticmethod
    def _failure(what: str, reason: str) -> StartError:
        return StartError("Internal", f"OCI runtime {what} failed: {reason}")

    def _unexplained(self, log: str, reason: str) -> str:
        path = os.path.join(self._bundle, log)
        missing = "" if os.path.exists(log) else f" (open {path}: no such file or directory)"
        return f"unable to retrieve OCI runtime error{missing}: {reason}"


def _onto_standard(stdio: tuple[int, int, int] | None) -> list[tuple[Any, ...]]:
    """posix_spawn(3)'s actions that make `stdio`, or /dev/null, 0, 1 and 2."""
    if stdio is None:
        return [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    return [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]


def _wait(pid: int, patience_s: float) -> int:
    """The exit code of our child `pid`, minus the signal that ended it. Raises TimeoutError when it had to be killed
    after `patience_s`."""
    pidfd = pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        in_time = poll.poll(patience_s * 1000)
        if not in_time:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not in_time:
        raise TimeoutError
    return code


def _outcome(code: int) -> str:
    return f"signal: {signal.strsignal(-code)}".lower() if code < 0 else f"exit status {code}"


def _last_error(path: str) -> str:
    """The message of the last error in a log of JSON objects, "" without one."""
    found = ""
    try:
        with open(path, "rb") as file:
            lines = file.read(_LARGEST_LOG).splitlines()
    except OSError:
        return found
    for line in lines:
        entry = _object(line)
        if entry.get("level") in ("error", "fatal"):
            found = str(entry.get("msg") or "").strip()
    return found


def _object(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
