"""Copies into a directory that somebody else changes meanwhile."""

import os
import stat
from pathlib import Path

from wherry.images.snapshots import vfs


def test_a_node_exchanged_for_a_link_does_not_lead_to_the_host(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.touch(mode=0o600)
    (tmp_path / "link").symlink_to(host)
    parent = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        vfs.chmod(parent, "link", 0o777)
    finally:
        os.close(parent)
    assert stat.S_IMODE(host.stat().st_mode) == 0o600
