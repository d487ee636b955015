"""Mounts that a daemon of a test has, or left when it was killed."""

import os
import subprocess
from pathlib import Path


def mounted_below(root: os.PathLike[str] | str) -> list[str]:
    """The mount points below a directory, in this mount namespace."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{os.fspath(root)}/")]


def detach_below(root: os.PathLike[str] | str) -> None:
    """Unmount them lazily, the last ones first."""
    for point in reversed(mounted_below(root)):
        subprocess.run(["umount", "-l", point], check=True)
