"""Docker's default seccomp profile, and the resolving of any profile in Docker's format.

An allow-list: what is not named here fails with EPERM. Docker's format says for which architectures, capabilities and
kernels a rule holds; `resolve` turns it into the OCI `linux.seccomp` of one container. The content equals that of
moby/profiles (a test compares); grouping and reasons are ours.

Left out on purpose, whatever the capabilities: the kernel keyring, which is not namespaced (add_key, keyctl,
request_key); io_uring, whose operations pass no filter; userfaultfd, which helps to win races in the kernel;
pivot_root, move_pages, swapon, kexec_load and what has been obsolete for decades.
"""

from collections.abc import Collection
from typing import Any

from wherry.runtime.seccomp import architectures

# The life of processes and threads. Namespace-making clone(2) has rules of its own below.
_PROCESSES = """
    execve execveat exit exit_group fork vfork wait4 waitid waitpid getpid getppid gettid getpgid getpgrp getsid
    setpgid setsid set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area rseq membarrier
    getcpu prctl seccomp restart_syscall process_mrelease pidfd_open pause uretprobe riscv_hwprobe
    landlock_add_rule landlock_create_ruleset landlock_restrict_self
"""

# User, group and capability changes: the kernel checks them against the container's capabilities.
_IDENTITY = """
    capget capset getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getgroups getgroups32
    getresuid getresuid32 getresgid getresgid32 setuid setuid32 setgid setgid32 setgroups setgroups32 setreuid
    setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid
    setfsgid32 umask
"""

# Priorities, affinity, limits and accounting of the caller and its like.
_SCHEDULING = """
    getpriority setpriority getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname ioprio_get
    ioprio_set sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield
"""

# Signals.
_SIGNALS = """
    kill tkill tgkill pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4
    sigprocmask sigreturn
"""

# The caller's own memory.
_MEMORY = """
    brk madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
"""

# Futexes and System V and POSIX objects of the container's own IPC namespace.
_SYNCHRONISATION = """
    futex futex_time64 futex_wait futex_waitv futex_wake futex_requeue ipc mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd
    semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""

# Clocks and timers. The calls that set a clock fail without CAP_SYS_TIME; adjtimex reads without it.
_TIME = """
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer setitimer gettimeofday nanosleep time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
"""

# Reading, writing and waiting on descriptors.
_DESCRIPTORS = """
    close close_range copy_file_range dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
    epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 fcntl fcntl64 fdatasync fsync flock fadvise64
    fadvise64_64 fallocate ftruncate ftruncate64 getrandom ioctl io_cancel io_destroy io_getevents io_pgetevents
    io_pgetevents_time64 io_setup io_submit lseek _llseek pipe pipe2 poll ppoll ppoll_time64 select _newselect
    pselect6 pselect6_time64 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile
    sendfile64 splice sync sync_file_range syncfs tee vmsplice write writev inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch fanotify_mark
"""

# Names, attributes and contents of files, all within the container's mount namespace.
_FILES = """
    access faccessat faccessat2 chdir fchdir chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32
    fchownat lchown lchown32 creat open openat openat2 getcwd getdents getdents64 link linkat symlink symlinkat
    readlink readlinkat mkdir mkdirat mknod mknodat rename renameat renameat2 rmdir unlink unlinkat stat stat64
    lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64 statmount listmount
    cachestat truncate truncate64 utime utimes futimesat utimensat utimensat_time64 name_to_handle_at getxattr
    lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat removexattr lremovexattr
    fremovexattr removexattrat setxattr lsetxattr fsetxattr setxattrat
"""

# Sockets once they exist; socket(2) itself is below. socketcall stays whole: a filter cannot see behind its
# pointer, and without it no 32-bit PC program has a network.
_SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
"""

_ALLOWED = " ".join(
    (_PROCESSES, _IDENTITY, _SCHEDULING, _SIGNALS, _MEMORY, _SYNCHRONISATION, _TIME, _DESCRIPTORS, _FILES, _SOCKETS)
)

_ALLOW = "SCMP_ACT_ALLOW"
_ENOSYS = 38

# All CLONE_NEW* flags: a process without CAP_SYS_ADMIN that could make a user namespace would have it there, and with
# it a large part of the kernel that only root was ever meant to reach.
_CLONE_NAMESPACES = 0x7E020000

# Harmless personalities: Linux, Linux32, both with UNAME26, and the question what it is. Others relax the address
# space's protection.
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)


def _rule(names: str, **more: Any) -> dict[str, Any]:
    return {"names": sorted(names.split()), "action": _ALLOW, **more}


def _when(index: int, operator: str, value: int) -> list[dict[str, Any]]:
    return [{"index": index, "op": f"SCMP_CMP_{operator}", "value": value}]


# Three rules, not one with two inequalities: conditions on one argument are alternatives. The gaps are AF_ALG (38), an
# attack surface that user space can do without, and AF_VSOCK (40), which leads out of the container to the hypervisor.
_SOCKET = [
    _rule("socket", args=_when(0, "LT", 38)),
    _rule("socket", args=_when(0, "EQ", 39)),
    _rule("socket", args=_when(0, "GT", 40)),
]

