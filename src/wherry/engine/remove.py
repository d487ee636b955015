"""Remove a container by request."""

from typing import TYPE_CHECKING

from wherry.engine import links, stop
from wherry.engine.containers import Entry
from wherry.engine.removal import remove_now
from wherry.errors import NotFound

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def remove(engine: "Engine", ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
    """Remove a stopped container, or with `force` any; `volumes` takes its anonymous volumes along.

    Raises `Conflict` when it runs and `force` is not given. With `link`, `ref` names a legacy link (`OWNER/ALIAS`), and
    that alone goes. DELETE /containers/{id}.
    """
    entry = engine.containers.lookup(ref)
    if link:
        owner, names = links.unlink(engine, ref)
        engine.save(owner)
        await engine.run_blocking(links.forget, owner, names)
        return
    if not force:
        entry.check("remove", ref)
    await engine.to_the_end(_remove(engine, entry, ref, force, volumes))


async def _remove(engine: "Engine", entry: Entry, ref: str, force: bool, volumes: bool) -> None:
    entry.removals += force
    try:
        # More than once, where a start was under way and held the lock: the next one is refused.
        while not await _removed(engine, entry, ref, force, volumes):
            pass
    finally:
        entry.removals -= force


async def _removed(engine: "Engine", entry: Entry, ref: str, force: bool, volumes: bool) -> bool:
    """Whether it could be removed; it runs (again) otherwise."""
    if force and entry.record.state.running:
        # `--rm` would remove it as soon as it ends, and answer us that nothing is there.
        await stop.force_down(engine, entry)
    async with entry.lock:
        if engine.containers.get(entry.id) is None:
            if force:
                return True
            raise NotFound(f"No such container: {ref}")
        if force and entry.record.state.running:
            return False
        if entry.status != "removing" or not force:
            entry.check("remove", ref)
        await remove_now(engine, entry, volumes=volumes)
        return True
