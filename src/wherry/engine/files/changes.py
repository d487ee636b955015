"""`docker diff`: what a container changed of its image's files."""

import os
from typing import TYPE_CHECKING

from wherry.engine.containers import Entry
from wherry.images.snapshots.diff import Change, Differ

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

# What starting a container leaves in its layer, to mount on: Docker keeps these in a layer below the container's.
ASSUMED = (
    *("dev", "dev/console", "dev/pts", "dev/shm", "proc", "sys", ".dockerenv"),
    *("etc", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"),
)


async def changes(engine: "Engine", ref: str) -> list[Change]:
    """GET /containers/{id}/changes. Raises `NotFound`."""
    entry = engine.containers.lookup(ref)
    return await engine.run_blocking(_changes, engine, entry)


def _changes(engine: "Engine", entry: Entry) -> list[Change]:
    try:
        upper = os.open(engine.paths.upper(entry.id), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        return Differ(entry.record.lower_dirs, ASSUMED).changes(upper)
    finally:
        os.close(upper)
