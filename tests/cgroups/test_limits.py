"""Limits: written as asked, enforced by the kernel, refused with clear words."""

import errno
import os
import select
import signal
import time

import pytest

from wherry.linux import cgroupfs
from wherry.runtime.cgroups import undo, unified
from wherry.runtime.cgroups.v1 import LegacyCgroup

from .conftest import finish, value

MEGA = 1 << 20


@pytest.fixture
def legacy(cgroup):
    return isinstance(cgroup, LegacyCgroup)


def test_pids_limit_is_enforced(cgroup, need, spawn):
    need("pids")
    cgroup.create({"pids": {"limit": 3}})

    def fork_many():
        made = 0
        try:
            for _ in range(10):
                if os.fork() == 0:
                    signal.pause()
                made += 1
        except BlockingIOError:
            return made
        return 99

    assert finish(spawn(fork_many)) == 2
    assert cgroup.stats()["pids"]["limit"] == 3
    cgroup.update({"pids": {"limit": -1}})
    assert value(cgroup, "pids", "pids.max") == "max"
    assert cgroup.stats()["pids"]["limit"] == 0


def test_memory_limit_kills_and_is_told(cgroup, need, spawn):
    need("memory")
    limits = {"limit": 20 * MEGA}
    try:
        cgroup.create({"memory": limits | {"swap": 20 * MEGA}})
    except ValueError:
        cgroup.create({"memory": limits})
    fd, kills = cgroup.oom_events()
    assert kills() == 0
    read, write = os.pipe()

    def grow():
        os.read(read, 1)
        return len([b"x" * MEGA for _ in range(80)])

    pid = spawn(grow)
    os.write(write, b".")
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(20_000), "no notification"
    assert finish(pid) == -signal.SIGKILL
    assert os.read(fd, 4096)
    for _ in range(12000):
        if kills():
            break
        time.sleep(0.005)
    assert kills() >= 1
    os.close(fd)
    cgroup.remove()
    assert kills() == 0


def test_memory_values(cgroup, need, legacy):
    need("memory")
    cgroup.create({"memory": {"limit": 64 * MEGA, "swap": 128 * MEGA, "reservation": 32 * MEGA}})
    names = ("memory.limit_in_bytes", "memory.soft_limit_in_bytes") if legacy else ("memory.max", "memory.low")
    assert [int(value(cgroup, "memory", name)) for name in names] == [64 * MEGA, 32 * MEGA]
    if legacy:
        assert int(value(cgroup, "memory", "memory.memsw.limit_in_bytes")) == 128 * MEGA
    elif unified.controllers(cgroup.directory) and os.path.exists(f"{cgroup.directory}/memory.swap.max"):
        assert int(value(cgroup, "memory", "memory.swap.max")) == 64 * MEGA
    assert cgroup.stats()["memory"]["usage"]["limit"] == 64 * MEGA


def test_memory_limits_move_up_and_down(cgroup, need, legacy):
    """On v1 the limit may never exceed memory+swap, on the way neither."""
    need("memory")
    cgroup.create({"memory": {"limit": 64 * MEGA, "swap": 64 * MEGA}})
    name = "memory.limit_in_bytes" if legacy else "memory.max"
    for limit, swap in ((256, 512), (32, 64), (512, -1)):
        cgroup.update({"memory": {"limit": limit * MEGA, "swap": swap * MEGA if swap > 0 else swap}})
        assert int(value(cgroup, "memory", name)) == limit * MEGA
    cgroup.update({"memory": {"limit": -1}})
    assert cgroup.stats()["memory"]["usage"]["limit"] > 2**60


def test_memory_below_usage_is_refused_with_the_usage(cgroup, need, legacy, spawn):
    need("memory")
    if not legacy:
        pytest.skip("v2 reclaims and kills instead of refusing")
    cgroup.create({})
    read, write = os.pipe()

    def hold():
        data = bytearray(os.urandom(1)) * (30 * MEGA)
        os.write(write, b".")
        signal.pause()
        return len(data)

    cgroup.update({"memory": {"limit": 64 * MEGA, "swap": 64 * MEGA}})
    spawn(hold)
    os.read(read, 1)
    with pytest.raises(OSError, match=r"unable to set memory limit to 4096 \(current usage: \d+, peak usage: \d+\)"):
        cgroup.update({"memory": {"limit": 4096}})


