"""The kernel takes the program and does what it says."""

import ctypes
import errno
import os
import signal
import socket

import pytest

from wherry.linux import seccomp
from wherry.runtime.seccomp import compile_profile, docker, filter_flags

libc = ctypes.CDLL(None, use_errno=True)
X86_64 = os.uname().machine == "x86_64"


def under_filter(profile, action):
    """Run `action` in a child that has the filter; its int result (or signal, negative)."""
    program, flags = compile_profile(profile), filter_flags(profile)
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            seccomp.load_filter(program, flags)
            code = action()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def errno_of(number, *args):
    """errno of a raw system call, 0 when it worked."""
    libc.syscall.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * len(args)]
    return ctypes.get_errno() if libc.syscall(number, *args) == -1 else 0


def default(*capabilities):
    return docker.profile_for(capabilities, arch=os.uname().machine, kernel=(6, 1))


def family(number):
    try:
        socket.socket(number, socket.SOCK_SEQPACKET if number == socket.AF_ALG else socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno
    return 0


@pytest.mark.skipif(not X86_64, reason="numbers of x86_64")
@pytest.mark.parametrize(
    ("name", "number", "args", "outcome"),
    [
        ("getpid", 39, (), 0),
        ("unshare(CLONE_NEWUSER)", 272, (0x10000000,), errno.EPERM),
        ("clone3", 435, (None, 0), errno.ENOSYS),
        ("clone(CLONE_NEWUSER)", 56, (0x10000011, None), errno.EPERM),
        ("keyctl", 250, (0, 0), errno.EPERM),
        ("bpf", 321, (0, None, 0), errno.EPERM),
        ("io_uring_setup", 425, (1, None), errno.EPERM),
        ("mount", 165, (None, None, None), errno.EPERM),
        ("fsopen", 430, (None, 0), errno.EPERM),
        ("userfaultfd", 323, (0,), errno.EPERM),
        ("a call from the future", 2000, (), errno.ENOSYS),
        ("x32's getpid", 0x40000000 + 39, (), 0),
        ("personality(0xffffffff)", 135, (0xFFFFFFFF,), 0),
        ("personality(ADDR_NO_RANDOMIZE)", 135, (0x40000,), errno.EPERM),
    ],
)
def test_default_profile_is_enforced(name, number, args, outcome):
    got = under_filter(default(), lambda: errno_of(number, *args))
    # A kernel without x32 has no such call, with or without a filter.
    assert got == outcome or (number == 0x40000000 + 39 and got == errno.ENOSYS)


def test_families():
    verdicts = {number: under_filter(default(), lambda number=number: family(number)) for number in (1, 2, 10, 16)}
    assert verdicts == {1: 0, 2: 0, 10: verdicts[10], 16: verdicts[16]}
    assert verdicts[10] != errno.EPERM
    assert under_filter(default(), lambda: family(socket.AF_ALG)) == errno.EPERM
    assert under_filter(default(), lambda: family(socket.AF_VSOCK)) == errno.EPERM


@pytest.mark.skipif(not X86_64, reason="numbers of x86_64")
def test_admin_may_unshare():
    assert under_filter(default("CAP_SYS_ADMIN"), lambda: errno_of(272, 0x00020000)) == 0


def test_kill_process():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS"}],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
    }
    assert under_filter(profile, lambda: os.getppid() and 0) == -signal.SIGSYS


def test_unknown_flag_is_refused():
    with pytest.raises(ValueError, match="NOPE"):
        filter_flags({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NOPE"]})


def test_available():
    assert seccomp.available()


def test_malformed_program_is_refused():
    def load():
        try:
            seccomp.load_filter(b"\0" * 8)
        except OSError as error:
            return error.errno
        return 0

    assert under_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}, load) == errno.EINVAL


def test_a_filter_that_allows_a_few_calls_alone() -> None:
    """Judged as the kernel would, with each architecture's numbers and every half of an argument."""
    program = seccomp.allow_only((39, 60), ((56, 17), (57, 1 << 33)))
    audit = seccomp.AUDIT_ARCHITECTURES[os.uname().machine]
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    for number, arguments, wanted in (
        *((39, (5,), allow), (60, (), allow), (40, (), refuse), (39 | 0x40000000, (), refuse)),
        *((56, (17,), allow), (56, (17 | 1 << 32,), refuse), (56, (0x10000011,), refuse)),
        *((57, (1 << 33,), allow), (57, (0,), refuse), (57, (1 << 33 | 1,), refuse)),
    ):
        assert seccomp.verdict(program, audit, number, arguments) == wanted, (number, arguments)
    assert seccomp.verdict(program, audit ^ 1, 39) == refuse
