"""Making a container: its init is forked, sets everything up, waits at a gate, and becomes the program at `start`.

The parent of init is whoever calls `create`: the monitor, or the OCI command line. It must have one thread. Forking
and the work in the child run beside the parent's own: the cgroup is made while init mounts.

    parent                                   child
    unshare(NEWPID, NEWTIME), fork  ───────▶ plan (pure; made before the fork where the parent needs it)
    [user namespace: writes the maps]        joins and makes the other namespaces
                                             root file system, mounts, /dev
    makes the cgroup ──────────────────────▶ enters it; cgroup namespace and mounts
    [hooks] ◀──────────────────────────────▶ [createContainer hooks]
                                             pivot_root, settings, user, capabilities, seccomp
    Created ◀──── ready ──────────────────── waits at the gate
    start() ─────────────────────────────▶   [startContainer hooks] execve

A container that is to start at once finds its gate open: it is told so before it gets there. When it needs nothing
else of its parent meanwhile, it does all that in the parent's memory (`linux.vfork`): everything the parent would do
beside it is done before.

Where the container joins another's PID namespace, who is there may have CAP_SYS_PTRACE and take over whatever appears.
The child does all that outside, then, and init is born late, with nothing but what its program will have:

    parent                          child: our PID namespace          init: the container's
    makes the cgroup, has contexts
    for its procfs opened (`procfs`)
    fork ────────────────────────▶ as above
    ◀── ready ──────────────────── joins the PID namespace
    ◀── init's pid ─────────────── clones it, exits ────────────────▶ session, terminal; waits at the gate
    start() ────────────────────────────────────────────────────────▶ execve
    lets it go on where it was stopped
"""

import functools
import os
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from wherry import failpoint
from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux import prctl, seccomp, tty, vfork
from wherry.linux.fdpass import close_all
from wherry.linux.openat import O_PATH
from wherry.linux.pidfd import pidfd_open
from wherry.runtime import cgroups, console, hooks, init, late, operations, procfs, rootfs, shared_memory, spec, wire
from wherry.runtime import process as processes
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.child import be_child, end_child, tell_failures
from wherry.runtime.failure import StartError, path_error, words
from wherry.runtime.idmap import user_namespace, write_maps

# Joined or made by the parent for its children, or by a separate step.
_BY_PARENT = ns.CLONE_NEWPID | ns.CLONE_NEWTIME
_SEPARATE = _BY_PARENT | ns.CLONE_NEWUSER | ns.CLONE_NEWCGROUP

_DOING = "in the container's init"
_CREATION_HOOKS = ("prestart", "createRuntime")  # run by the parent


class Stdio(NamedTuple):
    """Descriptors that become 0, 1, 2 of the process; ignored with a terminal."""

    stdin: int
    stdout: int
    stderr: int


class Process(NamedTuple):
    """A process of a container, a child of the caller."""

    pid: int  # in the caller's PID namespace
    pidfd: int
    console: int  # the terminal's master, -1 without one


class Gate(NamedTuple):
    """Where init waits for the start when its creator will be gone by then: a listening SOCK_SEQPACKET socket.
    Whoever connects and sends the start message gets the outcome on that connection."""

    listener: socket.socket


class Created:
    """A container whose init waits at the gate."""

    def __init__(
        self,
        process: Process,
        mounts: int,
        connection: wire.Wire,
        told: bool,
        poststart: Callable[[], None],
        patience_s: float | None,
    ) -> None:
        self.process = process
        self.mounts = mounts
        """The mount namespace, when it is to be held: a descriptor of the caller's; else -1."""
        self._wire = connection
        self._told = told
        self._poststart = poststart
        self._patience_s = patience_s

    def start(self) -> None:
        """Open the gate, if init is not told already; return when the program runs. Raises StartError when init could
        not get there (it has exited then); a failure of execve(2) itself is the program's: exit code 255 and a line on
        its stderr."""
        try:
            if not self._told:
                failpoint.hit("runtime-before-start")
                wire.open_gate(self._wire)
            if self._patience_s is None:
                self._wire.receive()
            else:
                late.await_program(self._wire, self.process.pidfd, self._patience_s)
        finally:
            self._wire.close()
        self._poststart()


class _Child(NamedTuple):
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


