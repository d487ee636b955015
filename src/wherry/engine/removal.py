"""Remove a container: the row says so first, then its directory is renamed into the trash, then the row goes.

Deleting the files is left to the background: a name and an id are free as soon as the row is gone. A crash in between
leaves a row in state `removing`, which the next start finishes.
"""

import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from wherry.engine import attach, reserve
from wherry.engine.containers import Entry
from wherry.failpoint import hit
from wherry.store.trees import delete_tree

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


log = logging.getLogger("wherry.engine")


async def remove_now(engine: "Engine", entry: Entry, *, volumes: bool) -> None:
    """Remove a container that does not run; the lock is held. One that could not be removed is `dead`, those who wait
    for its removal are told, and it can be tried again."""
    try:
        await _remove(engine, entry, volumes)
    except Exception as error:
        log.exception("container %s could not be removed", entry.id)
        entry.record.state.status, entry.record.state.error = "dead", str(error)
        engine.save_or_later(entry)
        entry.wake(removal=True, error=str(error))
        raise


async def remove_if_possible(engine: "Engine", entry: Entry, *, volumes: bool) -> None:
    """`remove_now` for a container that nobody waits to see removed (`--rm`): a failure is only logged."""
    try:
        await remove_now(engine, entry, volumes=volumes)
    except Exception:
        log.error("container %s is to be removed by request", entry.id)


async def _remove(engine: "Engine", entry: Entry, volumes: bool) -> None:
    record = entry.record
    if record.state.status != "removing":
        hit("engine.remove.before_row")
        record.state.status, record.remove_volumes = "removing", volumes
        # A full disk must not keep anybody from making room: it goes on without the note.
        engine.save_or_later(entry)
        hit("engine.remove.after_row")
    attach.drop_pending(entry)
    trashed = [_to_trash(engine, record.id)]
    hit("engine.remove.after_rename")
    if record.remove_volumes:
        trashed += _remove_volumes(engine, entry)
    hit("engine.remove.after_volumes")
    remains = [path for path in trashed if path is not None]
    try:
        engine.containers.forget(entry)
    except sqlite3.Error:
        await _delete(engine, remains)
        reserve.give_back(engine.paths)  # room for the database to say that it is gone
        engine.containers.forget(entry)
    hit("engine.remove.after_forget")
    engine.background(_delete(engine, remains))
    engine.background(engine.run_blocking(engine.images.let_go, record.lower_dirs))
    engine.publish(record, "destroy")
    entry.wake(removal=True)


def _remove_volumes(engine: "Engine", entry: Entry) -> list[Path | None]:
    """Forget the container's anonymous volumes that no other container has; their data goes to the trash."""
    trashed: list[Path | None] = []
    for point in entry.record.mounts:
        volume = engine.volumes.find(point.Name) if point.Type == "volume" else None
        if volume is None or not volume.anonymous:
            continue
        users = [user for user in engine.volume_users(volume.name) if user != entry.id]
        if not users:
            trashed.append(engine.volumes.discard(volume.name, users))
            engine.events.publish("volume", "destroy", volume.name, {"driver": "local"})
    return trashed


def _to_trash(engine: "Engine", container_id: str) -> Path | None:
    target = engine.paths.trashed(container_id)
    try:
        os.rename(engine.paths.container(container_id), target)
    except FileNotFoundError:
        return None
    return target


async def _delete(engine: "Engine", trashed: list[Path]) -> None:
    for path in trashed:
        await engine.run_blocking(delete_tree, path)


def empty_trash(engine: "Engine") -> list[str]:
    """Delete what removals moved away and did not come to delete; returns the names."""
    names = sorted(os.listdir(engine.paths.trash))
    for name in names:
        delete_tree(engine.paths.trash / name)
    return names


async def finish(engine: "Engine", entry: Entry) -> None:
    """Complete a removal that a crash interrupted."""
    async with entry.lock:
        await remove_now(engine, entry, volumes=entry.record.remove_volumes)
