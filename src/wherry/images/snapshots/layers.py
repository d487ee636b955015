"""The directory of unpacked layers: see `snapshots.base` for the life cycle."""

import os
import threading
from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path

from wherry import failpoint
from wherry.images.archive.extract import LayerExtractor
from wherry.images.archive.reader import Source, TarReader
from wherry.images.archive.rules import Unpacked
from wherry.images.erofs.layer import write_layer
from wherry.images.references import check_digest
from wherry.images.snapshots.base import SpaceGuard
from wherry.images.snapshots.mounted import MountedLayers
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
    """The unpacked layers of one data root, of either form."""

    def __init__(self, paths: Paths, *, indexes: bool = False) -> None:
        """`indexes`: new layers are not unpacked as trees, where that can be."""
        self.indexes = indexes
        self._paths = paths
        self._mounted = MountedLayers(paths)
        self._doomed: deque[Path] = deque()
        self._purging = threading.Lock()

    def path(self, diff_id: str) -> Path:
        """Where the layer's directory is or would be; see `directory`. Raises `InvalidArgument` for what is no
        digest."""
        name = _name(diff_id)
        tree = self._paths.layer(name)
        return self._paths.mounted_layer(name) if self._paths.packed_layer(tree).is_dir() else tree

    def has(self, diff_id: str) -> bool:
        """Whether the layer is here, whole."""
        tree = self._paths.layer(_name(diff_id))
        return tree.is_dir() or self._paths.packed_layer(tree).is_dir()

    def directory(self, diff_id: str) -> Path:
        """The directory of a layer that is here, mounted if need be. Raises `Internal` when it cannot be."""
        path = self.path(diff_id)
        return self._mounted.directory(path.name) if path.parent == self._paths.mounted_layers else path

    def ready(self, directory: Path) -> Path:
        """What was a layer's `directory` at some time, perhaps before a reboot or below another exec root, as it is
        now; a directory that is no layer's is returned as it is. Raises as that does."""
        if directory.parent not in (self._paths.layers, self._paths.mounted_layers):
            moved = directory.parent.name == self._paths.mounted_layers.name
            if not moved or not self.has(f"sha256:{directory.name}"):
                return directory
        return self.directory(f"sha256:{directory.name}")

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

    def index(self, source: Source, path: Path, blob: Path | None) -> Unpacked:
        """Read an archive to its end and make an index of it in place of `path`, which `begin` made; see `write_layer`.
        Raises `Unsuitable` when it is to be unpacked after all."""
        packed = self._paths.packed_layer(path)
        os.mkdir(packed, 0o700)
        try:
            index, tar = self._paths.layer_index(packed), self._paths.layer_tar(packed)
            return write_layer(source, index, tar, blob, SpaceGuard(path))
        except BaseException:
            delete_tree(packed)
            raise

    def commit(self, layers: Mapping[str, Path]) -> None:
        """Give new layers their names, durably. The caller has synced the file system. A layer that came to be
        meanwhile stays as it is, ours is removed."""
        failpoint.hit("layers-commit")
        for diff_id, path in layers.items():
            if self.has(diff_id):  # somebody was faster, with this very tree perhaps
                self._give_up(path)
            else:
                self._name(path, self._paths.layer(_name(diff_id)))
        sync_directory(self._paths.layers)

    def _name(self, path: Path, tree: Path) -> None:
        packed = self._paths.packed_layer(path)
        if packed.is_dir():
            os.rename(packed, self._paths.packed_layer(tree))
            os.rmdir(path)
        else:
            os.rename(path, tree)

    def discard(self, path: Path) -> None:
        """Delete a layer that was not committed."""
        self._give_up(path)
        self.purge()

    def _give_up(self, path: Path) -> None:
        self._trash(path)
        self._trash(self._paths.packed_layer(path))

    def remove(self, diff_id: str) -> None:
        """Take away a layer that nothing names any more, at once; idempotent. Its space comes back by `purge`."""
        name = _name(diff_id)
        self._give_up(self._paths.layer(name))
        self._mounted.release(name)  # only now can nobody mount it again

    def mounted(self) -> set[str]:
        """The names of the layers that are mounted, or were meant to be."""
        return self._mounted.names()

    def unmount(self, keep: Collection[str]) -> list[str]:
        """Unmount the layers that are mounted and not in `keep`, by names of directories. Returns their names."""
        found = sorted(self.mounted() - set(keep))
        for name in found:
            self._mounted.release(name)
        return found

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
        keep = {_name(diff_id) for diff_id in wanted}
        self.unmount(keep)
        trees = map(self._paths.layer, keep)
        keep |= {self._paths.packed_layer(tree).name for tree in trees}
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


def _name(diff_id: str) -> str:
    return check_digest(diff_id).removeprefix("sha256:")
