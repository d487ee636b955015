"""Remove a container: the row says so first, then its directory is renamed into the trash, then the row goes.

Deleting the files is left to the background: a name and an id are free as soon as the row is gone. A crash in between
leaves a row in state `removing`, which the next start finishes.
"""

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from wherry.engine import attach
from wherry.engine.containers import Entry
from wherry.errors import WherryError
from wherry.failpoint import hit

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def remove_now(engine: "Engine", entry: Entry, *, volumes: bool) -> None:
    """Remove a container that does not run; the lock is held. Can be repeated after a failure."""
    record = entry.record
    if record.state.status != "removing":
        hit("engine.remove.before_row")
        record.state.status, record.remove_volumes = "removing", volumes
        engine.save(record)
        hit("engine.remove.after_row")
    attach.drop_pending(entry)
    trashed = [_to_trash(engine, record.id)]
    hit("engine.remove.after_rename")
    if record.remove_volumes:
        trashed += _remove_volumes(engine, entry)
    hit("engine.remove.after_volumes")
    engine.containers.forget(entry)
    hit("engine.remove.after_forget")
    engine.background(_delete(engine, [path for path in trashed if path is not None]))
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
    target = engine.paths.trash / f"{container_id}-{secrets.token_hex(4)}"
    try:
        os.rename(engine.paths.container(container_id), target)
    except FileNotFoundError:
        return None
    return target


async def _delete(engine: "Engine", trashed: list[Path]) -> None:
    for path in trashed:
        await engine.run_blocking(delete_tree, path)


def delete_tree(path: Path) -> None:
    """Delete a tree in the trash; what resists stays there for the next start."""
    shutil.rmtree(path, ignore_errors=True)


async def finish(engine: "Engine", entry: Entry) -> None:
    """Complete a removal that a crash interrupted."""
    async with entry.lock:
        try:
            await remove_now(engine, entry, volumes=entry.record.remove_volumes)
        except (WherryError, OSError):
            entry.record.state.status = "dead"
            engine.save(entry.record)
            raise
