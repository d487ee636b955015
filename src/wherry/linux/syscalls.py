"""The way into the kernel: one C function, syscall(2), errno as `OSError`, the numbers of the calls libc may lack.

Everything goes through `syscall` rather than through libc's wrappers: nothing is looked up in a library after a
container's namespaces are joined, and glibc and musl behave alike. Numbers from the kernel's syscall_64.tbl and
asm-generic/unistd.h; from 424 on all architectures share them.
"""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)

_syscall = libc.syscall
_syscall.restype = ctypes.c_long
# c_void_p takes ints of either sign, bytes, None, arrays and byref(); a plain int would be cut to 32 bits.
_syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 6

_ZEROS = (0, 0, 0, 0, 0, 0)


def check(result: int, what: str) -> int:
    """Return `result`, or raise OSError from errno when it is -1; `what` becomes the error's filename."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def syscall(number: int, *args: object) -> int:
    """Make system call `number` with up to six arguments: int, bytes (a C string or input buffer), None, or a ctypes
    array or byref() (an output buffer). Never str. Returns the result; raises OSError."""
    result: int = _syscall(number, *args, *_ZEROS[len(args) :])
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class NR:
    """System call numbers of this machine; unknown machines have the shared ones only."""

    pidfd_send_signal = 424
    io_uring_setup = 425
    open_tree = 428
    move_mount = 429
    fsopen = 430
    fsconfig = 431
    fsmount = 432
    fspick = 433
    pidfd_open = 434
    clone3 = 435
    close_range = 436
    openat2 = 437
    pidfd_getfd = 438
    mount_setattr = 442
    quotactl_fd = 443
    statmount = 457
    listmount = 458

    if os.uname().machine == "x86_64":
        close = 3
        mmap = 9
        mprotect = 10
        munmap = 11
        brk = 12
        rt_sigaction = 13
        rt_sigprocmask = 14
        rt_sigreturn = 15
        ioctl = 16
        mremap = 25
        madvise = 28
        getpid = 39
        sendmsg = 46
        clone = 56
        execve = 59
        wait4 = 61
        kill = 62
        getcwd = 79
        setsid = 112
        setgroups = 116
        setresuid = 117
        setresgid = 119
        capget = 125
        capset = 126
        rt_sigtimedwait = 128
        personality = 135
        fstatfs = 138
        pivot_root = 155
        prctl = 157
        chroot = 161
        mount = 165
        umount2 = 166
        sethostname = 170
        setdomainname = 171
        quotactl = 179
        gettid = 186
        futex = 202
        clock_nanosleep = 230
        exit_group = 231
        set_mempolicy = 238
        add_key = 248
        request_key = 249
        keyctl = 250
        ioprio_set = 251
        ioprio_get = 252
        inotify_add_watch = 254
        inotify_rm_watch = 255
        unshare = 272
        eventfd2 = 290
        inotify_init1 = 294
        fanotify_init = 300
        fanotify_mark = 301
        prlimit64 = 302
        setns = 308
        sched_setattr = 314
        renameat2 = 316
        seccomp = 317
        memfd_create = 319
        bpf = 321
        execveat = 322
        statx = 332
    else:
        getcwd = 17
        eventfd2 = 19
        inotify_init1 = 26
        inotify_add_watch = 27
        inotify_rm_watch = 28
        ioctl = 29
        ioprio_set = 30
        ioprio_get = 31
        umount2 = 39
        mount = 40
        pivot_root = 41
        fstatfs = 44
        chroot = 51
        close = 57
        quotactl = 60
        capget = 90
        capset = 91
        personality = 92
        exit_group = 94
        unshare = 97
        futex = 98
        clock_nanosleep = 115
        kill = 129
        rt_sigaction = 134
        rt_sigprocmask = 135
        rt_sigtimedwait = 137
        rt_sigreturn = 139
        setresuid = 147
        setresgid = 149
        setsid = 157
        setgroups = 159
        sethostname = 161
        setdomainname = 162
        prctl = 167
        getpid = 172
        gettid = 178
        sendmsg = 211
        brk = 214
        munmap = 215
        mremap = 216
        add_key = 217
        request_key = 218
        keyctl = 219
        clone = 220
        execve = 221
        mmap = 222
        mprotect = 226
        madvise = 233
        set_mempolicy = 237
        wait4 = 260
        prlimit64 = 261
        fanotify_init = 262
        fanotify_mark = 263
        setns = 268
        sched_setattr = 274
        renameat2 = 276
        seccomp = 277
        memfd_create = 279
        bpf = 280
        execveat = 281
        statx = 291
