"""Unpack one layer's archive into a directory, in the form the overlay file system reads.

Theory of operation. The directory is private (0700 above it) and this code is its only writer, so a file descriptor
of a directory once opened inside it stays inside. Each entry is made relative to the descriptor of its parent, with
O_EXCL and O_NOFOLLOW: nothing that exists is ever written through. Descriptors of parents are cached; a parent that
turns out to be a symbolic link of the same archive is resolved by the kernel with the directory as root
(openat2, RESOLVE_IN_ROOT). An entry whose name exists takes its place, except that directories merge.

Orders that matter: owner before mode (chown clears set-id bits) and before extended attributes (it drops
security.capability); times last; directories get their attributes after everything else, children first, so that
making files in them neither fails nor touches their times, and a set-group-id directory gives no group away.

What a layer may not say: attributes of its root directory (as Docker, which leaves it 0755 root); overlay's own
extended attributes (trusted.overlay.*, user.overlay.*), which could point into other layers. What it need not say:
a directory only another layer names is made here 0755 root:root, and the merged view then shows those attributes;
tools that make layers write the parents of what they contain, so this is seen with hand-made ones only.

Whiteouts (image-spec `layer.md`): `.wh.NAME` becomes a character device 0:0 called NAME, `.wh..wh..opq` an xattr of
its directory. They speak of lower layers only: whatever this layer itself has under that name stays.
"""

import errno
import os
import stat
from collections.abc import Callable

from wherry.images.archive import headers, rules
from wherry.images.archive.reader import Entry, TarReader
from wherry.images.archive.rules import WHITEOUT, Parts, Unpacked
from wherry.linux.openat import mkdir_in_root, open_in_root
from wherry.store.trees import delete_tree

OPAQUE_XATTR = "trusted.overlay.opaque"
OPAQUE_XATTR_UNPRIVILEGED = "user.overlay.opaque"

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED_DIRECTORIES = 64


