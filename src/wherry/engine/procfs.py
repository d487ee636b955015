"""Processes as /proc shows them (proc(5)), read from outside: for `top`."""

import os
import pwd
import time
from grp import getgrgid

from msgspec import Struct

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Host(Struct, frozen=True):
    """What is the same for all processes of one listing. `boot` is in seconds since the epoch."""

    now: float
    boot: float
    memory_kib: int


class Process(Struct):
    """One process. Times in seconds, sizes in bytes."""

    pid: int
    state: str
    ppid: int
    pgrp: int
    session: int
    tty: int
    tpgid: int
    flags: int
    cpu_s: float
    priority: int
    nice: int
    threads: int
    started: float
    vsize: int
    rss: int
    processor: int
    comm: str
    args: str
    euid: int
    ruid: int
    egid: int
    rgid: int
    locked: bool


def read_host() -> Host:
    """The clock and the memory of this machine."""
    now = time.time()
    memory = next(line for line in _text("/proc/meminfo").splitlines() if line.startswith("MemTotal:"))
    return Host(now, now - time.clock_gettime(time.CLOCK_BOOTTIME), int(memory.split()[1]))


def read_process(pid: int, host: Host) -> Process | None:
    """The process `pid`, or None when it is gone."""
    try:
        stat, status = _text(f"/proc/{pid}/stat"), _text(f"/proc/{pid}/status")
        cmdline = _text(f"/proc/{pid}/cmdline")
    except OSError:
        return None
    comm = stat[stat.index("(") + 1 : stat.rindex(")")]
    # The fields after the name, which may itself hold blanks and brackets; numbered from state.
    rest = stat[stat.rindex(")") + 2 :].split()
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uids, gids = lines["Uid"].split(), lines["Gid"].split()
    args = cmdline.rstrip("\0").replace("\0", " ")
    return Process(
        pid=pid,
        state=rest[0],
        ppid=int(rest[1]),
        pgrp=int(rest[2]),
        session=int(rest[3]),
        tty=int(rest[4]),
        tpgid=int(rest[5]),
        flags=int(rest[6]),
        cpu_s=(int(rest[11]) + int(rest[12])) / _TICKS,
        priority=int(rest[15]),
        nice=int(rest[16]),
        threads=int(rest[17]),
        started=host.boot + int(rest[19]) / _TICKS,
        vsize=int(rest[20]),
        rss=int(rest[21]) * _PAGE,
        processor=int(rest[36]),
        comm=_printable(comm),
        args=_printable(args) or f"[{_printable(comm)}]",
        euid=int(uids[1]),
        ruid=int(uids[0]),
        egid=int(gids[1]),
        rgid=int(gids[0]),
        locked=lines.get("VmLck", "0 kB").strip() != "0 kB",
    )


def waiting_in(pid: int) -> str:
    """The kernel function the process sleeps in, "-" when it runs."""
    try:
        name = _text(f"/proc/{pid}/wchan")
    except OSError:
        return "-"
    return name[:6] if name not in ("", "0") else "-"


def tty_name(number: int) -> str:
    """The terminal of a device number as ps shows it: "pts/3", "tty1", "?"."""
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return "?" if number == 0 else "console" if (major, minor) == (5, 1) else "?"


def user_name(uid: int) -> str:
    """The host's name for a user id, else the number: ids of a container mean nothing else out here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The host's name for a group id, else the number."""
    try:
        return getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _printable(text: str) -> str:
    """Without what would move a terminal's cursor: names and arguments are the container's to choose."""
    return "".join(c if c.isprintable() else "?" for c in text)
