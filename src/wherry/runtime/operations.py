"""The operations a container's file system and kernel settings are made of.

An operation is a small immutable value that says what will be done; `apply` does it, in the container's init, with
the few descriptors of a `Context`. `runtime.spec` makes the list, which can be printed and compared without root.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple, Protocol

from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux import openat
from wherry.linux.openat import O_PATH, open_in_root
from wherry.runtime import devices, rootfs
from wherry.runtime.failure import StartError, path_error, words
from wherry.runtime.mount_options import MountOptions


class Context:
    """What operations hand each other while init runs."""

    def __init__(self) -> None:
        self.root_path = ""  # where the root is mounted, as seen before the pivot; "" after
        self.root = -1  # O_PATH descriptor of the root
        self.proc = -1  # the root of the container's procfs, by which `private_proc` is asked for
        self.own_proc = -1  # of our own PID namespace, where that is not the container's
        self.console = -1  # the peer of the container's terminal
        self.master = -1
        self.mounts = -1  # our mount namespace, when the parent wants to hold it
        self.terminal_size: tuple[int, int] | None = None
        self.user_namespace = False
        self.prepared: dict[int, int] = {}  # index of a mount in the configuration → detached mount made by the parent
        self.procfs: list[int] = []  # contexts for those of a PID namespace that we are not in
        self.warnings: list[str] = []

        self.enter_cgroup: Callable[[], None] = _nothing  # waits until the parent has put us into our cgroup


def _nothing() -> None:
    """Where there is no parent to wait for."""


class Operation(Protocol):
    """One step of making a container."""

    def apply(self, context: Context) -> None:
        """Do it. Raises StartError, or OSError which `explain` words."""

    def explain(self, error: OSError) -> str:
        """What to tell when `apply` failed with `error`."""


def apply_all(operations: tuple[Operation, ...], context: Context) -> None:
    """Execute a plan. Raises StartError."""
    for operation in operations:
        try:
            operation.apply(context)
        except OSError as error:
            raise StartError("Internal", operation.explain(error)) from None


class RootPropagation(NamedTuple):
    """Cut, or keep, the ties of our copy of the mount tree to the host's."""

    flags: int

    def apply(self, context: Context) -> None:
        m.mount("", "/", "", self.flags)
        if self.flags & m.MS_SHARED:
            rootfs.make_parent_private(context.root_path)

    def explain(self, error: OSError) -> str:
        return f"error making the mount tree private: {words(error)}"


