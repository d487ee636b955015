"""Deleting a tree that somebody else made, however deep it is."""

import os
import secrets

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def delete_tree(path: str | os.PathLike[str]) -> None:
    """Delete the directory `path` with all below it; what resists stays, and nothing to do is fine.

    Containers nest directories more deeply than recursion goes, descriptors last or a path can say. So a directory
    found inside another is first moved up into `path` itself, where its turn comes. No link is followed.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except OSError:
        return
    prefix = f".{secrets.token_hex(8)}-"
    moved = 0
    try:
        waiting = _empty(top)
        while waiting:
            name = waiting.pop()
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=top)
            except OSError:
                continue
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
        os.rmdir(path)
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
