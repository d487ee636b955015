"""Processes born late, finished, into a PID namespace where others may stop and trace them: what execs and the inits of
containers that join a PID namespace have in common."""

import os
import select
import signal
import time
from typing import Any, NamedTuple

from wherry.linux import caps
from wherry.linux.fdpass import close_all
from wherry.linux.pidfd import pidfd_open, pidfd_send_signal
from wherry.runtime import init
from wherry.runtime.failure import StartError
from wherry.runtime.process import ProcessPlan
from wherry.runtime.wire import Wire

PATIENCE_S = 20.0
"""How long a process may take to get to its program."""
NUDGE_S = 0.05
"""How often to look after one that does not."""

_PF_EXITING = 4  # include/linux/sched.h
_HOOK_PATIENCE_S = 120.0  # for a hook without a timeout
_SYS_ADMIN, _SYS_NICE, _SYS_PTRACE = (caps.mask((f"CAP_SYS_{name}",)) for name in ("ADMIN", "NICE", "PTRACE"))


# ---------------------------------------------------------------- the parent


def too_late() -> str:
    """What to say of a process that did not get there in time."""
    return f"the process did not get to run within {PATIENCE_S:.0f} s"


def send(pidfd: int, number: int) -> None:
    """Signal it; one that is gone is no error."""
    try:
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def nudge(pidfd: int) -> None:
    """Let it go on when another has stopped it: SIGSTOP cannot be blocked."""
    send(pidfd, signal.SIGCONT)


def own_child(pid: int, parents: tuple[int, ...]) -> int:
    """A pidfd of `pid`, which must be a child of one of `parents`: it may have ended, and its number be another's.
    Raises StartError."""
    pidfd = -1
    try:
        pidfd = pidfd_open(pid)
        if parent_of(pid) in parents:
            return pidfd
    except (OSError, IndexError):
        pass
    if pidfd >= 0:
        os.close(pidfd)
    raise StartError("Internal", "the process ended before it was started")


def parent_of(pid: int) -> int:
    """The parent's pid."""
    return int(_stat(pid)[1])


def is_ending(pid: int) -> bool:
    """Whether a process, reaped or not, has ended or is about to: it gives its namespaces up before it is a zombie."""
    try:
        return bool(int(_stat(pid)[6]) & _PF_EXITING)
    except (OSError, IndexError):
        return True


def _stat(pid: int) -> list[bytes]:
    """The fields from the state on, proc_pid_stat(5)."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).rpartition(b") ")[2].split()
    finally:
        os.close(fd)


def await_program(link: Wire, pidfd: int, patience_s: float) -> None:
    """Wait until the program of an init that was told to start runs. Others may have stopped it, or speak in its name:
    it is let go on, and killed when it is not there within `patience_s`. Raises StartError."""
    deadline = time.monotonic() + patience_s
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    while not poll.poll(NUDGE_S * 1000):
        if time.monotonic() > deadline:
            send(pidfd, signal.SIGKILL)
            raise StartError("Internal", too_late())
        nudge(pidfd)
    try:
        kind, _, fds = link.receive()
    except OSError:  # reset: it did not read what we sent
        raise StartError("Internal", "the process ended before it ran") from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise StartError("Internal", f"the process told nonsense: {type(error).__name__}") from None
    close_all(fds)
    if kind:
        raise StartError("Internal", "the process told nonsense after it was ready")


def patience(config: dict[str, Any]) -> float:
    """How many seconds a container of `config` may take to get to its program: hooks may take theirs besides."""
    entries = [entry for kind in (config.get("hooks") or {}).values() for entry in kind or ()]
    return PATIENCE_S + sum(entry.get("timeout") or _HOOK_PATIENCE_S for entry in entries)


# ---------------------------------------------------------------- the process


class Own(NamedTuple):
    """What the program's process does itself, and the capabilities it has for that until it is done."""

    filter: init.Filter | None
    schedule: bool
    capabilities: int


def own_steps(plan: ProcessPlan, load: init.Filter | None, theirs: int) -> Own:
    """What cannot be done before the program's process is born: loading a filter under which it could not be, or one
    that comes last; setting a scheduler that children do not inherit. `theirs` are the capabilities that others in the
    PID namespace may have. Raises StartError when the process would have to have capabilities that these can get at."""
    late = load is not None and (plan.no_new_privileges or plan.scheduled_alone or not load.allows_birth())
    keep = _SYS_ADMIN if late and not plan.no_new_privileges else 0
    keep |= _SYS_NICE if plan.scheduled_alone else 0
    if theirs & _SYS_PTRACE and keep & ~theirs:
        raise StartError(
            "InvalidArgument",
            "the seccomp profile forbids clone, or the scheduler is not inherited: the process would have to begin "
            "with privileges that a container with CAP_SYS_PTRACE can get at",
        )
    return Own(load if late else None, plan.scheduled_alone, keep)


def worst_neighbour(plan: ProcessPlan) -> int:
    """The capabilities of one who may trace what it sees and can have no more than `plan` gives anyway."""
    return plan.capabilities.permitted | _SYS_PTRACE


def do_own_steps(plan: ProcessPlan, own: Own) -> None:
    """Do them. Raises StartError."""
    if own.schedule:
        init.schedule(plan)
    if own.filter is not None:
        init.install(own.filter)
    if own.capabilities:
        init.give_up(plan)
