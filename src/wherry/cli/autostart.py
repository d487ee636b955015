"""Starting the engine when a command finds none on the default socket."""

from __future__ import annotations

import os
import sys
import time

from wherry.cli.errors import StatusError
from wherry.client.endpoints import parse_host
from wherry.client.engine import Engine
from wherry.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.client.endpoints import Endpoint

COMMAND = ("-m", "wherry.daemon.main")
_PATIENCE = 10.0
_TAIL = 2000


def start_engine(endpoint: Endpoint, say: Callable[[str], None]) -> None:
    """Spawn wherryd in a session of its own and wait until it answers; raises StatusError with the end of its log."""
    if os.geteuid() != 0:
        raise StatusError(
            f"Cannot connect to the Wherry daemon at {endpoint.url}. Is the wherry daemon running?\n"
            "(starting it needs root: run wherryd, or name another engine with -H or DOCKER_HOST)"
        )
    log_path = _log_path()
    say(f"starting the engine: wherryd (log: {log_path})\n")
    deadline = time.monotonic() + _PATIENCE
    pid, offset = _spawn(log_path)
    while time.monotonic() < deadline:
        if _answers(endpoint):
            return
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended and not _answers(endpoint):
            code = os.waitstatus_to_exitcode(status)
            raise StatusError(f"the engine did not start: wherryd ended with status {code}\n{_tail(log_path, offset)}")
        time.sleep(0.01)
    raise StatusError(f"the engine does not answer after {_PATIENCE:.0f} s\n{_tail(log_path, offset)}")


def _log_path() -> str:
    return "/var/log/wherryd.log" if os.access("/var/log", os.W_OK) else "/run/wherryd.log"


def _spawn(log_path: str) -> tuple[int, int]:
    """Start wherryd; returns its pid and where in the log its own output begins."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        offset = os.fstat(log).st_size
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        command = [sys.executable, *COMMAND]
        pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsid=True)
    finally:
        os.close(log)
        os.close(null)
    return pid, offset


def _answers(endpoint: Endpoint) -> bool:
    if not os.path.exists(parse_host(endpoint.url)[1]):
        return False
    engine = Engine(endpoint)
    try:
        engine.ping()
    except ClientError:
        return False
    finally:
        engine.close()
    return True


def _tail(path: str, offset: int) -> str:
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset, end - _TAIL))
            return file.read().decode("utf-8", "replace").rstrip("\n")
    except OSError as error:
        return f"({path}: {error.strerror})"
