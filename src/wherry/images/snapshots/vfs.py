"""The vfs driver: a merged copy per image and one per container, where kernel or file system have no overlay.

Slow and large, but it needs nothing of the kernel: layers are copied on top of each other, lowest first, and
overlay's whiteouts and opaque marks are carried out. Copies are reflinks where the file system can.
"""

import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from wherry.images.archive.extract import OPAQUE_XATTR, OPAQUE_XATTR_UNPRIVILEGED, chmod
from wherry.images.snapshots.base import SpaceGuard
from wherry.images.snapshots.layers import sync_file_system
from wherry.store.atomic import sync_directory
from wherry.store.trees import delete_tree

_NEW = ".new-"
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_SIZE = 1 << 30


class VfsDriver:
    """Merged trees in `root/<key's hex>`."""

    name = "vfs"
    stacked = False
    indexes = False

    def __init__(self, root: Path) -> None:
        """`root`: a directory of the driver's own, made if missing."""
        self._root = root
        self._lock = threading.Lock()
        root.mkdir(mode=0o700, exist_ok=True)

    def lower(self, key: str, layers: list[Path]) -> list[Path]:
        """The one merged directory."""
        target = self._root / key.removeprefix("sha256:")
        with self._lock:
            if not target.is_dir():
                self._build(target, layers)
        return [target]

    def prepare(self, lower: list[Path], upper: Path) -> None:
        """A copy of the whole."""
        for tree in reversed(lower):
            _merge_paths(tree, upper)
        sync_file_system(upper)

    def release(self, key: str) -> None:
        """Delete the merged directory."""
        target = self._root / key.removeprefix("sha256:")
        doomed = self._root / f"{_NEW}{secrets.token_hex(8)}"
        with self._lock:
            try:
                os.rename(target, doomed)
            except FileNotFoundError:
                return
        delete_tree(doomed)

    def keys(self) -> set[str]:
        """The images that have a merged directory; what an interrupted build left is deleted on the way."""
        for name in os.listdir(self._root):
            if name.startswith(_NEW):
                delete_tree(self._root / name)
        return {f"sha256:{name}" for name in os.listdir(self._root) if not name.startswith(_NEW)}

    def _build(self, target: Path, layers: list[Path]) -> None:
        new = self._root / f"{_NEW}{secrets.token_hex(8)}"
        os.mkdir(new, 0o755)
        os.chmod(new, 0o755)
        try:
            for layer in reversed(layers):
                _merge_paths(layer, new)
            sync_file_system(self._root)
            os.rename(new, target)
        except BaseException:
            delete_tree(new)
            raise
        sync_directory(self._root)


def copy_tree(source: int, target: int) -> None:
    """Copy everything below the directory `source` into the directory `target`, both descriptors: content, links
    between files, owners, modes, times and extended attributes. Raises OSError, and `Unavailable` when there is no
    room."""
    _Merge(SpaceGuard(Path(f"/proc/self/fd/{target}"))).directory(source, target)


def copy_attributes(source: int, target: int) -> None:
    """Give the file or directory `target` the owner, mode, times and extended attributes of `source`."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    _copy_xattrs(source, target)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _merge_paths(layer: Path, target: Path) -> None:
    source_fd = os.open(layer, _DIR_FLAGS)
    try:
        target_fd = os.open(target, _DIR_FLAGS)
        try:
            _Merge(SpaceGuard(target)).directory(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


class _Merge:
    """Copies one layer over a tree; remembers inodes with several names, so that they keep being one file."""

    def __init__(self, spend: Callable[[int], None]) -> None:
        """`spend(length)`: before each file's content is copied; raises when there is no room."""
        self._spend = spend
        self._links: dict[tuple[int, int], str] = {}

    def directory(self, source: int, target: int) -> None:
        """Copy everything below `source` into `target`, both descriptors of directories."""
        for name in sorted(os.listdir(source)):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._subdirectory(source, target, name)
                continue
            _remove(target, name)
            if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
                self._file(source, target, name, status)

    def _subdirectory(self, source: int, target: int, name: str) -> None:
        source_fd = os.open(name, _DIR_FLAGS, dir_fd=source)
        try:
            if _is_opaque(source_fd) or not _is_directory(target, name):
                _remove(target, name)
                os.mkdir(name, 0o700, dir_fd=target)
            target_fd = os.open(name, _DIR_FLAGS, dir_fd=target)
            try:
                self.directory(source_fd, target_fd)
                copy_attributes(source_fd, target_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)

    def _file(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        inode = (status.st_dev, status.st_ino)
        if inode in self._links:
            os.link(self._links[inode], name, dst_dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISREG(status.st_mode):
            self._spend(status.st_size)
            _copy_regular(source, target, name)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        if not stat.S_ISREG(status.st_mode):
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            chmod(target, name, stat.S_IMODE(status.st_mode))
        if status.st_nlink > 1:
            self._links[inode] = os.path.join(os.readlink(f"/proc/self/fd/{target}"), name)


def _copy_regular(source: int, target: int, name: str) -> None:
    source_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target_fd = os.open(name, flags, 0o600, dir_fd=target)
        try:
            _copy_content(source_fd, target_fd)
            copy_attributes(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _copy_content(source: int, target: int) -> None:
    try:
        while os.copy_file_range(source, target, _COPY_SIZE):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        while os.sendfile(target, source, None, _COPY_SIZE):  # between file systems
            pass


def _copy_xattrs(source_fd: int, target_fd: int) -> None:
    for name in os.listxattr(source_fd):
        if name not in (OPAQUE_XATTR, OPAQUE_XATTR_UNPRIVILEGED):
            try:
                os.setxattr(target_fd, name, os.getxattr(source_fd, name))
            except OSError as error:
                if error.errno != errno.ENOTSUP:  # not every file system takes every attribute
                    raise


def _is_opaque(fd: int) -> bool:
    for name in (OPAQUE_XATTR, OPAQUE_XATTR_UNPRIVILEGED):
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


def _is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove(parent: int, name: str) -> None:
    if _is_directory(parent, name):
        delete_tree(name, dir_fd=parent)
        return
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
