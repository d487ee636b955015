"""User namespaces' id maps: written from outside, as user_namespaces(7) asks."""

import os
import signal

from wherry.linux import namespaces as ns
from wherry.runtime.failure import StartError, words


def write_maps(pid: int, uids: str, gids: str) -> None:
    """Map the ids of the new user namespace of process `pid`. Without privileges only our own id can be mapped, and
    setgroups(2) is given up for that, or the setuid helpers newuidmap and newgidmap do it. Raises StartError."""
    try:
        if os.geteuid() != 0:
            _write(pid, "setgroups", "deny")
        _write(pid, "uid_map", uids)
        _write(pid, "gid_map", gids)
    except OSError as error:
        raise StartError("Internal", f"failed to write the id maps of the user namespace: {words(error)}") from None


def _write(pid: int, name: str, text: str) -> None:
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def user_namespace(uids: str, gids: str) -> int:
    """A user namespace with these maps and no process in it, as a descriptor: what an idmapped mount refers to."""
    hold_read, hold_write = os.pipe2(os.O_CLOEXEC)
    made_read, made_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            ns.unshare(ns.CLONE_NEWUSER)
            os.write(made_write, b"1")
            os.close(hold_write)
            os.read(hold_read, 1)
        finally:
            os._exit(0)
    os.close(hold_read)
    os.close(made_write)
    try:
        if not os.read(made_read, 1):
            raise StartError("Internal", "cannot make a user namespace for an idmapped mount")
        write_maps(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(hold_write)
        os.close(made_read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
