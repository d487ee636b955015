"""What `docker info` and `docker version` tell about the engine (GET /info, GET /version)."""

import os
import platform
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import wherry
from wherry.engine import log_drivers, runtimes, transfers
from wherry.engine.oci import cdi
from wherry.runtime.cgroups import host_hierarchies

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


async def info(engine: "Engine") -> dict[str, Any]:
    """The body of GET /info, in its newest form."""
    system = await engine.run_blocking(_system, engine)
    count = {"running": 0, "paused": 0, "stopped": 0}
    for entry in engine.containers:
        key = {"running": "running", "restarting": "running", "paused": "paused"}.get(entry.status, "stopped")
        count[key] += 1
    return {
        "ID": engine.id,
        "Containers": len(engine.containers),
        "ContainersRunning": count["running"],
        "ContainersPaused": count["paused"],
        "ContainersStopped": count["stopped"],
        **system,
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": len(sys._current_frames()),
        "SystemTime": _rfc3339(time.time_ns()),
        "NEventsListener": engine.events.listeners,
        "Debug": engine.config.debug,
        "LoggingDriver": engine.config.log_driver,
        "Labels": engine.config.labels,
        "ServerVersion": wherry.__version__,
        "Runtimes": await engine.run_blocking(runtimes.describe, engine.config),
        "DefaultRuntime": engine.config.default_runtime,
        **transfers.describe(engine.transfers.config),
        **_CONSTANT,
        "Warnings": _warnings(engine, system) or None,
    }


# True of every engine of this kind, whatever the host.
_CONSTANT: dict[str, Any] = {
    "Plugins": {
        "Volume": ["local"],
        "Network": ["bridge", "host", "null"],
        "Authorization": None,
        "Log": log_drivers.NAMES,
    },
    "GenericResources": None,
    "ExperimentalBuild": False,
    "IndexServerAddress": "https://index.docker.io/v1/",
    "Swarm": {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    },
    "LiveRestoreEnabled": True,
    "Isolation": "",
    "InitBinary": "docker-init",
    "ContainerdCommit": {"ID": ""},
    "RuncCommit": {"ID": ""},
    "InitCommit": {"ID": ""},
    "FirewallBackend": {"Driver": "nftables"},
}


def _discovered(cdi_spec_dirs: list[str]) -> dict[str, Any]:
    names = cdi.devices(cdi_spec_dirs)
    return {"DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in names]} if names else {}


def _system(engine: "Engine") -> dict[str, Any]:
    """What the host says; reads files."""
    unified = host_hierarchies().unified
    have = engine.limits
    uname = os.uname()
    security = ["name=seccomp,profile=" + (engine.config.seccomp_profile or "builtin")]
    if unified:
        security.append("name=cgroupns")
    if engine.config.no_new_privileges:
        security.append("name=no-new-privileges")
    return {
        "Images": len(engine.images.list(all=True)),
        "Driver": engine.images.driver.name,
        "DriverStatus": _driver_status(engine),
        "CDISpecDirs": engine.config.cdi_spec_dirs,
        **_discovered(engine.config.cdi_spec_dirs),
        "MemoryLimit": have.memory_limit,
        "SwapLimit": have.swap_limit,
        "KernelMemoryTCP": have.kernel_memory_tcp,
        "CpuCfsPeriod": have.cpu_cfs,
        "CpuCfsQuota": have.cpu_cfs,
        "CPUShares": have.cpu_shares,
        "CPUSet": have.cpuset,
        "PidsLimit": have.pids_limit,
        "OomKillDisable": have.oom_kill_disable,
        "IPv4Forwarding": _read("/proc/sys/net/ipv4/ip_forward") == "1",
        "CgroupDriver": "cgroupfs" if host_hierarchies().usable else "none",
        "CgroupVersion": str(engine.cgroup_version),
        "KernelVersion": uname.release,
        "OperatingSystem": _os_release().get("PRETTY_NAME", "Linux"),
        "OSVersion": _os_release().get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": uname.machine,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "DockerRootDir": str(engine.paths.data_root),
        "Name": uname.nodename,
        "SecurityOptions": security,
    }


# field of GET /info, what `docker info` says without it
_LIMITS = (
    ("MemoryLimit", "memory limit"),
    ("SwapLimit", "swap limit"),
    ("KernelMemoryTCP", "kernel memory TCP limit"),
    ("OomKillDisable", "oom kill disable"),
    ("CpuCfsQuota", "cpu cfs quota"),
    ("CpuCfsPeriod", "cpu cfs period"),
    ("CPUShares", "cpu shares"),
    ("CPUSet", "cpuset"),
)
_LEGACY_ONLY = {"KernelMemoryTCP", "OomKillDisable"}
# field of the cgroups' features, its name on cgroup v2, its name on v1 ("": not told there)
_IO_LIMITS = (
    ("blkio_weight", "io.weight", ""),
    ("blkio_weight_device", "io.weight (per device)", ""),
    ("blkio_read_bps", "io.max (rbps)", "blkio throttle.read_bps_device"),
    ("blkio_write_bps", "io.max (wbps)", "blkio throttle.write_bps_device"),
    ("blkio_read_iops", "io.max (riops)", "blkio throttle.read_iops_device"),
    ("blkio_write_iops", "io.max (wiops)", "blkio throttle.write_iops_device"),
)


def _warnings(engine: "Engine", system: dict[str, Any]) -> list[str]:
    """What was told at start, then what `docker info` says of limits (moby daemon/info.go, fillSysInfo)."""
    found = list(engine.warnings)
    unified = engine.cgroup_version == 2
    if not host_hierarchies().usable:
        return found
    for field, what in _LIMITS:
        if not system[field] and not (unified and field in _LEGACY_ONLY):
            found.append(f"WARNING: No {what} support")
    have = engine.limits
    for field, unified_name, legacy_name in _IO_LIMITS:
        name = unified_name if unified else legacy_name
        if name and not getattr(have, field):
            found.append(f"WARNING: No {name} support")
    if not system["IPv4Forwarding"]:
        found.append("WARNING: IPv4 forwarding is disabled")
    return found


def _driver_status(engine: "Engine") -> list[list[str]] | None:
    if not engine.images.driver.stacked:
        return None
    return [
        ["Backing Filesystem", _file_system(str(engine.paths.data_root))],
        ["Supports d_type", "true"],
        ["Using metacopy", "false"],
        ["Native Overlay Diff", "true"],
        ["userxattr", "false"],
        ["Layers", "erofs" if engine.images.driver.indexes else "tree"],
    ]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _os_release() -> dict[str, str]:
    pairs = (line.partition("=") for line in _read("/etc/os-release").splitlines())
    return {name: value.strip('"') for name, _, value in pairs}


def _file_system(path: str) -> str:
    """The type of the file system that holds `path`, as Docker names it."""
    best, kind = "", "<unknown>"
    for line in _read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return "extfs" if kind in ("ext2", "ext3", "ext4") else kind


def _rfc3339(ns: int) -> str:
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


async def version(engine: "Engine") -> dict[str, Any]:
    """The body of GET /version, but for the API's own versions."""
    uname = os.uname()
    architecture = _GO_ARCHITECTURES.get(uname.machine, uname.machine)
    python = f"python{platform.python_version()}"
    details = {
        "Arch": architecture,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": python,
        "KernelVersion": uname.release,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "wherry"},
        "Components": [{"Name": "Engine", "Version": wherry.__version__, "Details": details}],
        "Version": wherry.__version__,
        "GitCommit": "",
        "GoVersion": python,
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": uname.release,
        "BuildTime": "",
    }
