"""A further process in a running container.

    parent                        setup: the host's PID namespace            program: the container's
    fork ───────────────────────▶ gives up every descriptor of the parent's
                                  enters the cgroup, joins the namespaces
                                  terminal, user, capabilities, seccomp
    ◀── pid, terminal, warnings ─ fork, exit ──────────────────────────────▶ waits
    start ─────────────────────────────────────────────────────────────────▶ session, execve
    ◀── end of file

Setting up is done where the container sees no process: one that may trace (CAP_SYS_PTRACE) could make whoever joins it
do anything that one may do, and being undumpable is no protection from a tracer that has the capability in the
namespace the memory belongs to (ptrace(2), PTRACE_MODE_ATTACH). What is born into its PID namespace is a process like
its own: the same user, capabilities, seccomp filter, namespaces and cgroup; of descriptors its own streams and the
connection on which it says no more than why it failed (CVE-2016-9962, CVE-2024-21626).

All of init's namespaces are joined in one setns(2) on its pidfd. Joining the mount namespace makes the container's root
ours, whatever lies at that path.
"""

import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from wherry import failpoint
from wherry.linux import namespaces as ns
from wherry.linux import prctl, tty, vfork
from wherry.linux.openat import O_PATH
from wherry.linux.pidfd import pidfd_open, pidfd_send_signal
from wherry.linux.subreaper import become_subreaper
from wherry.runtime import console, init, late, wire
from wherry.runtime import process as processes
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.child import be_child
from wherry.runtime.failure import StartError, words
from wherry.runtime.lifecycle import Process, filter_loader
from wherry.runtime.setup import Stdio, adjust_oom_score, enter_cgroup

_DOING = "joining the container"
_JOINABLE = tuple((flag, name) for flag, name in ns.TYPES.values())


class Joiner:
    """A process on its way into a container, as its parent sees it. `warnings` and `process` are known once it is
    inside."""

    def __init__(self, join: Callable[[wire.Wire], None], taken: Callable[[int], bool] = lambda _: False) -> None:
        """Fork the process that sets up with `join`. The caller has one thread, is a subreaper, and reaps; its children
        whose pid is `taken` are not the one to come."""
        ours, theirs = wire.pair()
        self._helper = os.fork()
        if not self._helper:
            ours.close()
            be_child(theirs, lambda: join(theirs), _DOING)
        theirs.close()
        self._link = ours
        self._taken = taken
        self._helper_pidfd = pidfd_open(self._helper)
        self.process: Process | None = None
        self.warnings: list[str] = []

    def fileno(self) -> int:
        """Becomes readable when there is something to `look` at."""
        return self._link.fileno()

    def look(self) -> bool:
        """Take in what it tells; True when its program runs. Raises StartError when it never will."""
        maker = self._helper if self.process is None else None  # what it makes has the same connection
        try:
            kind, body, fds = self._link.receive(wait=False, of=maker)
        except BlockingIOError:
            return False
        except OSError:  # reset: it did not read what we sent
            raise StartError("Internal", "the process ended before it ran") from None
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise StartError("Internal", f"the process told nonsense: {type(error).__name__}") from None
        if self.process is not None:
            _close_all(fds)
            if kind:
                raise StartError("Internal", "the process told nonsense after it was ready")
            return True
        if kind != wire.FORKED:
            raise StartError("Internal", "the process ended before it was ready")
        pid, self.warnings = int(body["pid"]), body["warnings"]
        try:
            if self._taken(pid):
                raise StartError("Internal", f"the process told of another's pid, {pid}")
            pidfd = late.own_child(pid, (self._helper, os.getpid()))
        except StartError:
            _close_all(fds)
            raise
        self.process = Process(pid, pidfd, fds[0] if fds else -1)
        try:
            self._link.send(wire.START)
        except OSError:
            raise StartError("Internal", "the process ended before it was started") from None
        return False

    def nudge(self) -> None:
        """Let it go on when the container has stopped it."""
        if self.process is not None:
            late.nudge(self.process.pidfd)

    def reap(self) -> None:
        """Wait for the process that set up."""
        os.waitpid(self._helper, 0)

    def close(self) -> None:
        """Drop the connection; the process goes on."""
        self._link.close()
        os.close(self._helper_pidfd)

    def end(self) -> None:
        """Kill all of it, and close everything."""
        late.send(self._helper_pidfd, signal.SIGKILL)
        self.close()
        if self.process is not None:
            late.send(self.process.pidfd, signal.SIGKILL)
            os.close(self.process.pidfd)
            if self.process.console >= 0:
                os.close(self.process.console)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def exec_process(
    init_pid: int,
    config: dict[str, Any],
    process: dict[str, Any],
    *,
    stdio: Stdio,
    seccomp_filter: bytes | None,
    cgroup: Cgroup | None,
    warn: Callable[[str], None],
    container_id: str | None = None,
    preserve_fds: int = 0,
) -> Process:
    """Run the OCI `process` in the container whose init is `init_pid` and whose configuration is `config`.

    Returns when its program runs; it is a child of the caller, who must have one thread and becomes a subreaper.
    `container_id` names the session keyring to share. Raises StartError, with runc's words for a program that is not
    there or not executable.
    """
    load = filter_loader(config, seccomp_filter)
    try:
        pidfd = pidfd_open(init_pid)
    except OSError as error:
        raise StartError("Internal", f"the container is not running: {words(error)}") from None

    def join(link: wire.Wire) -> None:
        join_container(
            link,
            (init_pid, pidfd),
            process,
            stdio=stdio,
            load_filter=load,
            cgroup=cgroup,
            keyring=f"_ses.{container_id}" if container_id else "",
            preserve_fds=preserve_fds,
        )

    become_subreaper()
    try:
        joiner = Joiner(join)
    except OSError as error:
        raise StartError("Internal", f"error {_DOING}: {words(error)}") from None
    finally:
        os.close(pidfd)
    return _accompany(joiner, warn)


