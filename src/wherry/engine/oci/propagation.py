"""How the host's mounts propagate: what a shared or slave bind depends on (mount_namespaces(7))."""

import os

from wherry.errors import InvalidArgument


def _mount_of(path: str) -> tuple[str, str]:
    """(mount point, optional fields) of the mount that `path` is on."""
    wanted = os.path.realpath(path)
    best = ("", "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.partition(" - ")[0].split(" ")
            point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
            inside = point == "/" or wanted == point or wanted.startswith(f"{point}/")
            # Later lines lie over earlier ones.
            if inside and len(point) >= len(best[0]):
                best = (point, " ".join(fields[6:]))
    return best


def check_shared(path: str) -> None:
    """Raise InvalidArgument unless `path` is on a shared mount."""
    point, fields = _mount_of(path)
    if "shared:" not in fields:
        raise InvalidArgument(f"path {path} is mounted on {point} but it is not a shared mount")


def check_shared_or_slave(path: str) -> None:
    """Raise InvalidArgument unless `path` is on a shared or slave mount."""
    point, fields = _mount_of(path)
    if "shared:" not in fields and "master:" not in fields:
        raise InvalidArgument(f"path {path} is mounted on {point} but it is not a shared or slave mount")
