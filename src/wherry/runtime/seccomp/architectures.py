"""The architectures a filter can speak of: their names at libseccomp, at the kernel and in Go, and their calls."""

from typing import NamedTuple

from wherry.runtime.seccomp import numbers

X32_BIT = 0x40000000


class Architecture(NamedTuple):
    """One calling convention, by its row in `numbers`."""

    name: str
    """as `uname -m` says it, "x86" for all 32-bit PCs; a column of `numbers`"""
    audit: int
    """AUDIT_ARCH_* of linux/audit.h, what seccomp_data.arch holds"""
    bits: int
    """width of arguments"""
    big_endian: bool = False
    multiplexed: bool = False
    """has socketcall(2) and ipc(2)"""


_KNOWN = {
    "SCMP_ARCH_X86_64": Architecture("x86_64", 0xC000003E, 64),
    "SCMP_ARCH_X86": Architecture("x86", 0x40000003, 32, multiplexed=True),
    # Shares the audit number with x86_64; its calls have X32_BIT set.
    "SCMP_ARCH_X32": Architecture("x32", 0xC000003E, 32),
    "SCMP_ARCH_AARCH64": Architecture("aarch64", 0xC00000B7, 64),
    "SCMP_ARCH_ARM": Architecture("arm", 0x40000028, 32),
    "SCMP_ARCH_RISCV64": Architecture("riscv64", 0xC00000F3, 64),
    "SCMP_ARCH_S390X": Architecture("s390x", 0x80000016, 64, big_endian=True, multiplexed=True),
    "SCMP_ARCH_PPC64LE": Architecture("ppc64le", 0xC0000015, 64, multiplexed=True),
    "SCMP_ARCH_LOONGARCH64": Architecture("loongarch64", 0xC0000102, 64),
}

# Valid in a profile, but this engine has no table of their calls: they stay out of the filter, which kills what it does
# not know.
_NAMES_ONLY = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        *("MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32"),
        *("PPC", "PPC64", "S390", "PARISC", "PARISC64", "SH", "SHEB", "M68K"),
    )
)

_MACHINES = {"amd64": "x86_64", "i386": "x86", "i486": "x86", "i586": "x86", "i686": "x86", "386": "x86"} | {
    "arm64": "aarch64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
}

_GO = {"x86_64": "amd64", "aarch64": "arm64"}
"""Docker profiles name architectures as Go does, but say x86 for 386."""


def by_scmp(name: str) -> Architecture | None:
    """The architecture libseccomp calls `name` (SCMP_ARCH_*); None for one without a table here. Raises ValueError for
    an unknown name."""
    if name in _KNOWN:
        return _KNOWN[name]
    if name in _NAMES_ONLY:
        return None
    raise ValueError(f"string {name} is not a valid arch for seccomp")


def canonical(machine: str) -> str:
    """`machine` (as uname or Go name it) as the name of an `Architecture`."""
    return _MACHINES.get(machine, machine)


def go_name(machine: str) -> str:
    """`machine` as Docker's profiles write it in `includes.arches`."""
    name = canonical(machine)
    return _GO.get(name, name)


def scmp_name(machine: str) -> str:
    """`machine` as libseccomp names it. Raises ValueError for one without a table here."""
    name = canonical(machine)
    for scmp, architecture in _KNOWN.items():
        if architecture.name == name:
            return scmp
    raise ValueError(f"seccomp filters for {machine} are not supported")


_tables: dict[str, dict[str, int]] = {}


def table(architecture: Architecture) -> dict[str, int]:
    """Call name -> number (for x32 with `X32_BIT`) on `architecture`."""
    if not _tables:
        _load()
    return _tables[architecture.name]


def _load() -> None:
    columns: tuple[dict[str, int], ...] = tuple({} for _ in numbers.COLUMNS)
    for line in numbers.TABLE.splitlines():
        name, *values = line.split()
        for column, value in zip(columns, values, strict=True):
            if value != "-":
                column[name] = int(value)
    _tables.update(zip(numbers.COLUMNS, columns, strict=True))
    _tables["x32"] = {name: number | X32_BIT for name, number in _tables["x32"].items()}


# The first argument of socketcall(2) and of ipc(2) for the calls they stand for (linux/net.h, linux/ipc.h).
_SOCKET_CALLS = (
    *("socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv"),
    *("sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4"),
    *("recvmmsg", "sendmmsg"),
)
SOCKETCALL = {name: number for number, name in enumerate(_SOCKET_CALLS, 1)}
_IPC_CALLS = (
    *(("semop", 1), ("semget", 2), ("semctl", 3), ("semtimedop", 4)),
    *(("msgsnd", 11), ("msgrcv", 12), ("msgget", 13), ("msgctl", 14)),
    *(("shmat", 21), ("shmdt", 22), ("shmget", 23), ("shmctl", 24)),
)
IPC = dict(_IPC_CALLS)
