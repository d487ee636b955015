"""Mounting an image and its tar. The files are mounted as they are, which takes Linux 6.12."""

import os
from pathlib import Path

from wherry.linux import mounts as m

_NAME_MAX = 255  # of what fsconfig(2) takes


def detached(image: Path, tar: Path) -> int:
    """A new read-only mount of `image`, attached nowhere; its descriptor. Raises OSError."""
    held: list[int] = []
    try:
        options: list[tuple[str, str | None]] = [
            ("source", _short(image, held)),
            ("device", _short(tar, held)),
            ("ro", None),
        ]
        return m.new_filesystem("erofs", options, m.ATTR_RDONLY | m.ATTR_NOSUID | m.ATTR_NODEV)
    finally:
        for fd in held:
            os.close(fd)


def _short(path: Path, held: list[int]) -> str:
    if len(os.fsencode(path)) <= _NAME_MAX:
        return os.fspath(path)
    held.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    return m.fd_path(held[-1])
