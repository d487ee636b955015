"""The limits of HostConfig, in the kernel's files: on v1 and on v2 (where tests/guest runs them)."""

from pathlib import Path

from tests.e2e.fieldtools import BLOCK, MB, V2, Case, cgroup, either, hostly, inside, refused, running, warned


def throttle(field: str, v1: str, v2: str) -> Case:
    return cgroup(
        hostly(**{field: [{"Path": BLOCK, "Rate": MB}]}), f"blkio/blkio.throttle.{v1}_device", "io.max",
        f"7:0 {MB}", *(f"7:0 {line}" for line in [" ".join(f"{k}={MB if k == v2 else 'max'}" for k in _IO)]),
    )  # fmt: skip


_IO = ("rbps", "wbps", "riops", "wiops")
_WEIGHT = "does not support Block I/O weight"

LIMITS: dict[str, list[Case]] = {
    "HostConfig.CpuShares": [
        cgroup(hostly(CpuShares=512), "cpu/cpu.shares", "cpu.weight", "512", "59"),
        refused(hostly(CpuShares=-1), r"invalid CPU shares \(-1\)"),
    ],
    "HostConfig.Memory": [
        cgroup(hostly(Memory=48 * MB), "memory/memory.limit_in_bytes", "memory.max", str(48 * MB)),
        refused(hostly(Memory=1), "Minimum memory limit allowed is 6MB"),
    ],
    "HostConfig.CgroupParent": [
        running(
            hostly(CgroupParent="/wherry-test-parent"),
            lambda _, c: "/wherry-test-parent/" in Path(f"/proc/{c['State']['Pid']}/cgroup").read_text(), True,
        ),
        running(
            hostly(CgroupParent="../../wherry-test-parent"),
            lambda _, c: f":/wherry-test-parent/{c['Id']}\n" in Path(f"/proc/{c['State']['Pid']}/cgroup").read_text(),
            True,
        ),
    ],
    "HostConfig.BlkioWeight": [
        either(
            cgroup(hostly(BlkioWeight=300), "blkio/blkio.weight", "io.bfq.weight", "300", "default 293"),
            cgroup(hostly(BlkioWeight=300), "blkio/blkio.weight", "io.weight", "default 2929", "default 2930"),
            warned(hostly(BlkioWeight=300), _WEIGHT),
        ),
    ],
    "HostConfig.BlkioWeightDevice": [
        either(
            warned(hostly(BlkioWeightDevice=[{"Path": BLOCK, "Weight": 300}]), _WEIGHT),
            cgroup(
                hostly(BlkioWeightDevice=[{"Path": BLOCK, "Weight": 300}]), "blkio/blkio.weight_device", "io.weight",
                "7:0 300", "default 100\n7:0 2930",
            ),
            refused(hostly(BlkioWeightDevice=[{"Path": BLOCK, "Weight": 300}]), "io.*weight", 500),
        ),
    ],
    "HostConfig.BlkioDeviceReadBps": [throttle("BlkioDeviceReadBps", "read_bps", "rbps")],
    "HostConfig.BlkioDeviceWriteBps": [throttle("BlkioDeviceWriteBps", "write_bps", "wbps")],
    "HostConfig.BlkioDeviceReadIOps": [throttle("BlkioDeviceReadIOps", "read_iops", "riops")],
    "HostConfig.BlkioDeviceWriteIOps": [throttle("BlkioDeviceWriteIOps", "write_iops", "wiops")],
    "HostConfig.CpuPeriod": [
        cgroup(hostly(CpuPeriod=50000, CpuQuota=20000), "cpu/cpu.cfs_period_us", "cpu.max", "50000", "20000 50000"),
        refused(hostly(CpuPeriod=999), "CPU cfs period can not be less than 1ms"),
    ],
    "HostConfig.CpuQuota": [
        cgroup(hostly(CpuQuota=20000), "cpu/cpu.cfs_quota_us", "cpu.max", "20000", "20000 100000"),
        refused(hostly(CpuQuota=999), "CPU cfs quota can not be less than 1ms"),
    ],
    "HostConfig.CpuRealtimePeriod": [
        either(
            cgroup(hostly(CpuRealtimePeriod=200000), "cpu/cpu.rt_period_us", "-", "200000"),
            refused(hostly(CpuRealtimePeriod=200000), "your kernel does not support CPU real-time scheduler"),
        ),
        refused(hostly(CpuRealtimePeriod=-1), "negative|your kernel does not support CPU real-time scheduler"),
    ],
    "HostConfig.CpuRealtimeRuntime": [
        # A parent without realtime budget of its own has none to give.
        refused(
            hostly(CpuRealtimeRuntime=1000),
            "your kernel does not support CPU real-time" if V2 else "cpu.rt_runtime_us: failed to write '1000'",
            400 if V2 else 500,
        ),
    ],
    "HostConfig.CpusetCpus": [
        cgroup(hostly(CpusetCpus="0"), "cpuset/cpuset.cpus", "cpuset.cpus", "0"),
        refused(hostly(CpusetCpus="999"), "Requested CPUs are not available - requested 999"),
    ],
    "HostConfig.CpusetMems": [
        cgroup(hostly(CpusetMems="0"), "cpuset/cpuset.mems", "cpuset.mems", "0"),
        refused(hostly(CpusetMems="99"), "Requested memory nodes are not available - requested 99"),
    ],
    "HostConfig.MemoryReservation": [
        cgroup(hostly(MemoryReservation=24 * MB), "memory/memory.soft_limit_in_bytes", "memory.low", str(24 * MB)),
    ],
    "HostConfig.MemorySwap": [
        cgroup(
            hostly(Memory=32 * MB, MemorySwap=40 * MB), "memory/memory.memsw.limit_in_bytes", "memory.swap.max",
            str(40 * MB), str(8 * MB),
        ),
        refused(hostly(MemorySwap=8 * MB), "You should always set the Memory limit when using Memoryswap limit"),
    ],
    "HostConfig.MemorySwappiness": [
        either(
            warned(hostly(MemorySwappiness=7), "does not support memory swappiness"),
            cgroup(hostly(MemorySwappiness=7), "memory/memory.swappiness", "-", "7"),
        ),
    ],
    "HostConfig.NanoCpus": [
        cgroup(hostly(NanoCpus=500_000_000), "cpu/cpu.cfs_quota_us", "cpu.max", "50000", "50000 100000"),
    ],
    "HostConfig.OomKillDisable": [
        either(
            warned(hostly(OomKillDisable=True, Memory=32 * MB), "does not support OomKillDisable"),
            cgroup(
                hostly(OomKillDisable=True, Memory=32 * MB), "memory/memory.oom_control", "-",
                "oom_kill_disable 1\nunder_oom 0\noom_kill 0",
            ),
        ),
    ],
    "HostConfig.Init": [inside(hostly(Init=True), "cat /proc/1/comm", "docker-init")],
    "HostConfig.PidsLimit": [cgroup(hostly(PidsLimit=33), "pids/pids.max", "pids.max", "33")],
    "HostConfig.Ulimits": [inside(hostly(Ulimits=[{"Name": "nofile", "Soft": 90, "Hard": 91}]), "ulimit -n", "^90$")],
    "HostConfig.CpuCount": [warned(hostly(CpuCount=1), "linux does not support CPU count")],
    "HostConfig.CpuPercent": [warned(hostly(CpuPercent=1), "linux does not support CPU percent")],
    "HostConfig.IOMaximumIOps": [refused(hostly(IOMaximumIOps=1), "maximum IOPs configuration is not supported")],
    "HostConfig.IOMaximumBandwidth": [refused(hostly(IOMaximumBandwidth=1), "bandwidth configuration is not")],
    "HostConfig.KernelMemory": [
        warned(hostly(KernelMemory=8 * MB), "does not support kernel memory limit", "/v1.41"),
    ],
    "HostConfig.KernelMemoryTCP": [
        either(
            warned(hostly(KernelMemoryTCP=8 * MB), "does not support kernel memory TCP"),
            cgroup(hostly(KernelMemoryTCP=8 * MB), "memory/memory.kmem.tcp.limit_in_bytes", "-", str(8 * MB)),
        ),
    ],
    "ThrottleDevice.Path": [
        refused(hostly(BlkioDeviceReadBps=[{"Path": "/dev/gone", "Rate": 5}]), "stat /dev/gone: no such file"),
    ],
    "ThrottleDevice.Rate": [
        throttle("BlkioDeviceReadBps", "read_bps", "rbps"),
        refused(hostly(BlkioDeviceReadBps=[{"Path": BLOCK, "Rate": -1}]), "BlkioDeviceReadBps.0.Rate of type uint64"),
    ],
    "WeightDevice.Path": [
        either(
            warned(hostly(BlkioWeightDevice=[{"Path": "/dev/gone", "Weight": 50}]), _WEIGHT),
            refused(hostly(BlkioWeightDevice=[{"Path": "/dev/gone", "Weight": 50}]), "stat /dev/gone: no such file"),
        ),
    ],
    "WeightDevice.Weight": [
        refused(hostly(BlkioWeightDevice=[{"Path": BLOCK, "Weight": 70000}]), "Weight of type uint16"),
    ],
}  # fmt: skip
