"""The OCI configuration put together from its parts."""

import posixpath
from typing import Any

from wherry.engine import defaults
from wherry.engine.oci import cdi
from wherry.engine.oci.devices import devices_of
from wherry.engine.oci.input import ContainerSpecInput
from wherry.engine.oci.mounts import mounts_of
from wherry.engine.oci.namespaces import namespaces_of, owns
from wherry.engine.oci.resources import resources_of
from wherry.engine.oci.security import apparmor_profile, check_labels, no_new_privileges, seccomp_of
from wherry.errors import InvalidArgument

OCI_VERSION = "1.2.1"
INIT_INSIDE = "/sbin/docker-init"


def build_config(container: ContainerSpecInput) -> dict[str, Any]:
    """The OCI runtime configuration of `container`. Raises InvalidArgument, in Docker's words, for what cannot be."""
    check_labels(container)
    mounts, propagation = mounts_of(container)
    config: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": _process(container),
        "root": _root(container),
        "mounts": mounts,
        "linux": _linux(container, propagation),
    }
    if owns(container, "uts"):
        config["hostname"] = container.hostname
    if container.host_config.Annotations:
        config["annotations"] = dict(container.host_config.Annotations)
    cdi.inject(config, cdi.requested(container.host_config.DeviceRequests or ()), container.cdi_spec_dirs)
    return config


def _root(container: ContainerSpecInput) -> dict[str, Any]:
    root: dict[str, Any] = {"path": container.root_path}
    if container.host_config.ReadonlyRootfs:
        root["readonly"] = True
    return root


def _process(container: ContainerSpecInput) -> dict[str, Any]:
    host = container.host_config
    capabilities = defaults.tweak_capabilities(
        host.CapAdd, host.CapDrop, privileged=host.Privileged, bounding=container.bounding
    )
    process: dict[str, Any] = {
        "user": _user(container),
        "args": _args(container),
        "env": environment(container.config.Tty, container.hostname, container.env),
        "cwd": container.cwd or "/",
        # Inheritable and ambient stay empty: CVE-2022-24769.
        "capabilities": {name: list(capabilities) for name in ("bounding", "effective", "permitted")},
        "oomScoreAdj": host.OomScoreAdj,
    }
    if container.config.Tty:
        process["terminal"] = True
    if limits := _rlimits(container):
        process["rlimits"] = limits
    if no_new_privileges(container):
        process["noNewPrivileges"] = True
    if profile := apparmor_profile(container):
        process["apparmorProfile"] = profile
    return process


def _user(container: ContainerSpecInput) -> dict[str, Any]:
    # Root too is looked up, by number: /etc/group may list it in further groups.
    user: dict[str, Any] = {"uid": 0, "gid": 0, "username": container.user or "0"}
    if container.host_config.GroupAdd:
        user["groupAdd"] = list(container.host_config.GroupAdd)
    return user


def _args(container: ContainerSpecInput) -> list[str]:
    if has_init(container):
        return [INIT_INSIDE, "--", *container.args]
    return list(container.args)


def has_init(container: ContainerSpecInput) -> bool:
    """--init only makes sense for process 1 of a pid namespace. Raises InvalidArgument when no reaper was found."""
    if container.init_path == "":
        raise InvalidArgument('exec: "docker-init": executable file not found in $PATH')
    return container.init_path is not None and owns(container, "pid")


def environment(tty: bool, hostname: str, given: list[str]) -> list[str]:
    """PATH, HOSTNAME and TERM, replaced and followed by what is `given`; an entry without "=" removes the variable."""
    result = [f"PATH={defaults.PATH}", f"HOSTNAME={hostname}"]
    if tty:
        result.append("TERM=xterm")
    places = {entry.partition("=")[0]: index for index, entry in enumerate(result)}
    removed = set()
    for entry in given:
        name, equals, _ = entry.partition("=")
        if not equals:
            removed.add(name)
        elif name in places:
            result[places[name]] = entry
            removed.discard(name)
        else:
            places[name] = len(result)
            result.append(entry)
    return [entry for entry in result if entry.partition("=")[0] not in removed]


def _rlimits(container: ContainerSpecInput) -> list[dict[str, Any]]:
    limits = list(container.host_config.Ulimits or ())
    names = {limit.Name for limit in limits}
    limits += [limit for name, limit in container.default_ulimits.items() if name not in names]
    return [
        {"type": f"RLIMIT_{limit.Name.upper()}", "soft": _unsigned(limit.Soft), "hard": _unsigned(limit.Hard)}
        for limit in limits
    ]


def _unsigned(value: int) -> int:
    """-1 is unlimited, which OCI writes as the largest number."""
    return value & (2**64 - 1)


def _linux(container: ContainerSpecInput, propagation: str) -> dict[str, Any]:
    host = container.host_config
    nodes, rules = devices_of(host)
    resources = resources_of(host)
    resources["devices"] = rules
    linux: dict[str, Any] = {
        "sysctl": _sysctls(container),
        "resources": resources,
        "cgroupsPath": cgroups_path(container),
        "namespaces": namespaces_of(container),
    }
    if nodes:
        linux["devices"] = nodes
    if profile := seccomp_of(container):
        linux["seccomp"] = profile
    masked = host.MaskedPaths if host.MaskedPaths is not None or host.Privileged else defaults.masked_paths()
    readonly = host.ReadonlyPaths if host.ReadonlyPaths is not None or host.Privileged else defaults.READONLY_PATHS
    if masked:
        linux["maskedPaths"] = list(masked)
    if readonly:
        linux["readonlyPaths"] = list(readonly)
    if propagation:
        linux["rootfsPropagation"] = propagation
    return linux


def cgroups_path(container: ContainerSpecInput) -> str:
    """The cgroup of the container, from the root of the hierarchies."""
    return cgroup_path(container.host_config.CgroupParent or container.cgroup_parent, container.id)


def cgroup_path(parent: str, container_id: str) -> str:
    """Below `parent` ("" for the engine's own), which cannot lead out of the hierarchies."""
    return posixpath.normpath(f"/{(parent or '/wherry').lstrip('/')}/{container_id}")


def _sysctls(container: ContainerSpecInput) -> dict[str, str]:
    sysctls = {}
    # A namespace of the container's own, not one that others configured.
    if owns(container, "network"):
        sysctls["net.ipv4.ip_unprivileged_port_start"] = "0"
        if "user" not in container.joins:
            sysctls["net.ipv4.ping_group_range"] = "0 2147483647"
    if container.domainname and owns(container, "uts"):
        # OCI has a field for it since 1.1, but not every runtime heeds it.
        sysctls["kernel.domainname"] = container.domainname
    return sysctls | (container.host_config.Sysctls or {})
