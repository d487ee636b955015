"""The supervisor of one container: creates it, serves requests, reaps, records its end.

    requests (protocol.py)             result
    status, hello                      {"status", "id", "monitor_pid", "pid", "started_at", "execs": [{"id", "pid"}],
                                       "exec_exits": {id: code}, of those that nobody was told of}
    start                              null
    signal {sig, exec_id?}             null
    resize {height, width, exec_id?}   null
    attach {attachment} + 1 fd         null
    exec {exec_id, stdio, attachments, filter} + fds                                    {"pid", "warnings"}
    pause {held?}                      null; `held`: until `resume`, or until whoever asked goes away
    resume, close_stdin                null
    update {resources}                 {"warnings"}
    clear_log                          null; Conflict when the log is closed, since the container has ended
    forget                             no reply: the daemon knows the end, the monitor may go

    events: exit, exec_exit, oom, detached

The end, in this order: init is reaped; what it left in a shared PID namespace is killed; the rest of the output is
read and logged; the exit record is on disk; the cgroup and the socket's name are gone, so that a successor can have
both; the daemon is told; clients get their end; the monitor leaves when it is forgotten or alone.
"""

import os
import select
import signal
import sys
import time
from _socket import socket
from collections.abc import Callable
from typing import Any

from wherry.failpoint import hit
from wherry.linux import tty
from wherry.linux.pidfd import pidfd_send_signal
from wherry.runtime.cgroups import Cgroup, open_cgroup
from wherry.runtime.failure import StartError, words
from wherry.runtime.late import is_ending
from wherry.runtime.lifecycle import Process
from wherry.runtime.logs.base import Writer
from wherry.runtime.logs.drivers import open_writer
from wherry.runtime.monitor import birth
from wherry.runtime.monitor import control as control_
from wherry.runtime.monitor.children import wake_on_child
from wherry.runtime.monitor.job import Job
from wherry.runtime.monitor.joining import Joining, Wanted
from wherry.runtime.monitor.poller import POLLIN, Poller
from wherry.runtime.monitor.record import exit_of, write_record
from wherry.runtime.monitor.stdio import Pipes
from wherry.runtime.setup import Stdio
from wherry.runtime.state import process_start_time

_OOM_SETTLES_S = 0.2
_EXEC_EXITS = 256
_LOST = 137  # the exit code when the monitor fails and takes the container with it


