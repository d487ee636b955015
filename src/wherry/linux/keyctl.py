"""The session keyring of a container: keyctl(2)."""

import os

from wherry.linux.syscalls import NR, syscall

_JOIN_SESSION_KEYRING = 1
_SETPERM = 5
# What a session keyring is born with (possessor all; user view, read, link), and search for the user, by whose uid a
# process that joins later finds it.
_PERMISSIONS = 0x3F000000 | 0x00010000 | 0x00020000 | 0x00100000 | 0x00080000


def join_session_keyring(name: str) -> int:
    """Join the session keyring called `name`, making it when there is none; return its serial."""
    return syscall(NR.keyctl, _JOIN_SESSION_KEYRING, os.fsencode(name))


def allow_user_search(serial: int) -> None:
    """Let the owner search a session keyring without possessing it: a process that joins later finds it only so."""
    syscall(NR.keyctl, _SETPERM, serial, _PERMISSIONS)
