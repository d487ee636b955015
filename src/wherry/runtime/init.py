"""The last steps of a process before it becomes the container's: who it is, what it may do, what it executes.

Runs in the forked child, for a container's init and for processes that join later. From the moment the container's
namespaces are entered nothing is imported and no library is asked: what is needed is here already. The order is that
of security-sensitive steps in runc's init: each needs what the next takes away.
"""

import errno
import os
import resource
import signal
import stat
from typing import NamedTuple, NoReturn

from wherry.linux import caps, keyctl, openat, prctl, rlimits, seccomp, vfork
from wherry.linux.syscalls import NR
from wherry.runtime import devices, users
from wherry.runtime.failure import StartError, path_error, words
from wherry.runtime.process import Capabilities, ProcessPlan, known_set

_SIGNALS = tuple(n for n in range(1, 32) if n not in (signal.SIGKILL, signal.SIGSTOP))

# What it takes to have a child, and to be one; fork(3) is clone(2) with CLONE_CHILD_CLEARTID |
# CLONE_CHILD_SETTID | SIGCHLD.
_BIRTH: tuple[tuple[int, tuple[int, ...]], ...] = (
    (NR.clone, (0x01200000 | signal.SIGCHLD,)),
    (NR.setsid, ()),
)


class Filter(NamedTuple):
    """A seccomp filter to be loaded."""

    program: bytes
    flags: int

    def allows_birth(self) -> bool:
        """Whether a process that has it can still make another one and start it."""
        return all(seccomp.allows(self.program, number, arguments) for number, arguments in _BIRTH)


