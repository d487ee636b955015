"""The upper directory of an overlay as a layer's archive: whiteouts become `.wh.` files (image-spec `layer.md`)."""

import os
import stat
from collections.abc import Collection

from wherry.images.archive import writer
from wherry.images.archive.extract import OPAQUE_XATTR
from wherry.images.archive.pack import Packer, Sink, open_below
from wherry.images.archive.rules import WHITEOUT

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE_NAME = b".wh..wh..opq"


class LayerPacker(Packer):
    """Writes the archive of one layer without the files and directories called `left_out`."""

    def __init__(self, sink: Sink, left_out: Collection[bytes] = ()) -> None:
        super().__init__(sink)
        self._sink = sink
        self._left_out = left_out

    def layer(self, root: int) -> None:
        """The whole archive, of all that is below the descriptor `root`."""
        self.tree(root, b"", top=False)
        self.finish()

    def leaf(self, parent: int, name: bytes, shown: bytes, status: os.stat_result) -> None:
        """As a packer's; a whiteout hides what it names."""
        if shown in self._left_out:
            return
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            self.removed(shown)
        elif not name.startswith(WHITEOUT):  # the container's own: it would hide what it must not
            super().leaf(parent, name, shown, status)

    def removed(self, shown: bytes) -> None:
        """A whiteout for a file that is not there any more."""
        directory, slash, name = shown.rpartition(b"/")
        self._sink.write(writer.member(directory + slash + WHITEOUT + name, mode=0o600))

    def one(self, root: int, path: bytes) -> None:
        """The file at `path` below `root`, a directory without its content; nothing when it is gone."""
        directory, _, name = path.rpartition(b"/")
        try:
            parent = open_below(root, directory, _DIRECTORY)
        except OSError:
            return
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                super().leaf(parent, name, path, status)
                return
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                super()._directory(fd, path)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError):
            return
        finally:
            os.close(parent)

    def _directory(self, fd: int, name: bytes) -> None:
        if name.rstrip(b"/") in self._left_out:
            return
        super()._directory(fd, name)
        if _is_opaque(fd):
            self._sink.write(writer.member(name.rstrip(b"/") + b"/" + _OPAQUE_NAME, mode=0o755))


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
