"""Execs under way: from the request until the program runs, or never will. The monitor goes on meanwhile."""

from collections.abc import Callable
from typing import Any, NamedTuple

from wherry.linux import fdpass
from wherry.runtime import exec as joins
from wherry.runtime import late
from wherry.runtime.failure import StartError
from wherry.runtime.lifecycle import Process
from wherry.runtime.monitor.control import Later
from wherry.runtime.monitor.poller import POLLIN, Poller
from wherry.runtime.monitor.stdio import Pipes


class Wanted(NamedTuple):
    """What the process will have: its streams, and the clients to attach with their sockets."""

    exec_id: str
    stdio: dict[str, Any]
    pipes: Pipes
    wishes: list[dict[str, Any]]
    clients: list[int]


class Joining:
    """One exec under way. `on_run(joining, process, warnings)` is called when the program runs and returns the answer
    to the request; `on_end(joining)` when it is no more under way, either way. `on_failure` may know why it failed."""

    def __init__(
        self,
        poller: Poller,
        joiner: joins.Joiner,
        wanted: Wanted,
        on_run: Callable[["Joining", Process, list[str]], dict[str, Any]],
        on_end: Callable[["Joining"], None],
        on_failure: Callable[[StartError], StartError],
    ) -> None:
        self.wanted = wanted
        self.answer = Later()
        self.size: tuple[int, int] | None = None
        """Of its terminal, when it was asked for meanwhile."""
        self._poller = poller
        self._joiner = joiner
        self._on_run = on_run
        self._on_end = on_end
        self._on_failure = on_failure
        poller.watch(joiner.fileno(), POLLIN, self._ready)
        self._limit = poller.after(late.PATIENCE_S, lambda: self.fail(StartError("Internal", late.too_late())))
        self._nudges = poller.after(late.NUDGE_S, self._nudge)

    @property
    def pid(self) -> int:
        """Of the program's process; 0 while there is none."""
        return self._joiner.process.pid if self._joiner.process else 0

    def reaped(self) -> None:
        """The program's process ended: it has told why it failed, or it ran."""
        if not self._take_in():
            self._runs()

    def fail(self, error: StartError) -> None:
        """Kill what there is of it, and answer with `error`."""
        self._leave()
        self._joiner.end()
        self.wanted.pipes.close_ours()
        fdpass.close_all(self.wanted.clients)
        self.answer.fail(error)

    def _ready(self, _: int) -> None:
        self._take_in()

    def _take_in(self) -> bool:
        """Whether it is settled now."""
        try:
            if not self._joiner.look():
                return False
        except StartError as error:
            self.fail(self._on_failure(error))
        else:
            self._runs()
        return True

    def _runs(self) -> None:
        self._leave()
        self._joiner.close()
        assert self._joiner.process
        self.answer.settle(self._on_run(self, self._joiner.process, self._joiner.warnings))

    def _nudge(self) -> None:
        self._joiner.nudge()
        self._nudges = self._poller.after(late.NUDGE_S, self._nudge)

    def _leave(self) -> None:
        self._poller.forget(self._joiner.fileno())
        self._poller.cancel(self._limit)
        self._poller.cancel(self._nudges)
        self._on_end(self)
