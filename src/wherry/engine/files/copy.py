"""`docker cp`: what a path is, out of a container, into a container."""

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from wherry.engine.containers import Entry
from wherry.engine.files import paths
from wherry.engine.files.paths import Found, PathStat
from wherry.engine.files.view import View, open_view
from wherry.engine.unmounting import unmounted
from wherry.errors import InvalidArgument
from wherry.failpoint import hit
from wherry.images.archive.copy_in import copy_in as unpack
from wherry.images.archive.pack import Packer, Sink
from wherry.images.archive.reader import Source
from wherry.runtime.failure import StartError
from wherry.runtime.users import read_database, resolve

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


class Outgoing:
    """A path about to be copied out: `stat` first, then `write` in a worker thread, or nothing at all."""

    def __init__(self, view: View, found: Found, path: str, described: PathStat) -> None:
        self.stat = described
        self._view = view
        self._found = found
        self._path = path

    def write(self, sink: Sink) -> None:
        """Write the archive. Raises OSError when nobody takes it any more."""
        try:
            packer = Packer(sink)
            name = os.fsencode(paths.base(self._path))
            if stat.S_ISDIR(self._found.status.st_mode):
                directory = paths.reopen(self._found.fd, os.O_DIRECTORY)
                try:
                    packer.tree(directory, name)
                finally:
                    os.close(directory)
            else:
                packer.single(self._found.fd, name)
            packer.finish()
        finally:
            self._view.close()


async def stat_path(engine: "Engine", ref: str, path: str) -> PathStat:
    """HEAD /containers/{id}/archive. Raises `NotFound`, `Internal`, `InvalidArgument`."""
    entry = engine.containers.lookup(ref)
    _check_path(path)

    def look() -> PathStat:
        outgoing = _find(engine, entry, ref, path, path)
        outgoing._view.close()  # here: to unmount a volume may take as long as its server likes
        return outgoing.stat

    return await engine.on_files(look)


async def copy_out(engine: "Engine", ref: str, path: str) -> Outgoing:
    """GET /containers/{id}/archive: the path as an archive whose names begin with its last component. Raises as
    `stat_path`."""
    entry = engine.containers.lookup(ref)
    _check_path(path)
    outgoing = await engine.on_files(lambda: _find(engine, entry, ref, paths.absolute(path), path))
    engine.publish(entry.record, "archive-path")
    return outgoing


def _check_path(path: str) -> None:
    if not path:
        raise InvalidArgument("bad parameter: pathcannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: path: NUL character")


def _find(engine: "Engine", entry: Entry, ref: str, path: str, asked: str) -> Outgoing:
    view = open_view(engine, entry)
    try:
        found = view.keep(paths.find(view.root, path, ref, asked))
        return Outgoing(view, found, path, paths.describe(view.root, path, found))
    except BaseException:
        view.close()
        raise


async def copy_in(
    engine: "Engine", ref: str, path: str, source: Source, *, keep_kinds: bool = False, copy_owner: bool = False
) -> None:
    """PUT /containers/{id}/archive: unpack an archive into the directory `path`. `keep_kinds` is the API's
    noOverwriteDirNonDir, `copy_owner` its copyUIDGID: everything belongs to the container's user then.

    Raises `NotFound`, `InvalidArgument` for a path that is no directory or may not be written, `Internal`.
    """
    entry = engine.containers.lookup(ref)
    _check_path(path)

    def work(view: View) -> None:
        with view:
            _unpack(view, entry, ref, path, source, keep_kinds, copy_owner)

    async with AsyncExitStack() as copying:
        async with entry.lock:
            if entry.monitor is None:
                await unmounted(entry)
                copying.callback(_copying(entry))
            view = await engine.on_files(lambda: open_view(engine, entry, write=True))
        await engine.on_files(lambda: work(view))
    engine.publish(entry.record, "extract-to-dir")


def _copying(entry: Entry) -> Callable[[], None]:
    """Keep starts away, which would mount the same overlay a second time, until what is returned is called. The lock is
    not held for that: the client may take its time."""
    done = entry.copying = asyncio.Event()

    def end() -> None:
        entry.copying = None
        done.set()

    return end


def _unpack(view: View, entry: Entry, ref: str, path: str, source: Source, keep_kinds: bool, copy_owner: bool) -> None:
    place = paths.absolute(path)
    directory = paths.find_directory(view.root, place, ref, path)
    hit("engine.copy.resolved")
    try:
        _check_writable(view, entry, directory)
        owner = _owner(view, entry.record.config.User) if copy_owner and entry.record.config.User else None
        unpack(directory, place.removesuffix("/."), source, keep_kinds=keep_kinds, owner=owner, mounted=view.mounted)
    except FileNotFoundError as error:
        raise paths.refusal(error, "", ref, path) from None
    finally:
        os.close(directory)


def _check_writable(view: View, entry: Entry, directory: int) -> None:
    """What the container itself may not write, `docker cp` may not either; the kernel holds to it too."""
    if not os.fstatvfs(directory).f_flag & os.ST_RDONLY:
        return
    if paths.mount_id(directory) == paths.mount_id(view.root):
        raise InvalidArgument("container rootfs is marked read-only")
    raise InvalidArgument("mounted volume is marked read-only")


def _owner(view: View, user: str) -> tuple[int, int]:
    """The container's user by its own files, which are read as data and nothing else."""
    try:
        found = resolve(user, read_database(view.root, "/etc/passwd"), read_database(view.root, "/etc/group"))
    except StartError as error:
        text = str(error).partition(": ")[2] or str(error)
        raise InvalidArgument(f'failed to look up user "{user}" in container: {text}') from None
    return found.uid, found.gid
