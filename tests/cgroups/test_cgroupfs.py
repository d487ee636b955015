"""Parsing the mounts and the files."""

import os

import pytest

from wherry.linux import cgroupfs

HYBRID = """\
25 30 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct
28 25 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
29 25 0:26 / /mnt/other\\040place rw - cgroup cgroup rw,pids
30 25 0:24 / /second rw - cgroup2 cgroup2 rw
"""
UNIFIED = """\
26 25 0:24 /docker/abc /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
28 25 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""


def parsed(tmp_path, text):
    path = tmp_path / "mountinfo"
    path.write_text(text)
    return cgroupfs.mounted(str(path))


def test_hybrid(tmp_path):
    found = parsed(tmp_path, HYBRID)
    assert found.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "name=systemd": "/sys/fs/cgroup/systemd",
        "pids": "/mnt/other place",
    }
    assert found.v2 == "/sys/fs/cgroup/unified"
    assert not found.unified


def test_unified(tmp_path):
    assert parsed(tmp_path, UNIFIED).unified
    assert parsed(tmp_path, "").v2 is None


def test_membership():
    found = cgroupfs.membership()
    assert all(path.startswith("/") for path in found.values())


def test_numbers(tmp_path):
    (tmp_path / "limit").write_text("max\n")
    assert cgroupfs.read_int(str(tmp_path / "limit")) == 2**64 - 1
    (tmp_path / "table").write_text("a 1\nb.c -2\nTotal x\n")
    assert cgroupfs.read_table(str(tmp_path / "table")) == {"a": 1, "b.c": -2}


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nope"):
        cgroupfs.write(str(tmp_path), "nope", 1)
    assert not cgroupfs.write_if_there(str(tmp_path), "nope", 1)
    assert os.listdir(tmp_path) == []
