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
from collections.abc import Callable
from typing import Any, NamedTuple

from wherry import failpoint
from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux import seccomp, vfork
from wherry.linux.fdpass import close_all
from wherry.linux.pidfd import pidfd_open
from wherry.runtime import (
    cgroups,
    hooks,
    init,
    late,
    operations,
    procfs,
    rootfs,
    setup,
    shared_memory,
    spec,
    wire,
)
from wherry.runtime import process as processes
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.child import end_child
from wherry.runtime.failure import StartError, words
from wherry.runtime.idmap import user_namespace, write_maps


class Process(NamedTuple):
    """A process of a container, a child of the caller."""

    pid: int  # in the caller's PID namespace
    pidfd: int
    console: int  # the terminal's master, -1 without one


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


def create(
    config: dict[str, Any],
    bundle: str,
    *,
    stdio: setup.Stdio,
    rootfs_mounts: list[dict[str, Any]] | None = None,
    seccomp_filter: bytes | None = None,
    cgroup: Cgroup | None,
    warn: Callable[[str], None],
    container_id: str | None = None,
    gate: setup.Gate | None = None,
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
    child = setup.Child(
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
    return setup.open_namespace(path)


def _fork(child: setup.Child) -> int:
    """Init, or the helper that makes it. Raises StartError."""
    prepared = dict(child.context.prepared)  # a child that shares our memory takes them out
    try:
        if child.namespaces.user:  # its PID and time namespaces must belong to it: the helper makes them
            pid = os.fork()
        else:
            joined = sum(flag for flag, _ in child.namespaces.joined)
            with BirthNamespaces(child.namespaces.new | joined):
                _enter_for_children(child)
                pid = vfork.spawn(lambda: setup.program_of(child), init.tell_failure) if child.shares else os.fork()
    except OSError as error:
        raise StartError("Internal", f"error making the container's process: {words(error)}") from None
    if pid == 0:
        setup.child_main(child)
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


def _enter_for_children(child: setup.Child) -> None:
    """The namespaces a process can only be born into."""
    new = child.namespaces.new & setup.BY_PARENT
    if new:
        ns.unshare(new)
    if child.time_offsets:
        setup.write_file("/proc/self/timens_offsets", child.time_offsets)
    for flag, path in child.namespaces.joined:
        if flag == ns.CLONE_NEWPID and child.pid_namespace < 0:
            setup.join(flag, path)


# ---------------------------------------------------------------- the parent


def _accompany(
    child: setup.Child,
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
        told = at_once and not any(configured.get(name) for name in setup.CREATION_HOOKS)  # to them init listens first
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


def _fork_served(child: setup.Child, link: wire.Wire, plan: spec.Plan | None, warn: Callable[[str], None]) -> int:
    """Fork the child; with a user namespace, serve the helper until it has it."""
    pid = _fork(child)
    if plan is not None and plan.namespaces.user:
        pid = _serve_helper(pid, link, plan, child.time_offsets)
    setup.adjust_oom_score(pid, child.oom_score, warn)
    return pid


def _procfs_contexts(child: setup.Child, config: dict[str, Any], cgroup: Cgroup | None) -> list[int]:
    count = sum(entry.get("type") == "proc" for entry in config.get("mounts") or ())
    return procfs.contexts(child.pid_namespace, count, lambda: setup.enter_cgroup(cgroup), late.PATIENCE_S)


def _await_birth(link: wire.Wire, maker: int) -> tuple[int, int]:
    """(pid, pidfd) of the init that our child `maker` bore. What it bore has the same connection, and may be traced."""
    kind, body, fds = link.receive(of=maker)
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
            kind, body, _ = link.receive(of=helper)
            if kind == wire.USER_NAMESPACE:
                write_maps(helper, plan.uid_map, plan.gid_map)
                link.send(wire.MAPPED)
            elif kind == wire.TIME_NAMESPACE:
                setup.write_file(f"/proc/{helper}/timens_offsets", time_offsets)
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
        raise setup.cgroup_failure(error) from error


def _move_to_cgroup(cgroup: Cgroup, pid: int) -> None:
    """For a child that can't enter it by itself, being in a user namespace."""
    try:
        cgroup.attach(pid)
    except OSError as error:
        raise setup.cgroup_failure(error) from error


def _until_ready(
    link: wire.Wire, configured: dict[str, Any], state: hooks.State, warn: Callable[[str], None]
) -> list[int]:
    while True:
        kind, body, fds = link.receive()
        if kind == wire.HOOKS:
            for name in setup.CREATION_HOOKS:
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


__all__ = ["Created", "Process", "StartError", "create", "host_facts"]