def test_oom_killer_and_swappiness(cgroup, need, legacy):
    need("memory")
    warnings = cgroup.create({"memory": {"limit": 64 * MEGA, "disableOOMKiller": True, "swappiness": 7}})
    if legacy:
        assert warnings == []
        assert "oom_kill_disable 1" in value(cgroup, "memory", "memory.oom_control")
        assert value(cgroup, "memory", "memory.swappiness") == "7"
        with pytest.raises(ValueError, match="valid range is 0-100"):
            cgroup.update({"memory": {"swappiness": 101}})
    else:
        assert len(warnings) == 2
    cgroup.update({"memory": {"swappiness": 2**64 - 1}})


def test_cpu_values(cgroup, need, legacy):
    need("cpu")
    cgroup.create({"cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 10000}})
    if legacy:
        read = [
            value(cgroup, "cpu", f"cpu.{name}") for name in ("shares", "cfs_quota_us", "cfs_period_us", "cfs_burst_us")
        ]
        assert read == ["512", "50000", "100000", "10000"]
    else:
        assert value(cgroup, "cpu", "cpu.weight") == "59"
        assert value(cgroup, "cpu", "cpu.max") == "50000 100000"
        assert value(cgroup, "cpu", "cpu.max.burst") == "10000"
    cgroup.update({"cpu": {"period": 50000}})
    cgroup.update({"cpu": {"quota": -1}})
    if legacy:
        assert value(cgroup, "cpu", "cpu.cfs_quota_us") == "-1"
        assert value(cgroup, "cpu", "cpu.cfs_period_us") == "50000"
    else:
        assert value(cgroup, "cpu", "cpu.max") == "max 50000"
    cgroup.update({"cpu": {"idle": 1}})
    assert value(cgroup, "cpu", "cpu.idle") == "1"


def test_shares_out_of_range(cgroup, need, legacy):
    need("cpu")
    if not legacy:
        pytest.skip("converted to a weight, which has the whole range")
    with pytest.raises(ValueError, match="the minimum allowed cpu-shares is 2"):
        cgroup.create({"cpu": {"shares": 1}})
    assert not cgroup.exists()


def test_a_refused_update_changes_nothing(cgroup, need, legacy):
    """Each is refused by its last part, with everything before it written already."""
    need("cpu", "memory", "pids")
    cgroup.create(
        {
            "cpu": {"shares": 512, "quota": 50000, "period": 100000},
            "memory": {"limit": 64 * MEGA, "swap": 128 * MEGA, "reservation": 32 * MEGA},
            "pids": {"limit": 9},
        }
    )
    before = limits(cgroup)
    changes = {
        "cpu": {"shares": 700, "quota": 20000, "period": 40000, "cpus": "0"},
        "memory": {"limit": 256 * MEGA, "swap": 512 * MEGA, "reservation": 16 * MEGA},
        "pids": {"limit": 11},
        "blockIO": {"throttleReadBpsDevice": [_disk() | {"rate": 4096}]},
    }
    if legacy:
        changes["memory"]["swappiness"] = 7
    last = {"unified": {"pids.max": "3"}} if legacy else {"network": {"classID": 1}}
    no_disk = {"throttleWriteBpsDevice": [{"major": 7, "minor": 99999, "rate": 1}]}
    for refused in (last, {"blockIO": changes["blockIO"] | no_disk}):
        with pytest.raises((OSError, ValueError)):
            cgroup.update(changes | refused)
        assert limits(cgroup) == before
    cgroup.update(changes)
    assert limits(cgroup) != before


def limits(cgroup):
    """Every file of the cgroup that holds a limit."""
    return {
        f"{directory}/{name}": cgroupfs.read_text(f"{directory}/{name}")
        for directory in cgroup.limit_directories()
        for name in sorted(os.listdir(directory) if os.path.isdir(directory) else [])
        if undo._is_limit(name) and os.access(f"{directory}/{name}", os.R_OK)
    }


def test_cpu_quota_throttles(cgroup, need, spawn):
    need("cpu")
    cgroup.create({"cpu": {"quota": 2000, "period": 100000}})

    def burn():
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass

    assert finish(spawn(burn)) == 0
    throttling = cgroup.stats()["cpu"]["throttling"]
    assert throttling["throttledPeriods"] > 0
    assert throttling["throttledTime"] > 0


def test_cpu_usage_is_counted(cgroup, need, spawn, legacy):
    if legacy:
        need("cpuacct")
    cgroup.create({})

    def burn():
        while time.process_time() < 0.1:
            pass

    assert finish(spawn(burn)) == 0
    assert cgroup.stats()["cpu"]["usage"]["total"] > 80_000_000


def test_cpuset(cgroup, need, spawn):
    need("cpuset")
    cgroup.create({"cpu": {"cpus": "0", "mems": "0"}})
    assert finish(spawn(lambda: len(os.sched_getaffinity(0)))) == 1
    with pytest.raises(OSError, match=r"cpuset\.cpus"):
        cgroup.update({"cpu": {"cpus": "4096"}})


def test_cpuset_is_usable_without_being_asked_for(cgroup, need, spawn):
    """A v1 cpuset starts empty and takes no process."""
    need("cpuset")
    cgroup.create({})
    assert finish(spawn(lambda: len(os.sched_getaffinity(0)))) == len(os.sched_getaffinity(0))


def test_cpuset_below_a_parent_that_another_is_making(cgroup, need, spawn, legacy, hierarchies):
    """Whoever makes a parent fills it after it is there to be seen."""
    need("cpuset")
    if not legacy:
        pytest.skip("a v2 cpuset is never empty")
    os.mkdir(os.path.dirname(hierarchies.v1["cpuset"] + cgroup.path))
    cgroup.create({})
    assert finish(spawn(lambda: len(os.sched_getaffinity(0)))) == len(os.sched_getaffinity(0))


def test_block_io_throttle(cgroup, need, legacy):
    need("blkio" if legacy else "io")
    disk = _disk()
    cgroup.create(
        {"blockIO": {"throttleReadBpsDevice": [disk | {"rate": MEGA}], "throttleWriteIOPSDevice": [disk | {"rate": 9}]}}
    )
    number = f"{disk['major']}:{disk['minor']}"
    if legacy:
        assert value(cgroup, "blkio", "blkio.throttle.read_bps_device") == f"{number} {MEGA}"
        assert value(cgroup, "blkio", "blkio.throttle.write_iops_device") == f"{number} 9"
    else:
        assert value(cgroup, "io", "io.max") == f"{number} rbps={MEGA} wbps=max riops=max wiops=9"


def _disk():
    for name in sorted(os.listdir("/sys/block")):
        with open(f"/sys/block/{name}/dev", encoding="ascii") as file:
            major, minor = file.read().strip().split(":")
        return {"major": int(major), "minor": int(minor)}
    pytest.skip("no block device here")


def test_block_io_weight(cgroup, need, legacy):
    need("blkio" if legacy else "io")
    cgroup.create({})
    names = ("blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight")
    if not any(_maybe(cgroup, name) for name in names):
        # No scheduler here has weights: the file that is missing is named.
        with pytest.raises((OSError, ValueError), match="weight"):
            cgroup.update({"blockIO": {"weight": 300}})
        return
    cgroup.update({"blockIO": {"weight": 300}})
    found = [read.removeprefix("default ") for name in names if (read := _maybe(cgroup, name))]
    assert found[0] in ("300", "293", "2930")


def _maybe(cgroup, name):
    try:
        return value(cgroup, "blkio", name)
    except FileNotFoundError:
        return ""


def test_huge_pages(cgroup, hierarchies, legacy, spawn):
    point = hierarchies.v1.get("hugetlb") or hierarchies.v2 or ""
    if "hugetlb" not in hierarchies.v1 and "hugetlb" not in unified.controllers(point):
        pytest.skip("no hugetlb controller here")
    cgroup.create({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MEGA}]})
    name = "hugetlb.2MB.limit_in_bytes" if "hugetlb" in hierarchies.v1 else "hugetlb.2MB.max"
    assert cgroupfs.read_int(f"{point}{cgroup.path}/{name}") == 4 * MEGA
    pid = spawn()
    # In the hybrid layout the limit lives in the unified hierarchy: the process must be there as well.
    assert cgroup.path in cgroupfs.membership(pid).values()
    assert pid in cgroupfs.processes(point + cgroup.path)
    cgroup.kill()
    finish(pid)
    cgroup.remove()
    assert not os.path.exists(point + cgroup.path)


