"""The life of a cgroup: create, enter, freeze, kill, remove; the same on both versions."""

import os
import signal
import time

import pytest

from wherry.linux import cgroupfs
from wherry.runtime.cgroups import open_cgroup

from .conftest import finish


def test_attached_process_is_in_every_hierarchy(cgroup, spawn, hierarchies):
    cgroup.create({})
    pid = spawn()
    member = cgroupfs.membership(pid)
    if hierarchies.unified:
        assert member[""] == cgroup.path
    else:
        assert {member[name] for name in hierarchies.v1} == {cgroup.path}
    assert cgroup.pids() == [pid]


def test_another_process_can_be_attached(cgroup):
    cgroup.create({})
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    cgroup.attach(pid)
    assert cgroup.pids() == [pid]


def test_children_are_counted_and_killed(cgroup, spawn):
    cgroup.create({})

    def family():
        for _ in range(3):
            if os.fork() == 0:
                signal.pause()
        signal.pause()

    pid = spawn(family)
    _until(lambda: len(cgroup.pids()) == 4)
    cgroup.kill()
    assert finish(pid) == -signal.SIGKILL
    _until(lambda: cgroup.pids() == [])


def test_kill_reaches_the_frozen(cgroup, spawn):
    cgroup.create({})
    pid = spawn()
    cgroup.freeze()
    cgroup.kill()
    assert finish(pid) == -signal.SIGKILL


def test_freeze_stops_and_thaw_goes_on(cgroup, spawn):
    cgroup.create({})
    read, write = os.pipe()

    def ticking():
        while True:
            os.write(write, b".")
            time.sleep(0.001)

    spawn(ticking)
    assert os.read(read, 1)
    assert not cgroup.frozen()
    cgroup.freeze()
    assert cgroup.frozen()
    os.set_blocking(read, False)
    _drain(read)
    time.sleep(0.05)
    assert _drain(read) == 0
    cgroup.thaw()
    assert not cgroup.frozen()
    _until(lambda: _drain(read) > 0)


def test_remove_is_idempotent_and_takes_what_is_below(cgroup, hierarchies):
    cgroup.create({})
    inner = open_cgroup(f"{cgroup.path}/made/inside", hierarchies)
    inner.create({})
    assert cgroup.exists()
    cgroup.remove()
    assert not cgroup.exists()
    assert not inner.exists()
    cgroup.remove()
    assert cgroup.pids() == []
    assert not cgroup.frozen()
    cgroup.thaw()
    cgroup.kill()


def test_remove_waits_for_the_last_process(cgroup, spawn):
    cgroup.create({})
    pid = spawn(lambda: time.sleep(0.1))
    cgroup.remove()
    assert finish(pid) == 0
    assert not cgroup.exists()


def test_inhabited_cgroup_is_not_taken_over(cgroup, spawn):
    cgroup.create({})
    pid = spawn()
    with pytest.raises(OSError, match="in use"):
        cgroup.create({})
    assert cgroup.pids() == [pid]


def test_left_over_cgroup_is_used_again(cgroup, spawn):
    cgroup.create({})
    cgroup.create({})
    spawn()


def test_failed_create_leaves_nothing(cgroup):
    with pytest.raises(ValueError, match="punch a hole"):
        cgroup.create(
            {
                "devices": [
                    {"allow": True, "type": "c", "access": "rwm"},
                    {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "r"},
                ]
            }
        )
    assert not cgroup.exists()


@pytest.mark.parametrize("path", ["", "/", "..", "/a/../../b", "a/.."])
def test_paths_that_climb_are_refused(path, hierarchies):
    with pytest.raises(ValueError, match="invalid cgroup path"):
        open_cgroup(path, hierarchies)


@pytest.mark.parametrize("named", [{}, {"name=systemd": "/sys/fs/cgroup/systemd"}])
def test_without_controllers_there_are_no_limits(named):
    cgroup = open_cgroup(f"/nobody-{os.getpid()}", cgroupfs.Hierarchies(named, None))
    assert cgroup.create({"memory": {"limit": 0}, "devices": [{"allow": False}]}) == []
    assert (cgroup.exists(), cgroup.frozen(), cgroup.pids(), cgroup.stats()) == (False, False, [], {})
    with pytest.raises(ValueError, match="cannot set limits of memory, pids: no writable cgroup hierarchy is mounted"):
        cgroup.create({"memory": {"limit": 1 << 20}, "pids": {"limit": 5}})
    with pytest.raises(ValueError, match="cannot freeze"):
        cgroup.freeze()
    with pytest.raises(FileNotFoundError):
        cgroup.oom_events()
    cgroup.kill()
    cgroup.remove()


def test_a_read_only_hierarchy_is_none(tmp_path):
    (tmp_path / "mountinfo").write_text(
        "30 23 0:26 / /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n"
        "31 23 0:27 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids\n"
    )
    assert cgroupfs.mounted(str(tmp_path / "mountinfo")) == ({"pids": "/sys/fs/cgroup/pids"}, None)


def test_a_root_with_processes_makes_room(cgroup, spawn, need, hierarchies):
    """In a container the root of the hierarchy is an ordinary cgroup: with processes it may not give controllers."""
    if not hierarchies.unified:
        pytest.skip("v1 knows no such rule")
    need("hugetlb")
    cgroup.create({})
    pid = spawn()
    root = hierarchies.v2 + cgroup.path
    inner = open_cgroup("/wherry/inner", cgroupfs.Hierarchies({}, root))
    inner.create({"hugepageLimits": [{"pageSize": "2MB", "limit": 2 << 20}]})
    assert cgroupfs.membership(pid)[""] == f"{cgroup.path}/init"
    assert cgroupfs.read_int(f"{root}/wherry/inner/hugetlb.2MB.max") == 2 << 20


def test_clone_fd_is_for_v2(cgroup, hierarchies):
    cgroup.create({})
    fd = cgroup.clone_fd()
    if not hierarchies.unified:
        assert fd == -1
        return
    assert os.path.samestat(os.fstat(fd), os.stat(hierarchies.v2 + cgroup.path))
    os.close(fd)


def _drain(fd):
    total = 0
    try:
        while data := os.read(fd, 65536):
            total += len(data)
    except BlockingIOError:
        return total
    return total


def _until(condition):
    for _ in range(12000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not become true within 60 s")
