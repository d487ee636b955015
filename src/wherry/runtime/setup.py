"""The process that sets a container up, and becomes its init or bears it: the child's side of `lifecycle`."""

import functools
import os
import socket
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from wherry import failpoint
from wherry.linux import namespaces as ns
from wherry.linux import prctl, tty, vfork
from wherry.linux.openat import O_PATH
from wherry.runtime import console, hooks, init, late, operations, spec, wire
from wherry.runtime import process as processes
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.child import be_child, tell_failures
from wherry.runtime.failure import StartError, path_error, words

BY_PARENT = ns.CLONE_NEWPID | ns.CLONE_NEWTIME
"""Made by the parent for its children: a process can only be born into them."""
CREATION_HOOKS = ("prestart", "createRuntime")
"""Run by the parent, while the child waits."""

_SEPARATE = BY_PARENT | ns.CLONE_NEWUSER | ns.CLONE_NEWCGROUP  # made, or joined, by the parent or by a separate step
_DOING = "in the container's init"


class Stdio(NamedTuple):
    """Descriptors that become 0, 1, 2 of the process; ignored with a terminal."""

    stdin: int
    stdout: int
    stderr: int


class Gate(NamedTuple):
    """Where init waits for the start when its creator will be gone by then: a listening SOCK_SEQPACKET socket.
    Whoever connects and sends the start message gets the outcome on that connection."""

    listener: socket.socket


class Child(NamedTuple):
    """What the child takes over from its parent by fork."""

    make_plan: Callable[[], spec.Plan]
    namespaces: spec.Namespaces
    time_offsets: str
    stdio: Stdio
    link: wire.Wire
    context: operations.Context
    state: hooks.State
    load_filter: init.Filter | None
    cgroup: Cgroup | None
    gate: Gate | None
    preserve_fds: int
    shares: bool  # our memory, until it executes the program
    holds_mounts: bool
    oom_score: int | None
    new_keyring: bool
    pid_namespace: int  # a descriptor of the one that init is born into late; -1: it is made in its own


