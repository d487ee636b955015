"""cgroup v2: one directory, limits in its files, device rules as an eBPF program.

See Documentation/admin-guide/cgroup-v2.rst.
"""

import errno
import os
from collections.abc import Callable
from typing import Any

from wherry.linux import bpf, cgroupfs
from wherry.linux.syscalls import NR, syscall
from wherry.runtime.cgroups import devices, statistics, unified
from wherry.runtime.cgroups.base import Cgroup, kill_all, wait_until

# Every controller a container can be limited by or is accounted by; what the host lacks is left out.
_WANTED = frozenset(("cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma"))
_IN_MODIFY = 0x2


class UnifiedCgroup(Cgroup):
    """One directory of the unified hierarchy."""

    def __init__(self, path: str, mounts: cgroupfs.Hierarchies) -> None:
        self.path = path
        self._point = mounts.v2 or ""
        self.directory = self._point + path

    def create(self, resources: dict[str, Any]) -> list[str]:
        made: list[str] = []
        try:
            made = unified.make(self.directory, self.path, _WANTED & unified.controllers(self._point))
            if self.directory not in made and cgroupfs.processes(self.directory):
                raise OSError(errno.EBUSY, "cgroup is in use", self.directory)
            warnings = self._apply(resources)
            return warnings + self._apply_devices(resources.get("devices") or ())
        except BaseException:
            if self.directory in made:
                cgroupfs.remove(self.directory, patience_s=0)
            raise

    def attach(self, pid: int) -> None:
        cgroupfs.write(self.directory, "cgroup.procs", pid)

    def clone_fd(self) -> int:
        return os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def limit_directories(self) -> list[str]:
        return [self.directory]

    def _update(self, resources: dict[str, Any]) -> list[str]:
        warnings = self._apply(resources)
        if resources.get("devices"):
            warnings += self._apply_devices(resources["devices"])
        return warnings

    def _apply(self, resources: dict[str, Any]) -> list[str]:
        warnings: list[str] = []
        if cpu := resources.get("cpu"):
            warnings += self._apply_cpu(cpu)
        if memory := resources.get("memory"):
            warnings += self._apply_memory(memory)
        if limit := (resources.get("pids") or {}).get("limit") or 0:
            self._write("pids.max", limit if limit > 0 else "max", "pids limit")
        if block := resources.get("blockIO"):
            self._apply_io(block)
        if limits := resources.get("hugepageLimits"):
            unified.apply_hugetlb(self.directory, limits)
        for device, limit in (resources.get("rdma") or {}).items():
            self._apply_rdma(device, limit)
        if resources.get("network"):
            raise ValueError("cannot set network class or priorities: this host uses cgroup v2")
        # Last, so that a raw key beats what was converted.
        if keys := resources.get("unified"):
            unified.write_raw(self.directory, keys)
        return warnings

    def _write(self, name: str, value: str | int, what: str) -> None:
        """Write; a file that is not there means that the host has not got the controller: ValueError."""
        if not cgroupfs.write_if_there(self.directory, name, value):
            controller = name.partition(".")[0]
            raise ValueError(f"cannot set {what}: cgroup controller {controller!r} has no {name} on this host")

    def _apply_cpu(self, cpu: dict[str, Any]) -> list[str]:
        if cpu.get("idle") is not None:
            self._write("cpu.idle", cpu["idle"], "CPU idle")
        if cpu.get("shares") and not cpu.get("idle"):
            self._write("cpu.weight", unified.cpu_weight(cpu["shares"]), "CPU shares")
        self._apply_quota(cpu.get("quota") or 0, cpu.get("period") or 0, cpu.get("burst"))
        for key in ("cpus", "mems"):
            if cpu.get(key):
                self._write(f"cpuset.{key}", cpu[key], f"cpuset {key}")
        if cpu.get("realtimeRuntime") or cpu.get("realtimePeriod"):
            return ["cgroup v2 has no realtime CPU limits: discarded"]
        return []

    def _apply_quota(self, quota: int, period: int, burst: int | None) -> None:
        if quota or period:
            if burst is not None:
                # The old burst may exceed the new quota.
                cgroupfs.write_if_there(self.directory, "cpu.max.burst", 0)
            limit = "max" if quota < 0 else quota or self._current_quota()
            self._write("cpu.max", f"{limit} {period}" if period else str(limit), "CPU quota")
        if burst is not None:
            self._write("cpu.max.burst", burst, "CPU burst")

    def _current_quota(self) -> str:
        return cgroupfs.read_text(f"{self.directory}/cpu.max").split()[0]

    def _apply_memory(self, memory: dict[str, Any]) -> list[str]:
        limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
        if limit == -1 and not swap:
            swap = -1
        self._apply_swap(limit, swap)
        if limit:
            self._write("memory.max", "max" if limit == -1 else limit, "memory limit")
        if reservation := memory.get("reservation") or 0:
            self._write("memory.low", "max" if reservation == -1 else reservation, "memory reservation")
        warnings = []
        if memory.get("disableOOMKiller"):
            warnings.append("cgroup v2 cannot disable the OOM killer: discarded")
        if memory.get("swappiness") not in (None, -1, 2**64 - 1):
            warnings.append("cgroup v2 has no memory swappiness: discarded")
        if memory.get("kernelTCP"):
            warnings.append("cgroup v2 has no kernel TCP memory limit: discarded")
        return warnings

    def _apply_swap(self, limit: int, swap: int) -> None:
        value = unified.swap_max(limit, swap)
        if not value:
            return
        if not cgroupfs.write_if_there(self.directory, "memory.swap.max", value) and value not in ("0", "max"):
            raise ValueError("cannot set swap limit: this kernel does not account swap (swapaccount=0?)")

    def _apply_io(self, block: dict[str, Any]) -> None:
        if block.get("weight"):
            self._apply_io_weight("", block["weight"])
        for device in block.get("weightDevice") or ():
            if device.get("weight"):
                self._apply_io_weight(f"{device['major']}:{device['minor']} ", device["weight"])
        if block.get("leafWeight"):
            raise ValueError("cannot set block IO leaf weight: cgroup v2 has none")
        for key, word in _THROTTLES:
            for device in block.get(key) or ():
                line = f"{device['major']}:{device['minor']} {word}={device['rate'] or 'max'}"
                self._write("io.max", line, "block IO throttle")

    def _apply_io_weight(self, device: str, weight: int) -> None:
        """`device` is "" or "8:0 "."""
        # The BFQ scheduler brings a file of its own; where it is missing, io.weight (iocost) it is.
        if not cgroupfs.write_if_there(self.directory, "io.bfq.weight", f"{device}{unified.bfq_weight(weight)}"):
            self._write("io.weight", f"{device}{unified.io_weight(weight)}", "block IO weight")

    def _apply_rdma(self, device: str, limit: dict[str, Any]) -> None:
        names = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
        parts = [f"{word}={limit[key]}" for key, word in names if limit.get(key) is not None]
        self._write("rdma.max", " ".join([device, *parts]), "RDMA limit")

    def _apply_devices(self, rules: list[dict[str, Any]] | tuple[()]) -> list[str]:
        access = devices.access_of(rules)
        apply_device_access(self.directory, access)
        return []

    def freeze(self) -> None:
        cgroupfs.write(self.directory, "cgroup.freeze", 1)
        try:
            wait_until(lambda: self._frozen_event() == 1, f"cgroup {self.path} did not freeze")
        except TimeoutError:
            cgroupfs.write(self.directory, "cgroup.freeze", 0)
            raise

    def _frozen_event(self) -> int:
        return cgroupfs.read_table(f"{self.directory}/cgroup.events")["frozen"]

    def thaw(self) -> None:
        cgroupfs.write_if_there(self.directory, "cgroup.freeze", 0)

    def frozen(self) -> bool:
        try:
            return cgroupfs.read_int(f"{self.directory}/cgroup.freeze") == 1
        except FileNotFoundError:
            return False

    def exists(self) -> bool:
        return os.path.isdir(self.directory)

    def pids(self) -> list[int]:
        return cgroupfs.processes(self.directory)

    def kill(self) -> None:
        # cgroup.kill (Linux 5.14) also reaches what is frozen or just forking.
        if not cgroupfs.write_if_there(self.directory, "cgroup.kill", 1):
            self.thaw()
            kill_all(self.directory)

    def stats(self) -> dict[str, Any]:
        return statistics.unified(self.directory)

    def oom_events(self) -> tuple[int, Callable[[], int]]:
        events = f"{self.directory}/memory.events"
        watcher = syscall(NR.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            syscall(NR.inotify_add_watch, watcher, events.encode(), _IN_MODIFY)
        except OSError as error:
            os.close(watcher)
            raise OSError(error.errno, error.strerror, events) from None
        return watcher, lambda: _oom_kills(events)

    def remove(self) -> None:
        cgroupfs.remove(self.directory)


_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def apply_device_access(directory: str, access: devices.DeviceAccess) -> None:
    """Make `access` what the cgroup2 `directory` may do with devices."""
    exceptions = [
        bpf.DeviceException(device.kind, device.major, device.minor, "".join(sorted(letters)))
        for device, letters in access.exceptions.items()
    ]
    bpf.replace_device_program(directory, bpf.device_program(access.default_allow, exceptions))


def _oom_kills(events: str) -> int:
    try:
        return cgroupfs.read_table(events).get("oom_kill", 0)
    except OSError:
        return 0
