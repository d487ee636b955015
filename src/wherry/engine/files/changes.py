"""`docker diff`: what a container changed of its image's files."""

from typing import TYPE_CHECKING

from wherry.engine.containers import Entry
from wherry.engine.model import Container
from wherry.engine.storage import DOCKERENV, is_stacked, lower_dirs
from wherry.images.snapshots.diff import Change, Differ, differences

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

# What starting a container leaves in its layer, to mount on: Docker keeps these in a layer below the container's.
ASSUMED = (
    *("dev", "dev/console", "dev/pts", "dev/shm", "proc", "sys", DOCKERENV),
    *("etc", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"),
)


async def changes(engine: "Engine", ref: str) -> list[Change]:
    """GET /containers/{id}/changes. Raises `NotFound`."""
    entry = engine.containers.lookup(ref)
    return await engine.run_blocking(_changes, engine, entry)


def _changes(engine: "Engine", entry: Entry) -> list[Change]:
    try:
        return differences(str(engine.paths.upper(entry.id)), differ(engine, entry.record))
    except FileNotFoundError:
        return []  # removed meanwhile


def differ(engine: "Engine", record: Container) -> Differ:
    """What compares the container's own directory with its image. Raises `Internal` when that cannot be mounted."""
    return Differ(lower_dirs(engine, record), ASSUMED, whole=not is_stacked(record))
