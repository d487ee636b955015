"""Resource limits: names, and what may be raised here. getrlimit(2)."""

import resource

# Name in the OCI configuration → number
NUMBERS: dict[str, int] = {
    "RLIMIT_CPU": resource.RLIMIT_CPU,
    "RLIMIT_FSIZE": resource.RLIMIT_FSIZE,
    "RLIMIT_DATA": resource.RLIMIT_DATA,
    "RLIMIT_STACK": resource.RLIMIT_STACK,
    "RLIMIT_CORE": resource.RLIMIT_CORE,
    "RLIMIT_RSS": resource.RLIMIT_RSS,
    "RLIMIT_NPROC": resource.RLIMIT_NPROC,
    "RLIMIT_NOFILE": resource.RLIMIT_NOFILE,
    "RLIMIT_MEMLOCK": resource.RLIMIT_MEMLOCK,
    "RLIMIT_AS": resource.RLIMIT_AS,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": resource.RLIMIT_SIGPENDING,
    "RLIMIT_MSGQUEUE": resource.RLIMIT_MSGQUEUE,
    "RLIMIT_NICE": resource.RLIMIT_NICE,
    "RLIMIT_RTPRIO": resource.RLIMIT_RTPRIO,
    "RLIMIT_RTTIME": resource.RLIMIT_RTTIME,
}
_UNLIMITED = (1 << 64) - 1


def to_kernel(value: int) -> int:
    """A limit as the resource module wants it: -1 for unlimited, which OCI writes as 2^64-1 or -1."""
    return resource.RLIM_INFINITY if value < 0 or value >= _UNLIMITED else value


def clamp(number: int, soft: int, hard: int) -> tuple[int, int]:
    """The limits nearest to (soft, hard) that a process without CAP_SYS_RESOURCE may take: no hard limit above the
    present one."""
    _, ceiling = resource.getrlimit(number)
    return _least(soft, ceiling), _least(hard, ceiling)


def _least(value: int, ceiling: int) -> int:
    if ceiling == resource.RLIM_INFINITY:
        return value
    return ceiling if value == resource.RLIM_INFINITY else min(value, ceiling)
