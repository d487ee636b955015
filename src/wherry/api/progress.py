"""Progress of long work: one JSON object and CR LF per step, in chunks, errors in band.

The head of the reply goes out with the first object, so that what fails before it still gets a real status.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from wherry.api import errors
from wherry.http.message import Response

Step = dict[str, Any]
Report = Callable[[Step], None]

_encode = msgspec.json.Encoder().encode


def line(step: Step) -> bytes:
    """One object on the wire."""
    return _encode(step) + b"\r\n"


def failure(message: str) -> Step:
    """What went wrong, as the last object of a stream."""
    return {"errorDetail": {"message": message}, "error": message}


async def respond(work: Callable[[Report], Awaitable[None]], *, always_ok: bool = False) -> Response:
    """Run `work`, which reports its steps (from any thread), and stream them.

    An error before the first step is raised, unless `always_ok`: then, as later on, it is told in band. When the
    client hangs up the work is cancelled.
    """
    steps = _Steps(work)
    if not always_ok:
        await steps.first()
    return Response(200, content_type="application/json", stream=steps.lines())


class _Steps:
    """The steps of one task, from whichever thread they come, to the one who streams them."""

    def __init__(self, work: Callable[[Report], Awaitable[None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Step | None] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._run(work))
        self._task.add_done_callback(lambda _task: self._queue.put_nowait(None))
        self._ahead: list[Step | None] = []

    async def _run(self, work: Callable[[Report], Awaitable[None]]) -> None:
        await work(self._report)
        await asyncio.sleep(0)  # lets reports that threads have posted come before the end

    def _report(self, step: Step) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, step)

    async def first(self) -> None:
        """Wait for the first step; raises what ended the work before it."""
        try:
            step = await self._queue.get()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if step is None:
            await self._task
        self._ahead.append(step)

    async def lines(self) -> AsyncIterator[bytes]:
        try:
            for step in self._ahead:
                if step is None:
                    return
                yield line(step)
            while (step := await self._queue.get()) is not None:
                yield line(step)
            error = self._task.exception()
            if isinstance(error, Exception):
                yield line(failure(errors.explain(error)[1]))
        finally:
            self._task.cancel()