_CLONE = [
    _rule(
        "clone",
        args=_when(0, "MASKED_EQ", _CLONE_NAMESPACES),
        excludes={"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]},
    ),
    # s390 has the stack first.
    _rule(
        "clone",
        args=_when(1, "MASKED_EQ", _CLONE_NAMESPACES),
        includes={"arches": ["s390", "s390x"]},
        excludes={"caps": ["CAP_SYS_ADMIN"]},
    ),
    # Its flags are behind a pointer; ENOSYS makes libc fall back to clone.
    {
        "names": ["clone3"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": _ENOSYS,
        "excludes": {"caps": ["CAP_SYS_ADMIN"]},
    },
]

_BY_ARCHITECTURE = (
    ("sync_file_range2 swapcontext", ["ppc64le"]),
    ("arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls", ["arm", "arm64"]),
    ("arch_prctl", ["amd64", "x32"]),
    ("modify_ldt", ["amd64", "x32", "x86"]),
    ("s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr", ["s390", "s390x"]),
    ("riscv_flush_icache", ["riscv64"]),
)

# What a capability is for is let through to those who were given it: the kernel checks again, for the right namespace.
_BY_CAPABILITY = (
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        """bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
        quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare""",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
)

# With each native architecture come those whose programs its kernel runs as well.
_ARCHITECTURES = (
    ("X86_64", ("X86", "X32")),
    ("AARCH64", ("ARM",)),
    ("MIPS64", ("MIPS", "MIPS64N32")),
    ("MIPS64N32", ("MIPS", "MIPS64")),
    ("MIPSEL64", ("MIPSEL", "MIPSEL64N32")),
    ("MIPSEL64N32", ("MIPSEL", "MIPSEL64")),
    ("S390X", ("S390",)),
    ("RISCV64", None),
    ("LOONGARCH64", None),
)


def default_profile() -> dict[str, Any]:
    """The default in Docker's format: what `docker run` without --security-opt seccomp=... applies."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {
                "architecture": f"SCMP_ARCH_{name}",
                "subArchitectures": None if subs is None else [f"SCMP_ARCH_{sub}" for sub in subs],
            }
            for name, subs in _ARCHITECTURES
        ],
        "syscalls": [
            _rule(_ALLOWED),
            # Before 4.8 ptrace could change a call after it had passed the filter.
            _rule("process_vm_readv process_vm_writev ptrace", includes={"minKernel": "4.8"}),
            *_SOCKET,
            *(_rule("personality", args=_when(0, "EQ", value)) for value in _PERSONALITIES),
            *(_rule(names, includes={"arches": arches}) for names, arches in _BY_ARCHITECTURE),
            *(_rule(names, includes={"caps": [capability]}) for capability, names in _BY_CAPABILITY),
            *_CLONE,
        ],
    }


def profile_for(capabilities: Collection[str], *, arch: str, kernel: tuple[int, int]) -> dict[str, Any]:
    """The default profile resolved to OCI `linux.seccomp` for a container with the bounding set `capabilities`
    ("CAP_CHOWN", ...) on machine `arch` (as uname names it) and a kernel of that (major, minor) version."""
    return resolve(default_profile(), capabilities, arch, kernel)


def resolve(
    profile: dict[str, Any], capabilities: Collection[str], arch: str, kernel: tuple[int, int]
) -> dict[str, Any]:
    """Resolve a profile in Docker's format (decoded JSON) to OCI `linux.seccomp`; arguments as for `profile_for`.
    Raises ValueError, with Docker's words, for a profile that contradicts itself or is malformed."""
    if profile.get("architectures") and profile.get("archMap"):
        raise ValueError(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    if not isinstance(profile.get("defaultAction"), str):
        raise ValueError("seccomp profile has no defaultAction")
    result: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    if found := list(profile.get("architectures") or _from_map(profile.get("archMap") or (), arch)):
        result["architectures"] = found
    if profile.get("flags"):
        result["flags"] = profile["flags"]
    for key in ("listenerPath", "listenerMetadata"):
        if profile.get(key):
            result[key] = profile[key]
    go_arch, held = architectures.go_name(arch), frozenset(capabilities)
    result["syscalls"] = [
        _oci_rule(rule) for rule in profile.get("syscalls") or () if _holds(rule, go_arch, held, kernel)
    ]
    return result


def _from_map(arch_map: Collection[dict[str, Any]], arch: str) -> list[str]:
    native = architectures.scmp_name(arch)
    for entry in arch_map:
        if entry.get("architecture") == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return []


def _holds(rule: dict[str, Any], arch: str, capabilities: frozenset[str], kernel: tuple[int, int]) -> bool:
    excludes, includes = rule.get("excludes") or {}, rule.get("includes") or {}
    if arch in (excludes.get("arches") or ()) or capabilities.intersection(excludes.get("caps") or ()):
        return False
    if excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]):
        return False
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if includes.get("minKernel") and kernel < _version(includes["minKernel"]):
        return False
    return capabilities.issuperset(includes.get("caps") or ())


def _version(text: str) -> tuple[int, int]:
    major, dot, minor = text.partition(".")
    if not (dot and major.isdigit() and minor.isdigit()):
        raise ValueError(f'invalid kernel version: "{text}": expected format is "<kernel>.<major>"')
    return int(major), int(minor)


def _oci_rule(rule: dict[str, Any]) -> dict[str, Any]:
    names, name = rule.get("names") or [], rule.get("name") or ""
    if names and name:
        raise ValueError("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'")
    if not isinstance(rule.get("action"), str):
        raise ValueError("seccomp rule has no action")
    result: dict[str, Any] = {"names": names or [name], "action": rule["action"]}
    if rule.get("errnoRet") is not None:
        result["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        result["args"] = [{key: value for key, value in arg.items() if value is not None} for arg in rule["args"]]
    return result
