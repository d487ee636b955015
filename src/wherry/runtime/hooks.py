"""Hooks of the OCI configuration: programs of the host's administrator that are told the container's state.

A hook gets the state as JSON on its standard input. One that fails, or outlives its timeout and is killed, fails the
operation it belongs to, except poststart and poststop, which only warn.
"""

import json
import os
import select
import signal
import time
from typing import Any, NamedTuple

from wherry.linux import prctl
from wherry.linux.pidfd import pidfd_open
from wherry.runtime.failure import StartError, words

_OUTPUT_LIMIT = 4096


class State(NamedTuple):
    """What a hook is told: the state of the specification (runtime.md, "State")."""

    container_id: str
    status: str
    pid: int
    bundle: str
    annotations: dict[str, str]

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(
            {
                "ociVersion": "1.2.0",
                "id": self.container_id,
                "status": self.status,
                "pid": self.pid,
                "bundle": self.bundle,
                "annotations": self.annotations,
            }
        ).encode()


def run_all(entries: list[dict[str, Any]], kind: str, state: State) -> None:
    """Run the hooks of one kind in order. Raises StartError with what the first that failed wrote to its stderr."""
    data = state.encode()
    for number, entry in enumerate(entries):
        try:
            _run(entry, data)
        except OSError as error:
            raise StartError("Internal", f"error running {kind} hook #{number}: {words(error)}") from None
        except StartError as error:
            raise StartError("Internal", f"error running {kind} hook #{number}: {error.message}") from None


def _run(entry: dict[str, Any], data: bytes) -> None:
    path = entry["path"]
    stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
    stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(path, entry, stdin_read, stderr_write)
    os.close(stdin_read)
    os.close(stderr_write)
    try:
        output = _converse(pid, stdin_write, stderr_read, data, entry.get("timeout"))
    finally:
        os.close(stderr_read)
        _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        what = f"exit status {code}" if code > 0 else f"signal: {signal.strsignal(-code)}"
        raise StartError("Internal", f"{what}, stderr: {output.decode('utf-8', 'replace').strip()}")


def _become(path: str, entry: dict[str, Any], stdin: int, stderr: int) -> None:
    """In the child: never returns."""
    try:
        os.dup2(stdin, 0)
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        prctl.close_all_but(())
        env = dict(variable.split("=", 1) for variable in entry.get("env") or [])
        os.execve(path, entry.get("args") or [path], env)
    except OSError as error:
        os.write(2, f"exec {path}: {words(error)}".encode())
    finally:
        os._exit(127)


def _converse(pid: int, stdin: int, stderr: int, data: bytes, timeout_s: int | None) -> bytes:
    """Feed the hook, read what it says, until it ends; kill it when its time is up."""
    deadline = time.monotonic() + timeout_s if timeout_s else None
    pidfd = pidfd_open(pid)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(stderr, select.POLLIN)
    poller.register(stdin, select.POLLOUT)
    os.set_blocking(stdin, False)
    output = b""
    try:
        while True:
            left_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            events = dict(poller.poll(left_ms))
            if not events:
                os.kill(pid, signal.SIGKILL)
                raise StartError("Internal", f"the hook did not end within {timeout_s} s")
            if stdin >= 0 and stdin in events:
                data = _feed(stdin, data)
                if not data:
                    poller.unregister(stdin)
                    os.close(stdin)
                    stdin = -1
            if stderr in events:
                chunk = os.read(stderr, _OUTPUT_LIMIT)
                output = (output + chunk)[-_OUTPUT_LIMIT:]
                if not chunk:
                    poller.unregister(stderr)
            elif pidfd in events:
                return output
    finally:
        os.close(pidfd)
        if stdin >= 0:
            os.close(stdin)


def _feed(stdin: int, data: bytes) -> bytes:
    try:
        return data[os.write(stdin, data) :]
    except BrokenPipeError:
        return b""
