"""What surrounds a container's process: its directories in both roots, its network and the files that tell of it."""

import os
from typing import TYPE_CHECKING

from wherry.engine import links, mounts
from wherry.engine.joins import Joins
from wherry.engine.model import Container, EndpointSettings, PortBinding
from wherry.engine.ports import expand
from wherry.errors import WherryError
from wherry.network.files import host_resolv_conf, hostname_file, hosts_file, resolv_conf
from wherry.network.model import AttachRequest, Endpoint
from wherry.runtime.cgroups import open_cgroup
from wherry.store.trees import delete_tree

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

NETWORK_PREFIX = "failed to set up container networking: "


def prepare_directories(engine: "Engine", record: Container) -> None:
    """The bundle, a clean work directory, the sources of binds; no exit record of an earlier run."""
    paths = engine.paths
    os.makedirs(paths.rootfs(record.id), mode=0o700, exist_ok=True)
    try:
        os.unlink(paths.exit_record(record.id))
    except FileNotFoundError:
        pass
    work = paths.work(record.id)
    if record.host_config.AutoRemove and os.path.lexists(work / "work"):
        # A volatile overlay refuses a work directory that an earlier mount left (kernel overlayfs.rst).
        delete_tree(work)
        os.mkdir(work, 0o711)
    mounts.prepare_sources(record.mounts)


def remove_bundle(engine: "Engine", container_id: str) -> None:
    """Delete what exec_root holds of a container that does not run; idempotent."""
    bundle = engine.paths.bundle(container_id)
    for name in ("monitor.sock", "config.json"):
        try:
            os.unlink(bundle / name)
        except FileNotFoundError:
            pass
    for directory in (bundle / "rootfs", bundle):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:
            delete_tree(directory)


def kill_leftovers(engine: "Engine", container_id: str) -> None:
    """Kill whatever still runs in the container's cgroup and remove it: for containers nobody watches any more."""
    entry = engine.containers.get(container_id)
    cgroup = open_cgroup(engine.cgroup_path(container_id, entry.record if entry else None))
    cgroup.kill()
    cgroup.remove()


# Network


def attach_network(engine: "Engine", record: Container, joins: Joins) -> Endpoint | None:
    """In a worker thread: make the network namespace, then the files that depend on its addresses."""
    endpoint = None
    if joins.network is None and record.host_config.NetworkMode != "host":
        try:
            endpoint = engine.network.attach(_attach_request(engine, record))
        except WherryError as error:
            text = str(error)
            prefixed = text if text.startswith(NETWORK_PREFIX) else NETWORK_PREFIX + text
            raise type(error)(prefixed) from error
    if joins.network_owner is None:
        _write_files(engine, record, endpoint)
    return endpoint


def _attach_request(engine: "Engine", record: Container) -> AttachRequest:
    host, config = record.host_config, record.config
    mode = "none" if config.NetworkDisabled else host.NetworkMode
    settings = record.networks.get(mode) or EndpointSettings()
    exposed = expand([*(config.ExposedPorts or {}), *(host.PortBindings or {})])
    return AttachRequest(
        container_id=record.id,
        name=record.name,
        network=mode,
        mac=settings.MacAddress or None,
        ipv4=(settings.IPAMConfig.IPv4Address or None) if settings.IPAMConfig else None,
        exposed=exposed,
        bindings=_bindings(record),
        publish_all=host.PublishAllPorts,
    )


def _bindings(record: Container) -> dict[str, list[dict[str, str]]]:
    """PortBindings with every key in the form "80/tcp"; no binding at all means one of the engine's choice."""
    out: dict[str, list[dict[str, str]]] = {}
    for port, bindings in (record.host_config.PortBindings or {}).items():
        for single in expand([port]):
            out[single] = [{"HostIp": b.HostIp, "HostPort": b.HostPort} for b in bindings or [PortBinding()]]
    return out


def name_files(engine: "Engine", record: Container, joins: Joins) -> None:
    """Where the files are: beside the container's data, or those of the container whose network it shares. Its
    hostname is that one's, then."""
    directory = engine.paths.container(record.id)
    owner = joins.network_owner
    if owner:
        record.config.Hostname, record.config.Domainname = owner.config.Hostname, owner.config.Domainname
    record.hostname_path = owner.hostname_path if owner else str(directory / "hostname")
    record.hosts_path = owner.hosts_path if owner else str(directory / "hosts")
    record.resolv_conf_path = owner.resolv_conf_path if owner else str(directory / "resolv.conf")


def _write_files(engine: "Engine", record: Container, endpoint: Endpoint | None) -> None:
    directory = engine.paths.container(record.id)
    config, host, daemon = record.config, record.host_config, engine.config
    on_host = host.NetworkMode == "host"
    source, text = host_resolv_conf()
    files = {
        "hostname": hostname_file(config.Hostname),
        "hosts": hosts_file(
            config.Hostname,
            domainname=config.Domainname,
            addresses=[endpoint.ipv4] if endpoint and endpoint.ipv4 else [],
            extra_hosts=host.ExtraHosts or [],
            links=links.hosts(engine, record),
            host_gateways=[endpoint.gateway] if endpoint and endpoint.gateway else [],
        ),
        "resolv.conf": resolv_conf(
            text,
            source=source,
            dns=host.Dns or daemon.dns,
            search=host.DnsSearch or daemon.dns_search,
            options=host.DnsOptions or daemon.dns_opts,
            host_network=on_host,
        ),
    }
    for name, content in files.items():
        with open(directory / name, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)


def apply_endpoint(record: Container, endpoint: Endpoint) -> None:
    """Show the addresses and ports of a running container in its record."""
    settings = record.networks.setdefault(endpoint.network_name, EndpointSettings())
    settings.NetworkID, settings.EndpointID = endpoint.network_id, endpoint.id
    settings.MacAddress, settings.Gateway = endpoint.mac or "", endpoint.gateway or ""
    settings.IPAddress, settings.IPPrefixLen = endpoint.ipv4 or "", endpoint.prefix or 0
    record.ports = {
        port: None if bound is None else [PortBinding(b["HostIp"], b["HostPort"]) for b in bound]
        for port, bound in endpoint.ports.items()
    }
    record.sandbox_id, record.sandbox_key = endpoint.sandbox_id, endpoint.netns_path


def clear_endpoint(engine: "Engine", record: Container) -> None:
    """Take the addresses out of the record, as a stopped container shows none; tells who listens."""
    for name, settings in record.networks.items():
        if settings.EndpointID:
            engine.publish_network("disconnect", settings.NetworkID, name, record.id)
        asked_mac = settings.MacAddress if name in record.asked_macs else ""
        record.networks[name] = EndpointSettings(
            IPAMConfig=settings.IPAMConfig,
            Links=settings.Links,
            Aliases=settings.Aliases,
            MacAddress=asked_mac,
            DriverOpts=settings.DriverOpts,
            GwPriority=settings.GwPriority,
            NetworkID=settings.NetworkID,
        )
    record.ports, record.sandbox_id, record.sandbox_key = {}, "", ""


def publish_mounts(engine: "Engine", record: Container) -> None:
    for point in record.mounts:
        if point.Type == "volume":
            engine.events.publish(
                "volume",
                "mount",
                point.Name,
                {
                    "container": record.id,
                    "destination": point.Destination,
                    "driver": point.Driver,
                    "propagation": point.Propagation,
                    "read/write": "true" if point.RW else "false",
                },
            )
