"""The OCI configuration of a container, and its seccomp filter."""

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from wherry.engine import links, storage
from wherry.engine.containers import Entry
from wherry.engine.joins import Joins, resolve_joins
from wherry.engine.model import Container, ExecConfig, MountPoint
from wherry.engine.oci import ContainerSpecInput, build_config, exec_process
from wherry.engine.oci.input import kernel_version
from wherry.errors import InvalidArgument, WherryError
from wherry.linux import caps
from wherry.runtime import reaper
from wherry.runtime.seccomp import compile_profile

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


def oci_config(engine: "Engine", record: Container, joins: Joins, points: list[MountPoint]) -> dict[str, Any]:
    """The OCI runtime configuration of `record`, whose mounts are at `points` now. Raises what cannot be, in Docker's
    words."""
    return build_config(replace(_spec_input(engine, record, joins), mounts=points))


def _spec_input(engine: "Engine", record: Container, joins: Joins) -> ContainerSpecInput:
    """What `build_config` needs to know of a container and of this engine."""
    config, host, paths, daemon = record.config, record.host_config, engine.paths, engine.config
    wants_init = daemon.init if host.Init is None else host.Init
    named = {"pid": joins.pid, "ipc": joins.ipc}
    return ContainerSpecInput(
        id=record.id,
        config=config,
        host_config=host,
        hostname=config.Hostname,
        domainname=config.Domainname,
        env=[*links.environment(engine, record), *(config.Env or [])],
        args=[record.path, *record.args],
        cwd=config.WorkingDir,
        user=config.User,
        root_path=storage.root_path(engine, record),
        mounts=record.mounts,
        netns_path=joins.network or str(paths.netns_pin(record.id)),
        joins={kind: path for kind, path in named.items() if path},
        hosts_path=record.hosts_path,
        hostname_path=record.hostname_path,
        resolv_conf_path=record.resolv_conf_path,
        shm_path=joins.shared_memory or "",
        cgroup_parent=daemon.cgroup_parent,
        cgroup_v2=engine.cgroup_version == 2,
        init_path=(daemon.init_path or reaper.path()) if wants_init else None,
        data_root=str(paths.data_root),
        cdi_spec_dirs=daemon.cdi_spec_dirs,
        bounding=engine.host.capabilities,
        default_ulimits=daemon.default_ulimits,
        no_new_privileges=daemon.no_new_privileges,
        seccomp_profile=engine.host.seccomp_profile,
        apparmor_profiles=engine.host.apparmor_profiles,
        selinux=engine.host.selinux,
        machine=engine.host.machine,
        kernel=engine.host.kernel,
    )


def seccomp_filter(config: dict[str, Any]) -> bytes | None:
    """The compiled filter of an OCI configuration, out of a cache; None when it has none. The profile is taken out of
    `config`: compiled, it need not travel."""
    linux = config.get("linux") or {}
    profile = linux.pop("seccomp", None)
    if profile is None:
        return None
    if "flags" in profile:
        linux["seccomp"] = {"flags": profile["flags"]}
    return compile_profile(profile)


def exec_config(engine: "Engine", entry: Entry, config: ExecConfig) -> dict[str, Any]:
    """The OCI process of an exec in a running container."""
    container = _spec_input(engine, entry.record, _joins_of_running(engine, entry.record))
    # The daemon was started after the container, or linked ones may have other addresses by now.
    if entry.process is None or entry.record.links:
        entry.process = build_config(container)["process"]
    return exec_process(
        container,
        entry.process,
        args=config.Cmd or [],
        env=config.Env or [],
        cwd=config.WorkingDir,
        user=config.User,
        tty=config.Tty,
        privileged=config.Privileged,
    )


def _joins_of_running(engine: "Engine", record: Container) -> Joins:
    """The joins only matter for namespaces, which an exec takes from the running process."""
    try:
        return resolve_joins(engine, record)
    except WherryError:
        return Joins()


class HostFacts(NamedTuple):
    """What is true of this host as long as the engine runs."""

    capabilities: list[str]
    machine: str
    kernel: tuple[int, int]
    seccomp_profile: str
    apparmor_profiles: frozenset[str] | None
    selinux: bool


def host_facts(seccomp_profile: str) -> HostFacts:
    """Look at the host; `seccomp_profile` is the daemon's option. Raises `InvalidArgument` when that cannot be read."""
    uname = os.uname()
    return HostFacts(
        caps.names(caps.bounding()),
        uname.machine,
        kernel_version(uname.release),
        profile_text(seccomp_profile),
        _apparmor_profiles(),
        os.path.exists("/sys/fs/selinux/enforce"),
    )


def profile_text(option: str) -> str:
    """The seccomp profile that the daemon's option names. Raises InvalidArgument when it can't be read."""
    if option in ("", "builtin", "unconfined"):
        return option
    try:
        with open(option, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"opening seccomp profile ({option}) failed: {error}") from None


def _apparmor_profiles() -> frozenset[str] | None:
    try:
        with open("/sys/kernel/security/apparmor/profiles", encoding="utf-8") as file:
            return frozenset(line.rpartition(" (")[0] for line in file)
    except OSError:
        return None