def _umask() -> int:
    """The process's umask, read without changing it: other threads may be making files."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777


class LayerExtractor:
    """Unpacks one archive below the directory `root_fd`; used once, by one thread."""

    def __init__(
        self, root_fd: int, *, opaque_xattr: str = OPAQUE_XATTR, spend: Callable[[int], None] | None = None
    ) -> None:
        """`spend` is told the bytes about to be written and may raise to stop."""
        self._root_fd = root_fd
        self._whiteouts = True
        self._owner: tuple[int, int] | None = None
        self._opaque_xattr = opaque_xattr
        self._spend = spend
        self._umask = _umask()
        self._uid = os.geteuid()
        self._gid = os.getegid()
        self._directories: dict[Parts, int] = {}
        self._attributes: dict[Parts, Entry] = {}
        self._size = 0
        self._entries = 0

    def extract(self, reader: TarReader) -> Unpacked:
        """Unpack all entries of `reader`.

        Raises `InvalidArgument` for archives that are damaged or ask for what they may not, OSError when the disk
        does not take it; what was unpacked until then is the caller's to delete.
        """
        try:
            for entry in reader:
                self._make(reader, entry)
            self._finish_directories()
        finally:
            self._forget_directories()
        return Unpacked(self._size, self._entries)

    # entries

    def _make(self, reader: TarReader, entry: Entry) -> None:
        parts = rules.place(entry, layer=self._whiteouts)
        self._entries += 1
        if not parts:
            return
        if self._owner is not None:
            entry = entry._replace(uid=self._owner[0], gid=self._owner[1])
        name = parts[-1]
        if len(self._directories) > _CACHED_DIRECTORIES:
            self._forget_directories()
        try:
            parent = self._directories.get(parts[:-1])
            if parent is None:
                parent = self._directory(parts[:-1], create=True)
            if self._whiteouts and name.startswith(WHITEOUT):
                self._whiteout(parent, name)
            else:
                _MAKERS[entry.type](self, parent, parts, entry, reader)
        except OSError as error:
            raise self._explain(error, entry) from error

    def _regular(self, parent: int, parts: Parts, entry: Entry, reader: TarReader) -> None:
        mode = entry.mode
        try:
            fd = os.open(parts[-1], _NEW_FLAGS, mode & 0o777, dir_fd=parent)
        except FileExistsError:
            self._replace(parent, parts[-1], entry)
            fd = os.open(parts[-1], _NEW_FLAGS, mode & 0o777, dir_fd=parent)
        try:
            if entry.size:
                self._fill(fd, entry, reader)
            if entry.uid != self._uid or entry.gid != self._gid:
                os.fchown(fd, entry.uid, entry.gid)
            if entry.xattrs:
                _set_xattrs(fd, entry.xattrs)
            if mode & (self._umask | 0o7000) or entry.xattrs:
                os.fchmod(fd, mode)
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)

    def _fill(self, fd: int, entry: Entry, reader: TarReader) -> None:
        self._size += entry.size
        if self._spend is not None:
            self._spend(reader.left)
        if entry.extents is not None:
            _fill_sparse(fd, entry, reader)
            return
        for view in reader.content():
            while view:
                view = view[os.write(fd, view) :]

    def _make_directory(self, parent: int, parts: Parts, entry: Entry, reader: TarReader) -> None:
        try:
            os.mkdir(parts[-1], 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(_lstat(parent, parts[-1]).st_mode):
                was_whiteout = self._replace(parent, parts[-1], entry)
                os.mkdir(parts[-1], 0o755, dir_fd=parent)
                if was_whiteout:
                    os.setxattr(self._directory(parts), self._opaque_xattr, b"y")
        self._attributes[parts] = entry

    def _symlink(self, parent: int, parts: Parts, entry: Entry, reader: TarReader) -> None:
        try:
            os.symlink(entry.linkname, parts[-1], dir_fd=parent)
        except FileExistsError:
            self._replace(parent, parts[-1], entry)
            os.symlink(entry.linkname, parts[-1], dir_fd=parent)
        self._size += len(entry.linkname)
        self._set_attributes(parent, parts[-1], entry)

    def _hardlink(self, parent: int, parts: Parts, entry: Entry, reader: TarReader) -> None:
        target = rules.link_target(entry)
        source = self._directory(target[:-1])
        try:
            os.link(target[-1], parts[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            if os.path.samestat(_lstat(source, target[-1]), _lstat(parent, parts[-1])):
                return
            self._replace(parent, parts[-1], entry)
            source, parent = self._directory(target[:-1]), self._directory(parts[:-1])
            os.link(target[-1], parts[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _node(self, parent: int, parts: Parts, entry: Entry, reader: TarReader) -> None:
        kind, device = rules.NODE_TYPES[entry.type], rules.device(entry)
        try:
            os.mknod(parts[-1], kind | 0o600, device, dir_fd=parent)
        except FileExistsError:
            self._replace(parent, parts[-1], entry)
            os.mknod(parts[-1], kind | 0o600, device, dir_fd=parent)
        self._set_attributes(parent, parts[-1], entry)

    def _set_attributes(self, parent: int, name: bytes, entry: Entry) -> None:
        if entry.uid != self._uid or entry.gid != self._gid:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            _set_xattrs(b"/proc/self/fd/%d/%s" % (parent, name), entry.xattrs)
        if entry.type != headers.SYMLINK:
            chmod(parent, name, entry.mode)
        os.utime(name, ns=_times(entry), dir_fd=parent, follow_symlinks=False)

    # whiteouts

    def _whiteout(self, parent: int, name: bytes) -> None:
        if name == rules.OPAQUE:
            os.setxattr(parent, self._opaque_xattr, b"y")
            return
        hidden = rules.hidden(name)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(_lstat(parent, hidden).st_mode):
                fd = os.open(hidden, _DIR_FLAGS, dir_fd=parent)
                try:
                    os.setxattr(fd, self._opaque_xattr, b"y")
                finally:
                    os.close(fd)

    # what is there already

    def _check_replacing(self, parent: int, name: bytes, status: os.stat_result, entry: Entry) -> None:
        """May `entry` take the place of the file `name`? In a layer it may."""

    def _replace(self, parent: int, name: bytes, entry: Entry) -> bool:
        """Remove what `name` is, with all below it, for `entry`; whether it was a whiteout. `parent` stays valid:
        descriptors are forgotten except the one in use."""
        status = _lstat(parent, name)
        self._check_replacing(parent, name, status, entry)
        if stat.S_ISDIR(status.st_mode):
            self._forget_directories(keep=parent)
            delete_tree(name, dir_fd=parent)
        else:
            if stat.S_ISLNK(status.st_mode):
                self._forget_directories(keep=parent)
            os.unlink(name, dir_fd=parent)
        return self._whiteouts and _is_whiteout(status)

    # directories

    def _directory(self, parts: Parts, *, create: bool = False) -> int:
        """The descriptor of the directory `parts`, cached; with `create`, missing ones are made."""
        if not parts:
            return self._root_fd
        fd = self._directories.get(parts)
        if fd is not None:
            return fd
        parent = self._directory(parts[:-1], create=create)
        try:
            fd = os.open(parts[-1], _DIR_FLAGS, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                raise
            os.mkdir(parts[-1], 0o755, dir_fd=parent)
            fd = os.open(parts[-1], _DIR_FLAGS, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            fd = self._through(parent, parts, create)
        self._directories[parts] = fd
        return fd

    def _through(self, parent: int, parts: Parts, create: bool) -> int:
        """The directory behind a name that is none itself: a symbolic link is followed with our directory as root,
        a whiteout gives way to a directory that hides what lies below."""
        status = _lstat(parent, parts[-1])
        if stat.S_ISLNK(status.st_mode):
            path = b"/".join(parts)
            if create:
                os.close(mkdir_in_root(self._root_fd, os.fsdecode(path), 0o755))
            return open_in_root(self._root_fd, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not create or not _is_whiteout(status):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        os.unlink(parts[-1], dir_fd=parent)
        os.mkdir(parts[-1], 0o755, dir_fd=parent)
        fd = os.open(parts[-1], _DIR_FLAGS, dir_fd=parent)
        os.setxattr(fd, self._opaque_xattr, b"y")
        return fd

    def _forget_directories(self, keep: int = -1) -> None:
        kept = {parts: fd for parts, fd in self._directories.items() if fd == keep}
        for fd in self._directories.values():
            if fd != keep:
                os.close(fd)
        self._directories = kept

    def _finish_directories(self) -> None:
        """Give the directories their attributes, children before parents."""
        for parts in sorted(self._attributes, key=len, reverse=True):
            if len(self._directories) > _CACHED_DIRECTORIES:
                self._forget_directories()
            try:
                fd = os.open(parts[-1], _DIR_FLAGS, dir_fd=self._directory(parts[:-1]))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                continue  # a later entry took its place, a link perhaps: that is not followed
            try:
                self._finish_directory(fd, self._attributes[parts])
            finally:
                os.close(fd)

    def _finish_directory(self, fd: int, entry: Entry) -> None:
        if entry.uid != self._uid or entry.gid != self._gid:
            os.fchown(fd, entry.uid, entry.gid)
        if entry.xattrs:
            _set_xattrs(fd, entry.xattrs)
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=_times(entry))

    def _explain(self, error: OSError, entry: Entry) -> Exception:
        """What is raised for an error of the kernel's."""
        return rules.explain(error, entry)


