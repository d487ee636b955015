"""Which snapshot driver and which form of layers this host can have: told by trying, since no file says what its kernel
and file systems can."""

import errno
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from wherry.errors import Unavailable
from wherry.images.archive.sources import StreamSource
from wherry.images.erofs.layer import write_layer
from wherry.images.erofs.mounting import detached
from wherry.images.snapshots.base import Driver
from wherry.images.snapshots.overlay import OverlayDriver
from wherry.images.snapshots.vfs import VfsDriver
from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.runtime.rootfs import detached_overlay, has_appended_layers, overlay_data
from wherry.store.paths import Paths
from wherry.store.trees import delete_tree

DRIVERS = (OverlayDriver.name, VfsDriver.name)
FORMS = ("erofs", "tree")
"""What layers can be: see `snapshots.base`."""


def overlay_problem(directory: Path) -> str:
    """Why containers can't have overlays whose layers are on the file system of `directory`; "" when they can.

    Mounts one of a scratch directory there, seen by nobody, and deletes a file in it: that takes whiteouts, which some
    file systems refuse only then.
    """
    scratch = Path(tempfile.mkdtemp(prefix="overlay-", dir=directory))
    try:
        for name in ("lower", "upper", "work", "merged"):
            (scratch / name).mkdir()
        (scratch / "lower" / "file").touch()
        return _try_overlay(scratch)
    finally:
        delete_tree(scratch)


def _try_overlay(scratch: Path) -> str:
    lower, upper, work = (str(scratch / name) for name in ("lower", "upper", "work"))
    try:
        if not has_appended_layers():
            return _try_old_call(scratch)
        fd = detached_overlay((lower,), upper, work, ())
        try:
            os.unlink("file", dir_fd=fd)
        finally:
            os.close(fd)
    except OSError as error:
        return _reason(error)
    return _whiteout_problem(scratch)


def _whiteout_problem(scratch: Path) -> str:
    status = os.lstat(scratch / "upper" / "file")
    whole = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    return "" if whole else "its file system cannot hold whiteouts"


def _try_old_call(scratch: Path) -> str:
    """The same by mount(2), in a child whose mounts are its own."""

    def attempt() -> None:
        ns.unshare(ns.CLONE_NEWNS)
        m.mount("", "/", "", m.MS_PRIVATE | m.MS_REC)
        lower, upper, work, merged = (str(scratch / name) for name in ("lower", "upper", "work", "merged"))
        m.mount("overlay", merged, "overlay", 0, overlay_data((lower,), upper, work, ()))
        os.unlink(f"{merged}/file")

    number = _in_a_child(attempt)
    return _reason(OSError(number, os.strerror(number))) if number else _whiteout_problem(scratch)


def _in_a_child(attempt: Callable[[], None]) -> int:
    """The errno that `attempt` fails with, 0 for none."""
    child = os.fork()
    if child == 0:
        code = errno.EIO
        try:
            attempt()
            code = 0
        except OSError as error:
            code = error.errno or errno.EIO
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _reason(error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return "the kernel has no overlay file system (modprobe overlay?)"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "mounting overlays is not permitted here"
    if error.errno == errno.EINVAL:
        return "its file system cannot be the upper layer of an overlay (an overlay itself, perhaps)"
    return f"mounting an overlay failed: {error.strerror}"


def erofs_problem(directory: Path) -> str:
    """Why layers whose files are on the file system of `directory` can't be mounted as EROFS; "" when they can: a
    scratch layer is made there, mounted where nobody sees it, and a file in it read."""
    scratch = Path(tempfile.mkdtemp(prefix="erofs-", dir=directory))
    try:
        image, tar = scratch / "index", scratch / "layer.tar"
        write_layer(StreamSource(io.BytesIO(_scratch_tar())), image, tar, None, lambda _: None)
        return _try_erofs(image, tar)
    finally:
        delete_tree(scratch)


_CONTENT = b"what a file in a layer says"


def _scratch_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(_CONTENT)
        tar.addfile(member, io.BytesIO(_CONTENT))
    return stream.getvalue()


def _try_erofs(image: Path, tar: Path) -> str:
    try:
        mount = detached(image, tar)
        try:
            with open(os.open("file", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount), "rb") as file:
                return "" if file.read() == _CONTENT else "the kernel reads something else than was written"
        finally:
            os.close(mount)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return "the kernel has no EROFS (modprobe erofs?)"
        if error.errno == errno.ENOTBLK:
            return "the kernel mounts EROFS from block devices only (files: Linux 6.12, EROFS_FS_BACKED_BY_FILE)"
        return f"mounting EROFS failed: {error.strerror}"


def choose_form(wanted: str, paths: Paths) -> str:
    """The form of new layers, one of `FORMS`: `wanted`, or with "" the faster one that works. Raises `Unavailable` when
    the one that is wanted does not."""
    if wanted == "tree":
        return wanted
    problem = erofs_problem(paths.tmp)
    if problem and wanted:
        raise Unavailable(f"error initializing graphdriver: driver not supported: overlay2.layers={wanted}: {problem}")
    return "tree" if problem else "erofs"


def choose(wanted: str, paths: Paths, form: str = "") -> tuple[Driver, str]:
    """The driver called `wanted`, or with "" the best that works, and why overlay does not work on the data root (""
    when it does, or was not to be tried). `form` see `choose_form`. Raises `Unavailable` in Docker's words for one that
    does not work here."""
    problem = overlay_problem(paths.tmp) if wanted != VfsDriver.name else ""
    if problem and wanted == OverlayDriver.name:
        raise Unavailable(f"error initializing graphdriver: driver not supported: {wanted}: {problem}")
    if problem or wanted == VfsDriver.name:
        return VfsDriver(paths.vfs), problem
    if paths.vfs.is_dir():  # merged copies of an earlier time; containers have copies of their own
        delete_tree(paths.vfs)
    return OverlayDriver(indexes=choose_form(form, paths) == "erofs"), ""
