"""The exit record: how a container ended, on disk before anything else knows."""

import json
import os
from typing import Any


def write_record(path: str, record: dict[str, Any]) -> None:
    """Replace the file at `path` so that it and its name survive a power cut. Raises OSError.

    It gets its name before the disk is waited for: one commit of the file system's journal then takes both. A power cut
    in between may leave less than a record there, which readers take for none.
    """
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, json.dumps(record).encode() + b"\n")
        os.rename(temporary, path)
        os.fsync(fd)
    finally:
        os.close(fd)
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def exit_of(status: int) -> tuple[int, int | None]:
    """(exit code as a shell says it, signal or None) of a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return 128 + number, number
    return os.WEXITSTATUS(status), None
