"""What the runtime needs to know of a process, from the `process` object of an OCI configuration."""

import os
from typing import Any, NamedTuple

from wherry.linux import caps as linux_caps
from wherry.linux import rlimits
from wherry.runtime.failure import StartError
from wherry.runtime.users import MAX_ID

_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_DEADLINE, _RESET_ON_FORK = _POLICIES["SCHED_DEADLINE"], _SCHED_FLAGS["SCHED_FLAG_RESET_ON_FORK"]
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_ENVIRONMENT_LIMIT = 1 << 21
_DEFAULT_UMASK = 0o022


class Capabilities(NamedTuple):
    """The five sets as bit masks."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0


class ProcessPlan(NamedTuple):
    """A process to be executed; strings that execve(2) takes are bytes already."""

    args: tuple[bytes, ...]
    env: dict[bytes, bytes]
    cwd: str
    terminal: bool
    terminal_size: tuple[int, int] | None  # height, width
    username: str | None  # to be looked up in the container; else uid, gid, groups count
    uid: int
    gid: int
    groups: tuple[int, ...]
    group_add: tuple[str, ...]
    umask: int
    capabilities: Capabilities
    rlimits: tuple[tuple[int, int, int], ...]  # number, soft, hard
    no_new_privileges: bool
    apparmor: str
    oom_score_adj: int | None
    scheduler: tuple[int, ...] | None  # arguments of set_scheduler
    io_priority: tuple[int, int] | None
    cpus: frozenset[int]
    subreaper: bool  # adopt the orphans among its descendants

    @property
    def scheduled_alone(self) -> bool:
        """Whether a child would not have the scheduler of its parent, or could not be forked (sched(7))."""
        return self.scheduler is not None and (
            self.scheduler[0] == _DEADLINE or bool(self.scheduler[1] & _RESET_ON_FORK)
        )


def _invalid(message: str) -> StartError:
    return StartError("InvalidArgument", message)


def plan(process: dict[str, Any], warnings: list[str], *, user_namespace: bool = False) -> ProcessPlan:
    """Check an OCI `process` and plan it.

    Besides what the specification knows, `user.username` ("name[:group]", "uid[:gid]") is looked up in the
    container's own files in place of `user.uid` and `user.gid`, `user.groupAdd` are names or ids of groups that are
    added, and `subreaper` makes an exec'd process adopt its orphaned descendants. In a user namespace
    (`user_namespace`) all capabilities of the kernel can be given, elsewhere those of our own bounding set. Raises
    StartError; appends to `warnings` what had to be reduced.
    """
    args = process.get("args") or []
    if not args or not all(isinstance(arg, str) for arg in args):
        raise _invalid("args must not be empty")
    if any("\0" in arg for arg in args):
        raise _invalid("args must not contain a zero byte")
    cwd = process.get("cwd") or ""
    if not cwd.startswith("/") or "\0" in cwd:
        raise _invalid("Cwd must be an absolute path" if cwd else "Cwd property must not be empty")
    user = process.get("user") or {}
    size = process.get("consoleSize")
    terminal = bool(process.get("terminal"))
    if process.get("selinuxLabel") and not os.path.exists("/sys/fs/selinux/enforce"):
        raise _invalid("selinux label is specified in config, but selinux is disabled or not supported")
    return ProcessPlan(
        args=tuple(os.fsencode(arg) for arg in args),
        env=environment(process.get("env") or []),
        cwd=cwd,
        terminal=terminal,
        terminal_size=(int(size["height"]), int(size["width"])) if terminal and size else None,
        username=user.get("username"),
        uid=_id(user.get("uid", 0)),
        gid=_id(user.get("gid", 0)),
        groups=tuple(_id(gid) for gid in user.get("additionalGids") or ()),
        group_add=tuple(user.get("groupAdd") or ()),
        umask=_DEFAULT_UMASK if user.get("umask") is None else int(user["umask"]),
        capabilities=_capabilities(
            process.get("capabilities") or {}, known_set() if user_namespace else bounding_set(), warnings
        ),
        rlimits=_rlimits(process.get("rlimits") or ()),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        apparmor=_apparmor(process.get("apparmorProfile") or ""),
        oom_score_adj=process.get("oomScoreAdj"),
        scheduler=_scheduler(process.get("scheduler")),
        io_priority=_io_priority(process.get("ioPriority")),
        cpus=cpu_list((process.get("execCPUAffinity") or {}).get("final") or ""),
        subreaper=bool(process.get("subreaper")),
    )


def _id(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= MAX_ID:
        raise _invalid(f"uids and gids must be in range 0-{MAX_ID}")
    return value


def environment(env: list[str]) -> dict[bytes, bytes]:
    """The environment, later entries over earlier ones. Raises StartError for an entry without a name."""
    result: dict[bytes, bytes] = {}
    for entry in env:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise _invalid(f'invalid environment variable: "{entry}"')
        if "\0" in entry:
            raise _invalid(f'invalid environment variable "{name}": contains nul byte (\\x00)')
        result[os.fsencode(name)] = os.fsencode(value)
    if sum(len(name) + len(value) for name, value in result.items()) > _ENVIRONMENT_LIMIT:
        raise _invalid("the environment is larger than 2 MiB")
    return result


def _capabilities(sets: dict[str, list[str] | None], available: int, warnings: list[str]) -> Capabilities:
    masks = []
    for name in Capabilities._fields:
        wanted = sets.get(name) or []
        unknown = [capability for capability in wanted if capability not in linux_caps.NUMBERS]
        if unknown:
            warnings.append(f"ignoring unknown capabilities {unknown}")
        masks.append(linux_caps.mask(capability for capability in wanted if capability in linux_caps.NUMBERS))
    asked = Capabilities(*masks)
    missing = (asked.bounding | asked.permitted) & ~available
    if missing:
        warnings.append(f"not available in this environment: {', '.join(linux_caps.names(missing))}")
    return Capabilities(*(bits & available for bits in asked))


_bounding: list[int] = []
_known: list[int] = []


def known_set() -> int:
    """The capabilities of this kernel, asked once per process."""
    if not _known:
        _known.append(linux_caps.known())
    return _known[0]


def bounding_set() -> int:
    """Our own bounding set, asked once per process: what we can give away."""
    if not _bounding:
        _bounding.append(linux_caps.bounding())
    return _bounding[0]


def _rlimits(entries: Any) -> tuple[tuple[int, int, int], ...]:
    result: dict[int, tuple[int, int, int]] = {}
    for entry in entries:
        number = rlimits.NUMBERS.get(entry["type"])
        if number is None:
            raise _invalid(f'invalid rlimit type: "{entry["type"]}"')
        if number in result:
            raise _invalid(f'rlimit "{entry["type"]}" is given twice')
        soft, hard = rlimits.to_kernel(int(entry["soft"])), rlimits.to_kernel(int(entry["hard"]))
        result[number] = (number, soft, hard)
    return tuple(result.values())


def _apparmor(profile: str) -> str:
    if not profile or profile == "unconfined":
        return ""
    try:
        fd = os.open("/sys/module/apparmor/parameters/enabled", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise _invalid("apparmor: config provided but apparmor not supported") from None
    try:
        if os.read(fd, 1) != b"Y":
            raise _invalid("apparmor: config provided but apparmor not supported")
    finally:
        os.close(fd)
    return profile


def _scheduler(scheduler: dict[str, Any] | None) -> tuple[int, ...] | None:
    if not scheduler:
        return None
    policy = _POLICIES.get(scheduler.get("policy") or "SCHED_OTHER")
    if policy is None:
        raise _invalid(f"invalid scheduler policy: {scheduler.get('policy')}")
    flags = 0
    for flag in scheduler.get("flags") or ():
        if flag not in _SCHED_FLAGS:
            raise _invalid(f"invalid scheduler flag: {flag}")
        flags |= _SCHED_FLAGS[flag]
    numbers = (int(scheduler.get(key) or 0) for key in ("nice", "priority", "runtime", "deadline", "period"))
    return policy, flags, *numbers


def _io_priority(priority: dict[str, Any] | None) -> tuple[int, int] | None:
    if not priority:
        return None
    io_class = _IO_CLASSES.get(priority.get("class") or "")
    level = int(priority.get("priority") or 0)
    if io_class is None or not 0 <= level <= 7:
        raise _invalid(f"invalid ioPriority: class {priority.get('class')!r}, priority {level}")
    return io_class, level


def cpu_list(text: str) -> frozenset[int]:
    """The CPUs of a list such as "0-3,7". Raises StartError."""
    cpus: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise _invalid(f"bad CPU affinity {text!r}")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)
