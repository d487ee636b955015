"""Start a created or stopped container."""

from typing import TYPE_CHECKING

from wherry.engine import removal, restarts
from wherry.engine.containers import Entry
from wherry.engine.launch import launch

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def start(engine: "Engine", ref: str, *, detach_keys: str | None = None) -> None:
    """Start the container and return when its process runs. POST /containers/{id}/start.

    Raises `NotModified` when it runs already, `Conflict` when it is paused or being removed, `InvalidArgument` when
    its command cannot be run (State.ExitCode is then 126 or 127). `detach_keys` is taken from each attach instead.
    """
    entry = engine.containers.lookup(ref)
    await engine.to_the_end(_start(engine, entry, ref))


async def _start(engine: "Engine", entry: Entry, ref: str) -> None:
    with entry.starting():
        async with entry.lock:
            await start_locked(engine, entry, ref)


async def start_locked(engine: "Engine", entry: Entry, ref: str | None = None) -> None:
    """As `start`, by request; the lock is held."""
    entry.check("start", ref)
    restarts.cancel(entry)
    entry.record.restart_count = entry.requests = 0
    try:
        await launch(engine, entry)
    except Exception:
        if entry.record.host_config.AutoRemove and entry.monitor is None:
            await removal.remove_if_possible(engine, entry, volumes=True)
        raise
