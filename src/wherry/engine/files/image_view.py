"""An image's root file system as its containers begin with it, to read: for `image flatten` and `image diff`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wherry.engine.files import paths
from wherry.engine.files.view import mount_layers, mount_tree
from wherry.errors import Internal
from wherry.images.store import Image
from wherry.linux import mounts as m
from wherry.linux.private_mounts import private_mounts

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_READ_ONLY = m.ATTR_NODEV | m.ATTR_NOSUID | m.ATTR_NOEXEC | m.ATTR_RDONLY


@contextmanager
def image_root(engine: "Engine", image: Image) -> Iterator[int]:
    """A descriptor of the root directory, mounted where nobody sees it until the block ends; in a worker thread.
    Raises `NotFound` for an image that was removed meanwhile, `Internal` when it cannot be mounted."""
    directories = engine.images.hold(image)
    try:
        root, namespace = _open(engine, image, directories)
        try:
            yield root
        finally:
            os.close(root)
            os.close(namespace)
    finally:
        engine.images.let_go(directories)


def _open(engine: "Engine", image: Image, directories: list[str]) -> tuple[int, int]:
    """Descriptors of the root and of what keeps it mounted."""
    stage = os.fspath(engine.paths.exec_containers)  # must not cover mounted layers
    try:
        mounts = private_mounts(stage, lambda target: _mount(engine, directories, target))
        try:
            return paths.reopen(mounts.root, os.O_DIRECTORY), mounts.namespace
        except OSError:
            os.close(mounts.namespace)
            raise
        finally:
            os.close(mounts.root)
    except OSError as error:
        raise Internal(f"cannot read the file system of image {image.id}: {error}") from error


def _mount(engine: "Engine", directories: list[str], target: int) -> int:
    stacked = engine.images.driver.stacked
    root = mount_layers(tuple(directories), target) if stacked else mount_tree(directories[0], target)
    m.mount_setattr(root, set_=_READ_ONLY)
    return root