class OverlayRoot(NamedTuple):
    """The root file system as an overlay of layers, mounted where only we see it."""

    target: str
    lower: tuple[str, ...]
    upper: str
    work: str
    options: tuple[tuple[str, str | None], ...]

    def detached(self) -> int:
        """The overlay, mounted nowhere yet: made by the parent when the container has a user namespace."""
        return rootfs.detached_overlay(self.lower, self.upper, self.work, self.options)

    def apply(self, context: Context) -> None:
        target = os.open(self.target, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            context.root = context.prepared.pop(-1, -1)
            if context.root >= 0:
                m.move_mount(context.root, target)
            else:
                context.root = rootfs.attach_overlay(target, self.lower, self.upper, self.work, self.options)
        finally:
            os.close(target)

    def explain(self, error: OSError) -> str:
        return f"error mounting the overlay of {len(self.lower)} layers at {self.target}: {words(error)}"


class BindRoot(NamedTuple):
    """The root file system as it lies in the bundle, made a mount of its own for pivot_root(2)."""

    path: str

    def apply(self, context: Context) -> None:
        target = os.open(self.path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        options = MountOptions(bind=True, recursive_bind=True, propagation=((m.MS_PRIVATE, False),))
        try:
            prepared = context.prepared.pop(-1, -1)
            if prepared >= 0:
                rootfs.attach_prepared(prepared, target, options)
                context.root = prepared
            else:
                context.root = rootfs.bind(target, self.path, options)
        finally:
            os.close(target)

    def explain(self, error: OSError) -> str:
        return f"error binding the root file system {self.path}: {words(error)}"


def _mount_failure(source: str, destination: str, error: OSError) -> str:
    what = f"mount src={source}, dst={destination}"
    return f'error mounting "{source}" to rootfs at "{destination}": {what}: {words(error)}'


class Filesystem(NamedTuple):
    """A file system of its own: proc, sysfs, tmpfs, devpts, mqueue and any other type."""

    destination: str
    fstype: str
    source: str
    options: MountOptions

    def apply(self, context: Context) -> None:
        plain = self.fstype in ("proc", "sysfs")
        if plain:
            target = rootfs.open_plain_directory(context.root, self.destination)
        else:
            target = rootfs.open_target(context.root, context.root_path, self.destination, directory=True)
        try:
            fd = self._mount(context, target)
        finally:
            os.close(target)
        kept = self.fstype == "proc" and context.proc < 0 and rootfs.has_mount_api()
        if kept:
            context.proc = fd
        try:
            rootfs.propagate(fd, self.options.propagation)
        finally:
            if not kept:
                os.close(fd)

    def _mount(self, context: Context, target: int) -> int:
        attributes = self.options.set & ~(m.ATTR_RDONLY if self.deferred else 0)
        if self.fstype == "tmpfs":
            return self._mount_tmpfs(context, target, attributes)
        if self.fstype == "proc" and context.procfs:
            return rootfs.attach_procfs(target, context.procfs.pop(), self.source, self.options, attributes)
        try:
            return rootfs.attach_filesystem(target, self.fstype, self.source, self.options, attributes)
        except OSError as error:
            if self.fstype != "sysfs" or error.errno != errno.EPERM or not context.user_namespace:
                raise
        # sysfs belongs to the network namespace, which is not our user namespace's: only the host's can be shown.
        options = MountOptions(set=attributes, recursive_set=m.ATTR_RDONLY, bind=True, recursive_bind=True)
        return rootfs.bind(target, "/sys", options)

    @property
    def deferred(self) -> bool:
        """A read-only tmpfs takes mount points for others first, and is made read-only at the end."""
        return self.options.read_only and (self.fstype == "tmpfs" or self.destination == "/dev")

    def _mount_tmpfs(self, context: Context, target: int, attributes: int) -> int:
        options = self.options
        if not any(key == "mode" for key, _ in options.data):
            mode = stat.S_IMODE(os.fstat(target).st_mode)
            options = options._replace(data=(*options.data, ("mode", f"{mode:o}")))
        below = -1
        if options.copy_up:
            below = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
        fd = rootfs.attach_filesystem(target, self.fstype, self.source, options, attributes)
        if below >= 0:
            try:
                copy_tree(below, fd)
            finally:
                os.close(below)
        return fd

    def explain(self, error: OSError) -> str:
        return _mount_failure(self.source or self.fstype, self.destination, error)


def copy_tree(source: int, destination: int) -> None:
    """Copy files, directories and links from one directory descriptor to another, with owners and modes."""
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=destination)
            flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner, outer = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=destination)
            try:
                copy_tree(inner, outer)
            finally:
                os.close(inner)
                os.close(outer)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
        elif kind == stat.S_IFREG:
            _copy_file(source, destination, name)
        else:
            os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=destination)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=destination)


def _copy_file(source: int, destination: int, name: str) -> None:
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=destination)
    try:
        while os.sendfile(writer, reader, None, 1 << 20):
            pass
    finally:
        os.close(reader)
        os.close(writer)


