"""From an OCI configuration (runtime-spec 1.2) to a plan: checked, complete, pure data.

`plan` looks at nothing but the configuration and a few facts about the host, changes nothing, and returns the lists
of operations that init will execute, in the order it will execute them:

    root       the mount tree cut off the host's, the root file system mounted
    mounts     everything below it, /dev, the cgroups            (createRuntime, createContainer hooks run here)
    settings   after pivot_root: names, sysctls, read-only and masked paths
    process    who runs what, see `runtime.process`
"""

import os
from typing import Any, NamedTuple

from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux.cgroupfs import Hierarchies
from wherry.runtime import devices, mount_options, operations, process, shared_memory, sysctls
from wherry.runtime.failure import StartError
from wherry.runtime.operations import Operation

_ROOT_PROPAGATION = {
    name: flag | (m.MS_REC if recursive else 0) for name, (flag, recursive) in mount_options.PROPAGATION.items()
}
_PERSONAS = {"LINUX": 0x0000, "LINUX32": 0x0008}


class Namespaces(NamedTuple):
    """Which namespaces are made and which are joined."""

    new: int  # CLONE_ flags
    joined: tuple[tuple[int, str], ...]  # (flag, path)
    own: frozenset[str]  # OCI types that are not the host's

    @property
    def user(self) -> bool:
        """Whether the container is in a user namespace other than ours."""
        return "user" in self.own


class Plan(NamedTuple):
    """Everything init does."""

    namespaces: Namespaces
    uid_map: str  # lines for /proc/PID/uid_map, "" without a new user namespace
    gid_map: str
    root_path: str
    root: tuple[Operation, ...]
    mounts: tuple[Operation, ...]
    pivot: Operation
    settings: tuple[Operation, ...]
    process: process.ProcessPlan
    persona: int | None
    hooks: dict[str, list[dict[str, Any]]]
    idmaps: dict[int, tuple[str, str, bool]]  # index of a mount → uid lines, gid lines, recursive
    warnings: tuple[str, ...]

    def describe(self) -> list[str]:
        """One line an operation, for a debug log."""
        return [repr(operation) for operation in (*self.root, *self.mounts, self.pivot, *self.settings)]


class Host(NamedTuple):
    """The facts about the host that a plan depends on."""

    hierarchies: Hierarchies
    kcore: bool
    network: tuple[int, int]  # device and inode of our own network namespace
    ipc: tuple[int, int] = (0, 0)  # and of our IPC namespace

    @classmethod
    def probe(cls, hierarchies: Hierarchies) -> "Host":
        """Ask this host."""
        network, ipc = os.stat("/proc/self/ns/net"), os.stat("/proc/self/ns/ipc")
        return cls(
            hierarchies,
            os.path.exists("/proc/kcore"),
            (network.st_dev, network.st_ino),
            (ipc.st_dev, ipc.st_ino),
        )


def _invalid(message: str) -> StartError:
    return StartError("InvalidArgument", message)


def plan(
    config: dict[str, Any],
    bundle: str,
    host: Host,
    *,
    rootfs_mounts: list[dict[str, Any]] | None = None,
    no_pivot: bool = False,
) -> Plan:
    """Plan the container of a decoded config.json; `bundle` is the directory relative paths start from, and
    `rootfs_mounts` replace what lies at root.path. Raises StartError, kind InvalidArgument."""
    try:
        return _plan(config, bundle, host, rootfs_mounts or [], no_pivot)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _invalid(f"malformed configuration: {type(error).__name__}: {error}") from error


def _plan(config: dict[str, Any], bundle: str, host: Host, rootfs_mounts: list[dict[str, Any]], no_pivot: bool) -> Plan:
    linux = config.get("linux") or {}
    _check_supported(config, linux)
    namespaces = namespaces_of(linux, host)
    root_path = os.path.realpath(os.path.join(bundle, config["root"]["path"]))
    warnings: list[str] = []
    plan_of_process = process.plan(config.get("process") or {}, warnings, user_namespace=namespaces.user)
    uid_map, gid_map = _user_maps(linux, namespaces)
    time_offsets(linux, namespaces)
    all_mounts = config.get("mounts") or []
    return Plan(
        namespaces,
        uid_map,
        gid_map,
        root_path,
        _root(linux, root_path, rootfs_mounts),
        _mounts(all_mounts, linux, namespaces, host, bundle),
        operations.Pivot(no_pivot),
        _settings(config, linux, namespaces, all_mounts, plan_of_process.cwd),
        plan_of_process,
        _persona(linux.get("personality")),
        config.get("hooks") or {},
        _idmaps(all_mounts, linux),
        tuple(warnings),
    )


def _check_supported(config: dict[str, Any], linux: dict[str, Any]) -> None:
    version = config.get("ociVersion", "1.0.0")
    if not str(version).startswith("1."):
        raise _invalid(f"unsupported ociVersion {version!r}: this runtime knows 1.0 to 1.2")
    if not config.get("root"):
        raise _invalid("config.json has no root")
    if linux.get("intelRdt"):
        raise _invalid("linux.intelRdt is not supported by this runtime")
    if linux.get("mountLabel") and not os.path.exists("/sys/fs/selinux/enforce"):
        raise _invalid("selinux label is specified in config, but selinux is disabled or not supported")
    for section in ("windows", "solaris", "vm", "zos"):
        if config.get(section):
            raise _invalid(f"the section {section!r} is not supported by this runtime")


