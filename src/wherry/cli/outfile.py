"""An archive from the engine into a file or to standard output."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError
from wherry.cli.session import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.client.http import Response


def check(path: str, what: str) -> None:
    """Before anything is asked for: can there be a file `path`? Raises StatusError, which begins with `what`."""
    prefix = f"{what}: "
    if os.path.isdir(path):
        raise StatusError(f"{prefix}cannot write to a directory")
    directory = os.path.dirname(os.path.normpath(path))
    if directory and not os.path.isdir(directory):
        raise StatusError(f"{prefix}invalid output path: stat {directory}: no such file or directory")


def receive(response: Response, path: str) -> None:
    """Write the body to `path`, "" for standard output; to a file under another name first, so that what fails leaves
    nothing behind that looks whole."""
    if not path:
        for piece in response.pieces():
            write_all(1, piece)
        return
    unfinished = f"{path}.{os.getpid()}.tmp"
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in response.pieces():
            write_all(fd, piece)
        os.rename(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise
    finally:
        os.close(fd)
