"""Which namespaces a container has of its own, which it enters, which are the host's."""

from typing import Any

from wherry.engine.oci.input import ContainerSpecInput

_JOINABLE = ("uts", "pid", "ipc")


def _mode(container: ContainerSpecInput, kind: str) -> str:
    host = container.host_config
    if kind == "cgroup":
        # On v2 also for privileged containers; on v1 programs expect to see the real paths.
        return host.CgroupnsMode or ("private" if container.cgroup_v2 else "host")
    return {
        "network": host.NetworkMode,
        "uts": host.UTSMode,
        "pid": host.PidMode,
        "ipc": host.IpcMode,
        "user": "private" if "user" in container.joins else "host",
    }[kind]


def owns(container: ContainerSpecInput, kind: str) -> bool:
    """The container has a namespace of that kind to itself: neither the host's nor another container's."""
    mode = _mode(container, kind)
    return mode != "host" and not mode.startswith("container:") and kind not in container.joins


def namespaces_of(container: ContainerSpecInput) -> list[dict[str, Any]]:
    """`linux.namespaces`."""
    result: list[dict[str, Any]] = [{"type": "mount"}]
    if _mode(container, "network") != "host":
        entry = {"type": "network"}
        if container.netns_path:
            entry["path"] = container.netns_path
        result.append(entry)
    for kind in (*_JOINABLE, "cgroup", "user"):
        if kind in container.joins:
            result.append({"type": kind, "path": container.joins[kind]})
        elif owns(container, kind):
            result.append({"type": kind})
    return result
