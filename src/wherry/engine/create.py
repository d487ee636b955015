"""Create: check, merge with the image, make the directory, then the row that names it.

A crash before the row leaves a directory that the next start throws away; after it the container is complete. Nothing
is waited for between the check of a name and its reservation, so of many creates of one name exactly one succeeds.
"""

import os
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine import defaults, links, mounts, names, populate, storage
from wherry.engine.containers import meta_document
from wherry.engine.limits import check_limits
from wherry.engine.model import (
    Container,
    ContainerConfig,
    EndpointSettings,
    HostConfig,
    NetworkingConfig,
    from_wire,
    to_wire,
)
from wherry.engine.oci import confine_without_devices
from wherry.engine.validate import check_config, check_host_config
from wherry.errors import InvalidArgument, NotFound
from wherry.failpoint import hit
from wherry.images import platforms
from wherry.images.config_merge import merge
from wherry.images.oci import Platform
from wherry.images.store import Image
from wherry.network.endpoints import parse_mac
from wherry.store.atomic import write_file
from wherry.store.trees import delete_tree

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_IP_PROBLEMS = (
    "user specified IP address is supported on user defined networks only",
    "user specified IP address is supported only when connecting to networks with user configured subnets",
)

# What the engine tells of an endpoint: a client that sends back what it was told asks for nothing.
_REPORTED = (
    *("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen"),
    *("IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames"),
)


class CreateResult(NamedTuple):
    """The new container's id, and what the client should be told."""

    id: str
    warnings: list[str]


async def create(
    engine: "Engine",
    *,
    name: str | None,
    config: ContainerConfig,
    host_config: HostConfig,
    networking: NetworkingConfig | None = None,
    platform: str | None = None,
) -> CreateResult:
    """Make a container. `name` None or "" gives a generated one; `platform` is "os[/arch[/variant]]".

    Raises `InvalidArgument` for what cannot be, `NotFound` ("No such image: ...") and `Conflict` (name taken). The
    structs given are kept and completed. POST /containers/create.
    """
    return await engine.to_the_end(_create(engine, name, config, host_config, networking, platform))


async def _create(
    engine: "Engine",
    name: str | None,
    config: ContainerConfig,
    host: HostConfig,
    networking: NetworkingConfig | None,
    platform: str | None,
) -> CreateResult:
    check_config(config)
    warnings = check_host_config(config, host, engine.config, engine.host.capabilities)
    warnings += check_limits(host, engine.limits)
    confine_without_devices(host, engine.limits)
    networks = _networks(config, host, networking)
    image = await engine.run_blocking(_find_image, engine, config.Image, platform) if config.Image else None
    config = _merged(config, image)
    _join_targets(engine, host)
    linked = links.resolve(engine, host)
    container_id = secrets.token_hex(32)
    _fill_defaults(engine, config, host, container_id)
    roots = (str(engine.paths.data_root), str(engine.paths.exec_root))
    points = mounts.plan(config, host, engine.containers, roots)
    words = [*(config.Entrypoint or []), *(config.Cmd or [])]
    name = engine.containers.reserve_name(name or names.generate(engine.containers.name_taken), container_id)
    host.Links = links.show(engine, name, linked)
    record = Container(
        id=container_id,
        name=name,
        created=time.time_ns(),
        image_id=image.id if image else "",
        path=words[0],
        args=words[1:],
        config=config,
        host_config=host,
        networks=networks,
        asked_macs={name: n.MacAddress for name, n in networks.items() if n.MacAddress},
        mounts=points,
        links=linked,
        driver=engine.images.driver.name,
    )
    await _make(engine, record, image)
    return CreateResult(container_id, warnings)


async def _make(engine: "Engine", record: Container, image: Image | None) -> None:
    """Directory, volumes, row, event; undone whole on failure."""
    made: list[str] = []
    filling = populate.Filling([], [])
    try:
        hit("engine.create.before_directory")
        await engine.run_blocking(_make_directories, engine, record, image)
        hit("engine.create.after_directory")
        if any(mounts.copies(point) for point in record.mounts):
            await engine.run_blocking(populate.stage, engine, record, filling)
        with engine.db.transaction():
            mounts.realise(engine, record.mounts, made)
            populate.place(filling)
            hit("engine.create.before_row")
            engine.containers.insert(record)
        engine.containers.add(record)
    except BaseException:
        engine.containers.release_name(record.name, record.id)
        mounts.undo(engine, made)
        try:
            await engine.run_blocking(populate.undo, engine, filling)
        finally:
            await engine.run_blocking(delete_tree, engine.paths.container(record.id))
            await engine.run_blocking(engine.images.let_go, record.lower_dirs)
        raise
    if filling.staged:
        await engine.run_blocking(populate.drop, filling)
    hit("engine.create.after_row")
    for volume in (*filling.made, *made):
        engine.events.publish("volume", "create", volume, {"driver": "local"})
    engine.publish(record, "create")
    engine.background(write_meta(engine, record))


def _make_directories(engine: "Engine", record: Container, image: Image | None) -> None:
    record.lower_dirs = engine.images.hold(image) if image else []
    os.mkdir(engine.paths.container(record.id), 0o710)
    storage.make_directories(engine, record)


async def write_meta(engine: "Engine", record: Container) -> None:
    """Keep the copy of the record beside the container's data (for recovery when the database is lost). It waits for no
    disk: it would hold up the commits that must."""
    path, document = engine.paths.meta(record.id), meta_document(record)
    try:
        await engine.run_blocking(lambda: write_file(path, document, durable=False))
    except FileNotFoundError:
        return  # removed meanwhile