def _accompany(joiner: Joiner, warn: Callable[[str], None]) -> Process:
    poll = select.poll()
    poll.register(joiner.fileno(), select.POLLIN)
    deadline = time.monotonic() + late.PATIENCE_S
    try:
        while not (poll.poll(late.NUDGE_S * 1000) and joiner.look()):
            if time.monotonic() > deadline:
                raise StartError("Internal", late.too_late())
            joiner.nudge()
    except BaseException:
        joiner.end()
        joiner.reap()
        raise
    joiner.close()
    joiner.reap()
    assert joiner.process
    for warning in joiner.warnings:
        warn(warning)
    return joiner.process


# ---------------------------------------------------------------- the process that sets up


class _Inside(NamedTuple):
    """What the program's process needs of its maker."""

    plan: processes.ProcessPlan
    program: bytes
    own: late.Own
    master: int


def join_container(
    link: wire.Wire,
    target: tuple[int, int],
    process: dict[str, Any],
    *,
    stdio: Stdio,
    load_filter: init.Filter | None,
    cgroup: Cgroup | None,
    keyring: str,
    preserve_fds: int = 0,
) -> None:
    """In a child that does nothing else: enter the container of init `target`, (pid, pidfd), for good; have the program
    born there, tell the parent on `link`. Raises StartError, OSError."""
    warnings: list[str] = []
    flags = _different_namespaces(*target)
    plan = processes.plan(process, warnings, user_namespace=bool(flags & ns.CLONE_NEWUSER))
    preserved = range(3, 3 + preserve_fds)
    init.detach_from_parent(stdio, (link.fileno(), target[1], *preserved))
    own = late.own_steps(plan, load_filter, _bounding_of(target[0]))
    limits = init.raise_hard_limits(plan, warnings)
    enter_cgroup(cgroup)
    adjust_oom_score("self", plan.oom_score_adj, warnings.append)
    proc = os.open("/proc", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if plan.apparmor else -1
    failpoint.hit("runtime-before-join")
    _enter(target[1], flags)
    failpoint.hit("runtime-joined")
    if keyring:
        init.join_keyring(keyring, warnings)
    master = _prepare_streams(plan)
    user = init.resolve_user(plan, _root())
    if not own.schedule:
        init.schedule(plan)
    init.tune_inherited(plan)
    if plan.apparmor:
        init.write_apparmor(proc, plan.apparmor)  # of the host, where our pid is the one we know
    if plan.no_new_privileges:
        prctl.set_no_new_privs()
    prctl.close_all_but((link.fileno(), master, *preserved))
    if load_filter is not None and own.filter is None:
        init.install(load_filter)
    init.take_identity(plan, user, limits, keep=own.capabilities)
    prctl.set_dumpable(False)  # a change of identity sets it as fs.suid_dumpable says
    program = init.look_path(plan.args[0], plan.env.get(b"PATH"))
    _bear(link, _Inside(plan, program, own, master), warnings)


def _bounding_of(pid: int) -> int:
    """The bounding set of a process, proc_pid_status(5)."""
    fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 1 << 16).partition(b"\nCapBnd:")[2].split()[0], 16)
    finally:
        os.close(fd)


def _different_namespaces(pid: int, pidfd: int) -> int:
    """The CLONE_ flags of the namespaces in which the process and we differ. Joining one's own user namespace is an
    error, and what is shared need not be joined. Raises StartError when the process has ended."""
    flags = 0
    try:
        for flag, name in _JOINABLE:
            if not os.path.lexists(f"/proc/self/ns/{name}"):
                continue  # a kernel without this type
            if not os.path.samestat(os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/self/ns/{name}")):
                flags |= flag
        pidfd_send_signal(pidfd, 0)  # the number has meant this process all the time
    except (FileNotFoundError, ProcessLookupError):
        raise StartError("Conflict", "the container is not running") from None
    return flags


def _enter(pidfd: int, flags: int) -> None:
    if flags:
        ns.setns(pidfd, flags)
    os.close(pidfd)
    if flags & ns.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        prctl.set_dumpable(False)


def _root() -> int:
    return os.open("/", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _prepare_streams(plan: processes.ProcessPlan) -> int:
    """Put a terminal at 0, 1, 2, and return its master; -1 without one."""
    if not plan.terminal:
        init.reopen_null(_root())
        return -1
    master, peer = console.open_terminal(_root(), plan.terminal_size)
    for number in (0, 1, 2):
        os.dup2(peer, number, inheritable=True)
    return master


def _bear(link: wire.Wire, inside: _Inside, warnings: list[str]) -> None:
    """Fork the program's process, into the container's PID namespace, and tell."""
    try:
        pid = os.fork()
    except OSError as error:
        raise StartError("Internal", f"fork: {words(error)}") from None
    if not pid:
        be_child(link, lambda: _become(link, inside), _DOING)
    failpoint.hit("runtime-born")
    link.send(wire.FORKED, {"pid": pid, "warnings": warnings}, [inside.master] if inside.master >= 0 else [])


def _become(link: wire.Wire, inside: _Inside) -> NoReturn:
    failpoint.hit("runtime-inside")
    if inside.master >= 0:
        os.close(inside.master)
    os.setsid()
    if inside.plan.terminal:
        tty.set_controlling(0)
    if inside.plan.subreaper:
        become_subreaper()
    link.expect(wire.START)
    late.do_own_steps(inside.plan, inside.own)
    init.execute(vfork.Program(inside.program, list(inside.plan.args), inside.plan.env))
