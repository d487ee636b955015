"""A further process in a running container.

The child joins all of init's namespaces in one setns(2) on its pidfd. Before that it has given up every descriptor of
the parent's, cannot be traced or looked into (CVE-2016-9962, CVE-2024-21626), and has entered the container's cgroup.
Joining the mount namespace makes the container's root ours, whatever lies at that path.
"""

import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from wherry import failpoint
from wherry.linux import namespaces as ns
from wherry.linux import prctl
from wherry.linux.openat import O_PATH
from wherry.linux.pidfd import pidfd_open
from wherry.runtime import console, init, operations, wire
from wherry.runtime import process as processes
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.failure import StartError, words
from wherry.runtime.lifecycle import BirthNamespaces, Process, Stdio, adjust_oom_score, enter_cgroup, filter_loader

_JOINABLE = tuple((flag, name) for flag, name in ns.TYPES.values())
_PATIENCE_S = 20.0
_NUDGE_MS = 20


class _Child(NamedTuple):
    plan: processes.ProcessPlan
    stdio: Stdio
    link: wire.Wire
    pidfd: int
    flags: int
    warnings: list[str]
    load_filter: init.LoadFilter | None
    keyring: str
    cgroup: Cgroup | None
    preserve_fds: int


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

    Returns when its program runs; it is a child of the caller, who must have one thread. `container_id` names the
    session keyring to share. Raises StartError, with runc's words for a program that is not there or not executable.
    """
    warnings: list[str] = []
    load = filter_loader(config, seccomp_filter)
    try:
        pidfd = pidfd_open(init_pid)
    except OSError as error:
        raise StartError("Internal", f"the container is not running: {words(error)}") from None
    ours, theirs = wire.pair()
    try:
        flags = _different_namespaces(init_pid)
        plan = processes.plan(process, warnings, user_namespace=bool(flags & ns.CLONE_NEWUSER))
        keyring = f"_ses.{container_id}" if container_id else ""
        child = _Child(plan, stdio, theirs, pidfd, flags, warnings, load, keyring, cgroup, preserve_fds)
        with BirthNamespaces(flags & ns.CLONE_NEWPID):
            if flags & ns.CLONE_NEWPID:
                ns.setns(pidfd, ns.CLONE_NEWPID)
            pid = os.fork()
        if pid == 0:
            _child_main(child)
    except BaseException as error:
        ours.close()
        if isinstance(error, OSError):
            raise StartError("Internal", f"error joining the container: {words(error)}") from None
        raise
    finally:
        theirs.close()
        os.close(pidfd)
    return _accompany(pid, ours, warn)


def _different_namespaces(pid: int) -> int:
    """The CLONE_ flags of the namespaces in which the process and we differ. Joining one's own user namespace is an
    error, and what is shared need not be joined."""
    flags = 0
    for flag, name in _JOINABLE:
        try:
            theirs, ours = os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            continue  # a kernel without this type
        if not os.path.samestat(theirs, ours):
            flags |= flag
    return flags


def _accompany(pid: int, link: wire.Wire, warn: Callable[[str], None]) -> Process:
    deadline = time.monotonic() + _PATIENCE_S
    try:
        kind, body, fds = _receive(pid, link, deadline)
        if kind != wire.READY:
            raise StartError("Internal", "the process ended before it was ready")
        for warning in body or ():
            warn(warning)
        link.send(wire.START)
        _receive(pid, link, deadline)
        return Process(pid, pidfd_open(pid), fds[0] if fds else -1)
    except BaseException as error:
        reason = link.failure()
        _undo(pid)
        if reason is not None:
            raise reason from None
        if isinstance(error, OSError):
            raise StartError("Internal", f"error starting the process: {words(error)}") from error
        raise
    finally:
        link.close()


def _receive(pid: int, link: wire.Wire, deadline: float) -> tuple[bytes, Any, list[int]]:
    """The next message of the child. The container's processes see it and may stop it (SIGSTOP cannot be blocked);
    whoever waits for us must not depend on them: it is sent on again, until its time is up."""
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    while not poll.poll(_NUDGE_MS):
        if time.monotonic() > deadline:
            raise StartError("Internal", f"the process did not get to run within {_PATIENCE_S:.0f} s")
        os.kill(pid, signal.SIGCONT)
    return link.receive()


def _undo(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _child_main(child: _Child) -> NoReturn:
    try:
        _join_and_execute(child)
    except StartError as error:
        child.link.fail(error)
    except OSError as error:
        child.link.fail(StartError("Internal", f"error joining the container: {error.filename}: {words(error)}"))
    except BaseException as error:
        child.link.fail(StartError("Internal", f"defect while joining: {type(error).__name__}: {error}"))
    finally:
        os._exit(1)


def _join_and_execute(child: _Child) -> NoReturn:
    plan, link = child.plan, child.link
    preserved = range(3, 3 + child.preserve_fds)
    init.detach_from_parent(child.stdio, (link.fileno(), child.pidfd, *preserved))
    limits = init.raise_hard_limits(plan, child.warnings)
    enter_cgroup(child.cgroup)
    adjust_oom_score("self", plan.oom_score_adj, child.warnings.append)
    failpoint.hit("runtime-before-join")
    if child.flags:
        ns.setns(child.pidfd, child.flags)
    os.close(child.pidfd)
    if child.flags & ns.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        prctl.set_dumpable(False)
    failpoint.hit("runtime-joined")
    if child.keyring:
        init.join_keyring(child.keyring, child.warnings)
    root = os.open("/", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    context = operations.Context()
    context.root = root
    master = -1
    if plan.terminal:
        master, peer = console.open_terminal(root, plan.terminal_size)
        console.become_controlled(peer)
        os.close(peer)
    else:
        init.reopen_null(root)
    user = init.resolve_user(plan, root)
    init.tune(plan)
    if plan.apparmor:
        init.write_apparmor(operations.private_proc(context), plan.apparmor)
    if plan.no_new_privileges:
        prctl.set_no_new_privs()
    kept = (master,) if master >= 0 else ()
    prctl.close_all_but((link.fileno(), *kept, *preserved))
    load = child.load_filter
    if load is not None and not plan.no_new_privileges:
        init.install(load)
    init.take_identity(plan, user, limits)
    program = init.look_path(plan.args[0], plan.env.get(b"PATH"))
    link.send(wire.READY, child.warnings, list(kept))
    if kept:
        os.close(master)
    link.expect(wire.START)
    if load is not None and plan.no_new_privileges:
        init.install(load)
    init.execute(program, plan)