class Bind(NamedTuple):
    """A file or directory of the host, shown in the container."""

    number: int  # of the mount in the configuration
    destination: str
    source: str
    options: MountOptions

    def apply(self, context: Context) -> None:
        fd = context.prepared.pop(self.number, -1)
        if fd < 0 and rootfs.has_mount_api():
            fd = rootfs.copy_source(self.source, recursive=self.options.recursive_bind)
        source = fd if fd >= 0 else os.open(self.source, O_PATH | os.O_CLOEXEC)
        try:
            directory = stat.S_ISDIR(os.fstat(source).st_mode)
            target = rootfs.open_target(
                context.root, context.root_path, self.destination, directory=directory, source=source
            )
            try:
                if stat.S_ISDIR(os.fstat(target).st_mode) != directory:  # move_mount(2) only says EINVAL
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.destination)
                if fd >= 0:
                    rootfs.attach_prepared(fd, target, self.options)
                else:
                    os.close(rootfs.bind(target, self.source, self.options))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def explain(self, error: OSError) -> str:
        return _mount_failure(self.source, self.destination, error)


class EnterCgroup(NamedTuple):
    """Wait for our place in the cgroups, then take it as the root of what we see of them."""

    flags: int  # CLONE_NEWCGROUP or 0

    def apply(self, context: Context) -> None:
        context.enter_cgroup()
        if self.flags:
            ns.unshare(self.flags)

    def explain(self, error: OSError) -> str:
        return f"error making the cgroup namespace: {words(error)}"


class UnifiedCgroupMount(NamedTuple):
    """The cgroup2 hierarchy; the container's own part when it cannot be mounted (no cgroup namespace of ours)."""

    destination: str
    point: str
    options: MountOptions

    def apply(self, context: Context) -> None:
        target = rootfs.open_target(context.root, context.root_path, self.destination, directory=True)
        try:
            try:
                fd = rootfs.attach_filesystem(target, "cgroup2", "cgroup", self.options, self.options.set)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EBUSY):
                    raise
                source = self.point + _own_cgroups().get("", "/")
                fd = rootfs.bind(target, source, self.options._replace(bind=True, data=(), superblock=()))
            rootfs.propagate(fd, self.options.propagation)
            os.close(fd)
        finally:
            os.close(target)

    def explain(self, error: OSError) -> str:
        return _mount_failure("cgroup", self.destination, error)


