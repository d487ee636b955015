"""The two ends of a forked child that reports to its parent: what it is while it works, and its undoing."""

import os
import signal
from collections.abc import Callable
from typing import NoReturn, TypeVar

from wherry.runtime.failure import StartError, words
from wherry.runtime.wire import Wire

Result = TypeVar("Result")


def be_child(link: Wire, work: Callable[[], object], doing: str) -> NoReturn:
    """Do `work` and end, in the child of a fork; whatever fails, the parent is told on `link` what we were `doing`."""

    def work_and_end() -> None:
        work()
        os._exit(0)

    try:
        tell_failures(link, work_and_end, doing)
    finally:
        os._exit(1)


def tell_failures(link: Wire, work: Callable[[], Result], doing: str) -> Result | None:
    """What `work` returns; None when it failed, and the parent is told."""
    try:
        return work()
    except StartError as error:
        link.fail(error)
    except OSError as error:
        link.fail(StartError("Internal", f"error {doing}: {error.filename}: {words(error)}"))
    except BaseException as error:
        link.fail(StartError("Internal", f"defect {doing}: {type(error).__name__}: {error}"))
    return None


def end_child(pid: int) -> None:
    """Kill and reap; one that is gone already is no error."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
