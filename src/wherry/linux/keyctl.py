"""The session keyring of a container: keyctl(2)."""

import ctypes
import os

from wherry.linux.syscalls import NR, syscall

_JOIN_SESSION_KEYRING = 1
_SETPERM = 5
_DESCRIBE = 6
_USER_SEARCH = 0x00080000


def join_session_keyring(name: str) -> int:
    """Join the session keyring called `name`, making it when there is none; return its serial."""
    return syscall(NR.keyctl, _JOIN_SESSION_KEYRING, os.fsencode(name))


def allow_user_search(serial: int) -> None:
    """Let the owner search a keyring without possessing it: a process that joins later finds it by name only so."""
    buffer = ctypes.create_string_buffer(256)
    syscall(NR.keyctl, _DESCRIBE, serial, buffer, len(buffer))
    permissions = int(buffer.value.split(b";")[3], 16)  # "type;uid;gid;perm;description", keyctl_describe(3)
    syscall(NR.keyctl, _SETPERM, serial, permissions | _USER_SEARCH)
