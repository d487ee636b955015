"""Where a container's root file system comes from: layers with its own on top, or a copy of its own.

New containers get the engine's driver and keep it. What vfs made runs anywhere; what overlay2 made needs overlay.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry.engine.defaults import OVERLAY_OPTIONS
from wherry.engine.model import Container
from wherry.errors import Unavailable
from wherry.images.snapshots import choice
from wherry.images.snapshots.base import Driver
from wherry.images.snapshots.compare import written
from wherry.images.snapshots.overlay import OverlayDriver
from wherry.images.snapshots.vfs import VfsDriver
from wherry.store.trees import tree_size

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")

LAYERS_OPTION = "overlay2.layers"
"""The storage option that tells the form of new layers."""

DOCKERENV = ".dockerenv"
"""An empty file in the root of every container, by which programs find out that they are in one."""


def choose_driver(engine: "Engine") -> Driver:
    """The driver for new containers. When overlay does not work though nobody chose against it, that is told, with what
    can be done. Raises `Unavailable` for one that was asked for and does not work here."""
    form = _options(engine).get(LAYERS_OPTION, "")
    driver, engine.overlay_problem = choice.choose(engine.config.storage_driver, engine.paths, form)
    if engine.overlay_problem:
        engine.warn(
            f"overlay does not work on {engine.paths.data_root}: {engine.overlay_problem}. Containers get a full copy "
            "of their image instead (storage driver vfs): slow to create, and large. Put --data-root on ext4, xfs or "
            "btrfs, or give --storage-driver vfs to say that this is wanted"
        )
    return driver


def _options(engine: "Engine") -> dict[str, str]:
    pairs = (text.partition("=") for text in engine.config.storage_opts)
    return {key: value for key, _, value in pairs}


def report_unusable(engine: "Engine") -> None:
    """Log which containers of an earlier time cannot start, now that overlay does not work."""
    if not engine.overlay_problem:
        return
    names = sorted(entry.record.name for entry in engine.containers if is_stacked(entry.record))
    if names:
        log.warning("made with storage driver overlay2, these containers cannot be started: %s", ", ".join(names))


def is_stacked(record: Container) -> bool:
    """Whether the container's own directory goes on top of its image's in an overlay; otherwise it is everything."""
    return record.driver != VfsDriver.name


def make_directories(engine: "Engine", record: Container) -> None:
    """The container's own directories, below that of the container. Raises OSError and `Unavailable` (no space)."""
    upper = engine.paths.upper(record.id)
    os.mkdir(upper, 0o755)
    os.mkdir(engine.paths.work(record.id), 0o711)
    if not is_stacked(record):
        engine.images.driver.prepare([Path(path) for path in record.lower_dirs], upper)
    if not any(os.path.lexists(os.path.join(path, DOCKERENV)) for path in lower_dirs(engine, record)):
        os.close(os.open(upper / DOCKERENV, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o755))


def check_usable(engine: "Engine", record: Container) -> None:
    """Raise `Unavailable` when this host cannot make the root file system of `record`."""
    if is_stacked(record) and engine.overlay_problem:
        raise Unavailable(
            f"container {record.name} was created with storage driver {OverlayDriver.name}, which does not work here: "
            f"{engine.overlay_problem}"
        )


def root_path(engine: "Engine", record: Container) -> str:
    """`root.path` of the OCI configuration."""
    paths = engine.paths
    return str(paths.rootfs(record.id) if is_stacked(record) else paths.upper(record.id))


def lower_dirs(engine: "Engine", record: Container) -> list[str]:
    """The directories under the container's own, top first, as they are now: mounted if need be. Raises `Internal`."""
    return engine.images.ready(record.lower_dirs)


def root_mounts(engine: "Engine", record: Container) -> list[dict[str, Any]]:
    """What is mounted there (runtime.client.Spawner.create): an overlay, or nothing."""
    if not is_stacked(record):
        return []
    overlay = {
        "type": "overlay",
        "source": "overlay",
        "lower": lower_dirs(engine, record),
        "upper": str(engine.paths.upper(record.id)),
        "work": str(engine.paths.work(record.id)),
        "options": [*OVERLAY_OPTIONS, *(["volatile"] if record.host_config.AutoRemove else [])],
    }
    return [overlay]


def written_size(engine: "Engine", record: Container) -> int:
    """Bytes in the files that the container made or changed; measured now."""
    upper = engine.paths.upper(record.id)
    if is_stacked(record):
        return tree_size(upper)
    if not record.lower_dirs:
        return tree_size(upper)
    try:
        return written(Path(record.lower_dirs[0]), upper)
    except OSError:
        return 0  # the image is gone, or the container


def in_use(engine: "Engine") -> set[str]:
    """The lower directories of the containers that run."""
    running = [entry.record for entry in engine.containers if entry.status in ("running", "paused")]
    return {path for record in running for path in record.lower_dirs}
