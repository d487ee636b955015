"""Wait for a container: registered at once, so that the reply's head can go out before the end comes."""

import asyncio
from typing import TYPE_CHECKING

from wherry.engine.containers import Entry
from wherry.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

CONDITIONS = ("not-running", "next-exit", "removed")


class Waiter:
    """A registered wait; `await result()` once. `entry` is None when the container is gone already."""

    def __init__(self, entry: Entry | None, future: "asyncio.Future[tuple[int, str | None]]") -> None:
        self._entry = entry
        self._future = future

    async def result(self) -> tuple[int, str | None]:
        """(exit code, error text or None) when the condition is met."""
        return await self._future

    def cancel(self) -> None:
        """The client went away."""
        if self._entry is not None:
            self._entry.forget_wait(self._future)


async def wait(engine: "Engine", ref: str, condition: str = "not-running") -> Waiter:
    """Register a wait for `not-running` (at once when it does not run), `next-exit`, or `removed`. A container that was
    removed with its end is remembered for some minutes, by full id or name.

    Raises `NotFound`, or `InvalidArgument` for another condition. POST /containers/{id}/wait.
    """
    if condition not in ("", *CONDITIONS):
        raise InvalidArgument(f'invalid condition: "{condition}"')
    try:
        entry = engine.containers.lookup(ref)
    except NotFound:
        code = engine.containers.last_exit(ref) if condition != "next-exit" else None
        if code is None:
            raise
        return Waiter(None, _settled(code))
    if condition in ("", "not-running") and entry.status not in ("running", "paused", "restarting"):
        return Waiter(entry, _settled(entry.record.state.exit_code))
    return Waiter(entry, entry.wait(removal=condition == "removed"))


def _settled(code: int) -> "asyncio.Future[tuple[int, str | None]]":
    future = asyncio.get_running_loop().create_future()
    future.set_result((code, None))
    return future
