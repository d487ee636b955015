"""Run inside a container: prints, as JSON, all that the engine decided about the world it sees."""

import ctypes
import json
import os
import resource
import signal
import stat
import sys

libc = ctypes.CDLL(None, use_errno=True)
# fmt: off
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys",
    "/sys/fs/cgroup",
)
# fmt: on
# fmt: off
SYSCTLS = (
    "net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/ipv6/conf/all/disable_ipv6",
    "kernel/shmmax", "kernel/msgmax",
)
# fmt: on
# Calls that end, stop or multiply the caller whatever their arguments, and those that may wait.
SKIPPED = {15, 34, 56, 57, 58, 59, 60, 231, 61, 247, 219, 322, 435, 130, 128, 13, 14}


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        return f"{type(error).__name__} {getattr(error, 'errno', '')}"


def status():
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Groups")
    lines = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
    return {name: lines[name].strip() for name in (*wanted, "Umask", "Uid", "Gid")}


def mounts():
    found = []
    for line in read("/proc/self/mountinfo").splitlines():
        left, right = line.split(" - ")
        _, _, _, root, point, options, *propagation = left.split()
        kind, _, super_options = right.split()
        if kind == "overlay":
            super_options = root = ""
        if point.startswith("/etc/"):
            root, kind, super_options = "", "", ""
        if point.startswith("/sys/fs/cgroup/"):
            root = "own"
        kept = [o for o in super_options.split(",") if not o.startswith("inode")]
        found.append([point, kind, root, options, sorted(kept), propagation])
    return sorted(found)


def devices():
    found = {}
    for name in sorted(os.listdir("/dev")):
        path = f"/dev/{name}"
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        found[name] = [oct(status.st_mode), status.st_uid, status.st_gid]
        if kind == stat.S_IFLNK:
            found[name].append(os.readlink(path))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            found[name].append(f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    return found


def openings():
    """Which device nodes the cgroup lets us make and open: [mknod, open for reading, open for writing]."""
    found = {}
    for kind, name, major, minor in (
        *(
            ("c", n, 1, m)
            for n, m in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9), ("mem", 1))
        ),
        *(("c", n, a, b) for n, a, b in (("tty", 5, 0), ("ptmx", 5, 2), ("fuse", 10, 229), ("tun", 10, 200))),
        *(("b", n, a, b) for n, a, b in (("loop0", 7, 0), ("vda", 254, 0))),
        *(("c", n, a, b) for n, a, b in (("kvm", 10, 232), ("kmsg", 1, 11), ("tty1", 4, 1))),
    ):
        path = f"/tmp/probe-{name}"
        verdicts = []
        try:
            os.mknod(path, (stat.S_IFCHR if kind == "c" else stat.S_IFBLK) | 0o600, os.makedev(major, minor))
            verdicts.append("ok")
            for mode in (os.O_RDONLY, os.O_WRONLY):
                try:
                    os.close(os.open(path, mode | os.O_NONBLOCK | os.O_NOCTTY))
                    verdicts.append("ok")
                except OSError as error:
                    verdicts.append("EPERM" if error.errno == 1 else "allowed")
            os.unlink(path)
        except OSError as error:
            verdicts.append(error.errno)
        found[name] = verdicts
    return found


def masked():
    found = {}
    for path in MASKED:
        try:
            names = sorted(os.listdir(path)) if os.path.isdir(path) else None
        except OSError as error:
            names = error.errno
        try:
            probe = f"{path}/probe" if names is not None else path
            os.close(os.open(probe, os.O_WRONLY | (os.O_CREAT if names is not None else 0)))
            writable = True
        except OSError as error:
            writable = error.errno
        content = len(read(path)) if names is None else (names == [])
        found[path] = [os.path.lexists(path), content if names is not None or content < 5 else "content", writable]
    return found


def verdict(number, arguments=(-1,) * 6):
    """What a system call answers, from a child that may die of it: errno, 0, or the signal."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(1)
        result = libc.syscall(number, *(ctypes.c_long(a) for a in arguments))
        os._exit(ctypes.get_errno() if result == -1 else 0)
    _, code = os.waitpid(pid, 0)
    return -os.WTERMSIG(code) if os.WIFSIGNALED(code) else os.WEXITSTATUS(code)


def syscalls():
    """Which calls the filter stops: those that answer EPERM or ENOSYS to nonsense, and some with real arguments."""
    table = {str(n): verdict(n) for n in range(470) if n not in SKIPPED}
    special = {
        "clone NEWUSER": (56, (0x10000000 | 17, 0, 0, 0, 0, 0)),
        "clone3": (435, (0, 0)),
        "unshare NEWUSER": (272, (0x10000000,)),
        "unshare nothing": (272, (0,)),
        "socket AF_INET": (41, (2, 1, 0)),
        "socket AF_ALG": (41, (38, 5, 0)),
        "socket AF_VSOCK": (41, (40, 1, 0)),
        "socket AF_NETLINK": (41, (16, 3, 0)),
        "personality query": (135, (0xFFFFFFFF,)),
        "personality 8": (135, (8,)),
        "personality odd": (135, (0x40000,)),
        "keyctl": (250, (0, 0)),
        "x32 read": (0x40000000, (0,)),
    }
    stopped = {name: v for name, v in table.items() if v in (1, 38)}
    return stopped | {name: verdict(number, arguments) for name, (number, arguments) in special.items()}


def limits():
    names = sorted(n for n in dir(resource) if n.startswith("RLIMIT_") and n != "RLIMIT_OFILE")
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def main():
    facts = {
        "status": status(),
        "mounts": mounts(),
        "dev": devices(),
        "device access": openings(),
        "masked": masked(),
        "limits": limits(),
        "env": {k: v if k != "HOSTNAME" else len(v) for k, v in sorted(os.environ.items())},
        "fds": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:-1],
        "cwd": os.getcwd(),
        "pid": os.getpid() == 1,
        "leads session and group": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
        "oom": read("/proc/self/oom_score_adj").strip(),
        "sysctls": {name: read(f"/proc/sys/{name}").strip() for name in SYSCTLS},
        "cgroups": sorted(line.split(":")[1] for line in read("/proc/self/cgroup").splitlines()),
        "hosts": [line.split("\t")[1] for line in read("/etc/hosts").splitlines()[:-1]],
        "files": {n: oct(os.stat(f"/etc/{n}").st_mode) for n in ("hosts", "hostname", "resolv.conf")},
        "alone": sum(map(str.isdigit, os.listdir("/proc"))) == 1,
        "net": sorted(os.listdir("/sys/class/net")),
        "root": oct(os.stat("/").st_mode),
        "signals": [read("/proc/self/status").split(f"{s}:")[1].split()[0] for s in ("SigBlk", "SigIgn")],
        "syscalls": syscalls(),
    }
    json.dump(facts, sys.stdout)


main()
