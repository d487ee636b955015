"""The logs of a container, from the files its monitor writes."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from msgspec import Struct

from wherry.engine.containers import Entry
from wherry.engine.log_drivers import FORWARDING
from wherry.engine.log_settings import cache_disabled
from wherry.errors import Conflict, Internal, InvalidArgument, Unimplemented
from wherry.runtime.logs import reader
from wherry.runtime.logs.rotation import clear_files

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


class LogOptions(Struct, kw_only=True):
    """Query of GET /containers/{id}/logs; times in ns, `tail` None is all; `joined`: many lines a frame."""

    stdout: bool = False
    stderr: bool = False
    follow: bool = False
    since_ns: int | None = None
    until_ns: int | None = None
    timestamps: bool = False
    details: bool = False
    tail: int | None = None
    joined: bool = False


async def logs(engine: "Engine", ref: str, options: LogOptions) -> AsyncIterator[bytes]:
    """Chunks of the log in stdcopy frames (plain with a terminal); with `follow` until the container ends.

    Raises `NotFound`, `InvalidArgument` when no stream is chosen, `Unimplemented` when nothing is kept.
    """
    entry = engine.containers.lookup(ref)
    if not (options.stdout or options.stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    driver = _kept_as(entry)
    if driver is None:
        raise Unimplemented("configured logging driver does not support reading")
    if entry.record.log_path == "":
        return _nothing()  # never started
    return _read(entry, driver, options)


def _kept_as(entry: Entry) -> str | None:
    """The driver of the files here; None when the log is not kept here."""
    config = entry.record.host_config.LogConfig
    if config.Type not in FORWARDING:
        return config.Type if config.Type != "none" else None
    return None if cache_disabled(config.Config or {}) else "local"


async def clear(engine: "Engine", ref: str) -> None:
    """Drop what the log holds, with its rotated files. Followers go on with what is written afterwards.

    Raises `NotFound`, `InvalidArgument` when nothing is kept here, `Internal` when the disk refuses. An extension:
    DELETE /containers/{id}/logs.
    """
    entry = engine.containers.lookup(ref)
    if _kept_as(entry) is None:
        driver = entry.record.host_config.LogConfig.Type
        raise InvalidArgument(f"cannot clear the log of container {entry.record.name}: driver {driver} keeps none here")
    await engine.to_the_end(_clear(entry))


async def _clear(entry: Entry) -> None:
    async with entry.lock:
        if entry.record.log_path == "":
            return  # never started
        try:
            if entry.monitor:
                await entry.monitor.clear_log()
                return
        except Conflict:
            pass  # it has closed the log
        try:
            await asyncio.to_thread(clear_files, entry.record.log_path)
        except OSError as error:
            raise Internal(f"cannot clear {error.filename}: {error.strerror}") from None


async def _read(entry: Entry, driver: str, options: LogOptions) -> AsyncIterator[bytes]:
    follow = options.follow and _writes(entry)
    stopped = asyncio.Event()
    if follow:
        ended = entry.wait(removal=False)
        ended.add_done_callback(lambda _: stopped.set())
    try:
        async for chunk in reader.read(
            entry.record.log_path,
            driver,
            follow=follow,
            tail=options.tail,
            since_ns=options.since_ns or None,
            until_ns=options.until_ns or None,
            stdout=options.stdout,
            stderr=options.stderr,
            timestamps=options.timestamps,
            details=options.details,
            joined=options.joined,
            tty=entry.record.config.Tty,
            stopped=stopped,
        ):
            yield chunk
    finally:
        if follow:
            entry.forget_wait(ended)


async def _nothing() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk


def _writes(entry: Entry) -> bool:
    return entry.status in ("running", "paused")
