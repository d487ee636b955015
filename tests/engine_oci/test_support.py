"""Limits that the host cannot set are taken out with Docker's words."""

import pytest

from wherry.engine.model import HostConfig, ThrottleDevice, WeightDevice
from wherry.engine.oci import discard_unsupported, resources_of
from wherry.errors import InvalidArgument
from wherry.linux import cgroupfs
from wherry.runtime.cgroups import Features, features
from wherry.runtime.cgroups.features import detect

NOTHING = Features(*[False] * len(Features._fields))
EVERYTHING = Features(*[True] * len(Features._fields))
_TAIL = "or the cgroup is not mounted."


def everything_asked():
    return HostConfig(
        Memory=1 << 26,
        MemorySwap=1 << 27,
        MemoryReservation=1 << 25,
        MemorySwappiness=5,
        OomKillDisable=True,
        KernelMemoryTCP=1 << 20,
        PidsLimit=5,
        CpuShares=5,
        CpuPeriod=10000,
        CpuQuota=5000,
        CpusetCpus="0",
        CpusetMems="0",
        BlkioWeight=50,
        BlkioWeightDevice=[WeightDevice("/dev/null", 50)],
        BlkioDeviceReadBps=[ThrottleDevice("/dev/null", 5)],
        BlkioDeviceWriteBps=[ThrottleDevice("/dev/null", 5)],
        BlkioDeviceReadIOps=[ThrottleDevice("/dev/null", 5)],
        BlkioDeviceWriteIOps=[ThrottleDevice("/dev/null", 5)],
    )


def test_what_is_there_is_kept():
    host = everything_asked()
    assert discard_unsupported(host, EVERYTHING) == []
    assert host == everything_asked()


def test_what_is_missing_is_taken_out():
    host = everything_asked()
    warnings = discard_unsupported(host, NOTHING)
    assert len(warnings) == 15
    assert all(each.startswith("Your kernel does not support ") for each in warnings)
    assert resources_of(host) == {}
    assert discard_unsupported(host, NOTHING) == []


def test_memory_without_swap():
    host = HostConfig(Memory=1 << 26, MemorySwap=1 << 27)
    assert discard_unsupported(host, EVERYTHING._replace(swap_limit=False)) == [
        f"Your kernel does not support swap limit capabilities {_TAIL} Memory limited without swap."
    ]
    assert resources_of(host) == {"memory": {"limit": 1 << 26}}


def test_cpus_cannot_be_approximated():
    with pytest.raises(InvalidArgument, match="NanoCPUs can not be set"):
        discard_unsupported(HostConfig(NanoCpus=10**9), NOTHING)
    with pytest.raises(InvalidArgument, match="real-time"):
        discard_unsupported(HostConfig(CpuRealtimeRuntime=5), NOTHING)


def test_this_host():
    found, mounts = features(), cgroupfs.mounted()
    if not mounts.unified:
        assert found.memory_limit == ("memory" in mounts.v1)
        assert found.pids_limit == ("pids" in mounts.v1)
    else:
        assert not found.oom_kill_disable


def test_v2_controllers(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("memory pids io\n")
    child = tmp_path / "child"
    child.mkdir()
    (child / "cgroup.controllers").write_text("memory io\n")
    (child / "io.weight").touch()
    found = detect(cgroupfs.Hierarchies({}, str(tmp_path)))
    assert found.memory_limit
    assert found.pids_limit
    assert found.blkio_weight
    assert not found.swap_limit
    assert not found.cpu_shares
    assert not found.cpuset
