"""Log files that the container never waits for: `mode=non-blocking` with json-file and local."""

import os
import select
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wherry.linux.pidfd import pidfd_open
from wherry.runtime.logs.base import Cleared
from wherry.runtime.logs.forward.writer import Forwarded
from wherry.runtime.logs.none import Nothing
from wherry.runtime.logs.rotation import clear_files

if TYPE_CHECKING:
    pass

_LAST_WORDS_S = 5.0  # for the disk to take what waits when the container has ended
_CLEARING_S = 5.0


class Spooled(Forwarded):
    """A writer (`wherry.runtime.logs.base.Writer`) whose files, those of `config` (`drivers.open_writer`), a child
    writes. A disk that stalls fills the pipe between, then up to `limit` bytes; what comes then is dropped."""

    def __init__(self, config: dict[str, Any], limit: int, fork: Callable[[], int]) -> None:
        super().__init__(config, limit, Nothing(), fork)
        self._path: str = config["path"]
        self._cleared: Cleared | None = None
        self._timer = 0
        self._last_words_s = _LAST_WORDS_S

    def close(self) -> None:
        """The log is complete when this returns, unless the disk stalls."""
        self.flush()
        self._hand_over_within(self._last_words_s)
        self._hang_up()
        if self._child and not self._ends_within(self._last_words_s):
            os.kill(self._child, signal.SIGKILL)

    def clear(self, then: Cleared) -> None:
        """The child must have gone first: nobody knows how much of what it was given it has written."""
        if self._cleared:
            then(OSError("the log is being cleared already"))
            return
        self._hang_up()
        self._waiting.clear()
        self._size = 0
        self._cleared = then
        if not self._child:
            self._clear()
            return
        os.kill(self._child, signal.SIGKILL)
        if self._poller:
            self._timer = self._poller.after(_CLEARING_S, self._give_up_clearing)

    def reaped(self, pid: int, status: int) -> bool:
        if self._cleared and pid == self._child:
            self._clear()
        return super().reaped(pid, status)

    def _clear(self) -> None:
        self._next_start = 0.0
        try:
            clear_files(self._path)
        except OSError as error:
            self._settle(error)
        else:
            self._settle(None)

    def _give_up_clearing(self) -> None:
        self._settle(OSError("the log was not cleared: its disk does not answer"))

    def _settle(self, outcome: OSError | None) -> None:
        if self._poller:
            self._poller.cancel(self._timer)
        then, self._cleared = self._cleared, None
        if then:
            then(outcome)

    def _ends_within(self, seconds: float) -> bool:
        pidfd = pidfd_open(self._child)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        ended = bool(poll.poll(seconds * 1000))
        os.close(pidfd)
        if ended:
            os.waitpid(self._child, 0)
            self._child = 0
        return ended
