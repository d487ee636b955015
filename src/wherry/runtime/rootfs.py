"""Building the container's file system tree by descriptor.

Every target is resolved once inside the root (`linux.openat`), every mount is made detached and then attached to that
descriptor, so nothing a container can rename or link in the meantime leads a mount elsewhere. On kernels without the
new mount API mount(2) gets the descriptor's /proc/self/fd name, which is as exact.
"""

import errno
import os
import stat

from wherry.linux import mounts as m
from wherry.linux.openat import O_PATH, create_in_root, filesystem_type, mkdir_in_root, open_in_root
from wherry.runtime.failure import StartError, words
from wherry.runtime.mount_options import MountOptions

PROC_SUPER_MAGIC = 0x9FA0
_PROC_ROOT_INODE = 1

# What lxcfs provides, and nothing else, may cover a file of /proc.
PROC_FILES = frozenset(
    (
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/slabinfo",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/crypto/fips_enabled",
    )
)

_api: list[bool] = []
_appending: list[bool] = []
_attributes: list[bool] = []


def has_mount_api() -> bool:
    """`linux.mounts.has_mount_api`, asked once per process: call it before forking."""
    if not _api:
        _api.append(m.has_mount_api())
    return _api[0]


def has_mount_attributes() -> bool:
    """Whether mounts are changed by descriptor (mount_setattr(2), Linux 5.12), asked once per process."""
    if not _attributes:
        try:
            m.mount_setattr(-1)
            _attributes.append(True)
        except OSError as error:
            _attributes.append(error.errno == errno.EBADF)
    return _attributes[0]


def has_appended_layers() -> bool:
    """Whether overlay takes its layers one by one ("lowerdir+", Linux 6.8), asked once per process: call it before
    forking. Nothing is mounted, so a kernel that lacks it does not complain in its log."""
    if not _appending:
        _appending.append(has_mount_api() and _takes_appended_layers())
    return _appending[0]


def _takes_appended_layers() -> bool:
    fd = -1
    try:
        fd = m.fsopen("overlay")
        try:
            m.fsconfig_flag(fd, "no-such-option")
        except OSError:
            m.fsconfig_string(fd, "lowerdir+", "/")
            return True
        return False  # before Linux 6.5 any option is taken here, and only the mount tells
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)


def attach_filesystem(target: int, fstype: str, source: str, options: MountOptions, attributes: int) -> int:
    """Mount a new `fstype` on the directory `target`; return a descriptor of the new mount's root."""
    if not has_mount_api():
        m.mount(
            source or fstype,
            m.fd_path(target),
            fstype,
            options.flags() & ~m.MS_RDONLY | m.attributes_to_flags(attributes),
            options.data_string(),
        )
        return reopen(target)
    fd = m.new_filesystem(fstype, _settings(fstype, source, options, attributes), attributes)
    m.move_mount(fd, target)
    return fd


def _settings(fstype: str, source: str, options: MountOptions, attributes: int) -> list[tuple[str, str | None]]:
    settings = [("source", source or fstype), *((word, None) for word in options.superblock), *options.data]
    if attributes & m.ATTR_RDONLY:  # the superblock as well, as mount(2) does it
        settings.append(("ro", None))
    return settings


def attach_procfs(target: int, context: int, source: str, options: MountOptions, attributes: int) -> int:
    """As `attach_filesystem`, of a context that somebody else opened and that must be procfs's."""
    fd = m.new_filesystem("proc", _settings("proc", source, options, attributes), attributes, context=context)
    if not is_proc_root(fd):
        os.close(fd)
        raise OSError(errno.EINVAL, "unsafe procfs detected")
    m.move_mount(fd, target)
    return fd


def reopen(target: int) -> int:
    """What is mounted on top of the directory or file that `target` refers to."""
    return os.open(m.fd_path(target), O_PATH | os.O_CLOEXEC) if _is_file(target) else _through_parent(target)


def _is_file(fd: int) -> bool:
    return not stat.S_ISDIR(os.fstat(fd).st_mode)


def _through_parent(target: int) -> int:
    path = os.readlink(m.fd_path(target))
    return os.open(path, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)


