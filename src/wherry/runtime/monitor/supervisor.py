"""The supervisor of one container: creates it, serves requests, reaps, records its end.

    requests (protocol.py)             result
    status, hello                      {"status", "id", "monitor_pid", "pid", "started_at", "execs": [{"id", "pid"}]}
    start                              null
    signal {sig, exec_id?}             null
    resize {height, width, exec_id?}   null
    attach {attachment} + 1 fd         null
    exec {exec_id, process, stdio, attachments, seccomp_filter?, console_size?} + fds   {"pid", "warnings"}
    pause, resume, close_stdin         null
    update {resources}                 {"warnings"}
    forget                             no reply: the daemon knows the end, the monitor may go

    events: exit, exec_exit, oom, detached

The end, in this order: init is reaped; what it left in a shared PID namespace is killed; the rest of the output is
read and logged; the exit record is on disk; the cgroup and the socket's name are gone, so that a successor can have
both; the daemon is told; clients get their end; the monitor leaves when it is forgotten or alone.
"""

import os
import signal
import sys
import time
import traceback
from _socket import socket
from collections.abc import Callable
from typing import Any

from wherry.failpoint import hit
from wherry.linux import tty
from wherry.linux.pidfd import pidfd_send_signal
from wherry.runtime import lifecycle
from wherry.runtime.cgroups import Cgroup, open_cgroup
from wherry.runtime.exec import exec_process
from wherry.runtime.failure import StartError
from wherry.runtime.logs.base import Writer
from wherry.runtime.logs.drivers import open_writer
from wherry.runtime.monitor import control as control_
from wherry.runtime.monitor.children import fork_beside, pid_namespace_is_shared, wake_on_child
from wherry.runtime.monitor.job import Job
from wherry.runtime.monitor.poller import POLLIN, Poller
from wherry.runtime.monitor.protocol import unpack_bytes
from wherry.runtime.monitor.record import exit_of, write_record
from wherry.runtime.monitor.stdio import open_pipes

_LOST = 137  # the exit code when the monitor fails and takes the container with it


