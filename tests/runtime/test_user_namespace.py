"""Containers in user and time namespaces, and idmapped mounts."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from .lab import Lab

pytestmark = pytest.mark.root
_BASE = 200000


@pytest.fixture
def userns(lab: Lab) -> Lab:
    """A container whose root is uid 200000, on a root file system that belongs to it."""
    lab.linux["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        lab.linux[kind] = [{"containerID": 0, "hostID": _BASE, "size": 65536}]
    for path in (lab.rootfs, *lab.rootfs.rglob("*")):
        os.chown(path, _BASE, _BASE, follow_symlinks=False)
    for parent in lab.directory.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    lab.directory.chmod(0o755)
    return lab


def test_root_inside_is_nobody_outside(userns: Lab) -> None:
    pid = userns.start_sleeping()
    assert os.stat(f"/proc/{pid}").st_uid == _BASE
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(_BASE), "65536"]
    result = userns.cli("exec", userns.id, "sh", "-c", "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user")
    assert result.out.split() == ["0", "0", str(_BASE), "65536", os.readlink(f"/proc/{pid}/ns/user")]


def test_namespaces_belong_to_it(userns: Lab) -> None:
    """Its root may do in them what only an owner may."""
    result = userns.sh("hostname other && hostname; echo $$; mount | grep -c ' on / '")
    assert result.code == 0, result.err
    assert result.out.split()[-2:] == ["1", "1"]


def test_mounts_and_devices(userns: Lab, tmp_path: Path) -> None:
    (tmp_path / "vol").mkdir()
    (tmp_path / "vol/file").write_text("private")
    (tmp_path / "vol").chmod(0o755)
    userns.add_mount("/vol", tmp_path / "vol", "rbind", "ro")
    result = userns.sh(
        "cat /vol/file; echo; echo x > /dev/null; stat -c %t:%T /dev/null; touch /vol/new; touch /mine;"
        "wc -c < /proc/timer_list"
    )
    assert result.out.split() == ["private", "1:3", "0"]
    assert "Read-only" in result.err
    assert (userns.rootfs / "mine").stat().st_uid == _BASE


def test_limits_and_capabilities_are_whole_inside(userns: Lab) -> None:
    result = userns.sh("grep CapEff /proc/self/status; id -G")
    assert result.out.split() == ["CapEff:", "00000000a80425fb", "0"]


def test_bad_mappings_are_refused(lab: Lab) -> None:
    lab.linux["namespaces"].append({"type": "user"})
    assert "needs uidMappings and gidMappings" in lab.run("true").err
    lab.linux["uidMappings"] = lab.linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 0}]
    assert "id maps of the user namespace" in lab.run("true").err
    lab.drop_namespace("user")
    assert "user namespace isn't enabled" in lab.run("true").err


@pytest.mark.parametrize("recursive", [False, True])
def test_idmapped_mount(lab: Lab, tmp_path: Path, recursive: bool) -> None:
    volume = tmp_path / "vol"
    volume.mkdir()
    (volume / "file").write_text("x")
    os.chown(volume / "file", 5000, 6000)
    volume.chmod(0o777)
    mount = {
        "destination": "/vol",
        "type": "bind",
        "source": str(volume),
        "options": ["rbind" if recursive else "bind", "ridmap" if recursive else "idmap"],
        "uidMappings": [{"containerID": 5000, "hostID": 7, "size": 1}, {"containerID": 0, "hostID": 0, "size": 1}],
        "gidMappings": [{"containerID": 6000, "hostID": 8, "size": 1}, {"containerID": 0, "hostID": 0, "size": 1}],
    }
    lab.config["mounts"].append(mount)
    result = lab.sh("stat -c %u:%g /vol/file")
    assert result.out.strip() == "7:8", result.err


def test_idmap_without_mappings_is_refused(lab: Lab, tmp_path: Path) -> None:
    lab.add_mount("/vol", tmp_path, "bind", "idmap")
    assert "needs uidMappings and gidMappings" in lab.run("true").err


def test_time_namespace(lab: Lab) -> None:
    lab.linux["namespaces"].append({"type": "time"})
    lab.linux["timeOffsets"] = {"boottime": {"secs": 1000000}, "monotonic": {"secs": 5, "nanosecs": 1}}
    result = lab.sh("cat /proc/uptime; cat /proc/self/timens_offsets; readlink /proc/self/ns/time")
    uptime = float(result.out.split()[0])
    ours = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(uptime - ours - 1000000) < 60
    assert re.search(r"boottime\s+1000000\s+0", result.out)
    assert os.readlink("/proc/self/ns/time") not in result.out


def test_time_offsets_need_their_namespace(lab: Lab) -> None:
    lab.linux["timeOffsets"] = {"boottime": {"secs": 1}}
    assert "no new time namespace" in lab.run("true").err


def test_user_and_time_namespace_together(userns: Lab) -> None:
    userns.linux["namespaces"].append({"type": "time"})
    userns.linux["timeOffsets"] = {"boottime": {"secs": 1000000}}
    result = userns.run("cat", "/proc/uptime")
    assert float(result.out.split()[0]) > 1000000, result.err


def test_with_the_pid_namespace_of_another(userns: Lab) -> None:
    """Init is born into it late. A procfs of it could be mounted if it belonged to the user namespace."""
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]) as holder:
        try:
            path = f"/proc/{holder.pid}/ns/pid_for_children"
            while not os.path.exists(path) or os.readlink(path) == os.readlink("/proc/self/ns/pid"):
                time.sleep(0.001)
            wanted = os.readlink(path).replace("pid_for_children", "pid")
            userns.drop_namespace("pid")
            userns.linux["namespaces"].append({"type": "pid", "path": path})
            userns.config["mounts"] = [entry for entry in userns.config["mounts"] if entry["type"] != "proc"]
            userns.linux["maskedPaths"] = userns.linux["readonlyPaths"] = []
            pid = userns.start_sleeping()
            assert os.readlink(f"/proc/{pid}/ns/pid") == wanted
            assert os.stat(f"/proc/{pid}").st_uid == _BASE
            assert f"/{userns.id}" in Path(f"/proc/{pid}/cgroup").read_text()
        finally:
            userns.close()
            holder.kill()
