"""What a snapshot driver is.

Vocabulary. A *layer* is one unpacked diffID, shared by every image that has it whatever lies below. It has one of two
forms: a tree in `layers/<hex>`, or its tar and an index of it in `layers/<hex>.erofs`, mounted when the layer's
directory is asked for. What is seen is the same, in overlay's form (whiteouts as character devices 0:0, opaque
directories marked by an xattr), and is never changed after it appeared. An image may stack layers of both forms.

A *root file system* is what a container sees: its image's layers and a writable directory of its own.

Life cycle of a layer:

    path = store.begin()                      layers/.new-<random>, mode 0755
    … an extractor fills it, or an index takes its place …
    store.directory(diff_id)                  what to stack
    store.commit({diff_id: path})             sync the file system once for all, rename each, sync the directory
    (the caller writes the row that names it)
    store.discard(path)                       instead of commit, when something failed
    store.remove(diff_id)                     after the last row that names it is gone: unmounted, renamed into trash/,
                                              deleted

A crash at any point leaves either a complete layer with or without a row, or a `.new-*` directory: `collect`
removes everything no row names.

Life cycle of a root file system, for the layers of one image, top first:

    lower = driver.lower(layer_paths)         what a container's overlay mount takes as lower directories, top first
    driver.release(key)                       the image is gone

The overlay driver does nothing there. A host without overlay (or a driver for another kind of store) makes one merged
tree per image instead and returns that.

Life cycle of a container's own directory, `upper`:

    driver.prepare(lower, upper)              at create: fills the new, empty directory with what it must hold, durably
    driver.stacked                            whether `upper` goes on top of `lower` in an overlay mount when the
                                              container starts, or is the whole root file system by itself
    (the caller deletes the directory when the container is removed)

What a container changed is in a stacked `upper` in overlay's form; otherwise `compare.changes(lower, upper)` tells.
A container keeps the driver it was made with; the layers are the same for all drivers.
"""

import os
from pathlib import Path
from typing import Protocol

from wherry.errors import Unavailable


class Driver(Protocol):
    """Turns layers into the lower directories of a root file system."""

    name: str
    """as GET /info shows it"""
    stacked: bool
    indexes: bool
    """whether new layers are to be indexes of their tars"""

    def lower(self, key: str, layers: list[Path]) -> list[Path]:
        """The directories to stack for an image `key` (its id) with `layers`, top first; made if need be, durable.
        Equal calls give equal answers. Never changes a layer. Raises OSError."""
        ...

    def release(self, key: str) -> None:
        """Remove what `lower` made for `key`; idempotent."""
        ...

    def keys(self) -> set[str]:
        """The keys for which something is kept."""
        ...

    def prepare(self, lower: list[Path], upper: Path) -> None:
        """Fill `upper`, the new and empty directory of a container of the image whose `lower` this is. On disk when
        it returns. Raises OSError and `Unavailable` (no space); the caller deletes the directory then."""
        ...


class SpaceGuard:
    """Stops a load before the disk is full: a part of it stays free for the database, logs and removals.

    Told of every byte about to be written, it looks at the file system once per `_STEP` bytes.
    """

    _STEP = 32 << 20
    _RESERVE_MAX = 512 << 20

    def __init__(self, path: Path) -> None:
        self._path = path
        self._until_check = 0

    def __call__(self, length: int) -> None:
        """`length` bytes will be written. Raises `Unavailable` when they would eat into the reserve."""
        self._until_check -= length
        if self._until_check > 0:
            return
        self._until_check = self._STEP
        status = os.statvfs(self._path)
        free = status.f_bavail * status.f_frsize
        reserve = min(status.f_blocks * status.f_frsize // 20, self._RESERVE_MAX)
        if free - length < reserve:
            raise Unavailable(
                f"no space left on device: {self._path} has {free} bytes free, {length} more are to be written and "
                f"{reserve} are kept in reserve"
            )
