"""What the tests of logs share: writing with a writer, reading back, a model of what comes out."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wherry.runtime.logs.drivers import open_writer
from wherry.runtime.logs.reader import frame, read

T0 = 1_700_000_000_000_000_000
DRIVERS = ("json-file", "local")


def writer(path: Path, driver: str = "json-file", fork: Callable[[], int] = os.fork, **options: Any) -> Any:
    return open_writer({"driver": driver, "path": str(path), **options}, fork)


class Forks(list[int]):
    """A `fork` that remembers its children, so that only they are waited for."""

    def __call__(self) -> int:
        self.append(pid := os.fork())
        return pid

    def reap(self, log: Any) -> None:
        while self:
            pid = self.pop()
            log.reaped(*os.waitpid(pid, 0))


def fetch(path: Path, driver: str = "json-file", **query: Any) -> bytes:
    async def main() -> bytes:
        return b"".join([chunk async for chunk in read(str(path), driver, **query)])

    return asyncio.run(main())


def framed(messages: list[tuple[int, bytes]]) -> bytes:
    return b"".join(frame(stream, payload) for stream, payload in messages)
