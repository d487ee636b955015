"""seccomp(2): give the calling thread a system call filter."""

import ctypes
import errno
import struct

from wherry.linux.syscalls import NR, syscall

_SET_MODE_FILTER = 1
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
TSYNC, LOG, SPEC_ALLOW, _NEW_LISTENER, _TSYNC_ESRCH, WAIT_KILLABLE_RECV = (1 << bit for bit in range(6))

# Synchronising threads makes no sense in a process that has one; runc ignores it the same way.
FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": WAIT_KILLABLE_RECV,
}


def load_filter(program: bytes, flags: int = SPEC_ALLOW) -> None:
    """Run `program` (an array of `struct sock_filter`) before every system call of this thread from now on and of what
    it forks or executes. Needs no_new_privs or CAP_SYS_ADMIN. A kernel that does not know a flag, or the system call,
    gets the filter without. Raises OSError."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    description = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    for attempt in dict.fromkeys((flags, 0)):
        try:
            syscall(NR.seccomp, _SET_MODE_FILTER, attempt, description)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            refused = error
    if refused.errno == errno.EINVAL:
        raise refused
    syscall(NR.prctl, _PR_SET_SECCOMP, _MODE_FILTER, description)


def available() -> bool:
    """Whether this kernel can filter system calls."""
    try:
        # A null program is refused with EFAULT only where filters exist.
        syscall(NR.prctl, _PR_SET_SECCOMP, _MODE_FILTER, None, None, None)
    except OSError as error:
        return error.errno == errno.EFAULT
    return True
