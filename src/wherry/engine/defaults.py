"""What a container gets when nobody asks for anything else: Docker's defaults, as tables.

Source: moby daemon/pkg/oci/defaults.go and daemon/pkg/oci/caps, release 28.5.
"""

import os
from collections.abc import Collection, Iterable
from typing import Any

from wherry.errors import InvalidArgument
from wherry.linux.caps import NAMES

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
        *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_SIZE = 64 << 20

# Kernel state that is not namespaced, or that tells secrets of the host: interrupts and powercap by side channel.
_MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_PLAIN = ("nosuid", "noexec", "nodev")


def masked_paths() -> list[str]:
    """The paths hidden by default; with the thermal counters of the CPUs that this machine has."""
    found = list(_MASKED_PATHS)
    for number in range(os.cpu_count() or 1):
        path = f"/sys/devices/system/cpu/cpu{number}/thermal_throttle"
        if os.path.exists(path):
            found.append(path)
    return found


def mounts(shm_size: int) -> list[dict[str, Any]]:
    """The OCI mounts of every container, in order; /dev/shm of `shm_size` bytes."""
    return [
        _mount("/proc", "proc", "proc", *_PLAIN),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            *("/dev/pts", "devpts", "devpts"),
            *("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        _mount("/sys", "sysfs", "sysfs", *_PLAIN, "ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", *_PLAIN),
        _mount("/dev/mqueue", "mqueue", "mqueue", *_PLAIN),
        _mount("/dev/shm", "tmpfs", "shm", *_PLAIN, "mode=1777", f"size={shm_size or SHM_SIZE}"),
    ]


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def device_rules() -> list[dict[str, Any]]:
    """The device rules of every container: nothing but zero, null, urandom, random, tty and console; fuse is denied in
    words because privileged programs in containers kept finding it."""
    allowed = ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
    return [
        {"allow": False, "access": "rwm"},
        *({"allow": True, "type": "c", "major": a, "minor": b, "access": "rwm"} for a, b in allowed),
        {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
    ]


def tweak_capabilities(
    add: Iterable[str] | None, drop: Iterable[str] | None, *, privileged: bool, bounding: Collection[str]
) -> list[str]:
    """The bounding set of a container (names as "CAP_CHOWN").

    `add` and `drop` are what the client asked for, in any case, with or without CAP_, ALL included; `bounding` is what
    this daemon may give, ordered by number. Raises InvalidArgument, in Docker's words, for an unknown capability and
    for one that the daemon has not got itself."""
    added, dropped = _normalise(add, bounding), _normalise(drop, bounding)
    if privileged:
        return _in_order(bounding)
    if "ALL" in added:
        return [name for name in _in_order(bounding) if name not in dropped]
    if "ALL" in dropped:
        return added
    base = [name for name in CAPABILITIES if name not in dropped]
    return base + [name for name in added if name not in base]


def _in_order(names: Collection[str]) -> list[str]:
    return [name for name in NAMES if name in names]


def check_capabilities(names: Iterable[str], bounding: Collection[str]) -> None:
    """Raises InvalidArgument as `tweak_capabilities` does."""
    _normalise(names, bounding)


def _normalise(names: Iterable[str] | None, bounding: Collection[str]) -> list[str]:
    """Upper-case with prefix, sorted and without duplicates, as the daemon stores them; ALL stays as it is."""
    found = set()
    for given in names or ():
        name = given.upper()
        if name in ("ALL", "CAP_ALL"):
            found.add("ALL")
            continue
        full = name if name.startswith("CAP_") else f"CAP_{name}"
        if full not in NAMES:
            raise InvalidArgument(f'unknown capability: "{full}"')
        if full not in bounding:
            raise InvalidArgument(
                f'capability not supported by your kernel or not available in the current environment: "{full}"'
            )
        found.add(full)
    return sorted(found)


OVERLAY_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=off")
"""Whatever the kernel's defaults are: a container's layer holds whole files under their own names, so that it can be
compared, copied and committed without the layers below, and being looked at does not keep it from starting."""
