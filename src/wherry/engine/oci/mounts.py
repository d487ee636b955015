"""The mounts of a container: the defaults, what the user mounts over or beside them, the network files, tmpfs.

Source: moby daemon/oci_linux.go (withMounts), daemon/container/container_unix.go, github.com/moby/sys/mount.
"""

import posixpath
from collections.abc import Iterable
from typing import Any

from wherry.engine import defaults
from wherry.engine.model import MountPoint, MountTmpfsOptions
from wherry.engine.oci.input import ContainerSpecInput
from wherry.engine.oci.namespaces import owns
from wherry.engine.oci.propagation import check_shared, check_shared_or_slave
from wherry.engine.oci.security import writable_cgroups
from wherry.errors import InvalidArgument

Mount = dict[str, Any]

# These stay writable when the root is read-only.
_ALWAYS_WRITABLE = frozenset(("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"))
_RECURSIVE_READONLY = (5, 12)
"""mount_setattr(2) came with this kernel"""


def mounts_of(container: ContainerSpecInput) -> tuple[list[Mount], str]:
    """`mounts` and `linux.rootfsPropagation` ("" for the runtime's default). Raises InvalidArgument."""
    host = container.host_config
    wanted = _user_mounts(container)
    targets = {mount["destination"] for mount in wanted}
    result = [mount for mount in _defaults(container) if not _overridden(mount["destination"], targets)]
    seen = {mount["destination"] for mount in result}
    for mount in wanted:
        if mount["destination"] in seen:
            raise InvalidArgument(f"Duplicate mount point: {mount['destination']}")
        seen.add(mount["destination"])
        result.append(mount)
    for mount in result:
        destination, options = mount["destination"], mount["options"]
        if host.ReadonlyRootfs and destination not in targets | _ALWAYS_WRITABLE and "ro" not in options:
            options.append("ro")
        if (mount["type"] == "sysfs" and host.Privileged) or (
            mount["type"] == "cgroup" and writable_cgroups(container)
        ):
            mount["options"] = [option for option in options if option != "ro"]
    return result, _root_propagation(wanted)


def _overridden(destination: str, targets: set[str]) -> bool:
    return destination in targets or ("/dev" in targets and destination.startswith("/dev/"))


def _defaults(container: ContainerSpecInput) -> list[Mount]:
    mounts = defaults.mounts(container.host_config.ShmSize)
    if container.host_config.IpcMode == "none":
        mounts = [mount for mount in mounts if mount["destination"] != "/dev/shm"]
    return mounts


def _user_mounts(container: ContainerSpecInput) -> list[Mount]:
    """Everything that is not a default, sorted so that what is mounted inside another comes after it."""
    mounts = [_point(container, point) for point in container.mounts]
    taken = {mount["destination"] for mount in mounts}
    mounts += [mount for mount in _network_files(container) if mount["destination"] not in taken]
    if (shm := _shared_memory(container)) and shm["destination"] not in taken:
        mounts.append(shm)
    if container.init_path is not None and owns(container, "pid"):
        mounts.append(_bind(container.init_path, "/sbin/docker-init", ["bind", "ro"]))
    for destination, options in (container.host_config.Tmpfs or {}).items():
        mounts.append(_tmpfs(posixpath.normpath(destination), options.split(",") if options else []))
    return sorted(mounts, key=lambda mount: posixpath.normpath(mount["destination"]).count("/"))


def _bind(source: str, destination: str, options: list[str]) -> Mount:
    return {"destination": destination, "type": "bind", "source": source, "options": options}


def _network_files(container: ContainerSpecInput) -> list[Mount]:
    """/etc/resolv.conf and the like: read-only with the root."""
    readonly = [_readonly_word(container)] if container.host_config.ReadonlyRootfs else []
    return [
        _bind(source, destination, ["rbind", *readonly, "rprivate"])
        for source, destination in (
            (container.resolv_conf_path, "/etc/resolv.conf"),
            (container.hostname_path, "/etc/hostname"),
            (container.hosts_path, "/etc/hosts"),
        )
        if source
    ]


def _shared_memory(container: ContainerSpecInput) -> Mount | None:
    """/dev/shm goes with the IPC namespace."""
    mode = container.host_config.IpcMode
    if mode == "host":
        return _bind("/dev/shm", "/dev/shm", ["rbind", "rprivate"])
    if container.shm_path and (mode == "shareable" or mode.startswith("container:")):
        return _bind(container.shm_path, "/dev/shm", ["rbind", "rprivate"])
    return None