class Supervisor:
    """Of the container in `state` (`birth.create`), whose descriptors are `fds`; `helper` will start it, if it does not
    run yet."""

    def __init__(self, state: dict[str, Any], fds: list[int], helper: birth.Helper | None) -> None:
        head = state["head"]
        self._id: str = head["id"]
        self._record_path: str = head["exit_record"]
        self._exec_head = {name: head.get(name) for name in birth.EXEC_HEAD}
        self._cgroup_path: str | None = head.get("cgroup")
        self._shared_pids = bool(head.get("shared_pids"))
        self._poller = Poller()
        self._control = control_.Control(self._poller, self._serve)
        self._jobs: dict[int, Job] = {}
        self._joining: list[Joining] = []
        self._log: Writer | None
        self._started_at: int = state["started_at"]
        self._waiting = helper
        self._paused = False
        self._held = False  # paused for as long as its asker lives
        self._forgotten = False
        self._over = False
        self._end: dict[str, Any] = {}  # how init ended
        self._exec_exits: dict[str, int] = {}  # not acknowledged yet
        self._recorded = False
        self._ooms = 0
        self._oom_told = False
        self._handlers: dict[str, control_.Handler] = {
            "hello": self._status,
            "status": self._status,
            "start": self._start,
            "signal": self._signal,
            "resize": self._resize,
            "attach": self._attach,
            "exec": self._exec,
            "pause": self._pause,
            "resume": self._resume,
            "update": self._update,
            "close_stdin": self._close_stdin,
            "clear_log": self._clear_log,
            "forget": self._forget,
        }

        kept = birth.unpack_kept(state["kept"], fds)
        self._filter = kept.filter
        self._oom_fd = kept.oom
        self._mounts = kept.mounts
        process = Process(state["pid"], kept.pidfd, kept.console)
        pipes = Pipes(Stdio(-1, -1, -1), kept.stdin, kept.stdout, kept.stderr)
        self._log = open_writer(head["log"])
        self._job = self._new_job("", process, pipes, head["stdio"], self._log)
        self._take_up(head, kept, fds)

    # ------------------------------------------------------------ birth

    def _take_up(self, head: dict[str, Any], kept: birth.Kept, clients: list[int]) -> None:
        """Begin to watch everything."""
        self._wake = wake_on_child(self._poller, self._reap)
        if self._oom_fd >= 0:
            self._poller.watch(self._oom_fd, POLLIN, self._oom)
        self._attach_all(self._job, head["attachments"], clients)
        self._control.listen(head["socket"], socket(fileno=kept.listener))
        self._control.adopt(socket(fileno=kept.connection))

    def _new_job(
        self, exec_id: str, process: Process, pipes: Pipes, stdio: dict[str, Any], log: Writer | None = None
    ) -> Job:
        once = bool(exec_id or stdio.get("stdin_once"))
        job = Job(self._poller, exec_id, process, pipes, log=log, stdin_once=once, on_detached=self._detached)
        self._jobs[job.pid] = job
        return job

    @staticmethod
    def _attach_all(job: Job, wishes: list[dict[str, Any]], fds: list[int]) -> None:
        for wish, fd in zip(wishes, fds, strict=True):
            try:
                job.attach(fd, wish)
            except (OSError, ValueError):
                sys.excepthook(*sys.exc_info())

    # ------------------------------------------------------------ life

    def run(self) -> None:
        """Supervise until there is nothing left to do."""
        try:
            self._reap()  # what ended before we looked
            while not self._may_leave():
                self.turn()
        except BaseException as error:
            sys.excepthook(*sys.exc_info())
            self._perish(error)

    def turn(self) -> None:
        """Wait for something to happen and deal with it."""
        self._poller.turn()

    def close(self) -> None:
        """Close everything, as if the process ended."""
        self._job.close()
        self._control.close()
        for fd in self._wake:
            os.close(fd)

    def _may_leave(self) -> bool:
        gone = self._forgotten or not self._control.connected
        return self._over and gone and not any(job.clients() for job in self._every_job())

    def _every_job(self) -> list[Job]:
        return [*self._jobs.values(), self._job]

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
        status = "exited" if self._recorded else "created" if not self._started_at else "running"
        return {
            "status": "paused" if self._paused and status == "running" else status,
            "id": self._id,
            "monitor_pid": os.getpid(),
            "pid": self._job.pid,
            "started_at": self._started_at,
            "execs": [{"id": job.exec_id, "pid": job.pid} for job in self._jobs.values() if job.exec_id],
            "exec_exits": self._exec_exits,
            **self._end,
        }

    def _start(self, message: dict[str, Any], fds: list[int]) -> None:
        if self._waiting is None:
            raise StartError("Conflict", "the container has already been started")
        helper, self._waiting = self._waiting, None
        try:
            helper.start()
        except StartError:
            _kill(self._job)  # if it has not ended already
            raise
        self._started_at = time.time_ns()

    def _signal(self, message: dict[str, Any], fds: list[int]) -> None:
        job = self._running_job(message)
        try:
            pidfd_send_signal(job.pidfd, int(message["sig"]))
        except ProcessLookupError:
            raise StartError("Conflict", f"container {self._id} is not running") from None

    def _resize(self, message: dict[str, Any], fds: list[int]) -> None:
        height, width = (min(max(int(message[name]), 0), 0xFFFF) for name in ("height", "width"))
        for joining in self._joining:
            if joining.wanted.exec_id == message.get("exec_id"):
                joining.size = height, width
                return
        job = self._running_job(message)
        if job.console >= 0:  # without a terminal there is nothing to do, and nothing wrong
            tty.set_size(job.console, height, width)

    def _attach(self, message: dict[str, Any], fds: list[int]) -> None:
        job = self._running_job(message)
        job.attach(fds.pop(0), message["attachment"])

    def _exec(self, message: dict[str, Any], fds: list[int]) -> control_.Later:
        init = self._running_job({})
        if self._paused:  # the new process would stop before it can say that it runs
            raise StartError("Conflict", f"Container {self._id} is paused, unpause the container before exec")
        order = birth.take_order(self._exec_head, message, fds)
        given = order.filter >= 0
        clients, fds[:] = fds[:], [order.body] + [order.filter] * given
        wanted = Wanted(str(message["exec_id"]), message["stdio"], order.pipes, message["attachments"], clients)
        try:
            order = order if given else order._replace(filter=self._filter)
            joiner = birth.begin_exec(order, (init.pid, init.pidfd), self._knows)
        except BaseException:
            order.pipes.close_ours()
            fds += clients
            raise
        finally:
            order.pipes.close_child()
        joining = Joining(self._poller, joiner, wanted, self._exec_runs, self._joining.remove, self._why)
        self._joining.append(joining)
        return joining.answer

    def _knows(self, pid: int) -> bool:
        """Whether a child has its task already."""
        joining = any(joining.pid == pid for joining in self._joining)
        return pid in self._jobs or joining or (self._log is not None and self._log.owns(pid))

    def _why(self, error: StartError) -> StartError:
        """What kept an exec from running: the end of the container, if it is that."""
        ended = self._job.ended or is_ending(self._job.pid)
        return StartError("Conflict", f"container {self._id} is not running") if ended else error

    def _exec_runs(self, joining: Joining, process: Process, warnings: list[str]) -> dict[str, Any]:
        wanted = joining.wanted
        job = self._new_job(wanted.exec_id, process, wanted.pipes, wanted.stdio)
        if joining.size and job.console >= 0:
            tty.set_size(job.console, *joining.size)
        self._attach_all(job, wanted.wishes, wanted.clients)
        if not job.has_typing_client:
            job.close_stdin()
        return {"pid": job.pid, "warnings": warnings}

    def _pause(self, message: dict[str, Any], fds: list[int]) -> None:
        self._running_job({})
        self._cgroup().freeze()
        self._paused = True
        self._held = bool(message.get("held"))
        if self._held:
            self._control.when_gone(self._let_go)

    def _resume(self, message: dict[str, Any], fds: list[int]) -> None:
        self._running_job({})
        self._cgroup().thaw()
        self._paused = self._held = False

    def _let_go(self) -> None:
        if self._held and not self._job.ended:
            self._attempt(lambda: self._resume({}, []))

    def _update(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._running_job({})
        try:
            return {"warnings": self._cgroup().update(message["resources"])}
        except OSError as error:
            raise StartError("Internal", f"{error.filename}: {words(error)}") from None
        except ValueError as error:
            raise StartError("InvalidArgument", str(error)) from None

    def _cgroup(self) -> Cgroup:
        """Opened when needed: a monitor at rest has no use for it."""
        if self._cgroup_path is None:
            raise StartError("InvalidArgument", f"container {self._id} has no cgroup of its own")
        return open_cgroup(self._cgroup_path)

    def _close_stdin(self, message: dict[str, Any], fds: list[int]) -> None:
        self._running_job(message).close_stdin()

    def _clear_log(self, message: dict[str, Any], fds: list[int]) -> control_.Later | None:
        if self._log is None:
            raise StartError("Conflict", f"container {self._id} is not running")
        self._job.read_now()
        later = control_.Later()
        outcome: list[OSError | None] = []

        def cleared(error: OSError | None) -> None:
            outcome.append(error)
            later.fail(StartError("Internal", str(error))) if error else later.settle(None)

        self._log.clear(cleared)
        if not outcome:
            return later
        if outcome[0]:
            raise outcome[0]
        return None

    def _forget(self, message: dict[str, Any], fds: list[int]) -> None:
        self._forgotten = True

    def _detached(self, job: Job, attachment: str) -> None:
        event = {"event": "detached", "attachment": attachment}
        self._control.announce({**event, "exec_id": job.exec_id} if job.exec_id else event)

    def _oom(self, _: int) -> None:
        """Memory ran out, or, on v2, something else changed in memory.events. v1 tells before it kills and counts
        (the kernel's mem_cgroup_oom), so that we look again; the end looks for the last time."""
        try:
            os.read(self._oom_fd, 4096)
        except BlockingIOError:
            return
        self._oom_told = True
        self._count_ooms()
        self._poller.after(_OOM_SETTLES_S, self._count_ooms)

    def _count_ooms(self) -> None:
        if self._oom_fd < 0:
            return
        fd, count = self._cgroup().oom_events()
        os.close(fd)
        if (killed := count()) > self._ooms:
            self._ooms = killed
            self._control.announce({"event": "oom", "time": time.time_ns()})

    # ------------------------------------------------------------ death

    def _reap(self) -> None:
        """Collect every child that ended: ours, the log's, and orphans of a shared PID namespace."""
        if self._waiting and self._has_ended(self._job):
            self._waiting.end()  # killed at its gate: its parent must go before it is ours to reap
            self._waiting = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for joining in tuple(self._joining):
                if joining.pid == pid:
                    joining.reaped()
            job = self._jobs.pop(pid, None)
            if job is None:
                if self._log:
                    self._log.reaped(pid, status)
            elif job is self._job:
                self._init_ended(job, status)
            else:
                self._exec_ended(job, status)

    @staticmethod
    def _has_ended(job: Job) -> bool:
        poll = select.poll()
        poll.register(job.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _exec_ended(self, job: Job, status: int) -> None:
        """Tell at once; the clients' streams end when the output is through and the daemon knows the exit code,
        which the client asks for next."""
        waits = {"output", "daemon"}

        def done(what: str) -> None:
            waits.discard(what)
            if not waits:
                job.end_clients()

        code, number = exit_of(status)
        self._note_exec_exit(job.exec_id, code)

        def told(heard: bool) -> None:
            if heard:
                self._exec_exits.pop(job.exec_id, None)
            done("daemon")

        event = {"event": "exec_exit", "exec_id": job.exec_id, "exit_code": code, "signal": number}
        self._control.announce({**event, "time": time.time_ns()}, told)
        job.process_ended(lambda: done("output"))

    def _note_exec_exit(self, exec_id: str, code: int) -> None:
        """Keep the exit code of an exec until somebody has heard it; of the last ones, if nobody ever does."""
        self._exec_exits[exec_id] = code
        if len(self._exec_exits) > _EXEC_EXITS:
            del self._exec_exits[next(iter(self._exec_exits))]

    def _init_ended(self, job: Job, status: int) -> None:
        finished_at = time.time_ns()
        code, number = exit_of(status)
        for joining in tuple(self._joining):
            joining.fail(StartError("Conflict", f"container {self._id} is not running"))
        if self._shared_pids and self._cgroup_path:
            self._attempt(self._cgroup().kill)
            self._reap()  # orphans came to us
        if self._oom_fd >= 0:
            self._attempt(lambda: self._oom(0))
        if self._oom_told:
            self._attempt(self._count_ooms)
        oom_killed = self._ooms > 0
        self._end = {"exit_code": code, "signal": number, "oom_killed": oom_killed, "finished_at": finished_at}
        job.process_ended(self._finish)

    def _finish(self) -> None:
        end = self._end
        if self._log:
            self._log.close()
            self._log = None
        hit("monitor.before_record")
        self._attempt(lambda: self._record(end))
        self._recorded = True
        hit("monitor.after_record")
        self._close_oom()
        if self._exec_head["runtime"]:
            self._attempt(lambda: birth.delete_foreign(self._exec_head))
        if self._cgroup_path:
            self._attempt(self._cgroup().remove)
        self._control.stop_listening()
        event = {"event": "exit", **{name: end[name] for name in ("exit_code", "signal", "oom_killed")}}
        self._control.announce(
            {**event, "time": end["finished_at"], "mounted": self._mounts >= 0}, lambda _: self._leave()
        )

    def _record(self, end: dict[str, Any]) -> None:
        own = os.getpid()
        record = {
            **end,
            "pid": self._job.pid,
            "started_at": self._started_at,
            "monitor_pid": own,
            "monitor_start_time": process_start_time(own),
        }
        write_record(self._record_path, {**record, "execs": self._exec_exits} if self._exec_exits else record)

    def _leave(self) -> None:
        for job in self._every_job():
            job.end_clients()
        self._let_go_of_mounts()
        self._over = True

    def _let_go_of_mounts(self) -> None:
        """The end of the mount namespace, and of the overlay with it, which writes its file system to the disk: that is
        waited for after the exit is told, not before."""
        if self._mounts >= 0:
            hit("monitor.before_unmount")
            os.close(self._mounts)
            self._mounts = -1
            self._control.announce({"event": "unmounted"})

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
        except (OSError, ImportError):  # this may be an old monitor, and what it was started from gone
            sys.excepthook(*sys.exc_info())

    def _perish(self, error: BaseException) -> None:
        """A defect of ours: the container cannot be supervised any more. End it, and leave the record."""
        if self._recorded:
            return
        if not self._end:
            _kill(self._job)
            try:
                os.waitpid(self._job.pid, 0)
            except ChildProcessError:
                pass
        killed = {"exit_code": _LOST, "signal": signal.SIGKILL, "oom_killed": False, "finished_at": time.time_ns()}
        self._attempt(lambda: self._record({**(self._end or killed), "error": f"the monitor failed: {error!r}"}))
        if self._cgroup_path:
            self._attempt(self._cgroup().kill)
            self._attempt(self._cgroup().remove)


def _kill(job: Job) -> None:
    try:
        pidfd_send_signal(job.pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
