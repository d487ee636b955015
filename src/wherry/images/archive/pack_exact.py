"""A tree as one layer, with all that an archive can say of it."""

import os

from wherry.images.archive.pack import Packer

# What a mounted overlay may show of its own, and labels of this host's.
_LEFT_OUT = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.ima", "security.evm")


class ExactPacker(Packer):
    """Keeps every extended attribute of files and directories, and times to the nanosecond."""

    def layer(self, root: int) -> None:
        """The whole archive, of all that is below the descriptor `root`."""
        self.tree(root, b"", top=False)
        self.finish()

    def _xattrs(self, fd: int) -> dict[bytes, bytes] | None:
        names = [name for name in os.listxattr(fd) if not name.startswith(_LEFT_OUT)]
        return {os.fsencode(name): os.getxattr(fd, name) for name in names} or None

    def _mtime_ns(self, status: os.stat_result) -> int:
        return status.st_mtime_ns
