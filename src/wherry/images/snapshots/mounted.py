"""Layers that are seen through a mount: one for each, made when its directory is asked for, found again by its place.

The same image mounted twice would be in the page cache twice; so all containers stack the one mount below the exec
root. It is not in any container's way: an overlay has copies of its own of what it stacks, so that a layer's mount can
be taken away (and made anew) while containers run.
"""

import errno
import os
import threading
from pathlib import Path

from wherry import failpoint
from wherry.errors import Internal
from wherry.images.erofs import mounting
from wherry.linux import mounts as m
from wherry.store.paths import Paths

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class MountedLayers:
    """The mounts of one engine's layers. Thread-safe."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock = threading.Lock()

    def directory(self, name: str) -> Path:
        """The mounted directory of the layer `name` (the hex of its diffID). Raises `Internal` when it cannot be
        mounted: the kernel may be another one than when the layer came."""
        point = self._paths.mounted_layer(name)
        if _is_mounted(point):
            return point
        with self._lock:
            try:
                if not _is_mounted(point):
                    self._mount(name, point)
            except OSError as error:
                raise Internal(
                    f"layer sha256:{name} cannot be mounted: {error.strerror}. If this kernel lacks EROFS, remove the "
                    "image and load or pull it again"
                ) from error
        return point

    def _mount(self, name: str, point: Path) -> None:
        packed = self._paths.packed_layer(self._paths.layer(name))
        os.makedirs(point, mode=0o700, exist_ok=True)
        failpoint.hit("layer-mount")
        fd = mounting.detached(self._paths.layer_index(packed), self._paths.layer_tar(packed))
        try:
            place = os.open(point, _DIRECTORY)
            try:
                m.move_mount(fd, place)
            finally:
                os.close(place)
        finally:
            os.close(fd)

    def release(self, name: str) -> None:
        """Take the layer's mount away, with its directory; idempotent."""
        point = self._paths.mounted_layer(name)
        with self._lock:
            while _is_mounted(point):
                m.umount2(os.fspath(point), m.MNT_DETACH)
            try:
                os.rmdir(point)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EBUSY):  # busy: a mount of it in another mount namespace
                    raise

    def names(self) -> set[str]:
        """The layers that have a directory for their mount."""
        try:
            return set(os.listdir(self._paths.mounted_layers))
        except FileNotFoundError:
            return set()


def _is_mounted(point: Path) -> bool:
    try:
        return os.stat(point).st_dev != os.stat(point.parent).st_dev
    except FileNotFoundError:
        return False
