"""Executing from a file that no container can change.

A container's program may be a script that begins with "#!/proc/self/exe": the kernel then executes, as the container,
what the runtime's process was executed from, and the container can open that file by /proc/PID/exe (CVE-2019-5736).
Being undumpable does not help there, as execve ends it. So the command line executes itself once more, from a
read-only mount of the interpreter that is attached nowhere: it cannot be written through, nor remounted, nor reached
by a path. The engine's spawner does the same with a sealed copy in memory.
"""

import errno
import fcntl
import os
import sys

from wherry.linux import mounts as m


def interpreter_is_sealed() -> bool:
    """Whether nobody can change the file we execute from: it is on a read-only mount, or a sealed memfd."""
    fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            return True
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError as error:
        if error.errno == errno.EINVAL:  # no file that can have seals
            return False
        raise
    finally:
        os.close(fd)


def seal_interpreter(arguments: list[str], code: str) -> None:
    """Execute ourselves again, `code` with `arguments`, from a read-only mount of the interpreter that is attached
    nowhere. Nothing when we run from such a place already."""
    if interpreter_is_sealed():
        return
    try:
        mount = m.open_tree(m.AT_FDCWD, os.path.realpath("/proc/self/exe"))
        m.mount_setattr(mount, set_=m.ATTR_RDONLY)
    except OSError:  # before Linux 5.12, or not root: a copy in memory
        from wherry.linux import memfd

        mount = memfd.sealed_copy("/proc/self/exe", "wherry-runtime")
    os.execve(mount, [sys.executable, "-I", "-S", "-c", code, *arguments], os.environ)