class Supervisor:
    """`request` is what `runtime.client.Spawner.create` documents."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._id: str = request["id"]
        self._record_path: str = request["exit_record"]
        self._socket_path: str = request["socket"]
        self._poller = Poller()
        self._control = control_.Control(self._poller, self._serve, lambda: None)
        self._jobs: dict[int, Job] = {}
        self._job: Job | None = None
        self._created: lifecycle.Created | None = None
        self._log: Writer | None = None
        self._cgroup: Cgroup | None = None
        self._filter: bytes | None = None
        self._seccomp_flags: list[str] | None = None
        self._oom_score = 0
        self._shared_pids = False
        self._started_at = 0
        self._paused = False
        self._forgotten = False
        self._over = False
        self._end: dict[str, Any] = {}
        self._oom_fd = -1
        self._oom_count: Callable[[], int] = lambda: 0
        self._ooms = 0
        self._handlers: dict[str, control_.Handler] = {
            "hello": self._status,
            "status": self._status,
            "start": self._start_requested,
            "signal": self._signal,
            "resize": self._resize,
            "attach": self._attach,
            "exec": self._exec,
            "pause": self._pause,
            "resume": self._resume,
            "update": self._update,
            "close_stdin": self._close_stdin,
            "forget": self._forget,
        }

    # ------------------------------------------------------------ birth

    def create(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Make the container, with the clients whose sockets are in `fds` (taken over), start it if asked; return
        {"pid", "monitor_pid", "warnings"}. Raises StartError or OSError with everything undone."""
        warnings: list[str] = []
        config = request["config"]
        tty_wanted = bool(request["stdio"].get("tty"))
        _set_console(config.setdefault("process", {}), tty_wanted, request.get("console_size"))
        self._oom_score = config["process"].setdefault("oomScoreAdj", 0) or 0
        self._shared_pids = pid_namespace_is_shared(config)
        self._take_seccomp(request, config)
        cgroup_path = (config.get("linux") or {}).get("cgroupsPath")
        self._cgroup = open_cgroup(cgroup_path) if cgroup_path else None
        wake_on_child(self._poller, self._reap)
        listener = control_.listen(self._socket_path)
        try:
            self._log = open_writer(request["log"], fork_beside)
            pipes = open_pipes(tty=tty_wanted, stdin=bool(request["stdio"].get("open_stdin")))
            try:
                hit("monitor.before_create")
                self._created = lifecycle.create(
                    config,
                    request["bundle"],
                    stdio=pipes.child,
                    rootfs_mounts=request.get("rootfs_mounts"),
                    seccomp_filter=self._filter,
                    cgroup=self._cgroup,
                    warn=warnings.append,
                    container_id=self._id,
                )
            except BaseException:
                pipes.close_ours()
                raise
            finally:
                pipes.close_child()
            once = bool(request["stdio"].get("stdin_once"))
            self._job = self._new_job("", self._created.process, pipes, once, self._log)
            self._attach_all(self._job, request.get("attachments") or [], fds)
            self._watch_oom(warnings)
            if request.get("start"):
                self._start()
        except BaseException:
            self._undo_create(listener)
            raise
        self._control.listen(self._socket_path, listener)
        return {"pid": self._job.pid, "monitor_pid": os.getpid(), "warnings": warnings}

    def adopt(self, connection: socket) -> None:
        """Serve the daemon's first connection."""
        self._control.adopt(connection)

    def _take_seccomp(self, request: dict[str, Any], config: dict[str, Any]) -> None:
        """Keep the filter: later processes get it even from a daemon that does not send it again."""
        if request.get("seccomp_filter"):
            self._filter = unpack_bytes(request["seccomp_filter"])
        profile = (config.get("linux") or {}).get("seccomp") or {}
        self._seccomp_flags = profile.get("flags")
        if profile and self._filter is None:
            self._filter = lifecycle.compile_filter(profile)

    def _undo_create(self, listener: socket) -> None:
        """Kill and reap what was made, remove the cgroup and the socket. `lifecycle.create` undid its own part."""
        job = self._job
        if job:
            _kill(job)
            os.waitpid(job.pid, 0)
            for client in job.clients():
                client.close()
        if self._log:
            self._log.close()
        self._close_oom()
        if job and self._cgroup:
            self._cgroup.kill()
            self._cgroup.remove()
        listener.close()
        os.unlink(self._socket_path)

    def _new_job(self, exec_id: str, process: lifecycle.Process, pipes: Any, once: bool, log: Writer | None) -> Job:
        job = Job(self._poller, exec_id, process, pipes, log=log, stdin_once=once, on_detached=self._detached)
        self._jobs[job.pid] = job
        return job

    def _attach_all(self, job: Job, wishes: list[dict[str, Any]], fds: list[int]) -> None:
        for wish in wishes:
            job.attach(fds.pop(0), wish)

    def _start(self) -> None:
        if self._created is None:
            raise StartError("Conflict", "the container has already been started")
        created, self._created = self._created, None
        hit("monitor.before_start")
        created.start()
        self._started_at = time.time_ns()

    def _watch_oom(self, warnings: list[str]) -> None:
        if self._cgroup is None:
            return
        try:
            self._oom_fd, self._oom_count = self._cgroup.oom_events()
        except OSError as error:
            warnings.append(f"out-of-memory events are not seen: {error.strerror}")
            return
        self._poller.watch(self._oom_fd, POLLIN, self._oom)

    # ------------------------------------------------------------ life

    def run(self) -> None:
        """Supervise until there is nothing left to do."""
        try:
            while not self._may_leave():
                self._poller.turn()
        except BaseException as error:
            traceback.print_exc(file=sys.stderr)
            self._perish(error)

    def _may_leave(self) -> bool:
        gone = self._forgotten or not self._control.connected
        return self._over and gone and not any(job.clients() for job in self._every_job())

    def _every_job(self) -> list[Job]:
        return [*self._jobs.values(), *([self._job] if self._job else [])]

    def _serve(self, message: dict[str, Any], fds: list[int]) -> Any:
        handler = self._handlers.get(message["op"])
        if handler is None:
            raise StartError("Unimplemented", f"the monitor has no operation {message['op']!r}")
        return handler(message, fds)

    def _running_job(self, message: dict[str, Any]) -> Job:
        """The process a message is about. Raises StartError when it has ended."""
        wanted = message.get("exec_id") or ""
        for job in self._jobs.values():
            if job.exec_id == wanted and not job.ended:
                return job
        what = f"exec {wanted}" if wanted else f"container {self._id}"
        raise StartError("Conflict", f"{what} is not running")

    def _status(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        status = "exited" if self._end else "created" if not self._started_at else "running"
        return {
            "status": "paused" if self._paused and status == "running" else status,
            "id": self._id,
            "monitor_pid": os.getpid(),
            "pid": self._job.pid if self._job else 0,
            "started_at": self._started_at,
            "execs": [{"id": job.exec_id, "pid": job.pid} for job in self._jobs.values() if job.exec_id],
            **self._end,
        }

    def _start_requested(self, message: dict[str, Any], fds: list[int]) -> None:
        self._start()

    def _signal(self, message: dict[str, Any], fds: list[int]) -> None:
        job = self._running_job(message)
        try:
            pidfd_send_signal(job.pidfd, int(message["sig"]))
        except ProcessLookupError:
            raise StartError("Conflict", f"container {self._id} is not running") from None

    def _resize(self, message: dict[str, Any], fds: list[int]) -> None:
        job = self._running_job(message)
        if job.console < 0:
            raise StartError("InvalidArgument", "the process has no terminal to resize")
        height, width = (min(max(int(message[name]), 0), 0xFFFF) for name in ("height", "width"))
        tty.set_size(job.console, height, width)

    def _attach(self, message: dict[str, Any], fds: list[int]) -> None:
        job = self._running_job(message)
        job.attach(fds.pop(0), message["attachment"])

    def _exec(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        init = self._running_job({})
        if self._paused:  # the new process would stop before it can say that it runs
            raise StartError("Conflict", f"Container {self._id} is paused, unpause the container before exec")
        exec_id, process, stdio = str(message["exec_id"]), dict(message["process"]), message["stdio"]
        tty_wanted = bool(stdio.get("tty"))
        _set_console(process, tty_wanted, message.get("console_size"))
        process.setdefault("oomScoreAdj", self._oom_score)
        given = message.get("seccomp_filter")
        pipes = open_pipes(tty=tty_wanted, stdin=bool(stdio.get("open_stdin")))
        warnings: list[str] = []
        try:
            hit("monitor.before_exec")
            made = exec_process(
                init.pid,
                self._config_for_exec(),
                process,
                stdio=pipes.child,
                seccomp_filter=unpack_bytes(given) if given else self._filter,
                cgroup=self._cgroup,
                warn=warnings.append,
                container_id=self._id,
            )
        except BaseException:
            pipes.close_ours()
            raise
        finally:
            pipes.close_child()
        job = self._new_job(exec_id, made, pipes, True, None)
        self._attach_all(job, message.get("attachments") or [], fds)
        if not job.has_typing_client:
            job.close_stdin()
        return {"pid": job.pid, "warnings": warnings}

    def _config_for_exec(self) -> dict[str, Any]:
        if self._seccomp_flags is None:
            return {}
        return {"linux": {"seccomp": {"flags": self._seccomp_flags}}}

    def _pause(self, message: dict[str, Any], fds: list[int]) -> None:
        self._running_job({})
        self._need_cgroup().freeze()
        self._paused = True

    def _resume(self, message: dict[str, Any], fds: list[int]) -> None:
        self._running_job({})
        self._need_cgroup().thaw()
        self._paused = False

    def _update(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._running_job({})
        return {"warnings": self._need_cgroup().update(message["resources"])}

    def _need_cgroup(self) -> Cgroup:
        if self._cgroup is None:
            raise StartError("InvalidArgument", f"container {self._id} has no cgroup of its own")
        return self._cgroup

    def _close_stdin(self, message: dict[str, Any], fds: list[int]) -> None:
        self._running_job(message).close_stdin()

    def _forget(self, message: dict[str, Any], fds: list[int]) -> None:
        self._forgotten = True

    def _detached(self, job: Job, attachment: str) -> None:
        event = {"event": "detached", "attachment": attachment}
        self._control.announce({**event, "exec_id": job.exec_id} if job.exec_id else event)

    def _oom(self, _: int) -> None:
        os.read(self._oom_fd, 4096)
        count = self._oom_count()
        if count > self._ooms:
            self._ooms = count
            self._control.announce({"event": "oom", "time": time.time_ns()})

    # ------------------------------------------------------------ death

    def _reap(self) -> None:
        """Collect every child that ended: ours, the log's, and orphans of a shared PID namespace."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            job = self._jobs.pop(pid, None)
            if job is None:
                if self._log:
                    self._log.reaped(pid, status)
            elif job is self._job:
                self._init_ended(job, status)
            else:
                self._exec_ended(job, status)

    def _exec_ended(self, job: Job, status: int) -> None:
        """Tell at once; the clients' streams end when the output is through and the daemon knows the exit code,
        which the client asks for next."""
        waits = {"output", "daemon"}

        def done(what: str) -> None:
            waits.discard(what)
            if not waits:
                job.end_clients()

        code, number = exit_of(status)
        event = {"event": "exec_exit", "exec_id": job.exec_id, "exit_code": code, "signal": number}
        self._control.announce({**event, "time": time.time_ns()}, lambda: done("daemon"))
        job.process_ended(lambda: done("output"))

    def _init_ended(self, job: Job, status: int) -> None:
        finished_at = time.time_ns()
        code, number = exit_of(status)
        if self._shared_pids and self._cgroup:
            self._attempt(self._cgroup.kill)
        self._ooms = max(self._ooms, self._oom_count())
        end = {"exit_code": code, "signal": number, "oom_killed": self._ooms > 0, "finished_at": finished_at}
        job.process_ended(lambda: self._finish(end))

    def _finish(self, end: dict[str, Any]) -> None:
        assert self._job
        if self._log:
            self._log.close()
            self._log = None
        self._end = end
        hit("monitor.before_record")
        self._attempt(lambda: self._record(end))
        hit("monitor.after_record")
        self._close_oom()
        if self._cgroup:
            self._attempt(self._cgroup.remove)
        self._control.stop_listening()
        event = {"event": "exit", **{name: end[name] for name in ("exit_code", "signal", "oom_killed")}}
        self._control.announce({**event, "time": end["finished_at"]}, self._leave)

    def _record(self, end: dict[str, Any]) -> None:
        pid = self._job.pid if self._job else 0
        write_record(self._record_path, {**end, "pid": pid, "started_at": self._started_at})

    def _leave(self) -> None:
        self._over = True
        for job in self._every_job():
            job.end_clients()

    def _close_oom(self) -> None:
        if self._oom_fd >= 0:
            self._poller.forget(self._oom_fd)
            os.close(self._oom_fd)
            self._oom_fd = -1

    @staticmethod
    def _attempt(step: Callable[[], object]) -> None:
        """A step of the end that may fail (disk full, directory gone) without stopping those after it."""
        try:
            step()
        except OSError:
            traceback.print_exc(file=sys.stderr)

    def _perish(self, error: BaseException) -> None:
        """A defect of ours: the container cannot be supervised any more. End it, and leave the record."""
        if self._end or not self._job:
            return
        _kill(self._job)
        try:
            os.waitpid(self._job.pid, 0)
        except ChildProcessError:
            pass
        end = {"exit_code": _LOST, "signal": signal.SIGKILL, "oom_killed": False, "finished_at": time.time_ns()}
        self._attempt(lambda: self._record({**end, "error": f"the monitor failed: {error!r}"}))
        if self._cgroup:
            self._attempt(self._cgroup.kill)
            self._attempt(self._cgroup.remove)


def _kill(job: Job) -> None:
    try:
        pidfd_send_signal(job.pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _set_console(process: dict[str, Any], tty_wanted: bool, size: list[int] | None) -> None:
    process["terminal"] = tty_wanted
    if tty_wanted and size:
        process["consoleSize"] = {"height": size[0], "width": size[1]}
