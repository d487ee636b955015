"""What the daemon says at start about limits that this host cannot set."""

from wherry.runtime.cgroups import Features, host_hierarchies

_ADVICE = "mount the cgroup file systems writably at /sys/fs/cgroup and start wherryd again"
_NEEDED = (("memory_limit", "memory"), ("cpu_cfs", "cpu"), ("pids_limit", "pids"), ("cpuset", "cpuset"))


def missing(have: Features) -> list[str]:
    """What is missing, what that means and what to do about it; a line for each, none on an ordinary host."""
    if not host_hierarchies().usable:
        return [
            "no writable cgroup hierarchy is mounted. Containers run without any limits, cannot be paused, and have no "
            f"CAP_MKNOD unless privileged, since nothing holds them back from devices: {_ADVICE}"
        ]
    lines = []
    absent = [name for field, name in _NEEDED if not getattr(have, field)]
    if absent:
        lines.append(
            f"cgroup controllers are missing: {', '.join(absent)}. Limits of these kinds are discarded: enable them in "
            f"the kernel (cgroup_enable=), or {_ADVICE}"
        )
    if not have.devices:
        lines.append(
            "the cgroup controller devices is missing. Containers have no CAP_MKNOD unless privileged, since nothing "
            f"holds them back from devices: {_ADVICE}"
        )
    return lines