_Maker = Callable[[LayerExtractor, int, Parts, Entry, TarReader], None]
_MAKERS: dict[bytes, _Maker] = {
    headers.REGULAR: LayerExtractor._regular,
    headers.DIRECTORY: LayerExtractor._make_directory,
    headers.SYMLINK: LayerExtractor._symlink,
    headers.HARDLINK: LayerExtractor._hardlink,
    headers.CHARACTER: LayerExtractor._node,
    headers.BLOCK_DEVICE: LayerExtractor._node,
    headers.FIFO: LayerExtractor._node,
}


def chmod(parent: int, name: bytes | str, mode: int) -> None:
    """chmod(2) of what `name` is in the directory `parent`. Others may have made it a link since: that is not
    followed."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def _lstat(parent: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=parent, follow_symlinks=False)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _times(entry: Entry) -> tuple[int, int]:
    mtime = rules.time_ns(entry)
    return mtime, mtime


def _set_xattrs(where: int | bytes, xattrs: dict[bytes, bytes]) -> None:
    """Set what the file system takes; what it does not know or not allow is left out, as Docker does."""
    for name, value in xattrs.items():
        if name.startswith(rules.FOREIGN_XATTRS):
            continue
        try:
            if isinstance(where, int):
                os.setxattr(where, name, value)
            else:
                os.setxattr(where, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                raise


def _fill_sparse(fd: int, entry: Entry, reader: TarReader) -> None:
    os.ftruncate(fd, entry.size)
    extents = iter([extent for extent in entry.extents or () if extent[1]])
    offset, left = next(extents, (0, 0))
    for view in reader.content():
        while view:
            written = os.pwrite(fd, view[:left], offset)
            view = view[written:]
            offset += written
            left -= written
            if not left:
                offset, left = next(extents, (0, 0))
