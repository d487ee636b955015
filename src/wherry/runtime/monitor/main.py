"""The life of a monitor process, from the spawner's fork to its exit."""

import os
import signal
import sys
import traceback
from _socket import socket
from typing import NoReturn

from wherry.linux import fdpass, prctl
from wherry.runtime.failure import StartError
from wherry.runtime.monitor import protocol
from wherry.runtime.monitor.supervisor import Supervisor

_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(record: bytes, fds: list[int]) -> NoReturn:
    """Be the monitor of the container that `record` asks for; `fds` are the control connection and the clients'
    sockets. Called in a forked process; never returns."""
    code = 1
    try:
        _become_monitor()
        code = _run(record, fds)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _become_monitor() -> None:
    os.setsid()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    prctl.set_name(b"wherry-monitor")
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-999")
    except OSError:
        pass  # needs CAP_SYS_RESOURCE; the container is the likelier victim anyway


def _run(record: bytes, fds: list[int]) -> int:
    connection = socket(fileno=fds.pop(0))
    try:
        head = protocol.decode(record, fds)
        supervisor = Supervisor(head)
        answer = supervisor.create(head, fds)
    except BaseException as error:
        if not isinstance(error, StartError | OSError):
            traceback.print_exc(file=sys.stderr)
        fdpass.close_all(fds)
        _refuse(connection, error)
        return 1
    fdpass.close_all(fds)
    del head
    try:
        protocol.send(connection, protocol.encode({"re": 0, "ok": answer}))
    except OSError:
        connection.close()  # the daemon is gone; its successor will find us
    else:
        supervisor.adopt(connection)
    supervisor.run()
    return 0


def _refuse(connection: socket, error: BaseException) -> None:
    kind = error.kind if isinstance(error, StartError) else "Internal"
    message = error.message if isinstance(error, StartError) else f"{error}"
    try:
        protocol.send(connection, protocol.encode({"re": 0, "error": {"kind": kind, "message": message}}))
    except OSError:
        pass
