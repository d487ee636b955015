"""cgroup file systems: what is mounted where, and reading and writing their files.

Nothing here knows what a file means. Paths of cgroups ("/wherry/<id>") are relative to the root of a hierarchy as
this mount namespace shows it, which is also what a nested engine sees as "/". See cgroups(7).
"""

import errno
import os
import time
from typing import NamedTuple


class Hierarchies(NamedTuple):
    """The cgroup mounts of this mount namespace."""

    v1: dict[str, str]
    """controller -> mount point; named hierarchies are there as "name=systemd" """
    v2: str | None
    """mount point of the unified hierarchy, None when there is none"""

    @property
    def unified(self) -> bool:
        """No controller lives in a v1 hierarchy: the host is on cgroup v2."""
        return self.v2 is not None and all(name.startswith("name=") for name in self.v1)

    @property
    def usable(self) -> bool:
        """Whether there is any hierarchy that processes can be put into."""
        return self.unified or any(not name.startswith("name=") for name in self.v1)


_CONTROLLERS = frozenset(
    [
        *("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"),
        *("net_cls", "net_prio", "perf_event", "rdma", "misc"),
    ]
)


def mounted(mountinfo: str = "/proc/self/mountinfo") -> Hierarchies:
    """Parse `mountinfo` (see proc(5)); of several mounts of one hierarchy the first counts, as for runc. One that is
    mounted read-only is as good as none: no cgroup can be made there."""
    v1: dict[str, str] = {}
    v2 = None
    for line in read_text(mountinfo).splitlines():
        left, separator, right = line.partition(" - ")
        kind, _, rest = right.partition(" ")
        if not separator or not kind.startswith("cgroup"):
            continue
        fields = left.split(" ")
        if "ro" in fields[5].split(","):
            continue
        point = _unescape(fields[4])
        if kind == "cgroup2":
            v2 = v2 or point
            continue
        for option in rest.split(" ")[-1].split(","):
            if option in _CONTROLLERS or option.startswith("name="):
                v1.setdefault(option, point)
    return Hierarchies(v1, v2)


def membership(pid: int | str = "self") -> dict[str, str]:
    """The cgroup of a process in each hierarchy: controller or "name=…" -> path; "" is the unified one (cgroups(7))."""
    paths: dict[str, str] = {}
    for line in read_text(f"/proc/{pid}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    return paths


def _unescape(path: str) -> str:
    if "\\" not in path:
        return path
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def read_text(path: str) -> str:
    """The whole of a kernel file. Raises OSError with the path."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 65536):
            pieces.append(piece)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)
    return b"".join(pieces).decode("ascii", "replace")


def read_int(path: str) -> int:
    """A file of one number; "max" is 2**64-1, the value v1 shows for no limit in statistics."""
    text = read_text(path).strip()
    return 2**64 - 1 if text == "max" else int(text)


def read_table(path: str) -> dict[str, int]:
    """A file of `name number` lines, e.g. memory.stat; lines of another form are left out."""
    table = {}
    for line in read_text(path).splitlines():
        name, _, value = line.rpartition(" ")
        if name and value.lstrip("-").isdigit():
            table[name] = int(value)
    return table


def write(directory: str, name: str, value: str | int) -> None:
    """Write `value` to the file `name` of the cgroup `directory` in one write(2), as the kernel wants it.
    Raises OSError whose text tells file and value; ENOENT means the kernel has no such file."""
    path = f"{directory}/{name}"
    data = str(value).encode()
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, f"failed to write {str(value)!r}: {error.strerror}", path) from None
    try:
        os.write(fd, data)
    except OSError as error:
        raise OSError(error.errno, f"failed to write {str(value)!r}: {error.strerror}", path) from None
    finally:
        os.close(fd)


def write_if_there(directory: str, name: str, value: str | int) -> bool:
    """`write`, or False when this kernel or hierarchy has no such file."""
    try:
        write(directory, name, value)
    except FileNotFoundError:
        return False
    return True


def make(directory: str) -> bool:
    """Make one cgroup; False when it is there already."""
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return False
    return True


def processes(directory: str) -> list[int]:
    """The processes of a cgroup and of all cgroups below it; [] when it does not exist (any more)."""
    found: list[int] = []
    for path in [directory, *descendants(directory)]:
        try:
            found += map(int, read_text(f"{path}/cgroup.procs").split())
        except OSError as error:
            # ENODEV: removed between open and read; EOPNOTSUPP: a threaded cgroup, its processes are in the domain.
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                raise
    return found


def descendants(directory: str) -> list[str]:
    """All cgroups below `directory`, parents before children."""
    found: list[str] = []
    try:
        with os.scandir(directory) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return found
    for child in children:
        found.append(child)
        found += descendants(child)
    return found


def remove(directory: str, *, patience_s: float = 2.0) -> None:
    """Remove a cgroup and all below it. One that is busy (its last process is just being reaped) is retried for
    `patience_s`, then OSError EBUSY. A missing one is no error."""
    deadline = time.monotonic() + patience_s
    pause_s = 0.001
    while True:
        try:
            return _remove_tree(directory)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)


def _remove_tree(directory: str) -> None:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        # A cgroup with children is EBUSY as well as one with processes: only then is it worth a walk.
        below = descendants(directory)
        if error.errno != errno.EBUSY or not below:
            raise
        for child in reversed(below):
            _remove_tree(child)
        os.rmdir(directory)