def create(
    config: dict[str, Any],
    bundle: str,
    *,
    stdio: Stdio,
    rootfs_mounts: list[dict[str, Any]] | None = None,
    seccomp_filter: bytes | None = None,
    cgroup: Cgroup | None,
    warn: Callable[[str], None],
    container_id: str | None = None,
    gate: Gate | None = None,
    no_pivot: bool = False,
    new_keyring: bool = True,
    preserve_fds: int = 0,
    at_once: bool = False,
    hold_mounts: bool = False,
    on_cgroup: Callable[[], None] | None = None,
) -> Created:
    """Make a container up to the point where its program would start.

    `config` is a decoded config.json of OCI runtime-spec 1.2; `bundle` the absolute directory relative paths start
    from, whose name is the container's id unless `container_id` says so. `rootfs_mounts` are mounted on root.path in
    the container's mount namespace only: one {"type": "overlay", "lower": [directories, top first], "upper", "work",
    "options"}. `cgroup` is created with linux.resources here, and removed again on failure. `seccomp_filter` is a
    ready BPF program; without one linux.seccomp is compiled. `warn` is told what had to be reduced. `on_cgroup` is
    called when the cgroup is made. `at_once`: init need not wait at the gate, `Created.start` only tells what became of
    it. `hold_mounts`: `Created.mounts` is a descriptor of the container's own mount namespace, which lives as long.
    Without `new_keyring` it keeps our session keyring.

    The caller is its parent and must reap it. Raises StartError; nothing is left then.
    """
    identity = container_id or os.path.basename(os.path.abspath(bundle))
    host = host_facts()
    linux = config.get("linux") or {}
    namespaces = spec.namespaces_of(linux, host)
    context = operations.Context()
    make_plan = functools.partial(spec.plan, config, bundle, host, rootfs_mounts=rootfs_mounts, no_pivot=no_pivot)
    plan = make_plan() if spec.needs_preparation(config, namespaces) else None
    state = hooks.State(identity, "creating", 0, bundle, config.get("annotations") or {})
    ours, theirs = wire.pair()
    child = _Child(
        make_plan if plan is None else lambda: plan,
        namespaces,
        spec.time_offsets(linux, namespaces),
        stdio,
        theirs,
        context,
        state,
        filter_loader(config, seccomp_filter),
        None if namespaces.user else cgroup,
        gate,
        preserve_fds,
        at_once and _may_share(config, namespaces),
        hold_mounts and bool(namespaces.new & ns.CLONE_NEWNS),
        (config.get("process") or {}).get("oomScoreAdj"),
        new_keyring,
        _pid_namespace(namespaces),
    )
    try:
        if plan is not None:
            _prepare(plan, context)
        return _accompany(child, ours, plan, config, cgroup, warn, at_once, on_cgroup)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        _close(context.prepared)
        close_all(context.procfs)
        if child.pid_namespace >= 0:
            os.close(child.pid_namespace)


def _may_share(config: dict[str, Any], namespaces: spec.Namespaces) -> bool:
    """Whether init can do its work in our memory: it needs nobody but itself until its program runs, its memory need
    not be in another time namespace, the filter lets it get there when there is one, and it is alone in its PID
    namespace, where nobody can stop it, and us with it, or end it in the midst of our interpreter."""
    if not namespaces.new & ns.CLONE_NEWPID:
        return False
    flags = namespaces.new | sum(flag for flag, _ in namespaces.joined)
    filtered_last = (config.get("process") or {}).get("noNewPrivileges") and (config.get("linux") or {}).get("seccomp")
    hooked = any((config.get("hooks") or {}).values())
    return vfork.available and not (flags & (ns.CLONE_NEWUSER | ns.CLONE_NEWTIME) or filtered_last or hooked)


def _pid_namespace(namespaces: spec.Namespaces) -> int:
    """The PID namespace that init is to be born into late: the one it joins, if it joins one. Setting up outside takes
    mount_setattr(2) (Linux 5.12): what went before needs our own /proc/self."""
    path = next((path for flag, path in namespaces.joined if flag == ns.CLONE_NEWPID), None)
    if path is None or not rootfs.has_mount_attributes():
        return -1
    return _open_namespace(path)


