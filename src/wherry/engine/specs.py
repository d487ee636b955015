"""The OCI configuration of a container, and its seccomp filter."""

import os
from typing import TYPE_CHECKING, Any

from wherry.engine.containers import Entry
from wherry.engine.joins import Joins, resolve_joins
from wherry.engine.model import Container
from wherry.engine.oci import ContainerSpecInput, build_config
from wherry.errors import WherryError
from wherry.runtime.seccomp import compile_profile

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_INIT_PLACES = ("/usr/bin/docker-init", "/usr/libexec/docker/docker-init", "/usr/bin/tini-static", "/sbin/docker-init")


def oci_config(engine: "Engine", record: Container, joins: Joins) -> dict[str, Any]:
    """The OCI runtime configuration of `record`. Raises what cannot be, in Docker's words."""
    return build_config(spec_input(engine, record, joins))


def spec_input(engine: "Engine", record: Container, joins: Joins) -> ContainerSpecInput:
    """What `build_config` needs to know of a container and of this engine."""
    config, host, paths = record.config, record.host_config, engine.paths
    own_network = joins.network or str(paths.netns_pin(record.id))
    wants_init = engine.config.init if host.Init is None else host.Init
    named = {"pid": joins.pid, "ipc": joins.ipc}
    return ContainerSpecInput(
        id=record.id,
        config=config,
        host_config=host,
        hostname=config.Hostname,
        domainname=config.Domainname,
        env=list(config.Env or []),
        args=[record.path, *record.args],
        cwd=config.WorkingDir or "/",
        user=config.User,
        rootfs=str(paths.bundle(record.id) / "rootfs"),
        mounts=record.mounts,
        netns_path=None if host.NetworkMode == "host" else own_network,
        joins={kind: path for kind, path in named.items() if path},
        hosts_path=record.hosts_path,
        hostname_path=record.hostname_path,
        resolv_conf_path=record.resolv_conf_path,
        cgroups_path=engine.cgroup_path(record.id, record),
        is_v2=engine.cgroup_version == 2,
        init_path=find_init(engine.config.init_path) if wants_init else None,
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


def process_of(engine: "Engine", entry: Entry) -> dict[str, Any]:
    """The OCI process of a running container; made again after a restart of the daemon."""
    if entry.process is None:
        entry.process = oci_config(engine, entry.record, _joins_of_running(engine, entry.record))["process"]
    return entry.process


def _joins_of_running(engine: "Engine", record: Container) -> Joins:
    """The joins only matter for namespaces, which an exec takes from the running process."""
    try:
        return resolve_joins(engine, record)
    except WherryError:
        return Joins()


def find_init(configured: str) -> str:
    """The reaper for `--init`."""
    return configured or next((path for path in _INIT_PLACES if os.access(path, os.X_OK)), "")
