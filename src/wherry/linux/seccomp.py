"""seccomp(2): give the calling thread a system call filter."""

import ctypes
import errno
import operator
import os
import struct
from collections.abc import Callable, Iterable

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

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of linux/audit.h, by the names of uname(2)."""
_RET_LOG = 0x7FFC0000  # SECCOMP_RET_LOG and SECCOMP_RET_ALLOW let the call through
_RET_ALLOW, _RET_EPERM = 0x7FFF0000, 0x00050000 | errno.EPERM
_EQUAL = 0x15
_NUMBER, _ARCH, _ARGUMENT_LOW, _ARGUMENT_HIGH = 0, 4, 16, 20  # struct seccomp_data of a little-endian machine

# linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_RET|BPF_K, BPF_JMP|BPF_JA and the conditions
_LOAD, _AND, _RETURN, _ALWAYS = 0x20, 0x54, 0x06, 0x05
_TESTS: dict[int, Callable[[int, int], bool | int]] = {
    0x15: operator.eq,
    0x25: operator.gt,
    0x35: operator.ge,
    0x45: operator.and_,
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


def allow_only(numbers: Iterable[int], exact: Iterable[tuple[int, int]] = ()) -> bytes:
    """A filter under which the native calls `numbers`, and those of `exact`, (number, first argument), are made, and
    everything else fails with EPERM. Raises OSError (ENOSYS) on a machine whose AUDIT_ARCH is not known."""
    audit = AUDIT_ARCHITECTURES.get(os.uname().machine)
    if audit is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "seccomp")
    allow, refuse = (_RETURN, 0, 0, _RET_ALLOW), (_RETURN, 0, 0, _RET_EPERM)
    code = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, audit), refuse, (_LOAD, 0, 0, _NUMBER)]
    for number in numbers:
        code += [(_EQUAL, 0, 1, number), allow]
    for number, argument in exact:
        code += [
            (_EQUAL, 0, 5, number),
            (_LOAD, 0, 0, _ARGUMENT_LOW),
            (_EQUAL, 0, 3, argument & 0xFFFFFFFF),
            (_LOAD, 0, 0, _ARGUMENT_HIGH),
            (_EQUAL, 0, 1, argument >> 32),
            allow,
        ]
        code.append((_LOAD, 0, 0, _NUMBER))
    code.append(refuse)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def verdict(program: bytes, audit: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What `program` (an array of `struct sock_filter`) says of a system call: SECCOMP_RET_*. `audit` is the AUDIT_ARCH
    of the caller, `number` and `arguments` those of the call. Raises ValueError for an instruction that no compiler of
    filters makes."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    accumulator = at = 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == _RETURN:
            return int(value)
        if code == _LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == _AND:
            accumulator &= value
        elif code == _ALWAYS:
            at += value
        elif code in _TESTS:
            at += yes if _TESTS[code](accumulator, value) else no
        else:
            raise ValueError(f"unknown instruction {code:#x} in a seccomp filter")


def allows(program: bytes, number: int, arguments: tuple[int, ...] = ()) -> bool:
    """Whether the native call would be made. A machine whose AUDIT_ARCH is not known, and a program that cannot be
    judged, are said to allow everything: the kernel has the last word."""
    audit = AUDIT_ARCHITECTURES.get(os.uname().machine)
    try:
        return audit is None or verdict(program, audit, number, arguments) >= _RET_LOG
    except (ValueError, struct.error):
        return True


def available() -> bool:
    """Whether this kernel can filter system calls."""
    try:
        # A null program is refused with EFAULT only where filters exist.
        syscall(NR.prctl, _PR_SET_SECCOMP, _MODE_FILTER, None, None, None)
    except OSError as error:
        return error.errno == errno.EFAULT
    return True