def _readonly_word(container: ContainerSpecInput) -> str:
    return "rro" if container.kernel >= _RECURSIVE_READONLY else "ro"


def _point(container: ContainerSpecInput, point: MountPoint) -> Mount:
    if point.Type == "tmpfs":
        asked = point.Spec.TmpfsOptions if point.Spec else None
        return _tmpfs(point.Destination, tmpfs_words(asked, readonly=not point.RW))
    bind = point.Spec.BindOptions if point.Spec else None
    options = ["bind" if bind and bind.NonRecursive else "rbind"]
    if not point.RW:
        options.append(_point_readonly(container, point))
    if point.Propagation:
        _check_propagation(container, point)
        options.append(point.Propagation)
    return _bind(point.Source, point.Destination, options)


def _point_readonly(container: ContainerSpecInput, point: MountPoint) -> str:
    bind = point.Spec.BindOptions if point.Spec else None
    forced = bool(bind and bind.ReadOnlyForceRecursive)
    if bind and bind.ReadOnlyNonRecursive:
        if forced:
            raise InvalidArgument("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
        return "ro"
    word = _readonly_word(container)
    if word == "ro" and forced:
        raise InvalidArgument("kernel does not support recursive read-only mounts: Linux 5.12 is needed")
    return word


def _check_propagation(container: ContainerSpecInput, point: MountPoint) -> None:
    """A mount can only be propagated from where the source's own mount lets it."""
    if point.Propagation in ("shared", "rshared"):
        check_shared(point.Source)
    elif point.Propagation in ("slave", "rslave"):
        try:
            check_shared_or_slave(point.Source)
        except InvalidArgument:
            # What holds the engine's own tree is made a slave unasked; there the wish may stay unfulfilled.
            asked = bool(point.Spec and point.Spec.BindOptions and point.Spec.BindOptions.Propagation)
            if asked or "slave" in point.Mode or not _around_data_root(container, point.Source):
                raise


def _around_data_root(container: ContainerSpecInput, source: str) -> bool:
    root = container.data_root
    return bool(root) and (source.startswith(root) or root.startswith(source))


def _root_propagation(mounts: Iterable[Mount]) -> str:
    """The root must not be more private than what is mounted below it."""
    words = {word for mount in mounts if mount["type"] == "bind" for word in mount["options"]}
    if words & {"shared", "rshared"}:
        return "shared"
    return "rslave" if words & {"slave", "rslave"} else ""


def _tmpfs(destination: str, options: list[str]) -> Mount:
    merged = merge_tmpfs_options(["noexec", "nosuid", "nodev", "rprivate", *options])
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": merged}


def tmpfs_words(options: MountTmpfsOptions | None, *, readonly: bool) -> list[str]:
    """--mount type=tmpfs options as mount(8) writes them."""
    words = ["ro"] if readonly else []
    if options is None:
        return words
    if options.Mode:
        words.append(f"mode={options.Mode:o}")
    if options.SizeBytes:
        words.append(f"size={_size(options.SizeBytes)}")
    for pair in options.Options or ():
        if len(pair) not in (1, 2):
            raise InvalidArgument("invalid option array length")
        words.append("=".join(pair))
    return words


def _size(size_bytes: int) -> str:
    for suffix, shift in (("g", 30), ("m", 20), ("k", 10)):
        if size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{suffix}"
    return str(size_bytes)


# Words that are two sides of one flag.
_FLAGS = {
    word: pair[0]
    for pair in (
        *(("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("sync", "async")),
        *(("mand", "nomand"), ("noatime", "atime"), ("nodiratime", "diratime"), ("relatime", "norelatime")),
        *(("strictatime", "nostrictatime"), ("dirsync",), ("remount",), ("bind",), ("rbind", "recursive")),
        ("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"),
    )
    for word in pair
}
_DATA = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"))


def merge_tmpfs_options(options: list[str]) -> list[str]:
    """Of options that contradict each other keep the last. Raises InvalidArgument for one that tmpfs has not got."""
    kept: list[str] = []
    seen: set[str] = set()
    for option in reversed(options):
        if option == "defaults":
            continue
        key, equals, _ = option.partition("=")
        if option in _FLAGS:
            key = _FLAGS[option]
        elif not equals or key not in _DATA:
            raise InvalidArgument(f'invalid tmpfs option "{key}"')
        if key not in seen:
            seen.add(key)
            kept.append(option)
    return kept[::-1]