def _find_image(engine: "Engine", ref: str, platform: str | None) -> Image:
    image = engine.images.resolve(ref)
    if not platform:
        return image
    wanted, actual = platforms.parse(platform), Platform(image.architecture, image.os, image.variant)
    if actual.architecture != wanted.architecture or not platforms.runs_on(actual, wanted):
        raise NotFound(
            f"image with reference {ref} was found but its platform ({actual}) does not match the specified platform "
            f"({wanted})"
        )
    return image


def _merged(config: ContainerConfig, image: Image | None) -> ContainerConfig:
    """The image's settings where the client gave none; raises when there is still no command."""
    if image is not None:
        config = from_wire(ContainerConfig, merge(to_wire(config), image.config))
    if config.Entrypoint == [""]:
        config.Entrypoint = None
    if not config.Entrypoint and not config.Cmd:
        raise InvalidArgument("no command specified")
    check_config(config)
    return config


def _join_targets(engine: "Engine", host: HostConfig) -> None:
    """`container:NAME` of the namespaces that Docker looks up at create becomes `container:ID`."""
    for field in ("PidMode", "IpcMode"):
        mode = getattr(host, field)
        if mode.startswith("container:"):
            try:
                setattr(host, field, f"container:{engine.containers.lookup(mode.partition(':')[2]).id}")
            except NotFound as error:
                raise InvalidArgument(str(error)) from None
    if host.NetworkMode.startswith("container:"):
        try:
            host.NetworkMode = f"container:{engine.containers.lookup(host.NetworkMode.partition(':')[2]).id}"
        except NotFound:
            return  # Docker finds out at start


def _networks(
    config: ContainerConfig, host: HostConfig, networking: NetworkingConfig | None
) -> dict[str, EndpointSettings]:
    """The endpoints asked for, by network name; settles NetworkMode. Raises Docker's refusals for the bridge."""
    if host.NetworkMode in ("", "default"):
        host.NetworkMode = "bridge"
    asked = dict((networking.EndpointsConfig if networking else None) or {})
    for name, settings in asked.items():
        if settings is None:
            raise InvalidArgument(f"invalid config for network {name}: EndpointsConfig is nil")
    if "default" in asked:
        asked.setdefault("bridge", asked.pop("default"))
    if config.NetworkDisabled or host.NetworkMode.startswith("container:"):
        return {}
    endpoints = {name: settings for name, settings in asked.items() if settings is not None}
    endpoints.setdefault(host.NetworkMode, EndpointSettings())
    for name, settings in endpoints.items():
        _check_endpoint(name, settings)
    return endpoints


def _check_endpoint(name: str, settings: EndpointSettings) -> None:
    if settings.MacAddress:
        try:
            settings.MacAddress = parse_mac(settings.MacAddress)
        except InvalidArgument:
            raise InvalidArgument(
                f"invalid config for network {name}: invalid MAC address {settings.MacAddress}"
            ) from None
    for field in _REPORTED:
        setattr(settings, field, getattr(EndpointSettings(), field))
    if name not in ("bridge", "host", "none"):
        return
    problems = []
    for asked, what in (
        (settings.Links, "links"),
        (settings.DriverOpts, "driver options"),
        (settings.IPAMConfig and settings.IPAMConfig.LinkLocalIPs, "link-local addresses"),
    ):
        if asked:
            problems.append(f"{what} are supported on user-defined networks only")
    if settings.IPAMConfig and (settings.IPAMConfig.IPv4Address or settings.IPAMConfig.IPv6Address):
        problems += [f"* {text}" for text in _IP_PROBLEMS]
    if settings.Aliases:
        problems.append("network-scoped alias is supported only for containers in user defined networks")
    if problems:
        raise InvalidArgument(f"invalid config for network {name}: invalid endpoint settings:\n" + "\n".join(problems))


def _fill_defaults(engine: "Engine", config: ContainerConfig, host: HostConfig, container_id: str) -> None:
    """What Docker completes at create, so that inspect shows it (adaptContainerSettings)."""
    if not config.Hostname:
        on_host = host.NetworkMode == "host" or host.UTSMode == "host"
        config.Hostname = os.uname().nodename if on_host else container_id[:12]
    config.Labels = config.Labels or {}
    host.RestartPolicy.Name = host.RestartPolicy.Name or "no"
    if not host.LogConfig.Type:
        host.LogConfig.Type = engine.config.log_driver
        host.LogConfig.Config = engine.config.log_opts | (host.LogConfig.Config or {})
    host.LogConfig.Config = host.LogConfig.Config or {}
    host.Runtime = host.Runtime or engine.config.default_runtime
    host.ShmSize = host.ShmSize or engine.config.default_shm_size
    host.IpcMode = host.IpcMode or "private"
    if not host.CgroupnsMode:
        host.CgroupnsMode = "private" if engine.cgroup_version == 2 and not host.Privileged else "host"
    if host.Privileged or host.PidMode == "host" or host.IpcMode == "host":
        host.SecurityOpt = host.SecurityOpt or ["label=disable"]
    if host.Memory and not host.MemorySwap:
        host.MemorySwap = host.Memory * 2
    if host.MaskedPaths is None and not host.Privileged:
        host.MaskedPaths = list(defaults.masked_paths())
    if host.ReadonlyPaths is None and not host.Privileged:
        host.ReadonlyPaths = list(defaults.READONLY_PATHS)
    if host.OomKillDisable is None and engine.limits.oom_kill_disable:
        host.OomKillDisable = False
    if host.PidsLimit is not None and host.PidsLimit <= 0:
        host.PidsLimit = None
    if host.MemorySwappiness == -1:
        host.MemorySwappiness = None
