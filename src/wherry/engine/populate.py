"""A volume that is empty when a container is made with it gets what the image has at its place: files, owners, modes,
extended attributes, of the directory itself too (moby: daemon/volumes, populateVolume).

What goes into a volume of the data root is copied aside first, and moved there in the transaction that makes the
container: a copy that was cut off is scratch. Volumes that are file systems of their own are filled in place.
"""

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine.containers import Entry
from wherry.engine.files.view import View, open_view
from wherry.engine.model import Container, MountPoint
from wherry.engine.mounts import copies, realise, subpath
from wherry.engine.volumes import Volume
from wherry.errors import Internal, WherryError
from wherry.failpoint import hit
from wherry.images.snapshots.layers import sync_file_system
from wherry.images.snapshots.vfs import copy_attributes, copy_tree
from wherry.linux.openat import RESOLVE_BENEATH, open_in_root, openat2
from wherry.store.trees import delete_tree

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Staged(NamedTuple):
    """A copy on its way into the volume of `point`."""

    point: MountPoint
    directory: str


class Filling(NamedTuple):
    """What a create does for its volumes: the copies to be placed or dropped, and the names of volumes made already."""

    staged: list[Staged]
    made: list[str]


def stage(engine: "Engine", record: Container, filling: Filling) -> None:
    """Copy what volumes without content will hold, in a worker thread; what is made is noted in `filling` as it comes.
    Raises `Internal` when the image has something else than a directory there."""
    points = [point for point in record.mounts if copies(point) and _may_exist(record, point.Destination)]
    if not points:
        return
    with open_view(engine, Entry(record), mounts=False) as view:
        for point in points:
            source = _source(engine, view, record, point)
            if source is not None:
                try:
                    _copy(engine, record, point, source, filling)
                finally:
                    os.close(source)
    if any(os.listdir(each.directory) for each in filling.staged):
        sync_file_system(engine.paths.tmp)  # contents; directories go with the commit of the row
    if filling.staged:
        hit("engine.volume.staged")


def place(filling: Filling) -> None:
    """Move each copy into its volume, which has its name by now and must still be empty."""
    for point, directory in filling.staged:
        try:
            target = _open_place(point.Source, subpath(point))
        except OSError:
            continue  # it has gone meanwhile: the start will say so
        source = os.open(directory, _DIRECTORY)
        try:
            if os.listdir(target):
                continue
            status = os.fstat(source)
            copy_attributes(source, target)
            for name in os.listdir(source):
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(source)
            os.close(target)


def drop(filling: Filling) -> None:
    """Delete what is left of the copies."""
    for each in filling.staged:
        delete_tree(each.directory)


def undo(engine: "Engine", filling: Filling) -> None:
    """The container is not made after all."""
    drop(filling)
    for name in filling.made:
        if not engine.volume_users(name):
            engine.volumes.remove(name, [])


def _may_exist(record: Container, destination: str) -> bool:
    """Whether any layer has the first part of the path, a cheap look before the file system is put together."""
    first = destination.strip("/").split("/")[0]
    return any(os.path.lexists(os.path.join(layer, first)) for layer in record.lower_dirs)


def _source(engine: "Engine", view: View, record: Container, point: MountPoint) -> int | None:
    """The image's directory, links followed inside its root; None when there is nothing."""
    try:
        return open_in_root(view.root, point.Destination, _DIRECTORY)
    except FileNotFoundError:
        return None
    except OSError as error:
        path = f"{engine.paths.rootfs(record.id)}{point.Destination}"
        reason = "is not directory" if error.errno == errno.ENOTDIR else (error.strerror or "").lower()
        raise Internal(f"source {path} {reason}") from None


def _copy(engine: "Engine", record: Container, point: MountPoint, source: int, filling: Filling) -> None:
    options = point.Spec.VolumeOptions if point.Spec else None
    if options and options.DriverConfig and options.DriverConfig.Options:
        realise(engine, [point], filling.made)  # it must be there to be mounted
    volume = engine.volumes.find(point.Name) if point.Name else None
    if volume is not None and volume.options:
        _fill_mounted(engine, record, volume, point, source)
        return
    if volume is None and subpath(point):
        return  # a new volume has no such directory
    if volume is not None and not _is_empty(volume.mountpoint, subpath(point)):
        return
    directory = os.fspath(engine.paths.scratch(f"volume-{record.id[:12]}"))
    os.mkdir(directory, 0o700)
    filling.staged.append(Staged(point, directory))
    _copy_into(source, directory)


def _copy_into(source: int, directory: str) -> None:
    target = os.open(directory, _DIRECTORY)
    try:
        copy_tree(source, target)
        copy_attributes(source, target)
    except OSError as error:
        raise Internal(f"failed to populate volume: {error}") from error
    except RecursionError:
        raise Internal("failed to populate volume: directories are nested too deeply") from None
    finally:
        os.close(target)


def _fill_mounted(engine: "Engine", record: Container, volume: Volume, point: MountPoint, source: int) -> None:
    user = f"create {record.id}"
    try:
        engine.volume_mounts.hold(volume, user)
        if _is_empty(volume.mountpoint, subpath(point)) and not subpath(point):
            _copy_into(source, volume.mountpoint)
    except WherryError as error:
        text = str(error)
        raise Internal(
            text if text.startswith("failed to populate") else f"failed to populate volume: {text}"
        ) from None
    finally:
        engine.volume_mounts.release(volume, user)


def _is_empty(mountpoint: str, below: str) -> bool:
    """Whether the place in the volume is an empty directory. One that is not there is not."""
    try:
        fd = _open_place(mountpoint, below)
    except OSError:
        return False
    try:
        return not os.listdir(fd)
    finally:
        os.close(fd)


def _open_place(mountpoint: str, below: str) -> int:
    """The directory in the volume, whatever its containers do with its links meanwhile."""
    top = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat2(top, below or ".", _DIRECTORY, 0, RESOLVE_BENEATH)
    finally:
        os.close(top)
