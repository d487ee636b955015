"""A container's root file system as `docker cp` sees it: the root with the user's volumes, binds and the files that
tell of the network; no tmpfs, /proc or /dev (Docker's `openContainerFS`).

    running            the root mount, borrowed from its mount namespace
    not running, read  an overlay of the container's layer and the image's below a tmpfs that takes mount points:
                       nothing is written, and a start meanwhile does not matter
    not running, write the container's own overlay; the caller holds the container's lock
    no overlay         the container's copy itself

No device can be opened in a view (nodev), no program run.
"""

import _thread
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine import volume_mounts
from wherry.engine.containers import Entry
from wherry.engine.defaults import OVERLAY_OPTIONS
from wherry.engine.files.paths import Found
from wherry.engine.model import Container, MountPoint
from wherry.engine.mounts import open_source
from wherry.engine.proctree import is_of
from wherry.engine.storage import is_stacked, lower_dirs
from wherry.errors import Internal, NotFound
from wherry.failpoint import hit
from wherry.linux import mounts as m
from wherry.linux.openat import create_in_root, mkdir_in_root
from wherry.linux.pidfd import pidfd_open
from wherry.linux.private_mounts import PrivateMounts, private_mounts
from wherry.runtime.rootfs import attach_overlay
from wherry.store.paths import Paths

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_OPTIONS: tuple[tuple[str, str | None], ...] = tuple(
    (key, value) for key, _, value in (word.partition("=") for word in OVERLAY_OPTIONS)
)
_NO_DEVICES = m.ATTR_NODEV | m.ATTR_NOSUID | m.ATTR_NOEXEC


def _nothing() -> None:
    """What a view without volumes has to give back."""


class View:
    """`root` is the descriptor to resolve paths from, `mounted` those of what is mounted below."""

    def __init__(self, mounts: PrivateMounts, mounted: list[int], let_go: Callable[[], None] = _nothing) -> None:
        """`let_go` is called when all of it is unmounted."""
        self._held = [mounts.root, mounts.namespace, *mounted]
        self._let_go = let_go
        self.root = mounts.root
        self.mounted = mounted

    def keep(self, found: Found) -> Found:
        """Close the descriptor of `found` with the view."""
        self._held.append(found.fd)
        return found

    def close(self) -> None:
        """Unmount everything; idempotent."""
        self._let_loose()()

    def _let_loose(self) -> Callable[[], None]:
        while self._held:
            os.close(self._held.pop())
        let_go, self._let_go = self._let_go, _nothing
        return let_go

    def __del__(self) -> None:
        """The client went away before anybody came to use it. A collection comes at any moment, on any thread: no lock
        may be taken here (not even the one of `threading`), nothing waited for."""
        let_go = self._let_loose()
        if let_go is not _nothing:
            _thread.start_new_thread(let_go, ())

    def __enter__(self) -> "View":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_view(engine: "Engine", entry: Entry, *, write: bool = False, mounts: bool = True) -> View:
    """The view of a container, in a worker thread; with `write` its lock is held unless it runs. `mounts`: with the
    user's mounts, not the bare root. Raises `Internal` when it can't be made."""
    record = entry.record
    mounted: list[int] = []
    let_go = volume_mounts.borrow(engine, record) if mounts else _nothing
    try:
        with _pidfd(entry) as pidfd:
            # asked for here, where all see what is mounted; the view's stage must not cover it
            lower = lower_dirs(engine, record) if pidfd is None else []

            def build(target: int) -> int:
                root = os.dup(target) if pidfd is not None else _root(engine.paths, record, lower, target, write)
                return _furnish(root, record, mounted if mounts else None)

            return View(private_mounts(os.fspath(engine.paths.exec_containers), build, pidfd), mounted, let_go)
    except BaseException as error:
        for fd in mounted:
            os.close(fd)
        let_go()
        if isinstance(error, OSError):
            raise Internal(f"cannot open the file system of container {record.id}: {error}") from error
        raise