def _fork(child: _Child) -> int:
    """Init, or the helper that makes it. Raises StartError."""
    prepared = dict(child.context.prepared)  # a child that shares our memory takes them out
    try:
        if child.namespaces.user:  # its PID and time namespaces must belong to it: the helper makes them
            pid = os.fork()
        else:
            joined = sum(flag for flag, _ in child.namespaces.joined)
            with BirthNamespaces(child.namespaces.new | joined):
                _enter_for_children(child)
                pid = vfork.spawn(lambda: _program_of(child), init.tell_failure) if child.shares else os.fork()
    except OSError as error:
        raise StartError("Internal", f"error making the container's process: {words(error)}") from None
    if pid == 0:
        _child_main(child)
    child.link.close()
    child.context.prepared.clear()
    _close(prepared)
    return pid


class BirthNamespaces:
    """While it lasts, children may be born into other PID and time namespaces (of `flags`); afterwards, in the parent,
    into our own again: hooks must not be born into the container."""

    def __init__(self, flags: int) -> None:
        self._types = [(flag, name) for flag, name in (ns.TYPES["pid"], ns.TYPES["time"]) if flag & flags]

    def __enter__(self) -> None:
        self._pid = os.getpid()
        self._own = [(flag, os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)) for flag, name in self._types]

    def __exit__(self, *_: object) -> None:
        for flag, fd in self._own:
            if self._pid == os.getpid():
                ns.setns(fd, flag)
            os.close(fd)


_host: list[spec.Host] = []


def host_facts() -> spec.Host:
    """What plans depend on, asked once per process; a process that forks many runtimes calls it before."""
    if not _host:
        rootfs.has_appended_layers()
        processes.bounding_set()
        processes.known_set()
        _host.append(spec.Host.probe(cgroups.host_hierarchies()))
    return _host[0]


def filter_loader(config: dict[str, Any], ready: bytes | None) -> init.Filter | None:
    """The seccomp filter that the child loads: of the program `ready`, else of linux.seccomp, None without either.
    Raises StartError."""
    profile = (config.get("linux") or {}).get("seccomp")
    if ready is None and not profile:
        return None
    flags = seccomp.SPEC_ALLOW
    if profile and "flags" in profile:
        flags = 0
        for name in profile["flags"] or ():
            if name not in seccomp.FILTER_FLAGS:
                raise StartError("InvalidArgument", f"seccomp flag {name} is not supported")
            flags |= seccomp.FILTER_FLAGS[name]
    program = ready if ready is not None else compile_filter(profile)
    return init.Filter(program, flags)


def compile_filter(profile: Any) -> bytes:
    """The BPF program of linux.seccomp. Raises StartError."""
    from wherry.runtime.seccomp import compile_profile  # its tables are large, and the daemon compiles elsewhere

    try:
        return compile_profile(profile)
    except ValueError as error:
        raise StartError("InvalidArgument", f"invalid seccomp profile: {error}") from None


def _prepare(plan: spec.Plan, context: operations.Context) -> None:
    """Make, with our privileges, the mounts that the child could not: in a user namespace all that come from the
    host, otherwise only idmapped ones (their user namespaces are made by forking) and those of other containers."""
    for operation in plan.mounts:
        if isinstance(operation, operations.Bind) and (
            plan.namespaces.user or operation.number in plan.idmaps or shared_memory.names_another(operation.source)
        ):
            context.prepared[operation.number] = _copy(operation.source, operation.options.recursive_bind, operation)
        elif isinstance(operation, operations.MakeDevices) and operation.bind:
            for node in operation.nodes:
                key = operations.device_key(operation.nodes, node)
                context.prepared[key] = _copy(node.path, False, operation)
    if plan.namespaces.user:
        root = plan.root[-1]
        if isinstance(root, operations.OverlayRoot):
            context.prepared[-1] = root.detached()
        else:
            context.prepared[-1] = _copy(plan.root_path, True, root)
    for number, (uids, gids, recursive) in plan.idmaps.items():
        try:
            namespace = user_namespace(uids, gids)
            try:
                m.mount_setattr(context.prepared[number], set_=m.ATTR_IDMAP, userns_fd=namespace, recursive=recursive)
            finally:
                os.close(namespace)
        except OSError as error:
            raise StartError("Internal", f"failed to idmap mount #{number}: {words(error)}") from None