def detach_from_parent(stdio: tuple[int, int, int], keep: tuple[int, ...]) -> None:
    """First thing in the child: unreadable for others, no descriptor of the parent's but `keep` and 0 to 2, a session
    of its own, signals as a fresh program expects them."""
    prctl.set_dumpable(False)
    _place_stdio(stdio)
    prctl.close_all_but(keep)
    os.setsid()
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    os.umask(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _place_stdio(stdio: tuple[int, int, int]) -> None:
    """Put three descriptors at 0, 1, 2, whatever numbers they have now."""
    sources = list(stdio)
    for number, fd in enumerate(sources):
        if fd < 3 and fd != number:
            sources[number] = os.dup(fd)
    for number, fd in enumerate(sources):
        if fd == number:
            os.set_inheritable(fd, True)
        else:
            os.dup2(fd, number, inheritable=True)


def join_keyring(name: str, warnings: list[str]) -> None:
    """Enter the container's session keyring, so that the daemon's keys stay the daemon's."""
    try:
        keyctl.allow_user_search(keyctl.join_session_keyring(name))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            warnings.append(f"no session keyring for the container: {words(error)}")


def raise_hard_limits(plan: ProcessPlan, warnings: list[str]) -> tuple[tuple[int, int, int], ...]:
    """Raise hard limits while we still may, and return the limits to set at the end: those asked for, or the nearest
    ones where CAP_SYS_RESOURCE lacks."""
    final = []
    for number, soft, hard in plan.rlimits:
        present, ceiling = resource.getrlimit(number)
        wanted = soft, hard
        if rlimits.clamp(number, soft, hard) != wanted:
            try:
                resource.setrlimit(number, (present, hard))
            except (OSError, ValueError):  # the module says ValueError for EPERM
                wanted = rlimits.clamp(number, soft, hard)
                warnings.append(f"{_limit_name(number)} stays at {ceiling}: raising it needs CAP_SYS_RESOURCE")
        final.append((number, *wanted))
    return tuple(final)


def _limit_name(number: int) -> str:
    return next(name for name, known in rlimits.NUMBERS.items() if known == number)


def resolve_user(plan: ProcessPlan, root_fd: int) -> users.User:
    """Who the process is. Sets HOME in its environment when it has none. Raises StartError."""
    by_name = plan.username is not None or plan.group_add
    passwd = users.read_database(root_fd, "/etc/passwd") if by_name or b"HOME" not in plan.env else b""
    group = users.read_database(root_fd, "/etc/group") if by_name else b""
    if plan.username is not None:
        user = users.resolve(plan.username, passwd, group)
        user = user._replace(groups=(user.gid, *user.groups, *plan.groups))
    else:
        home = users.home_of(plan.uid, passwd) if b"HOME" not in plan.env else ""
        user = users.User(plan.uid, plan.gid, plan.groups, home)
    user = user._replace(groups=user.groups + users.additional_groups(plan.group_add, group))
    plan.env.setdefault(b"HOME", os.fsencode(user.home or "/"))
    return user


def write_apparmor(proc: int, profile: str) -> None:
    """Have the next execve(2) change to an AppArmor profile, by a procfs that is certainly one."""
    try:
        base = f"{os.getpid()}/attr"
        beneath = openat.RESOLVE_BENEATH | openat.RESOLVE_NO_SYMLINKS | openat.RESOLVE_NO_XDEV
        try:
            fd = openat.openat2(proc, f"{base}/apparmor/exec", os.O_WRONLY, 0, beneath)
        except FileNotFoundError:
            fd = openat.openat2(proc, f"{base}/exec", os.O_WRONLY, 0, beneath)
        try:
            os.write(fd, b"exec " + os.fsencode(profile))
        finally:
            os.close(fd)
    except OSError as error:
        raise StartError("Internal", f'unable to apply apparmor profile "{profile}": {words(error)}') from None


def own_stdio(user: users.User) -> None:
    """Give 0, 1, 2 to the user, so that it can open /dev/stdout; the null device and read-only places stay."""
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if status.st_uid == user.uid or devices.is_null(status):
            continue
        try:
            os.fchown(fd, user.uid, status.st_gid)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                raise


def reopen_null(root_fd: int) -> None:
    """Where 0, 1 or 2 is the host's null device, use the container's, which is on no file system of the host."""
    null = -1
    for fd in (0, 1, 2):
        if not devices.is_null(os.fstat(fd)):
            continue
        if null < 0:
            null = openat.open_in_root(root_fd, "/dev/null", os.O_RDWR | os.O_NOFOLLOW)
            if not devices.is_null(os.fstat(null)):
                raise StartError("Internal", "invalid /dev/null: not the null device")
        os.dup2(null, fd, inheritable=True)
    if null >= 0:
        os.close(null)


def change_directory(cwd: str) -> bool:
    """chdir(2) as root; False when it must be tried again as the user (a network file system that squashes root)."""
    try:
        os.chdir(cwd)
        return True
    except OSError as error:
        if error.errno == errno.EPERM:
            return False
        raise _cwd_failure(cwd, error) from None


def _cwd_failure(cwd: str, error: OSError) -> StartError:
    return StartError("InvalidArgument", f'chdir to cwd ("{cwd}") set in config.json failed: {words(error)}')


def verify_directory() -> None:
    """Make sure that the working directory is inside the root: a leaked descriptor could have led out of it."""
    try:
        inside = os.getcwdb().startswith(b"/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise StartError(
            "InvalidArgument",
            "current working directory is outside of container mount namespace root "
            "-- possible container breakout detected",
        )


def take_identity(
    plan: ProcessPlan, user: users.User, limits: tuple[tuple[int, int, int], ...], *, keep: int = 0
) -> None:
    """Become the user with exactly the capabilities of the plan, in the working directory. Those in the mask `keep`
    stay as well, until `give_up` is called."""
    own_stdio(user)
    entered = change_directory(plan.cwd)
    wanted = plan.capabilities
    # Of all there are, not of those we had: a new user namespace begins with the full set.
    caps.drop_bounding(known_set() & ~wanted.bounding)
    for number, soft, hard in limits:
        resource.setrlimit(number, (soft, hard))
    prctl.set_keepcaps(True)
    try:
        _set_groups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise StartError("Internal", f"cannot become uid {user.uid} gid {user.gid}: {words(error)}") from None
    if not entered:
        try:
            os.chdir(plan.cwd)
        except OSError as error:
            raise _cwd_failure(plan.cwd, error) from None
    verify_directory()
    prctl.set_keepcaps(False)
    _set_capabilities(wanted, keep)
    try:
        caps.set_ambient(wanted.ambient)
    except OSError as error:
        raise StartError("Internal", f"unable to apply caps: {words(error)}") from None
    os.umask(plan.umask)


def give_up(plan: ProcessPlan) -> None:
    """Have no more than the plan's capabilities; the ambient ones stay."""
    _set_capabilities(plan.capabilities)


def _set_capabilities(wanted: Capabilities, more: int = 0) -> None:
    try:
        caps.capset(wanted.effective | more, wanted.permitted | more, wanted.inheritable)
    except OSError as error:
        raise StartError("Internal", f"unable to apply caps: {words(error)}") from None


def _set_groups(groups: tuple[int, ...]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups:  # a user namespace with setgroups denied has only the groups it has
            raise


def tune(plan: ProcessPlan) -> None:
    """Scheduling, as the plan asks for it. Raises StartError."""
    schedule(plan)
    tune_inherited(plan)


def schedule(plan: ProcessPlan) -> None:
    """The scheduler. Raises StartError."""
    try:
        if plan.scheduler is not None:
            prctl.set_scheduler(*plan.scheduler)
    except OSError as error:
        raise StartError("Internal", f"error setting the scheduler: {words(error)}") from None


def tune_inherited(plan: ProcessPlan) -> None:
    """What else a child always has of its parent. Raises StartError."""
    try:
        if plan.io_priority is not None:
            prctl.set_io_priority(*plan.io_priority)
        if plan.cpus:
            os.sched_setaffinity(0, plan.cpus)
    except OSError as error:
        raise StartError("Internal", f"error setting the scheduler: {words(error)}") from None


def install(load: Filter) -> None:
    """Load the seccomp filter. Raises StartError."""
    try:
        seccomp.load_filter(load.program, load.flags)
    except OSError as error:
        raise StartError("Internal", f"unable to init seccomp: {words(error)}") from None


def look_path(name: bytes, path: bytes | None) -> bytes:
    """The file that executing `name` means, searched in `path` when it has no slash. Raises StartError in the words
    of Go's exec.LookPath, which clients tell 126 from 127 by."""
    shown = os.fsdecode(name)
    if b"/" in name:
        error = _not_executable(name)
        if error is not None:
            raise StartError("InvalidArgument", f'exec: "{shown}": {error}')
        return name
    for directory in (path or b"").split(b":") if path else ():
        candidate = (directory or b".") + b"/" + name
        if _not_executable(candidate) is None:
            return candidate
    raise StartError("InvalidArgument", f'exec: "{shown}": executable file not found in $PATH')


def _not_executable(file: bytes) -> str | None:
    """Why `file` cannot be executed by us, None when it can."""
    try:
        status = os.stat(file)
    except OSError as error:
        return path_error("stat", os.fsdecode(file), error)
    if stat.S_ISDIR(status.st_mode):
        return "is a directory"
    if not status.st_mode & 0o111 or not os.access(file, os.X_OK, effective_ids=False):
        return "permission denied"
    return None


def execute(program: vfork.Program) -> NoReturn:
    """Become the program. When that fails the container has started already: the reason goes to its stderr."""
    try:
        os.execve(program.path, program.args, program.env)
    except OSError as error:
        tell_failure(program.path, error.errno)
    os._exit(vfork.EXEC_FAILED)


def tell_failure(path: bytes, number: int | None) -> None:
    """Say to whoever reads the container's stderr that its program could not be executed."""
    os.write(2, f"exec {os.fsdecode(path)}: {words(OSError(number, os.strerror(number or 0)))}\n".encode())
