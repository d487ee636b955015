"""Cgroups of containers on cgroup v1, v2 and the hybrid of both, behind one interface.

    cgroup = open_cgroup("/wherry/<id>")     # nothing happens yet
    warnings = cgroup.create(resources)      # OCI linux.resources; directories and limits, undone on failure
    cgroup.attach(0)                         # this process, in every hierarchy
    ...
    cgroup.remove()                          # idempotent

A `Cgroup` holds no descriptors and no state besides its path: any process may open the same one again.
"""

from wherry.linux import cgroupfs
from wherry.runtime.cgroups.absent import NoCgroup
from wherry.runtime.cgroups.base import Cgroup
from wherry.runtime.cgroups.features import Features, detect
from wherry.runtime.cgroups.v1 import LegacyCgroup
from wherry.runtime.cgroups.v2 import UnifiedCgroup

_of_host: list[cgroupfs.Hierarchies] = []


def host_hierarchies() -> cgroupfs.Hierarchies:
    """The cgroup mounts of this host, parsed once per process; call it before forking to share the result."""
    if not _of_host:
        _of_host.append(cgroupfs.mounted())
    return _of_host[0]


def open_cgroup(path: str, hierarchies: cgroupfs.Hierarchies | None = None) -> Cgroup:
    """The cgroup at `path`, relative to the root of the mounted hierarchies ("/wherry/<id>"; it need not exist), with
    the driver that this host's mounts (or `hierarchies`) call for. Raises ValueError for a path that is empty or
    climbs."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise ValueError(f"invalid cgroup path {path!r}")
    mounts = hierarchies if hierarchies is not None else host_hierarchies()
    clean = "/" + "/".join(parts)
    if mounts.unified:
        return UnifiedCgroup(clean, mounts)
    return LegacyCgroup(clean, mounts) if mounts.usable else NoCgroup(clean)


def features() -> Features:
    """Which limits this host can set."""
    return detect(host_hierarchies())


__all__ = ["Cgroup", "Features", "features", "host_hierarchies", "open_cgroup"]