def attach_overlay(
    target: int, lower: tuple[str, ...], upper: str, work: str, options: tuple[tuple[str, str | None], ...]
) -> int:
    """Mount an overlay of the layers `lower` (top first) and the writable `upper`, or of `lower` alone; return a
    descriptor of its root."""
    if has_appended_layers():
        fd = detached_overlay(lower, upper, work, options)
        m.move_mount(fd, target)
        return fd
    m.mount("overlay", m.fd_path(target), "overlay", 0, overlay_data(lower, upper, work, options))
    return _through_parent(target)


def detached_overlay(lower: tuple[str, ...], upper: str, work: str, options: tuple[tuple[str, str | None], ...]) -> int:
    """An overlay mounted nowhere yet, of any number of layers (see `has_appended_layers`). Raises OSError."""
    settings: list[tuple[str, str | None]] = [("source", "overlay")]
    settings += [("lowerdir+", layer) for layer in lower]
    if upper:
        settings += [("upperdir", upper), ("workdir", work)]
    settings += options
    held: list[int] = []
    try:
        return m.new_filesystem("overlay", [_short(pair, held) for pair in settings])
    finally:
        for fd in held:
            os.close(fd)


def _short(pair: tuple[str, str | None], held: list[int]) -> tuple[str, str | None]:
    """fsconfig(2) takes 255 bytes: a longer path goes by its descriptor's name."""
    key, value = pair
    if value is None or len(os.fsencode(value)) < 256 or not key.endswith(("dir", "dir+")):
        return pair
    held.append(os.open(value, O_PATH | os.O_CLOEXEC))
    return key, m.fd_path(held[-1])


def overlay_data(lower: tuple[str, ...], upper: str, work: str, options: tuple[tuple[str, str | None], ...]) -> str:
    """The options of an overlay as mount(2) takes them."""
    parts = ["lowerdir=" + ":".join(_escaped(layer) for layer in lower)]
    if upper:
        parts += [f"upperdir={_escaped(upper)}", f"workdir={_escaped(work)}"]
    parts += [key if value is None else f"{key}={value}" for key, value in options]
    return ",".join(parts)


def _escaped(path: str) -> str:
    """Overlay's own escapes in a monolithic option string."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def copy_source(source: str, *, recursive: bool) -> int:
    """A detached copy of the (tree of) mounts at the host's path `source`."""
    return m.open_tree(m.AT_FDCWD, source, m.AT_RECURSIVE if recursive else 0)


def configure(fd: int, options: MountOptions) -> None:
    """Give a detached or attached mount the attributes its options name; what they do not name stays."""
    if options.set or options.clear:
        m.mount_setattr(fd, set_=options.set, clear=options.clear)
    if options.recursive_set or options.recursive_clear:
        m.mount_setattr(fd, set_=options.recursive_set, clear=options.recursive_clear, recursive=True)


def propagate(fd: int, propagation: tuple[tuple[int, bool], ...]) -> None:
    """Set the propagation of the mount `fd` is the root of."""
    for flag, recursive in propagation:
        try:
            m.mount_setattr(fd, propagation=flag, recursive=recursive)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            m.mount("", m.fd_path(fd), "", flag | (m.MS_REC if recursive else 0))


def bind(target: int, source: str, options: MountOptions) -> int:
    """Bind the host's `source` on `target`; return a descriptor of the mount."""
    if has_mount_api():
        fd = copy_source(source, recursive=options.recursive_bind)
        attach_prepared(fd, target, options)
        return fd
    m.mount(source, m.fd_path(target), "", m.MS_BIND | (m.MS_REC if options.recursive_bind else 0))
    fd = reopen(target)
    _remount(fd, options)
    propagate(fd, options.propagation)
    return fd


def attach_prepared(fd: int, target: int, options: MountOptions) -> None:
    """Configure a detached mount and attach it."""
    try:
        configure(fd, options)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        m.move_mount(fd, target)
        _remount(fd, options)
    else:
        m.move_mount(fd, target)
    propagate(fd, options.propagation)