class LegacyCgroupMount(NamedTuple):
    """The cgroup v1 hierarchies under a tmpfs: the container's own directory of each, or, in a cgroup namespace, the
    hierarchies themselves."""

    destination: str
    hierarchies: tuple[tuple[str, str], ...]  # (names of the controllers "cpu,cpuacct", mount point on the host)
    own_namespace: bool
    options: MountOptions

    def apply(self, context: Context) -> None:
        target = rootfs.open_target(context.root, context.root_path, self.destination, directory=True)
        attributes = self.options.set & ~m.ATTR_RDONLY
        try:
            top = rootfs.attach_filesystem(target, "tmpfs", "tmpfs", MountOptions(data=(("mode", "755"),)), attributes)
        finally:
            os.close(target)
        own = _own_cgroups()
        try:
            for names, point in self.hierarchies:
                self._show(top, names, point, own)
            rootfs.propagate(top, self.options.propagation)
            if self.options.read_only:
                rootfs.make_read_only(top)
        finally:
            os.close(top)

    def _show(self, top: int, names: str, point: str, own: dict[str, str]) -> None:
        name = "unified" if not names else names.removeprefix("name=")
        os.mkdir(name, 0o755, dir_fd=top)
        target = os.open(name, O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
        try:
            if self.own_namespace:
                data = tuple(_controller_option(word) for word in names.split(",")) if names else ()
                fstype = "cgroup" if names else "cgroup2"
                fd = rootfs.attach_filesystem(target, fstype, "cgroup", MountOptions(data=data), self.options.set)
            else:
                path = own.get(names.partition(",")[0], "/")
                fd = rootfs.bind(target, point + path, MountOptions(set=self.options.set, bind=True))
            os.close(fd)
        finally:
            os.close(target)
        if "," in name:
            for alias in name.split(","):
                os.symlink(name, alias, dir_fd=top)

    def explain(self, error: OSError) -> str:
        return _mount_failure("cgroup", self.destination, error)


def _controller_option(word: str) -> tuple[str, str | None]:
    key, equals, value = word.partition("=")
    return key, value if equals else None


def _own_cgroups() -> dict[str, str]:
    """Our cgroup in each hierarchy, by the name of a controller; "" is the unified one. cgroups(7)."""
    fd = os.open("/proc/self/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 65536).decode()
    finally:
        os.close(fd)
    own: dict[str, str] = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            own[name] = path
    return own


class MakeDevices(NamedTuple):
    """The nodes of /dev and where else the configuration wants some."""

    nodes: tuple[devices.Device, ...]
    bind: bool  # of the host's nodes: in a user namespace there is no mknod(2)

    def apply(self, context: Context) -> None:
        if not self.bind:
            devices.make_nodes(context.root, self.nodes)
            return
        for node in self.nodes:
            self._bind(context, node)

    def _bind(self, context: Context, node: devices.Device) -> None:
        target = devices.node_target(context.root, node.path)
        try:
            prepared = context.prepared.pop(device_key(self.nodes, node), -1)
            if prepared >= 0:
                m.move_mount(prepared, target)
                os.close(prepared)
            else:
                os.close(rootfs.bind(target, node.path, MountOptions(bind=True)))
        finally:
            os.close(target)

    def explain(self, error: OSError) -> str:
        return f"error making device nodes: {path_error('mknod', error.filename or '/dev', error)}"


def device_key(nodes: tuple[devices.Device, ...], node: devices.Device) -> int:
    """Prepared device mounts are numbered downwards from -2; -1 is the root."""
    return -2 - nodes.index(node)


class DeviceLinks(NamedTuple):
    """/dev/fd, /dev/stdin …, /dev/ptmx."""

    kcore: bool

    def apply(self, context: Context) -> None:
        devices.make_links(context.root, kcore=self.kcore)

    def explain(self, error: OSError) -> str:
        return f"error making the links of /dev: {words(error)}"


class Pivot(NamedTuple):
    """Leave the host's tree: from here on "/" is the container's."""

    chroot: bool  # instead of pivot_root(2), which an initramfs does not allow

    def apply(self, context: Context) -> None:
        os.fchdir(context.root)
        if self.chroot:
            m.mount(".", "/", "", m.MS_MOVE)
            os.chroot(".")
            os.chdir("/")
        else:
            rootfs.pivot()
        context.root_path = ""

    def explain(self, error: OSError) -> str:
        return f"pivot_root: {words(error)}"


class FinalPropagation(NamedTuple):
    """The propagation of the root as the configuration wants it."""

    flags: int

    def apply(self, context: Context) -> None:
        m.mount("", "/", "", self.flags)

    def explain(self, error: OSError) -> str:
        return f"error setting the propagation of the root: {words(error)}"


class Hostname(NamedTuple):
    """The host name and NIS domain of the UTS namespace; empty leaves it."""

    hostname: str
    domainname: str

    def apply(self, context: Context) -> None:
        if self.hostname:
            ns.sethostname(self.hostname)
        if self.domainname:
            ns.setdomainname(self.domainname)

    def explain(self, error: OSError) -> str:
        return f"sethostname: {words(error)}"


class RemountReadOnly(NamedTuple):
    """Make a mount read-only that had to be writable until now."""

    path: str

    def apply(self, context: Context) -> None:
        fd = open_in_root(context.root, self.path, O_PATH) if self.path != "/" else os.dup(context.root)
        try:
            rootfs.make_read_only(fd)
        finally:
            os.close(fd)

    def explain(self, error: OSError) -> str:
        return f"error remounting {self.path} read-only: {words(error)}"


class Sysctls(NamedTuple):
    """Kernel parameters of the container's namespaces, written through a procfs that nobody else can reach."""

    values: tuple[tuple[str, str], ...]  # (path under /proc/sys, value)

    def apply(self, context: Context) -> None:
        proc = private_proc(context)
        for path, value in self.values:
            try:
                self._write(proc, path, value)
            except OSError as error:
                name = path.replace("/", ".")
                raise StartError("InvalidArgument", f"open sysctl {name} file: {words(error)}") from None

    def _write(self, proc: int, path: str, value: str) -> None:
        beneath = openat.RESOLVE_BENEATH | openat.RESOLVE_NO_SYMLINKS | openat.RESOLVE_NO_XDEV
        fd = openat.openat2(proc, f"sys/{path}", os.O_WRONLY, 0, beneath)
        try:
            if openat.filesystem_type(fd) != rootfs.PROC_SUPER_MAGIC:
                raise OSError(errno.EXDEV, "unsafe procfs detected")
            os.write(fd, os.fsencode(value))
        finally:
            os.close(fd)

    def explain(self, error: OSError) -> str:
        return f"error writing sysctls: {words(error)}"


def private_proc(context: Context) -> int:
    """The root of a procfs of the container's PID namespace; one mounted nowhere when no mount gave us one.

    Whoever opens something in it must refuse to leave it (RESOLVE_NO_XDEV): the container's can be covered in parts.
    It is no detached copy, because closing the last descriptor of one waits for a grace period of the kernel.
    """
    if context.proc < 0:
        try:
            context.proc = m.new_filesystem("proc", [("source", "proc")])
        except OSError:
            context.proc = open_in_root(context.root, "/proc", O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        if not rootfs.is_proc_root(context.proc):
            raise StartError("Internal", "unsafe procfs detected: /proc is no procfs")
    return context.proc


class ReadOnlyPath(NamedTuple):
    """A path that may be read only; nothing happens when it does not exist."""

    path: str

    def apply(self, context: Context) -> None:
        try:
            target = open_in_root(context.root, self.path, O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            rootfs.cover_read_only(target)
        finally:
            os.close(target)

    def explain(self, error: OSError) -> str:
        return f"can't make {path_error('readonly path', self.path, error)}"


class MaskPaths(NamedTuple):
    """Paths that must show nothing: files become /dev/null, directories one shared empty tmpfs."""

    paths: tuple[str, ...]

    def apply(self, context: Context) -> None:
        null = devices.open_null(context.root)
        empty = -1
        try:
            for path in self.paths:
                try:
                    target = open_in_root(context.root, path, O_PATH)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if stat.S_ISDIR(os.fstat(target).st_mode):
                    empty = _mask_directory(target, empty)
                else:
                    _mask_file(target, null)
                os.close(target)
        finally:
            os.close(null)
            if empty >= 0:
                os.close(empty)

    def explain(self, error: OSError) -> str:
        return f"can't mask paths: {words(error)}"


def _mask_file(target: int, null: int) -> None:
    if not rootfs.has_mount_api():
        m.mount(m.fd_path(null), m.fd_path(target), "", m.MS_BIND)
        return
    fd = m.copy_mount(null)
    try:
        m.move_mount(fd, target)
    finally:
        os.close(fd)


def _mask_directory(target: int, empty: int) -> int:
    if not rootfs.has_mount_api():
        m.mount("tmpfs", m.fd_path(target), "tmpfs", m.MS_RDONLY, "nr_blocks=1,nr_inodes=1")
        return empty
    if empty < 0:
        empty = rootfs.empty_directory()
        m.move_mount(empty, target)
        return empty
    fd = m.copy_mount(empty)
    try:
        m.move_mount(fd, target)
    finally:
        os.close(fd)
    return empty


class WorkingDirectory(NamedTuple):
    """Make the process's working directory when it is missing, inside the root."""

    path: str

    def apply(self, context: Context) -> None:
        os.close(openat.mkdir_in_root(context.root, self.path, 0o755))

    def explain(self, error: OSError) -> str:
        return path_error("mkdir", self.path, error)
