"""Capabilities: names and numbers, the five sets of the calling process. capabilities(7), <linux/capability.h>."""

import ctypes
import struct
from collections.abc import Iterable

from wherry.linux.syscalls import NR, syscall

NAMES: tuple[str, ...] = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def mask(names: Iterable[str]) -> int:
    """The bit mask of capabilities given by name ("CAP_…"). Raises KeyError for a name not known."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def names(bits: int) -> list[str]:
    """The known names in a bit mask, by number."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def capget() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of the calling thread, as bit masks."""
    buffer = ctypes.create_string_buffer(24)
    syscall(NR.capget, struct.pack("=Ii", _VERSION_3, 0), buffer)
    e0, p0, i0, e1, p1, i1 = struct.unpack("=6I", buffer.raw)
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets of the calling thread. Raises PermissionError when a bit may not be raised."""
    low = 0xFFFFFFFF
    data = struct.pack(
        "=6I",
        effective & low, permitted & low, inheritable & low,
        effective >> 32, permitted >> 32, inheritable >> 32,
    )  # fmt: skip
    syscall(NR.capset, struct.pack("=Ii", _VERSION_3, 0), data)


def bounding() -> int:
    """The bounding set as a bit mask; only the bits this kernel knows."""
    bits = 0
    for number in range(64):
        try:
            bits |= syscall(NR.prctl, _PR_CAPBSET_READ, number) << number
        except OSError:  # EINVAL: past the kernel's last capability
            break
    return bits


def known() -> int:
    """All capabilities this kernel has, as a bit mask."""
    number = 0
    while True:
        try:
            syscall(NR.prctl, _PR_CAPBSET_READ, number)
        except OSError:
            return (1 << number) - 1
        number += 1


def drop_bounding(drop: int) -> None:
    """Remove from the bounding set what is in the bit mask `drop`; bits that are not there do no harm."""
    for number in range(drop.bit_length()):
        if drop >> number & 1:
            syscall(NR.prctl, _PR_CAPBSET_DROP, number)


def set_ambient(bits: int) -> None:
    """Replace the ambient set; each bit must be permitted and inheritable already."""
    syscall(NR.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            syscall(NR.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)