def test_raw_keys(cgroup, legacy):
    if legacy:
        with pytest.raises(ValueError, match="this host uses cgroup v1"):
            cgroup.create({"unified": {"memory.high": "1"}})
        return
    for key in ("../x", "cgroup.procs", "no/slash", ".."):
        with pytest.raises(ValueError, match="must be a file name"):
            cgroup.create({"unified": {key: "1"}})
    with pytest.raises(ValueError, match="controller 'nope' not available"):
        cgroup.create({"unified": {"nope.max": "1"}})
    cgroup.create({"unified": {"hugetlb.2MB.max": "2097152"}})
    assert value(cgroup, "", "hugetlb.2MB.max") == "2097152"


def test_absent_controller_is_named(cgroup, legacy, hierarchies):
    if legacy:
        fewer = cgroupfs.Hierarchies({"pids": hierarchies.v1["pids"]}, None)
        poor = LegacyCgroup(cgroup.path, fewer)
        with pytest.raises(ValueError, match="cannot set memory limits: cgroup controller 'memory' is not mounted"):
            poor.create({"memory": {"limit": 64 * MEGA}})
        assert not poor.exists()
        # Without the devices controller a container runs, but not silently.
        assert poor.create({}) == ["devices cgroup controller is not mounted: device access is not restricted"]
        poor.remove()
    elif "memory" not in unified.controllers(hierarchies.v2):
        with pytest.raises(ValueError, match="cannot set memory limit: cgroup controller 'memory'"):
            cgroup.create({"memory": {"limit": 64 * MEGA}})
        assert not cgroup.exists()


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (512, 59), (1024, 100), (2048, 174), (262144, 10000)])
def test_shares_as_weight(shares, weight):
    assert unified.cpu_weight(shares) == weight


@pytest.mark.parametrize(
    ("limit", "both", "swap"),
    [(100, 300, "200"), (100, 100, "0"), (100, -1, "max"), (-1, -1, "max"), (100, 0, "")],
)
def test_swap_alone(limit, both, swap):
    assert unified.swap_max(limit, both) == swap


@pytest.mark.parametrize(("limit", "both"), [(0, 100), (-1, 100), (100, 99)])
def test_swap_without_sense(limit, both):
    with pytest.raises(ValueError, match="limit"):
        unified.swap_max(limit, both)


def test_weights():
    assert [unified.bfq_weight(weight) for weight in (10, 500, 1000)] == [1, 495, 1000]
    assert [unified.io_weight(weight) for weight in (10, 500, 1000)] == [1, 4950, 10000]


def test_stats_of_a_cgroup_that_is_gone(cgroup):
    assert cgroup.stats() == {}


def test_write_error_tells_file_and_value(cgroup, need):
    need("pids")
    cgroup.create({})
    with pytest.raises(OSError, match=r"failed to write '\d+'.*pids\.max") as raised:
        cgroup.update({"pids": {"limit": 2**70}})
    assert raised.value.errno == errno.ERANGE
