"""Trees that somebody else made, however deep they are: deleting and measuring them."""

import os
import secrets

from wherry.linux.openat import RESOLVE_NO_XDEV, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def delete_tree(path: str | bytes | os.PathLike[str], *, dir_fd: int | None = None) -> None:
    """Delete the directory `path` with all below it; what resists stays, and nothing to do is fine. A relative `path`
    starts at the directory `dir_fd`, when given.

    Containers nest directories more deeply than recursion goes, descriptors last or a path can say. So a directory
    found inside another is first moved up into `path` itself, where its turn comes. No link is followed, and no mount
    entered.
    """
    try:
        top = os.open(path, _DIRECTORY, dir_fd=dir_fd)
    except OSError:
        return
    prefix = f".{secrets.token_hex(8)}-"
    moved = 0
    try:
        waiting = _empty(top)
        while waiting:
            name = waiting.pop()
            try:
                fd = openat2(top, name, _DIRECTORY, 0, RESOLVE_NO_XDEV)
            except OSError:
                continue  # what is mounted there is not ours to delete
            try:
                for inner in _empty(fd):
                    moved += 1
                    os.rename(inner, f"{prefix}{moved}", src_dir_fd=fd, dst_dir_fd=top)
                    waiting.append(f"{prefix}{moved}")
                os.rmdir(name, dir_fd=top)
            except OSError:
                continue  # immutable, or a mount: it stays, the rest need not
            finally:
                os.close(fd)
    finally:
        os.close(top)
    try:
        os.rmdir(path, dir_fd=dir_fd)
    except OSError:
        pass


def _empty(fd: int) -> list[str]:
    """Unlink all that is no directory; return the directories' names."""
    directories = []
    with os.scandir(fd) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            directories.append(entry.name)
            continue
        try:
            os.unlink(entry.name, dir_fd=fd)
        except OSError:
            continue
    return directories


def tree_size(path: str | os.PathLike[str]) -> int:
    """Bytes in the files below the directory `path`; 0 when it is none.

    One descriptor at a time walks down and, by "..", up again. The tree may belong to a running container: no link is
    followed, and where a directory was moved away under the walk, so that ".." is another one, the measure ends early.
    """
    try:
        here = os.open(path, _DIRECTORY)
    except OSError:
        return 0
    total = 0
    above: list[tuple[tuple[int, int], list[str]]] = []
    try:
        size, waiting = _measure(here)
        total += size
        while waiting or above:
            if waiting:
                try:
                    below = os.open(waiting.pop(), _DIRECTORY, dir_fd=here)
                except OSError:
                    continue  # gone meanwhile
                above.append((_identity(here), waiting))
                here = _exchange(here, below)
                size, waiting = _measure(here)
                total += size
                continue
            here = _exchange(here, os.open("..", _DIRECTORY, dir_fd=here))
            identity, waiting = above.pop()
            if _identity(here) != identity:
                break
    finally:
        os.close(here)
    return total


def _measure(fd: int) -> tuple[int, list[str]]:
    """Bytes in the files of a directory, and the names of the directories in it."""
    total, directories = 0, []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
                continue
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return total, directories


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _exchange(old: int, new: int) -> int:
    os.close(old)
    return new
