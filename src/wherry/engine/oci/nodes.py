"""Device nodes of the host, as OCI describes them."""

import os
import stat
from typing import Any


def node_of(path: str) -> dict[str, Any] | None:
    """The OCI device for the node at `path`; None when it is something else, a link included. Raises OSError."""
    status = os.lstat(path)
    if stat.S_ISBLK(status.st_mode):
        kind = "b"
    elif stat.S_ISCHR(status.st_mode):
        kind = "c"
    else:
        return None
    return {
        "path": path,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