@contextmanager
def _pidfd(entry: Entry) -> Iterator[int | None]:
    """The container's first process, or None when there is none. A pid that is still recorded may be another's
    already, even the host's own: the process must be the monitor's."""
    monitor = entry.monitor
    pid = entry.record.state.pid
    if monitor is None or not pid or entry.status not in ("running", "paused"):
        yield None
        return
    try:
        fd = pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd if is_of(pid, monitor.monitor_pid) else None
    finally:
        os.close(fd)


def _furnish(root: int, record: Container, mounted: list[int] | None) -> int:
    """Mount what the user wants in the tree at `root` (unless `mounted` is None, where the descriptors go), and take
    away what nobody may do here; returns `root`, or closes it when that fails."""
    try:
        if mounted is not None:
            for point in _points(record):
                _mount(root, point, mounted)
        m.mount_setattr(root, set_=_NO_DEVICES, recursive=True)
        if record.host_config.ReadonlyRootfs:
            m.mount_setattr(root, set_=m.ATTR_RDONLY)
    except BaseException:
        os.close(root)
        raise
    return root


def _root(paths: Paths, record: Container, lower: list[str], target: int, write: bool) -> int:
    if is_stacked(record):
        return _overlay(paths, record, lower, target, write)
    return mount_tree(os.fspath(paths.upper(record.id)), target)


def _overlay(paths: Paths, record: Container, lower: list[str], target: int, write: bool) -> int:
    upper, work = paths.upper(record.id), paths.work(record.id)
    if write:
        return attach_overlay(target, tuple(lower), os.fspath(upper), os.fspath(work), _OPTIONS)
    return mount_layers((os.fspath(upper), *lower), target, _OPTIONS)


def mount_tree(directory: str, target: int) -> int:
    """Mount `directory` on the directory `target`; a descriptor of its root. Raises OSError."""
    own = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        tree = m.copy_mount(own)
    finally:
        os.close(own)
    m.move_mount(tree, target)
    return tree


def mount_layers(layers: tuple[str, ...], target: int, options: tuple[tuple[str, str | None], ...] = ()) -> int:
    """An overlay of `layers`, top first, on the directory `target`, with an empty tmpfs above: of a sole layer its
    whiteouts hold only so. A descriptor of its root. Raises OSError."""
    scratch = m.new_filesystem("tmpfs", [("mode", "0755")])
    try:
        m.move_mount(scratch, target)
        for name in ("upper", "work"):
            os.mkdir(name, 0o755, dir_fd=scratch)
        place = m.fd_path(scratch)
        return attach_overlay(scratch, layers, f"{place}/upper", f"{place}/work", options)
    finally:
        os.close(scratch)


class _Point(NamedTuple):
    """Something of the host's and where the container sees it."""

    source: str
    destination: str
    writable: bool
    point: MountPoint | None = None


def _points(record: Container) -> list[_Point]:
    """What is mounted, outer ones first."""
    tmpfs = {posixpath.normpath(path) for path in record.host_config.Tmpfs or {}}
    points = [
        _Point(point.Source, posixpath.normpath(point.Destination), point.RW, point)
        for point in record.mounts
        if point.Type != "tmpfs" and point.Source
    ]
    points = [point for point in points if point.destination not in tmpfs]
    taken = {point.destination for point in points}
    files = (
        (record.resolv_conf_path, "/etc/resolv.conf"),
        (record.hostname_path, "/etc/hostname"),
        (record.hosts_path, "/etc/hosts"),
    )
    points += [_Point(source, path, True) for source, path in files if source and path not in taken]
    return sorted(points, key=lambda point: point.destination.count("/"))


def _mount(root: int, point: _Point, mounted: list[int]) -> None:
    """Mount one thing in the tree. A source that is not there (a file of a container that never ran, a bind whose
    source will be made by the start) is left out."""
    try:
        source = open_source(point.point) if point.point else os.open(point.source, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotFound):
        return
    try:
        is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
        place = (
            mkdir_in_root(root, point.destination, 0o755) if is_directory else create_in_root(root, point.destination)
        )
        try:
            hit("engine.view.resolved")
            mounted.append(tree := m.copy_mount(source, recursive=True))
            if not point.writable:
                m.mount_setattr(tree, set_=m.ATTR_RDONLY, recursive=True)
            m.move_mount(tree, place)
        finally:
            os.close(place)
    finally:
        os.close(source)
