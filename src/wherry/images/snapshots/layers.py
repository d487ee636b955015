"""The directory of unpacked layers: see `snapshots.base` for the life cycle."""

import errno
import os
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from wherry import failpoint
from wherry.images.archive.extract import LayerExtractor, Unpacked
from wherry.images.archive.reader import TarReader
from wherry.images.references import check_digest
from wherry.images.snapshots.base import SpaceGuard
from wherry.linux.syscalls import check, libc
from wherry.store.atomic import sync_directory
from wherry.store.paths import Paths
from wherry.store.trees import delete_tree


def sync_file_system(path: Path) -> None:
    """syncfs(2): everything written so far to the file system that holds `path` is on disk after the return.

    Raises OSError, also for writes that failed since (EIO, ENOSPC of delayed allocation)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check(libc.syncfs(fd), os.fspath(path))
    finally:
        os.close(fd)


class LayerStore:
    """The unpacked layers of one data root."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._doomed: deque[Path] = deque()
        self._purging = threading.Lock()

    def path(self, diff_id: str) -> Path:
        """Where the layer lies or would lie. Raises `InvalidArgument` for what is no digest."""
        return self._paths.layers / check_digest(diff_id).removeprefix("sha256:")

    def has(self, diff_id: str) -> bool:
        """Whether the layer is here, whole."""
        return self.path(diff_id).is_dir()

    def begin(self) -> Path:
        """A new empty directory for a layer."""
        path = self._paths.new_layer()
        os.mkdir(path, 0o700)
        os.chmod(path, 0o755)
        return path

    def unpack(self, reader: TarReader, path: Path) -> Unpacked:
        """Unpack an archive into `path`, which `begin` made; errors as of `LayerExtractor.extract`, and
        `Unavailable` when the disk is about to be full."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return LayerExtractor(fd, spend=SpaceGuard(path)).extract(reader)
        finally:
            os.close(fd)

    def commit(self, layers: Mapping[str, Path]) -> None:
        """Give unpacked trees their names, durably. The caller has synced the file system. A layer that came to be
        meanwhile stays as it is, ours is removed."""
        failpoint.hit("layers-commit")
        for diff_id, path in layers.items():
            try:
                os.rename(path, self.path(diff_id))
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                self._trash(path)
        sync_directory(self._paths.layers)

    def discard(self, path: Path) -> None:
        """Delete a tree that was not committed."""
        self._trash(path)
        self.purge()

    def remove(self, diff_id: str) -> None:
        """Take away a layer that nothing names any more, at once; idempotent. Its space comes back by `purge`."""
        self._trash(self.path(diff_id))

    def purge(self, *, wait: bool = False) -> None:
        """Delete what was removed: slow, so not to be called with a lock held. Somebody who does so already does it for
        all; with `wait` this returns when nothing is left."""
        while self._doomed and self._purging.acquire(blocking=wait):
            try:
                self._delete_doomed()
            finally:
                self._purging.release()
        if wait:
            with self._purging:
                return

    def _delete_doomed(self) -> None:
        while self._doomed:
            failpoint.hit("layer-trash")
            delete_tree(self._doomed[0])
            self._doomed.popleft()

    def collect(self, wanted: set[str]) -> list[str]:
        """Delete everything but the layers `wanted`; nothing may be loading. Returns the names removed."""
        keep = {diff_id.removeprefix("sha256:") for diff_id in wanted}
        garbage = [name for name in os.listdir(self._paths.layers) if name not in keep]
        for name in garbage:
            self._trash(self._paths.layers / name)
        self._doomed.clear()  # the trash is emptied whole
        for name in os.listdir(self._paths.trash):
            if name.startswith("layer-"):
                delete_tree(self._paths.trash / name)
        return garbage

    def _trash(self, path: Path) -> None:
        """Rename first: a half-deleted layer never has a layer's name."""
        target = self._paths.trashed("layer")
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return
        self._doomed.append(target)
