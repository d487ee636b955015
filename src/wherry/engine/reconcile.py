"""The reconciler: what the kernel and the disk hold for containers that do not run, or do not exist.

Run at start, it repairs what a crash left; run every minute (`tending`), what others broke in the kernel. With
`dry_run` it only tells: that is the leak check of the tests. A container whose lock is held counts as alive. Two
engines on one host do not disturb each other: it only touches ids that this engine's database, exec root or data root
name, and what the network room's tables name.
"""

import os
from typing import TYPE_CHECKING

from wherry.engine import volume_mounts
from wherry.engine.removal import empty_trash
from wherry.engine.sandbox import remove_bundle
from wherry.runtime.cgroups import open_cgroup

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def reconcile(engine: "Engine", *, dry_run: bool = False) -> list[str]:
    """Remove leftovers (or, with `dry_run`, only name them); returns one line for each. Nothing may be created, started
    or removed meanwhile."""
    return await engine.run_blocking(_reconcile, engine, engine.containers.known_ids(), dry_run)


async def reconcile_kernel(engine: "Engine", *, dry_run: bool) -> list[str]:
    """The part that is cheap, and true while containers come and go: the network, and what is left of containers that
    ended. Without `dry_run` nothing may start meanwhile."""
    return await engine.run_blocking(_reconcile_kernel, engine, set(), dry_run)


def _reconcile_kernel(engine: "Engine", known: set[str], dry_run: bool) -> list[str]:
    found = _cgroups(engine, known, dry_run)
    found += list(engine.network.reconcile(lambda: _live(engine), dry_run=dry_run))
    found += _volume_mounts(engine, dry_run)
    return found + _bundles(engine, dry_run)


def _volume_mounts(engine: "Engine", dry_run: bool) -> list[str]:
    """Volumes that are mounted for nobody."""
    unused = volume_mounts.unused(engine)
    for volume in unused if not dry_run else ():
        engine.volume_mounts.release(volume, "")
    return [f"mount of volume {volume.name}" for volume in unused]


def _reconcile(engine: "Engine", known: set[str], dry_run: bool) -> list[str]:
    found = _reconcile_kernel(engine, known, dry_run)
    found += _data(engine, known, dry_run)
    found += _volumes(engine, dry_run)
    found += [f"mount of layer {name}" for name in engine.images.stale_mounts(dry_run=dry_run)]
    return found + _trash(engine, dry_run)


def _live(engine: "Engine") -> set[str]:
    """Those that run, or about which something is being done right now."""
    return {entry.id for entry in engine.containers if entry.monitor is not None or entry.lock.locked()}


def _names(path: os.PathLike[str]) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def _cgroups(engine: "Engine", known: set[str], dry_run: bool) -> list[str]:
    """Processes and cgroups of containers that do not run."""
    found = []
    trashed = {name.partition("-")[0] for name in _names(engine.paths.trash)}
    left = known | set(_names(engine.paths.exec_containers)) | trashed
    for container_id in sorted(left - _live(engine)):
        entry = engine.containers.get(container_id)
        try:
            cgroup = open_cgroup(engine.cgroup_path(container_id, entry.record if entry else None))
        except ValueError:
            continue
        if not cgroup.exists():
            continue
        found.append(f"cgroup of container {container_id} with processes {cgroup.pids()}")
        if not dry_run:
            cgroup.kill()
            cgroup.remove()
    return found


def _bundles(engine: "Engine", dry_run: bool) -> list[str]:
    """Directories of the exec root whose container does not run."""
    left = set(_names(engine.paths.exec_containers))
    left -= _live(engine)
    for container_id in left if not dry_run else ():
        remove_bundle(engine, container_id)
    return [f"runtime directory of container {container_id}" for container_id in sorted(left)]


def _data(engine: "Engine", known: set[str], dry_run: bool) -> list[str]:
    """Directories of the data root that no row names: a create or a removal that was cut off."""
    found = []
    for container_id in _names(engine.paths.containers):
        if container_id not in known:
            found.append(f"data directory of container {container_id}")
            if not dry_run:
                target = engine.paths.trashed(container_id)
                os.rename(engine.paths.container(container_id), target)
    return found


def _volumes(engine: "Engine", dry_run: bool) -> list[str]:
    """Empty volume directories without a row: a create that was cut off. User data is never touched."""
    found = []
    rows = {volume.name for volume in engine.volumes.list()}
    for name in _names(engine.paths.volumes):
        data = engine.paths.volume(name)
        if name in rows or (data.is_dir() and os.listdir(data)):
            continue
        found.append(f"empty directory of volume {name}")
        if not dry_run:
            for directory in (data, engine.paths.volumes / name):
                if directory.is_dir():
                    os.rmdir(directory)
    return found


def _trash(engine: "Engine", dry_run: bool) -> list[str]:
    """What a removal moved away and did not come to delete."""
    names = _names(engine.paths.trash) if dry_run else empty_trash(engine)
    return [f"trash {name}" for name in names]
