"""Files in memory that nobody can change (memfd_create(2), F_ADD_SEALS in fcntl(2)).

The interpreter that enters containers runs from such a copy: a container that opens it through /proc/PID/exe finds
a file whose seals refuse every write (CVE-2019-5736), and never the host's own.
"""

import fcntl
import os

MFD_EXEC = 0x10  # linux/memfd.h; since 6.3, without it vm.memfd_noexec=1 makes the file non-executable

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_CHUNK = 1 << 20


def sealed(name: str, data: bytes) -> int:
    """A sealed file holding `data`, open at its start; `name` is for /proc only."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        return _seal(fd)
    except BaseException:
        os.close(fd)
        raise


def sealed_copy(path: str, name: str) -> int:
    """An executable sealed copy of the file at `path`."""
    fd = _executable(name)
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while os.sendfile(fd, source, None, _CHUNK):  # None: move the file's own offset
                pass
        finally:
            os.close(source)
        os.fchmod(fd, 0o500)
        return _seal(fd)
    except BaseException:
        os.close(fd)
        raise


def read(fd: int, limit: int) -> bytes:
    """The whole content of a memfd that somebody else sent. Raises ValueError when it is not sealed against change
    (it could be altered, or shrunk under the reader) or longer than `limit` bytes."""
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise ValueError("message in a file that is not sealed")
    size = os.fstat(fd).st_size
    if size > limit:
        raise ValueError(f"message of {size} bytes exceeds {limit}")
    return os.pread(fd, size, 0)


def _executable(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | MFD_EXEC)
    except OSError:  # before 6.3 the flag is unknown and every memfd is executable
        return os.memfd_create(name, flags)


def _seal(fd: int) -> int:
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
