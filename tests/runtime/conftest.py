"""Fixtures of the runtime's tests: a bundle that is cleaned up, and things of the host that must stay as they are."""

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import Lab


@pytest.fixture(scope="session", autouse=True)
def _cgroup_of_the_tests() -> Iterator[None]:
    """The cgroup all containers of the tests lie in is removed at the end, unless somebody else's tests use it."""
    yield
    for parent in glob.glob("/sys/fs/cgroup/*/wherry-test") + glob.glob("/sys/fs/cgroup/wherry-test"):
        try:
            os.rmdir(parent)
        except OSError:
            pass


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A bundle with busybox; its container is deleted afterwards, and must have left no cgroup."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Lab(tmp_path)
    yield made
    made.close()


def _picture(path: Path) -> dict[str, tuple[object, ...]]:
    picture: dict[str, tuple[object, ...]] = {}
    for entry in (path, *sorted(path.rglob("*"))):
        status = entry.lstat()
        content = entry.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        picture[str(entry)] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            status.st_mtime_ns,
            content,
        )
    return picture


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A tree of the host, outside of any root file system, that must be the same after the test."""
    path = tmp_path / "canary"
    (path / "dir").mkdir(parents=True)
    (path / "file").write_text("canary")
    (path / "passwd").write_text("evil:x:0:0::/:/bin/sh\n")
    os.mkfifo(path / "fifo")
    before = _picture(path)
    yield path
    assert _picture(path) == before
