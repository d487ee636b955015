"""All that a container's OCI configuration is made from."""

import os

from msgspec import Struct, field

from wherry.engine.model import ContainerConfig, HostConfig, MountPoint, Ulimit
from wherry.linux.caps import NAMES


class ContainerSpecInput(Struct, kw_only=True):
    """One container as `build_config` wants it. Paths are the host's."""

    id: str
    config: ContainerConfig
    """merged with the image's"""
    host_config: HostConfig
    hostname: str
    """shown as HOSTNAME and, unless the UTS namespace is the host's, set"""
    domainname: str = ""
    env: list[str] = field(default_factory=list)
    """config.Env merged with the image's; PATH, HOSTNAME and TERM are added here"""
    args: list[str]
    cwd: str = ""
    user: str = ""
    """ "name[:group]" or "uid[:gid]", looked up in the container by the runtime; "" is root"""
    root_path: str
    mounts: list[MountPoint] = field(default_factory=list)
    """binds, volumes and --mount tmpfs; HostConfig.Tmpfs is read from there"""

    netns_path: str | None = None
    """the network namespace to enter; None: the runtime makes one. Not looked at when NetworkMode is host"""
    joins: dict[str, str] = field(default_factory=dict)
    """"pid", "ipc", "uts", "cgroup", "user" -> path of the namespace to enter"""
    hosts_path: str = ""
    hostname_path: str = ""
    resolv_conf_path: str = ""
    shm_path: str = ""
    """directory to bind at /dev/shm where it is shared (IPC mode shareable or container:); "": a tmpfs of its own"""

    cgroup_parent: str = ""
    """the daemon's --cgroup-parent; HostConfig.CgroupParent goes before, "/wherry" comes after"""
    cgroup_v2: bool = False
    init_path: str | None = None
    """the reaper to put before the program, None without --init, "" when --init was asked for but none was found"""
    data_root: str = ""
    cdi_spec_dirs: list[str] = field(default_factory=list)
    """where descriptions of devices are, the least important first"""

    bounding: list[str] = field(default_factory=lambda: list(NAMES))
    """capabilities the daemon can give away"""
    default_ulimits: dict[str, Ulimit] = field(default_factory=dict)
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    """the daemon's default: "" or "builtin", "unconfined", or the text of a profile in Docker's format"""
    apparmor_profiles: frozenset[str] | None = None
    """names of the loaded profiles, None when AppArmor is off"""
    selinux: bool = False
    machine: str = field(default_factory=lambda: os.uname().machine)
    kernel: tuple[int, int] = field(default_factory=lambda: kernel_version(os.uname().release))


def kernel_version(release: str) -> tuple[int, int]:
    """(major, minor) of a release as uname gives it, e.g. "6.1.0-13-amd64"."""
    major, minor, *_ = (*release.replace("-", ".").split("."), "0")
    return int(major), int("".join(letter for letter in minor if letter.isdigit()) or 0)