def namespaces_of(linux: dict[str, Any], host: Host) -> Namespaces:
    """Plan the namespaces of the `linux` section alone. Raises StartError."""
    entries = linux.get("namespaces") or []
    new = 0
    joined = []
    own = set()
    for entry in entries:
        kind, path = entry["type"], entry.get("path") or ""
        if kind not in ns.TYPES:
            raise _invalid(f'invalid namespace type "{kind}"')
        if kind in own:
            raise _invalid(f'malformed spec file: duplicated namespace "{kind}"')
        own.add(kind)
        flag, _ = ns.TYPES[kind]
        if path:
            joined.append((flag, path))
            if _is_of_host(kind, path, host):
                own.discard(kind)
        else:
            new |= flag
    if not new & ns.CLONE_NEWNS:
        raise _invalid("a new mount namespace is needed: a root file system cannot be set up in a shared one")
    return Namespaces(new, tuple(joined), frozenset(own))


def _is_of_host(kind: str, path: str, host: Host) -> bool:
    """Whether a namespace that can have parameters of its own, and is joined by path, is the host's after all."""
    ours = {"network": host.network, "ipc": host.ipc}.get(kind)
    if ours is None:
        return False
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == ours


def _map_lines(mappings: list[dict[str, Any]]) -> str:
    return "".join(f"{int(e['containerID'])} {int(e['hostID'])} {int(e['size'])}\n" for e in mappings)


def _user_maps(linux: dict[str, Any], namespaces: Namespaces) -> tuple[str, str]:
    uids, gids = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    new_user = bool(namespaces.new & ns.CLONE_NEWUSER)
    if (uids or gids) and "user" not in namespaces.own:
        raise _invalid("user namespace mappings specified, but user namespace isn't enabled in the config")
    if new_user and not (uids and gids):
        raise _invalid("a new user namespace needs uidMappings and gidMappings")
    return (_map_lines(uids), _map_lines(gids)) if new_user else ("", "")


def time_offsets(linux: dict[str, Any], namespaces: Namespaces) -> str:
    """Lines for /proc/PID/timens_offsets. Raises StartError."""
    offsets = linux.get("timeOffsets") or {}
    if offsets and not namespaces.new & ns.CLONE_NEWTIME:
        raise _invalid("time namespace offsets specified, but no new time namespace in the config")
    lines = []
    for clock, offset in offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise _invalid(f'invalid timeOffsets clock "{clock}"')
        lines.append(f"{clock} {int(offset.get('secs') or 0)} {int(offset.get('nanosecs') or 0)}\n")
    return "".join(lines)


def _persona(personality: dict[str, Any] | None) -> int | None:
    if not personality:
        return None
    if personality.get("flags"):
        raise _invalid("linux.personality.flags are not supported by this runtime")
    if personality.get("domain") not in _PERSONAS:
        raise _invalid(f'invalid personality domain "{personality.get("domain")}"')
    return _PERSONAS[personality["domain"]]


def _root(linux: dict[str, Any], root_path: str, rootfs_mounts: list[dict[str, Any]]) -> tuple[Operation, ...]:
    propagation = operations.RootPropagation(_propagation_flags(linux, m.MS_SLAVE | m.MS_REC))
    if not rootfs_mounts:
        return propagation, operations.BindRoot(root_path)
    if len(rootfs_mounts) > 1 or rootfs_mounts[0].get("type") != "overlay":
        raise _invalid("rootfs_mounts takes one overlay")
    (overlay,) = rootfs_mounts
    options = mount_options.parse(overlay.get("options") or ())
    return propagation, operations.OverlayRoot(
        root_path, tuple(overlay["lower"]), overlay.get("upper") or "", overlay.get("work") or "", options.data
    )


def _propagation_flags(linux: dict[str, Any], default: int) -> int:
    word = linux.get("rootfsPropagation") or ""
    if not word:
        return default
    if word not in _ROOT_PROPAGATION:
        raise _invalid(f"rootfsPropagation={word} is not supported")
    return _ROOT_PROPAGATION[word]


