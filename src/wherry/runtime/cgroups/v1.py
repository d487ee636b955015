"""cgroup v1, and the hybrid layout that has a unified hierarchy beside it.

See Documentation/admin-guide/cgroup-v1. What a limit means and the order in which the kernel accepts its parts follows
runc's `fs` driver, so that the errors are the ones users know.
"""

import errno
import os
from collections.abc import Callable
from typing import Any

from wherry.linux import cgroupfs
from wherry.runtime.cgroups import devices, statistics, unified
from wherry.runtime.cgroups.base import Cgroup, kill_all, wait_until

_UNLIMITED = -1


class LegacyCgroup(Cgroup):
    """A directory in every v1 hierarchy; one in the unified hierarchy only when a limit lives there."""

    def __init__(self, path: str, mounts: cgroupfs.Hierarchies) -> None:
        self.path = path
        self._dirs = {name: point + path for name, point in mounts.v1.items()}
        self._unified = mounts.v2 + path if mounts.v2 else ""
        # cpu and cpuacct are often one hierarchy.
        self._points = list(dict.fromkeys(mounts.v1.values()))

    def create(self, resources: dict[str, Any]) -> list[str]:
        made: list[str] = []
        try:
            for point in self._points:
                self._make(point, made)
            warnings = self._apply(resources)
            return warnings + self._apply_devices(resources.get("devices") or ())
        except BaseException:
            for directory in [*made, self._unified]:
                if directory:
                    cgroupfs.remove(directory, patience_s=0)
            raise

    def _make(self, point: str, made: list[str]) -> None:
        directory = point + self.path
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            # Left by a container that ended; an inhabited one belongs to somebody.
            if cgroupfs.processes(directory):
                raise OSError(errno.EBUSY, "cgroup is in use", directory) from None
        except FileNotFoundError:
            self._make_parents(point)
            os.mkdir(directory, 0o755)
        made.append(directory)
        if point == self._point("cpuset"):
            _inherit_cpuset(directory)

    def _make_parents(self, point: str) -> None:
        """The parents stay when the container goes: others may be entering them."""
        directory = point
        for part in self.path.split("/")[1:-1]:
            directory += f"/{part}"
            if cgroupfs.make(directory) and point == self._point("cpuset"):
                _inherit_cpuset(directory)
                # Children made from here on start with our cpus instead of none.
                cgroupfs.write(directory, "cgroup.clone_children", 1)

    def _point(self, controller: str) -> str:
        return self._dirs.get(controller, "")[: -len(self.path)]

    def attach(self, pid: int) -> None:
        # `tasks` with "0" moves the calling thread without the kernel's lock over all forks, whose first taker waits
        # 5 ms for an RCU grace period. A container's init and its execs have one thread when they enter.
        for point in self._points:
            cgroupfs.write(point + self.path, "cgroup.procs" if pid else "tasks", pid)
        if self._unified and os.path.isdir(self._unified):
            cgroupfs.write(self._unified, "cgroup.procs", pid)

    def clone_fd(self) -> int:
        return -1

    def limit_directories(self) -> list[str]:
        return [*(point + self.path for point in self._points), *([self._unified] if self._unified else [])]

    def _update(self, resources: dict[str, Any]) -> list[str]:
        warnings = self._apply(resources)
        if (resources.get("memory") or {}).get("disableOOMKiller") is False:
            cgroupfs.write(self._directory("memory", "OOM killer"), "memory.oom_control", 0)
        if resources.get("devices"):
            warnings += self._apply_devices(resources["devices"])
        return warnings

    def _apply(self, resources: dict[str, Any]) -> list[str]:
        warnings: list[str] = []
        if cpu := resources.get("cpu"):
            self._apply_cpu(cpu)
            self._apply_cpuset(cpu)
        if memory := resources.get("memory"):
            self._apply_memory(memory)
        if pids := resources.get("pids"):
            self._apply_pids(pids)
        if block := resources.get("blockIO"):
            self._apply_blkio(block)
        if limits := resources.get("hugepageLimits"):
            self._apply_hugetlb(limits)
        if network := resources.get("network"):
            self._apply_network(network)
        if keys := resources.get("unified"):
            raise ValueError(f"cannot set unified resources {', '.join(keys)}: this host uses cgroup v1")
        return warnings

    def _directory(self, controller: str, what: str) -> str:
        """Where `controller` is; ValueError when this host has it not."""
        if controller not in self._dirs:
            raise ValueError(f"cannot set {what}: cgroup controller {controller!r} is not mounted on this host")
        return self._dirs[controller]

    def _apply_cpu(self, cpu: dict[str, Any]) -> None:
        known = ("shares", "quota", "period", "burst", "realtimeRuntime", "realtimePeriod", "idle")
        if not any(cpu.get(key) for key in known):
            return
        directory = self._directory("cpu", "CPU limits")
        if cpu.get("idle") is not None:
            cgroupfs.write(directory, "cpu.idle", cpu["idle"])
        if cpu.get("shares") and not cpu.get("idle"):
            self._apply_shares(directory, cpu["shares"])
        for key, name in (("realtimePeriod", "cpu.rt_period_us"), ("realtimeRuntime", "cpu.rt_runtime_us")):
            if cpu.get(key):
                cgroupfs.write(directory, name, cpu[key])
        self._apply_quota(directory, cpu.get("quota") or 0, cpu.get("period") or 0, cpu.get("burst"))

    def _apply_shares(self, directory: str, shares: int) -> None:
        cgroupfs.write(directory, "cpu.shares", shares)
        effective = cgroupfs.read_int(f"{directory}/cpu.shares")
        if shares != effective:
            bound = "maximum" if shares > effective else "minimum"
            raise ValueError(f"the {bound} allowed cpu-shares is {effective}")

    def _apply_quota(self, directory: str, quota: int, period: int, burst: int | None) -> None:
        if burst is not None and quota:
            # A burst above the new quota, and a quota below the old burst, are both refused: clear it first.
            cgroupfs.write_if_there(directory, "cpu.cfs_burst_us", 0)
        if period:
            try:
                cgroupfs.write(directory, "cpu.cfs_period_us", period)
                period = 0
            except OSError as error:
                # The parent's bandwidth forbids the new period with the old quota: set the quota first.
                if error.errno != errno.EINVAL or not quota:
                    raise
        if quota:
            cgroupfs.write(directory, "cpu.cfs_quota_us", quota)
        if period:
            cgroupfs.write(directory, "cpu.cfs_period_us", period)
        if burst is not None:
            cgroupfs.write(directory, "cpu.cfs_burst_us", burst)

    def _apply_cpuset(self, cpu: dict[str, Any]) -> None:
        for key in ("cpus", "mems"):
            if cpu.get(key):
                cgroupfs.write(self._directory("cpuset", f"cpuset {key}"), f"cpuset.{key}", cpu[key])

    def _apply_memory(self, memory: dict[str, Any]) -> None:
        known = ("limit", "swap", "reservation", "kernelTCP", "disableOOMKiller")
        if not any(memory.get(key) for key in known) and memory.get("swappiness") is None:
            return
        directory = self._directory("memory", "memory limits")
        self._apply_memory_limits(directory, memory.get("limit") or 0, memory.get("swap") or 0)
        if memory.get("reservation"):
            cgroupfs.write(directory, "memory.soft_limit_in_bytes", memory["reservation"])
        if memory.get("kernelTCP"):
            cgroupfs.write(directory, "memory.kmem.tcp.limit_in_bytes", memory["kernelTCP"])
        if memory.get("disableOOMKiller"):
            cgroupfs.write(directory, "memory.oom_control", 1)
        swappiness = memory.get("swappiness")
        if swappiness is not None and swappiness not in (-1, 2**64 - 1):
            if not 0 <= swappiness <= 100:
                raise ValueError(f"invalid memory swappiness value: {swappiness} (valid range is 0-100)")
            cgroupfs.write(directory, "memory.swappiness", swappiness)

    def _apply_memory_limits(self, directory: str, limit: int, swap: int) -> None:
        # Unlimited memory makes no sense with limited swap: lift it too, where this kernel accounts swap.
        if limit == _UNLIMITED and not swap and os.path.exists(f"{directory}/memory.memsw.limit_in_bytes"):
            swap = _UNLIMITED
        steps = [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap)]
        # The kernel keeps limit <= memsw at every moment: grow memsw first, shrink it last.
        if limit and swap:
            current = cgroupfs.read_int(f"{directory}/memory.memsw.limit_in_bytes")
            if swap == _UNLIMITED or current < swap:
                steps.reverse()
        for name, value in steps:
            if value:
                _write_memory(directory, name, value)

    def _apply_pids(self, pids: dict[str, Any]) -> None:
        if limit := pids.get("limit") or 0:
            cgroupfs.write(self._directory("pids", "pids limit"), "pids.max", limit if limit > 0 else "max")

    def _apply_blkio(self, block: dict[str, Any]) -> None:
        directory = self._directory("blkio", "block IO limits")
        if block.get("weight"):
            _write_weight(directory, "weight", str(block["weight"]), block["weight"])
        if block.get("leafWeight"):
            cgroupfs.write(directory, "blkio.leaf_weight", block["leafWeight"])
        for device in block.get("weightDevice") or ():
            number = f"{device['major']}:{device['minor']}"
            if device.get("weight"):
                _write_weight(directory, "weight_device", f"{number} {device['weight']}", device["weight"], number)
            if device.get("leafWeight"):
                cgroupfs.write(directory, "blkio.leaf_weight_device", f"{number} {device['leafWeight']}")
        for key, name in _THROTTLES:
            for device in block.get(key) or ():
                cgroupfs.write(directory, name, f"{device['major']}:{device['minor']} {device['rate']}")

    def _apply_hugetlb(self, limits: list[dict[str, Any]]) -> None:
        if "hugetlb" in self._dirs:
            for limit in limits:
                size = limit["pageSize"]
                cgroupfs.write(self._dirs["hugetlb"], f"hugetlb.{size}.limit_in_bytes", limit["limit"])
                cgroupfs.write_if_there(self._dirs["hugetlb"], f"hugetlb.{size}.rsvd.limit_in_bytes", limit["limit"])
            return
        if not self._unified or "hugetlb" not in unified.controllers(self._unified[: -len(self.path)]):
            self._directory("hugetlb", "hugepage limits")
        unified.make(self._unified, self.path, {"hugetlb"})
        unified.apply_hugetlb(self._unified, limits)

    def _apply_network(self, network: dict[str, Any]) -> None:
        if network.get("classID"):
            cgroupfs.write(self._directory("net_cls", "network class"), "net_cls.classid", network["classID"])
        for priority in network.get("priorities") or ():
            line = f"{priority['name']} {priority['priority']}"
            cgroupfs.write(self._directory("net_prio", "network priority"), "net_prio.ifpriomap", line)

    def _apply_devices(self, rules: list[dict[str, Any]] | tuple[()]) -> list[str]:
        target = devices.access_of(rules)
        if "devices" not in self._dirs:
            return ["devices cgroup controller is not mounted: device access is not restricted"]
        directory = self._dirs["devices"]
        current = devices.parse_list(cgroupfs.read_text(f"{directory}/devices.list"))
        warnings = []
        for name, line in devices.legacy_writes(current, target):
            try:
                cgroupfs.write(directory, name, line)
            except PermissionError:
                # The parent has not got it, as in a container: the narrower list is what there is.
                if name == "devices.deny":
                    raise
                warnings.append(f"device cgroup rule 'allow {line}' is beyond what this engine may give")
        return warnings

    def freeze(self) -> None:
        self._set_freezer("FROZEN")

    def thaw(self) -> None:
        if self.exists():
            self._set_freezer("THAWED")

    def _set_freezer(self, state: str) -> None:
        directory = self._directory("freezer", "freezer state")

        def reached() -> bool:
            # Writing again makes the kernel look again at tasks that were forking or on their way to be traced.
            cgroupfs.write(directory, "freezer.state", state)
            return cgroupfs.read_text(f"{directory}/freezer.state").strip() == state

        try:
            wait_until(reached, f"cgroup {self.path} did not become {state}")
        except TimeoutError:
            if state == "FROZEN":
                cgroupfs.write(directory, "freezer.state", "THAWED")
            raise

    def frozen(self) -> bool:
        try:
            text = cgroupfs.read_text(f"{self._dirs.get('freezer', '')}/freezer.self_freezing")
        except FileNotFoundError:
            return False
        return text.strip() == "1"

    def exists(self) -> bool:
        return any(os.path.isdir(point + self.path) for point in self._points)

    def pids(self) -> list[int]:
        return cgroupfs.processes(self._any_directory())

    def _any_directory(self) -> str:
        """All v1 hierarchies have the same processes; the one that is cheapest to walk."""
        return self._dirs.get("pids") or self._dirs.get("freezer") or self._points[0] + self.path

    def kill(self) -> None:
        # A frozen task does not act on SIGKILL before it thaws.
        if self.frozen():
            self._signal_frozen()
        kill_all(self._any_directory())

    def _signal_frozen(self) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self.thaw()

    def stats(self) -> dict[str, Any]:
        return statistics.legacy(self._dirs)

    def oom_events(self) -> tuple[int, Callable[[], int]]:
        if "memory" not in self._dirs:
            raise FileNotFoundError(errno.ENOENT, "cgroup controller 'memory' is not mounted on this host")
        directory = self._dirs["memory"]
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                cgroupfs.write(directory, "cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except BaseException:
            os.close(event)
            raise
        return event, lambda: _oom_kills(directory)

    def remove(self) -> None:
        for directory in [*(point + self.path for point in self._points), self._unified]:
            if directory:
                cgroupfs.remove(directory)


_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def _inherit_cpuset(directory: str) -> None:
    """A cpuset without cpus and mems takes no process: copy the parent's where clone_children did not. Whoever made the
    parent may not have come to that yet."""
    parent = os.path.dirname(directory)
    for name in ("cpuset.mems", "cpuset.cpus"):
        if cgroupfs.read_text(f"{directory}/{name}").strip():
            continue
        if not cgroupfs.read_text(f"{parent}/{name}").strip():
            _inherit_cpuset(parent)
        cgroupfs.write(directory, name, cgroupfs.read_text(f"{parent}/{name}").strip())


def _write_memory(directory: str, name: str, value: int) -> None:
    try:
        cgroupfs.write(directory, name, value)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        usage = cgroupfs.read_int(f"{directory}/memory.usage_in_bytes")
        peak = cgroupfs.read_int(f"{directory}/memory.max_usage_in_bytes")
        text = f"unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})"
        raise OSError(errno.EBUSY, text, f"{directory}/{name}") from None


def _write_weight(directory: str, name: str, line: str, weight: int, device: str = "") -> None:
    """Weights are the CFQ scheduler's (10 to 1000); its successor BFQ counts from 1 to 1000 in files of its own."""
    if os.path.exists(f"{directory}/blkio.{name}"):
        cgroupfs.write(directory, f"blkio.{name}", line)
    else:
        cgroupfs.write(directory, f"blkio.bfq.{name}", f"{device} {unified.bfq_weight(weight)}".strip())


def _oom_kills(directory: str) -> int:
    try:
        return cgroupfs.read_table(f"{directory}/memory.oom_control").get("oom_kill", 0)
    except OSError:
        return 0
