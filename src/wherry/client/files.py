"""Files of the client's configuration, written whole or not at all."""

from __future__ import annotations

import os


def write(path: str, content: bytes, mode: int) -> None:
    """Put `content` in the place of the file at `path`; readers and crashes find the old or the new, no part."""
    partial = f"{path}.{os.getpid()}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