def _mounts(
    entries: list[dict[str, Any]], linux: dict[str, Any], namespaces: Namespaces, host: Host, bundle: str
) -> tuple[Operation, ...]:
    result: list[Operation] = []
    cgroup_flag = namespaces.new & ns.CLONE_NEWCGROUP
    entered = False
    own_dev = True
    for index, entry in enumerate(entries):
        destination = os.path.normpath("/" + entry["destination"].lstrip("/"))
        options = mount_options.parse(entry.get("options") or ())
        fstype = entry.get("type") or ""
        if options.bind or fstype == "bind":
            own_dev = own_dev and destination != "/dev"
            source = os.path.join(bundle, entry["source"])
            result.append(operations.Bind(index, destination, source, options._replace(bind=True)))
        elif fstype in ("cgroup", "cgroup2"):
            if not entered:
                result.append(operations.EnterCgroup(cgroup_flag))
                entered = True
            result.append(_cgroup_mount(destination, options, host, "cgroup" in namespaces.own))
        elif not fstype:
            raise _invalid(f"mount at {destination} has neither a type nor the option bind")
        else:
            result.append(operations.Filesystem(destination, fstype, entry.get("source") or "", options))
    if not entered:
        result.append(operations.EnterCgroup(cgroup_flag))
    nodes = _devices(linux.get("devices") or ())
    if own_dev:
        result.append(operations.MakeDevices(devices.merge(nodes), namespaces.user))
        result.append(operations.DeviceLinks(host.kcore))
    elif nodes:
        result.append(operations.MakeDevices(nodes, namespaces.user))
    return tuple(result)


def _cgroup_mount(destination: str, options: mount_options.MountOptions, host: Host, own_namespace: bool) -> Operation:
    hierarchies = host.hierarchies
    if hierarchies.unified and hierarchies.v2:
        return operations.UnifiedCgroupMount(destination, hierarchies.v2, options)
    points: dict[str, list[str]] = {}
    for name, point in hierarchies.v1.items():
        points.setdefault(point, []).append(name)
    rows = [(",".join(sorted(names)), point) for point, names in points.items()]
    return operations.LegacyCgroupMount(destination, tuple(rows), own_namespace, options)


def _devices(entries: list[dict[str, Any]] | tuple[()]) -> tuple[devices.Device, ...]:
    result = []
    for entry in entries:
        path = os.path.normpath(entry["path"])
        if entry["type"] not in ("c", "u", "b", "p") or not path.startswith("/"):
            raise _invalid(f"invalid device {entry['path']!r} of type {entry['type']!r}")
        mode = entry.get("fileMode")
        result.append(
            devices.Device(
                path,
                entry["type"],
                int(entry.get("major") or 0),
                int(entry.get("minor") or 0),
                0o666 if mode is None else int(mode) & 0o7777,
                int(entry.get("uid") or 0),
                int(entry.get("gid") or 0),
            )
        )
    return tuple(result)


def _settings(
    config: dict[str, Any],
    linux: dict[str, Any],
    namespaces: Namespaces,
    entries: list[dict[str, Any]],
    cwd: str,
) -> tuple[Operation, ...]:
    result: list[Operation] = [operations.WorkingDirectory(cwd)]
    if linux.get("rootfsPropagation"):
        result.append(operations.FinalPropagation(_propagation_flags(linux, 0)))
    for entry in entries:
        options = mount_options.parse(entry.get("options") or ())
        filesystem = operations.Filesystem(os.path.normpath(entry["destination"]), entry.get("type") or "", "", options)
        if not options.bind and filesystem.deferred:
            result.append(operations.RemountReadOnly(filesystem.destination))
    if config["root"].get("readonly"):
        result.append(operations.RemountReadOnly("/"))
    result += _names(config, namespaces)
    values = sysctls.plan(linux.get("sysctl") or {}, namespaces.own)
    if values:
        result.append(operations.Sysctls(values))
    result += [operations.ReadOnlyPath(path) for path in linux.get("readonlyPaths") or ()]
    if linux.get("maskedPaths"):
        result.append(operations.MaskPaths(tuple(linux["maskedPaths"])))
    return tuple(result)


def _names(config: dict[str, Any], namespaces: Namespaces) -> list[Operation]:
    hostname, domainname = config.get("hostname") or "", config.get("domainname") or ""
    if not (hostname or domainname):
        return []
    if "uts" not in namespaces.own:
        raise _invalid("unable to set hostname without a private UTS namespace")
    return [operations.Hostname(hostname, domainname)]


def needs_preparation(config: dict[str, Any], namespaces: Namespaces) -> bool:
    """Whether some mounts must be made by the parent, with the host's privileges."""
    return namespaces.user or any(
        entry.get("uidMappings")
        or entry.get("gidMappings")
        or {"idmap", "ridmap"} & set(entry.get("options") or ())
        or shared_memory.names_another(str(entry.get("source")))
        for entry in config.get("mounts") or ()
    )


def _idmaps(entries: list[dict[str, Any]], linux: dict[str, Any]) -> dict[int, tuple[str, str, bool]]:
    """The mounts whose ids are mapped: by mappings of their own, else by those of the container."""
    result = {}
    for index, entry in enumerate(entries):
        options = mount_options.parse(entry.get("options") or ())
        uids, gids = entry.get("uidMappings") or [], entry.get("gidMappings") or []
        if not (options.idmap or uids or gids):
            continue
        uids, gids = uids or linux.get("uidMappings") or [], gids or linux.get("gidMappings") or []
        if not (uids and gids):
            raise _invalid(f"mount at {entry['destination']}: an idmapped mount needs uidMappings and gidMappings")
        if not (options.bind or entry.get("type") == "bind"):
            raise _invalid(f"mount at {entry['destination']}: only bind mounts can be idmapped")
        result[index] = (_map_lines(uids), _map_lines(gids), options.idmap == "ridmap")
    return result