def write_file(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def join(flag: int, path: str) -> None:
    fd = open_namespace(path)
    try:
        ns.setns(fd, flag)
    except OSError as error:
        raise _cannotjoin(path, error) from None
    finally:
        os.close(fd)


def open_namespace(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannotjoin(path, error) from None


def _cannotjoin(path: str, error: OSError) -> StartError:
    return StartError("Internal", f"failed to join namespace {path_error('setns', path, error)}")


def cgroup_failure(error: OSError | ValueError) -> StartError:
    text = f"{error.filename}: {words(error)}" if isinstance(error, OSError) else str(error)
    return StartError("Internal", f"unable to apply cgroup configuration: {text}")


def enter_cgroup(cgroup: Cgroup | None) -> None:
    """Move the caller. Moved by its parent, it would keep that one waiting for a grace period of the kernel (5 ms)."""
    if cgroup is None:
        return
    try:
        cgroup.attach(0)
    except OSError as error:
        raise cgroup_failure(error) from None


def adjust_oom_score(pid: int | str, score: int | None, warn: Callable[[str], None]) -> None:
    """Set how willingly the kernel kills `pid` (or "self") when memory runs out; a score that may not be set is only
    warned of."""
    if score is None:
        return
    try:
        write_file(f"/proc/{pid}/oom_score_adj", str(score))
    except PermissionError:
        warn(f"oom_score_adj {score} could not be set: lowering it needs CAP_SYS_RESOURCE")


def child_main(child: Child) -> NoReturn:
    """The child of fork: never returns, whatever happens."""
    be_child(child.link, functools.partial(_become_program, child), _DOING)


def _become_program(child: Child) -> NoReturn:
    init.execute(_become_helper(child) if child.namespaces.user else _become_init(child))


def program_of(child: Child) -> vfork.Program | None:
    """In a child that shares our memory: what to execute; None when it failed, and the parent is told."""
    return tell_failures(child.link, lambda: _become_init(child), _DOING)


def _kept(child: Child) -> tuple[int, ...]:
    context = child.context
    keep = [child.link.fileno(), *context.prepared.values(), *context.procfs, *range(3, 3 + child.preserve_fds)]
    keep.append(child.pid_namespace)
    if child.gate is not None:
        keep.append(child.gate.listener.fileno())
    return tuple(keep)


def _become_helper(child: Child) -> vfork.Program:
    """Between the parent and init when there is a user namespace: the other namespaces must belong to it, so they are
    made by a process in it, and init is born in them as its sibling."""
    namespaces, link = child.namespaces, child.link
    prctl.close_all_but((*_kept(child), *child.stdio))
    if os.geteuid() == 0:  # else our parent could not write our maps
        prctl.set_dumpable(False)
    init.raise_hard_limits(child.make_plan().process, [])
    for flag, path in sorted(namespaces.joined, key=_user_last):
        join(flag, path)
    if namespaces.new & ns.CLONE_NEWUSER:
        ns.unshare(ns.CLONE_NEWUSER)
        link.send(wire.USER_NAMESPACE)
        link.expect(wire.MAPPED)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    prctl.set_dumpable(False)
    ns.unshare(namespaces.new & BY_PARENT)
    if child.time_offsets:
        link.send(wire.TIME_NAMESPACE)
        link.expect(wire.SHIFTED)
    if child.pid_namespace >= 0:  # only the finished init is born into it
        link.send(wire.FORKED, os.getpid())
        return _become_init(child)
    pid = ns.fork_sibling()
    if pid:
        link.send(wire.FORKED, pid)
        os._exit(0)
    return _become_init(child)


def _user_last(entry: tuple[int, str]) -> bool:
    """Joining the user namespace takes our privileges over the others, which may not belong to it."""
    return entry[0] == ns.CLONE_NEWUSER


def _become_init(child: Child) -> vfork.Program:
    namespaces, context = child.namespaces, child.context
    if child.shares:
        adjust_oom_score("self", child.oom_score, context.warnings.append)
    init.detach_from_parent(child.stdio, _kept(child))
    plan = child.make_plan()
    own = _own_steps(child, plan)
    context.root_path = plan.root_path
    context.user_namespace = namespaces.user
    context.warnings += plan.warnings
    limits = init.raise_hard_limits(plan.process, context.warnings)
    if child.new_keyring:
        init.join_keyring(f"_ses.{child.state.container_id}", context.warnings)
    if not namespaces.user:
        for flag, path in namespaces.joined:
            if flag != ns.CLONE_NEWPID:
                join(flag, path)
    ns.unshare(namespaces.new & ~_SEPARATE)
    if child.pid_namespace >= 0 and plan.process.apparmor:
        context.own_proc = os.open("/proc", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if child.holds_mounts:
        context.mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    context.enter_cgroup = functools.partial(_await_cgroup, child)
    failpoint.hit("runtime-before-mounts")
    operations.apply_all(plan.root, context)
    operations.apply_all(plan.mounts, context)
    if plan.process.terminal:
        context.master, context.console = console.open_terminal(context.root, plan.process.terminal_size)
        console.mount_console(context.root, context.console)
    _run_hooks(child, plan)
    failpoint.hit("runtime-before-pivot")
    operations.apply_all((plan.pivot,), context)
    operations.apply_all(plan.settings, context)
    return _finish(child, plan, limits, own)


def _own_steps(child: Child, plan: spec.Plan) -> late.Own:
    """What is left for after the gate."""
    if child.pid_namespace >= 0:
        return late.own_steps(plan.process, child.load_filter, late.worst_neighbour(plan.process))
    return late.Own(child.load_filter if plan.process.no_new_privileges else None, False, 0)


def _await_cgroup(child: Child) -> None:
    child.link.expect(wire.CGROUP_MADE)
    enter_cgroup(child.cgroup)


def _run_hooks(child: Child, plan: spec.Plan) -> None:
    configured = plan.hooks
    if any(configured.get(name) for name in CREATION_HOOKS):
        child.link.send(wire.HOOKS)
        child.link.expect(wire.HOOKS_RAN)
    if configured.get("createContainer"):
        state = child.state._replace(pid=os.getpid())
        hooks.run_all(configured["createContainer"], "createContainer", state)


def _finish(child: Child, plan: spec.Plan, limits: tuple[tuple[int, int, int], ...], own: late.Own) -> vfork.Program:
    context, link = child.context, child.link
    process, born_late = plan.process, child.pid_namespace >= 0
    if not process.terminal:
        init.reopen_null(context.root)
    elif born_late:
        console.take_streams(context.console)
    else:
        console.become_controlled(context.console)
    user = init.resolve_user(process, context.root)
    if plan.persona is not None:
        prctl.personality(plan.persona)
    if not own.schedule:
        init.schedule(process)
    init.tune_inherited(process)
    if process.apparmor:
        init.write_apparmor(context.own_proc if born_late else operations.private_proc(context), process.apparmor)
    if process.no_new_privileges:
        prctl.set_no_new_privs()
    if born_late:
        _join_pids(child)
    gate = () if child.gate is None else (child.gate.listener.fileno(),)
    told = [fd for fd in (context.mounts, context.master) if fd >= 0]
    prctl.close_all_but((link.fileno(), *gate, *told, *range(3, 3 + child.preserve_fds)))
    if child.load_filter is not None and own.filter is None:
        init.install(child.load_filter)
    init.take_identity(process, user, limits, keep=own.capabilities)
    program = init.look_path(process.args[0], process.env.get(b"PATH"))
    link.send(wire.READY, context.warnings, told)
    for fd in told:
        os.close(fd)
    if born_late:
        _be_born(child, process)
    link = _wait_at_gate(child)
    if plan.hooks.get("startContainer"):
        _or_end(link, lambda: _start_hooks(child, plan))
    _or_end(link, lambda: late.do_own_steps(process, own))
    return vfork.Program(program, list(process.args), process.env)


def _join_pids(child: Child) -> None:
    """From here on our children are born into the PID namespace. A helper has joined it before its user namespace."""
    if child.namespaces.user:
        return
    try:
        ns.setns(child.pid_namespace, ns.CLONE_NEWPID)
    except OSError as error:
        raise StartError("Internal", f"failed to join the PID namespace: {words(error)}") from None


def _be_born(child: Child, process: processes.ProcessPlan) -> None:
    """Go on in a process of the PID namespace joined, our parent's child; we end."""
    prctl.set_dumpable(False)  # a change of identity sets it as fs.suid_dumpable says
    failpoint.hit("runtime-before-birth")
    try:
        pid = ns.fork_sibling()
    except OSError as error:
        raise StartError("Internal", f"fork: {words(error)}") from None
    if pid:
        failpoint.hit("runtime-born")
        child.link.send(wire.FORKED, pid)
        os._exit(0)
    failpoint.hit("runtime-inside")
    os.setsid()
    if process.terminal:
        tty.set_controlling(0)


def _wait_at_gate(child: Child) -> wire.Wire:
    """Until somebody says start; the connection on which to tell what became of it."""
    if child.gate is None:
        child.link.expect(wire.START)
        return child.link
    child.link.close()
    while True:
        connection, _ = child.gate.listener.accept()
        if connection.recv(1) == wire.START:
            child.gate.listener.close()
            return wire.Wire(connection)
        connection.close()


def _start_hooks(child: Child, plan: spec.Plan) -> None:
    state = child.state._replace(status="created", pid=os.getpid())
    hooks.run_all(plan.hooks["startContainer"], "startContainer", state)


def _or_end(link: wire.Wire, step: Callable[[], None]) -> None:
    """A step after the start: whoever started is told why it failed."""
    try:
        step()
    except StartError as error:
        link.fail(error)
        os._exit(1)
