"""A little room kept back in the data root, so that things can be removed when it is full: forgetting a container takes
some writing too."""

import os

from wherry.store.paths import Paths

SIZE = 1 << 20


def keep(paths: Paths) -> None:
    """Take the room, if there is enough; one that is there stays."""
    fd = os.open(_path(paths), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, SIZE)
    except OSError:
        os.unlink(_path(paths))  # what little there is belongs to others
    finally:
        os.close(fd)


def give_back(paths: Paths) -> None:
    """Let the room be used."""
    try:
        os.unlink(_path(paths))
    except FileNotFoundError:
        pass


def _path(paths: Paths) -> str:
    return str(paths.reserve)
