"""A container, and processes in it, made by another runtime: what `lifecycle` and `exec` do with our own."""

import json
import os
from collections.abc import Callable
from typing import Any

from wherry import failpoint
from wherry.linux.openat import O_PATH
from wherry.linux.pidfd import pidfd_open
from wherry.linux.subreaper import become_subreaper
from wherry.runtime import init, wire
from wherry.runtime import process as processes
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.failure import StartError, words
from wherry.runtime.foreign import mounts
from wherry.runtime.foreign.command import Command
from wherry.runtime.foreign.terminal import ConsoleSocket
from wherry.runtime.lifecycle import Process
from wherry.runtime.setup import Stdio

_DELETE_PATIENCE_S = 10.0
_OCI_VERSION = "1.0.2"


class Created:
    """A container that waits for `start`. `mounts`: see `lifecycle.Created`."""

    def __init__(self, process: Process, mounts_: int, start: Callable[[], None]) -> None:
        self.process = process
        self.mounts = mounts_
        self._start = start

    def start(self) -> None:
        """Let its program run. Raises StartError."""
        failpoint.hit("foreign.before_start")
        self._start()


class Runtime:
    """The runtime called as `command` (its absolute path, then arguments before its own options) for the container
    `container_id` in `bundle`, an absolute path."""

    def __init__(self, command: list[str], bundle: str, container_id: str) -> None:
        self._command = Command(command, bundle)
        self._bundle = bundle
        self._id = container_id

    def create(
        self,
        config: dict[str, Any],
        bundle: str,
        *,
        stdio: Stdio,
        rootfs_mounts: list[dict[str, Any]] | None = None,
        seccomp_filter: bytes | None = None,
        cgroup: Cgroup | None,
        warn: Callable[[str], None],
        container_id: str | None = None,
        at_once: bool = False,
        hold_mounts: bool = False,
        on_cgroup: Callable[[], None] | None = None,
    ) -> Created:
        """As `lifecycle.create`. linux.seccomp must be in `config`: a compiled filter is of no use to the runtime,
        which also makes the cgroup, at linux.cgroupsPath. The caller, which must have one thread, moves to a mount
        namespace of its own, and adopts init until it ends itself."""
        os.chdir(bundle)
        become_subreaper()
        mounts.prepare(config, bundle, rootfs_mounts or [])
        _settle_user(config["process"], config["root"]["path"], warn)
        # What an older runtime does not know of, it ignores; a version it does not know, it refuses.
        _write("config.json", {**config, "ociVersion": _OCI_VERSION})
        failpoint.hit("foreign.before_create")
        try:
            process = self._make("create", ["--bundle", bundle], config["process"], stdio)
            failpoint.hit("foreign.after_create")
            if on_cgroup is not None:
                on_cgroup()
            held = os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC) if hold_mounts else -1
        except BaseException:
            self.delete()
            if cgroup is not None:
                cgroup.kill()
                cgroup.remove()
            raise
        return Created(process, held, lambda: self._command.run("start", ["start", self._id]))

    def join(self, link: wire.Wire, init_pid: int, process: dict[str, Any], *, stdio: Stdio) -> None:
        """As `exec.join_container`: have `process` run in the container of init `init_pid`, tell the parent on `link`.
        Seccomp, cgroup and namespaces are the container's, which the runtime knows. It may take its time, and so may
        the parent."""
        os.chdir(self._bundle)
        become_subreaper()
        warnings: list[str] = []
        _settle_user(process, f"/proc/{init_pid}/root", warnings.append)
        name = f"process-{os.getpid()}.json"
        _write(name, process)
        try:
            made = self._make("exec", ["--detach", "--process", os.path.join(self._bundle, name)], process, stdio)
        finally:
            os.unlink(name)
        link.send(wire.FORKED, {"pid": made.pid, "warnings": warnings}, [made.console] if made.console >= 0 else [])
        link.expect(wire.START)  # it is our child until the parent knows it

    def delete(self) -> None:
        """Have the runtime forget the container, whatever is left of it."""
        self._command.attempt(["delete", "--force", self._id], _DELETE_PATIENCE_S)

    def _make(self, verb: str, options: list[str], process: dict[str, Any], stdio: Stdio) -> Process:
        """`create` or `exec`: the process that is our child when the runtime has ended."""
        pid_file = f"pid-{os.getpid()}"
        arguments = [verb, *options, "--pid-file", os.path.join(self._bundle, pid_file)]
        try:
            if process.get("terminal"):
                master = self._with_terminal(verb, arguments)
            else:
                self._command.run(verb, [*arguments, self._id], stdio)
                master = -1
            with open(pid_file, encoding="ascii") as file:
                pid = int(file.read())
            return Process(pid, pidfd_open(pid), master)
        except (OSError, ValueError) as error:
            raise StartError("Internal", f"OCI runtime {verb} failed: {error}") from None
        finally:
            _remove(pid_file)

    def _with_terminal(self, verb: str, arguments: list[str]) -> int:
        with ConsoleSocket(f"console-{os.getpid()}") as console:
            self._command.run(verb, [*arguments, "--console-socket", console.name, self._id])
            return console.receive()


def _settle_user(process: dict[str, Any], root: str, warn: Callable[[str], None]) -> None:
    """Names of users and groups into numbers, looked up in the container's own files; HOME. Raises StartError."""
    warnings: list[str] = []
    plan = processes.plan(process, warnings)
    for warning in warnings:
        warn(warning)
    try:
        fd = os.open(root, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError("Internal", f"the container's root is gone: {words(error)}") from None
    try:
        user = init.resolve_user(plan, fd)
    finally:
        os.close(fd)
    settled: dict[str, Any] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(dict.fromkeys(user.groups))}
    if (process.get("user") or {}).get("umask") is not None:
        settled["umask"] = process["user"]["umask"]
    process["user"] = settled
    process["env"] = [os.fsdecode(name + b"=" + value) for name, value in plan.env.items()]


def _write(name: str, content: dict[str, Any]) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="ascii") as file:
        json.dump(content, file)


def _remove(name: str) -> None:
    try:
        os.unlink(name)
    except FileNotFoundError:
        pass