def _copy(source: str, recursive: bool, operation: operations.Operation) -> int:
    try:
        if shared_memory.names_another(source):
            return shared_memory.copy_mount(source)
        return rootfs.copy_source(source, recursive=recursive)
    except OSError as error:
        raise StartError("Internal", operation.explain(error)) from None


def _close(prepared: dict[int, int]) -> None:
    for fd in prepared.values():
        os.close(fd)
    prepared.clear()


def _enter_for_children(child: _Child) -> None:
    """The namespaces a process can only be born into."""
    new = child.namespaces.new & _BY_PARENT
    if new:
        ns.unshare(new)
    if child.time_offsets:
        _write_file("/proc/self/timens_offsets", child.time_offsets)
    for flag, path in child.namespaces.joined:
        if flag == ns.CLONE_NEWPID and child.pid_namespace < 0:
            _join(flag, path)


def _write_file(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _join(flag: int, path: str) -> None:
    fd = _open_namespace(path)
    try:
        ns.setns(fd, flag)
    except OSError as error:
        raise _cannot_join(path, error) from None
    finally:
        os.close(fd)


def _open_namespace(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_join(path, error) from None


def _cannot_join(path: str, error: OSError) -> StartError:
    return StartError("Internal", f"failed to join namespace {path_error('setns', path, error)}")


# ---------------------------------------------------------------- the parent


def _accompany(
    child: _Child,
    link: wire.Wire,
    plan: spec.Plan | None,
    config: dict[str, Any],
    cgroup: Cgroup | None,
    warn: Callable[[str], None],
    at_once: bool,
    on_cgroup: Callable[[], None] | None,
) -> Created:
    """Fork the child and serve it until it waits at the gate; undo everything when it does not get there. A child that
    shares our memory is served before: we stand still while it works."""
    made = told = False
    pid, state = 0, child.state
    configured = config.get("hooks") or {}
    try:
        if not child.shares and child.pid_namespace < 0:
            pid = _fork_served(child, link, plan, warn)
        if cgroup is not None:
            made = True
            _make_cgroup(cgroup, config, warn)
        if child.pid_namespace >= 0:
            child.context.procfs += _procfs_contexts(child, config, cgroup)
            pid = _fork_served(child, link, plan, warn)
        if cgroup is not None and child.namespaces.user:
            _move_to_cgroup(cgroup, pid)
        link.send(wire.CGROUP_MADE)
        if on_cgroup is not None:
            on_cgroup()
        told = at_once and not any(configured.get(name) for name in _CREATION_HOOKS)  # to them init listens first
        if told:
            failpoint.hit("runtime-before-start")
            link.send(wire.START)
        if child.shares:
            pid = _fork(child)
        state = state._replace(pid=pid)
        fds = _until_ready(link, configured, state, warn)
        if child.pid_namespace >= 0:
            pid, pidfd = _await_birth(link, pid)
            state = state._replace(pid=pid)
        else:
            pidfd = pidfd_open(pid)
    except BaseException as error:
        reason = link.failure()
        if made and cgroup is not None and child.pid_namespace >= 0:
            cgroup.kill()  # what was born, and whoever stopped it
        _undo(pid, link, cgroup if made else None)
        if reason is not None:
            raise reason from None
        if isinstance(error, ConnectionResetError):  # it did not read what we sent
            raise StartError("Internal", "the container's init ended before it was ready") from None
        if isinstance(error, OSError):
            raise StartError("Internal", f"error making the container: {words(error)}") from error
        raise
    mounts = fds.pop(0) if child.holds_mounts else -1
    process = Process(pid, pidfd, fds[0] if fds else -1)
    patience_s = late.patience(config) if child.pid_namespace >= 0 else None
    return Created(process, mounts, link, told, lambda: _poststart(configured, state, warn), patience_s)


def _fork_served(child: _Child, link: wire.Wire, plan: spec.Plan | None, warn: Callable[[str], None]) -> int:
    """Fork the child; with a user namespace, serve the helper until it has it."""
    pid = _fork(child)
    if plan is not None and plan.namespaces.user:
        pid = _serve_helper(pid, link, plan, child.time_offsets)
    adjust_oom_score(pid, child.oom_score, warn)
    return pid


def _procfs_contexts(child: _Child, config: dict[str, Any], cgroup: Cgroup | None) -> list[int]:
    count = sum(entry.get("type") == "proc" for entry in config.get("mounts") or ())
    return procfs.contexts(child.pid_namespace, count, lambda: enter_cgroup(cgroup), late.PATIENCE_S)


def _await_birth(link: wire.Wire, maker: int) -> tuple[int, int]:
    """(pid, pidfd) of the init that our child `maker` bore."""
    kind, body, fds = link.receive()
    close_all(fds)
    if kind != wire.FORKED or not isinstance(body, int) or body == maker:
        raise StartError("Internal", "the container's init ended before it was ready")
    pidfd = late.own_child(body, (os.getpid(),))
    os.waitpid(maker, 0)
    return body, pidfd


def _serve_helper(helper: int, link: wire.Wire, plan: spec.Plan, time_offsets: str) -> int:
    """Write for the helper what it may not write itself, being undumpable; learn init's pid from it."""
    try:
        while True:
            kind, body, _ = link.receive()
            if kind == wire.USER_NAMESPACE:
                write_maps(helper, plan.uid_map, plan.gid_map)
                link.send(wire.MAPPED)
            elif kind == wire.TIME_NAMESPACE:
                _write_file(f"/proc/{helper}/timens_offsets", time_offsets)
                link.send(wire.SHIFTED)
            elif kind == wire.FORKED:
                if int(body) != helper:
                    os.waitpid(helper, 0)
                return int(body)
            else:
                raise StartError("Internal", "the helper in the user namespace ended unexpectedly")
    except BaseException:
        end_child(helper)
        raise


def _make_cgroup(cgroup: Cgroup, config: dict[str, Any], warn: Callable[[str], None]) -> None:
    resources = (config.get("linux") or {}).get("resources") or {}
    try:
        for warning in cgroup.create(resources):
            warn(warning)
    except (OSError, ValueError) as error:
        raise _cgroup_failure(error) from error


def _move_to_cgroup(cgroup: Cgroup, pid: int) -> None:
    """For a child that can't enter it by itself, being in a user namespace."""
    try:
        cgroup.attach(pid)
    except OSError as error:
        raise _cgroup_failure(error) from error


def _cgroup_failure(error: OSError | ValueError) -> StartError:
    text = f"{error.filename}: {words(error)}" if isinstance(error, OSError) else str(error)
    return StartError("Internal", f"unable to apply cgroup configuration: {text}")


def enter_cgroup(cgroup: Cgroup | None) -> None:
    """Move the caller. Moved by its parent, it would keep that one waiting for a grace period of the kernel (5 ms)."""
    if cgroup is None:
        return
    try:
        cgroup.attach(0)
    except OSError as error:
        raise _cgroup_failure(error) from None


def adjust_oom_score(pid: int | str, score: int | None, warn: Callable[[str], None]) -> None:
    """Set how willingly the kernel kills `pid` (or "self") when memory runs out; a score that may not be set is only
    warned of."""
    if score is None:
        return
    try:
        _write_file(f"/proc/{pid}/oom_score_adj", str(score))
    except PermissionError:
        warn(f"oom_score_adj {score} could not be set: lowering it needs CAP_SYS_RESOURCE")


def _until_ready(
    link: wire.Wire, configured: dict[str, Any], state: hooks.State, warn: Callable[[str], None]
) -> list[int]:
    while True:
        kind, body, fds = link.receive()
        if kind == wire.HOOKS:
            for name in _CREATION_HOOKS:
                hooks.run_all(configured.get(name) or [], name, state)
            link.send(wire.HOOKS_RAN)
        elif kind == wire.READY:
            for warning in body or ():
                warn(warning)
            return fds
        else:
            raise StartError("Internal", "the container's init ended before it was ready")


def _undo(pid: int, link: wire.Wire, cgroup: Cgroup | None) -> None:
    link.close()
    if pid:
        end_child(pid)
    if cgroup is not None:
        cgroup.remove()


def _poststart(configured: dict[str, Any], state: hooks.State, warn: Callable[[str], None]) -> None:
    try:
        hooks.run_all(configured.get("poststart") or [], "poststart", state._replace(status="running"))
    except StartError as error:
        warn(error.message)


# ---------------------------------------------------------------- the child


def _child_main(child: _Child) -> NoReturn:
    """The child of fork: never returns, whatever happens."""
    be_child(child.link, functools.partial(_become_program, child), _DOING)


def _become_program(child: _Child) -> NoReturn:
    init.execute(_become_helper(child) if child.namespaces.user else _become_init(child))


def _program_of(child: _Child) -> vfork.Program | None:
    """In a child that shares our memory: what to execute; None when it failed, and the parent is told."""
    return tell_failures(child.link, lambda: _become_init(child), _DOING)


def _kept(child: _Child) -> tuple[int, ...]:
    context = child.context
    keep = [child.link.fileno(), *context.prepared.values(), *context.procfs, *range(3, 3 + child.preserve_fds)]
    keep.append(child.pid_namespace)
    if child.gate is not None:
        keep.append(child.gate.listener.fileno())
    return tuple(keep)


def _become_helper(child: _Child) -> vfork.Program:
    """Between the parent and init when there is a user namespace: the other namespaces must belong to it, so they are
    made by a process in it, and init is born in them as its sibling."""
    namespaces, link = child.namespaces, child.link
    prctl.close_all_but((*_kept(child), *child.stdio))
    if os.geteuid() == 0:  # else our parent could not write our maps
        prctl.set_dumpable(False)
    init.raise_hard_limits(child.make_plan().process, [])
    for flag, path in sorted(namespaces.joined, key=_user_last):
        _join(flag, path)
    if namespaces.new & ns.CLONE_NEWUSER:
        ns.unshare(ns.CLONE_NEWUSER)
        link.send(wire.USER_NAMESPACE)
        link.expect(wire.MAPPED)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    prctl.set_dumpable(False)
    ns.unshare(namespaces.new & _BY_PARENT)
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


def _become_init(child: _Child) -> vfork.Program:
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
                _join(flag, path)
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


def _own_steps(child: _Child, plan: spec.Plan) -> late.Own:
    """What is left for after the gate."""
    if child.pid_namespace >= 0:
        return late.own_steps(plan.process, child.load_filter, late.worst_neighbour(plan.process))
    return late.Own(child.load_filter if plan.process.no_new_privileges else None, False, 0)


def _await_cgroup(child: _Child) -> None:
    child.link.expect(wire.CGROUP_MADE)
    enter_cgroup(child.cgroup)


def _run_hooks(child: _Child, plan: spec.Plan) -> None:
    configured = plan.hooks
    if any(configured.get(name) for name in _CREATION_HOOKS):
        child.link.send(wire.HOOKS)
        child.link.expect(wire.HOOKS_RAN)
    if configured.get("createContainer"):
        state = child.state._replace(pid=os.getpid())
        hooks.run_all(configured["createContainer"], "createContainer", state)


def _finish(child: _Child, plan: spec.Plan, limits: tuple[tuple[int, int, int], ...], own: late.Own) -> vfork.Program:
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


def _join_pids(child: _Child) -> None:
    """From here on our children are born into the PID namespace. A helper has joined it before its user namespace."""
    if child.namespaces.user:
        return
    try:
        ns.setns(child.pid_namespace, ns.CLONE_NEWPID)
    except OSError as error:
        raise StartError("Internal", f"failed to join the PID namespace: {words(error)}") from None


def _be_born(child: _Child, process: processes.ProcessPlan) -> None:
    """Go on in a process of the PID namespace joined, our parent's child; we end."""
    prctl.set_dumpable(False)  # a change of identity sets it as fs.suid_dumpable says
    failpoint.hit("runtime-before-birth")
    try:
        pid = ns.fork_sibling()
    except OSError as error:
        raise StartError("Internal", f"fork: {words(error)}") from None
    if pid:
        child.link.send(wire.FORKED, pid)
        os._exit(0)
    failpoint.hit("runtime-inside")
    os.setsid()
    if process.terminal:
        tty.set_controlling(0)


def _wait_at_gate(child: _Child) -> wire.Wire:
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


def _start_hooks(child: _Child, plan: spec.Plan) -> None:
    state = child.state._replace(status="created", pid=os.getpid())
    hooks.run_all(plan.hooks["startContainer"], "startContainer", state)


def _or_end(link: wire.Wire, step: Callable[[], None]) -> None:
    """A step after the start: whoever started is told why it failed."""
    try:
        step()
    except StartError as error:
        link.fail(error)
        os._exit(1)


__all__ = ["Created", "Gate", "Process", "StartError", "Stdio", "create", "host_facts"]
