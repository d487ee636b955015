"""The upper directory of an overlay as a layer's archive: whiteouts become `.wh.` files (image-spec `layer.md`)."""

import os
import stat

from wherry.images.archive import writer
from wherry.images.archive.extract import OPAQUE_XATTR, WHITEOUT
from wherry.images.archive.pack import Packer, Sink

_OPAQUE_NAME = b".wh..wh..opq"


class LayerPacker(Packer):
    """Writes the archive of one layer."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._sink = sink

    def leaf(self, parent: int, name: bytes, shown: bytes, status: os.stat_result) -> None:
        """As a packer's; a whiteout hides what it names."""
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            hidden = shown[: len(shown) - len(name)] + WHITEOUT + name
            self._sink.write(writer.member(hidden, mode=0o600))
        elif not name.startswith(WHITEOUT):  # the container's own: it would hide what it must not
            super().leaf(parent, name, shown, status)

    def _directory(self, fd: int, name: bytes) -> None:
        super()._directory(fd, name)
        if _is_opaque(fd):
            self._sink.write(writer.member(name.rstrip(b"/") + b"/" + _OPAQUE_NAME, mode=0o755))


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
