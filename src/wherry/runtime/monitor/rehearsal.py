"""Running the ways of monitors, helpers and inits once before they are taken.

The interpreter writes into code when it has run a few times (PEP 659), and fills its caches of attributes: done in the
spawner, before the first fork, these pages stay shared by all, and the code is the faster one from the start. It
rehearses with a container that is only descriptors, and with a plan that nobody executes.

A helper that waits for its container rehearses once more (`warm`): each page it writes is copied when it does so first,
and that takes as long as the work itself.
"""

import os
import signal
from _socket import AF_UNIX, SOCK_NONBLOCK, SOCK_SEQPACKET, socket

from wherry.linux import fdpass, vfork
from wherry.linux.pidfd import pidfd_open
from wherry.runtime import init, lifecycle, spec, wire
from wherry.runtime.cgroups import open_cgroup
from wherry.runtime.logs.drivers import open_writer
from wherry.runtime.monitor import protocol
from wherry.runtime.monitor.stdio import open_pipes
from wherry.runtime.monitor.supervisor import Supervisor
from wherry.runtime.oci_templates import example

_TIMES = 12  # a function is adapted after eight calls
_OUTPUT = b"a line\nanother\n"


def rehearse() -> None:
    """Set a supervisor up, let it relay output and answer a request, and drop it. Touches no file, starts nothing."""
    for _ in range(_TIMES):
        daemon, connection = fdpass.pair()
        listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK)
        out_read, out_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        err_read, err_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        pidfd = pidfd_open(os.getpid())
        fds = [connection.detach(), listener.detach(), pidfd, out_read, err_read]
        supervisor = Supervisor(protocol.decode(b"I" + protocol.encode(_state()), []), fds, None)
        os.write(out_write, _OUTPUT)
        os.write(err_write, _OUTPUT)
        supervisor.turn()
        protocol.send(daemon, protocol.encode({"op": "status", "seq": 1}))
        supervisor.turn()
        supervisor.close()
        for fd in (out_write, err_write):
            os.close(fd)
        daemon.close()
    signal.set_wakeup_fd(-1)
    _rehearse_log()
    for _ in range(_TIMES):
        warm()


def warm() -> None:
    """Read an order, plan its container and talk to nobody, as a helper and an init do; executes nothing."""
    message = protocol.decode(b"I" + protocol.encode({"config": example(rootless=False), "head": _state()}), [])
    config = message["config"]
    host = lifecycle.host_facts()
    spec.plan(config, "/", host)
    lifecycle.filter_loader(config, b"")
    spec.time_offsets(config["linux"], spec.namespaces_of(config["linux"], host))
    open_writer({"driver": "none"}).close()
    pipes = open_pipes(tty=False, stdin=False)
    pipes.close_child()
    pipes.close_ours()
    open_cgroup("/wherry/rehearsal").exists()
    _rehearse_birth()
    ours, theirs = wire.pair()
    theirs.send(wire.READY, [])
    ours.receive()
    ours.close()
    theirs.close()


def _rehearse_birth() -> None:
    if vfork.available:
        pid = vfork.spawn(lambda: None, init.tell_failure)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # the spawner's handler of SIGCHLD was quicker


def _state() -> dict[str, object]:
    """As `birth.create` hands it over."""
    head: dict[str, object] = {
        "id": "0" * 64,
        "bundle": "/",
        "cgroup": None,
        "shared_pids": False,
        "oom_score": 0,
        "seccomp_flags": None,
        "stdio": {"tty": False, "open_stdin": False, "stdin_once": False},
        "log": {"driver": "none"},
        "socket": "/",
        "exit_record": "/",
        "start": True,
        "attachments": [],
        "filter": False,
    }
    kept = [True, True, True, False, False, True, True, False, False, False]
    return {"head": head, "kept": kept, "pid": os.getpid(), "started_at": 1}


def _rehearse_log() -> None:
    for driver in ("json-file", "local"):
        for _ in range(_TIMES):
            log = open_writer({"driver": driver, "path": os.devnull, "max_size": 1 << 20, "max_file": 5})
            log.write(1, _OUTPUT, 1)
            log.close()