def _remount(fd: int, options: MountOptions) -> None:
    """The attributes by mount(2), which replaces all: those the mount has are kept, as they may be locked."""
    if options.recursive_set or options.recursive_clear:
        raise OSError(errno.ENOSYS, "recursive mount attributes need Linux 5.12")
    if not (options.set or options.clear):
        return
    present = os.fstatvfs(fd).f_flag & (m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC)
    flags = present & ~m.attributes_to_flags(options.clear) | m.attributes_to_flags(options.set)
    m.mount("", m.fd_path(fd), "", m.MS_REMOUNT | m.MS_BIND | flags)


def make_read_only(fd: int, *, recursive: bool = False) -> None:
    """Make an attached mount read-only, its other attributes unchanged."""
    try:
        m.mount_setattr(fd, set_=m.ATTR_RDONLY, recursive=recursive)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _remount(fd, MountOptions(set=m.ATTR_RDONLY))


def cover_read_only(target: int) -> None:
    """Bind the tree at `target` on itself, read-only with all below."""
    if not has_mount_api():
        m.mount(m.fd_path(target), m.fd_path(target), "", m.MS_BIND | m.MS_REC)
        make_read_only(reopen(target))
        return
    fd = m.copy_mount(target, recursive=True)
    try:
        make_read_only(fd, recursive=True)
        m.move_mount(fd, target)
    finally:
        os.close(fd)


def empty_directory() -> int:
    """A detached, read-only, empty tmpfs: the one that covers every masked directory."""
    return m.new_filesystem(
        "tmpfs", [("source", "tmpfs"), ("ro", None), ("nr_blocks", "1"), ("nr_inodes", "1")], m.ATTR_RDONLY
    )


def open_target(root: int, rootfs: str, path: str, *, directory: bool, source: int | None = None) -> int:
    """The mount point `path` in the root, made when it is missing; `source` is what a bind mount will show there.
    Raises StartError for the root itself and for what lies under /proc: LSM labels and masks are written there.
    Allowed are a procfs on /proc and the few files that lxcfs provides."""
    fd = (mkdir_in_root if directory else create_in_root)(root, path, 0o755)
    place = os.readlink(m.fd_path(fd))[len(rootfs.rstrip("/")) :] or "/"
    reason = _refusal(place, source)
    if reason:
        os.close(fd)
        raise StartError("InvalidArgument", f'error mounting to rootfs at "{path}": {reason}')
    return fd


def _refusal(place: str, source: int | None) -> str:
    if place == "/":
        return "the mount point is the root file system itself"
    if place == "/proc" and (source is None or not is_proc_root(source)):
        return f'"{place}" cannot be mounted because it is not of type proc'
    if place.startswith("/proc/") and place not in PROC_FILES:
        return f'"{place}" cannot be mounted because it is inside /proc'
    return ""


def open_plain_directory(root: int, path: str) -> int:
    """The mount point of a proc or sysfs: a directory, made when missing, but no symbolic link: masks and labels
    would go to where the link leads."""
    try:
        fd = open_in_root(root, path, O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return mkdir_in_root(root, path, 0o755)
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise StartError("InvalidArgument", f"{path} must be mounted on ordinary directory")
    return fd


def is_proc_root(fd: int) -> bool:
    """Whether `fd` is the root of a procfs."""
    return filesystem_type(fd) == PROC_SUPER_MAGIC and os.fstat(fd).st_ino == _PROC_ROOT_INODE


def make_parent_private(path: str) -> None:
    """Make the mount that `path` lies on private, so that what is mounted there does not spread to its peers."""
    while True:
        try:
            m.mount("", path, "", m.MS_PRIVATE)
            return
        except OSError as error:
            if error.errno != errno.EINVAL or path == "/":
                raise StartError("Internal", f"make {path} private: {words(error)}") from None
        path = os.path.dirname(path)


def pivot() -> None:
    """Make the current directory, the root of a mount, the root of the namespace, and let go of the old one."""
    old = os.open("/", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        m.pivot_root(".", ".")
        os.fchdir(old)
    finally:
        os.close(old)
    # Slave, not private: umount events must not reach the host, but must be able to reach us (a device in use).
    m.mount("", ".", "", m.MS_SLAVE | m.MS_REC)
    m.umount2(".", m.MNT_DETACH)
    os.chdir("/")
