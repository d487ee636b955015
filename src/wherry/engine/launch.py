"""From a record to a running process: the network, the directories and the OCI configuration, then the spawner.

The network is attached in one worker thread while the directories are made in another and the configuration is built
here; whatever fails, everything is undone and the record says why.
"""

import asyncio
import base64
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from wherry.engine import attach, exits, mounts
from wherry.engine.containers import Entry
from wherry.engine.joins import Joins, resolve_joins
from wherry.engine.model import Container, EndpointSettings, PortBinding
from wherry.engine.ports import expand
from wherry.errors import Internal, InvalidArgument, WherryError
from wherry.failpoint import hit
from wherry.network.files import host_resolv_conf, hostname_file, hosts_file, resolv_conf
from wherry.network.model import AttachRequest, Endpoint

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

# Clients and scripts know these words (docker/cli runStartContainerErr; moby daemon/errors.go).
TASK_PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: error during container init: "
)
NETWORK_PREFIX = "failed to set up container networking: "

EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE, EXIT_UNKNOWN = 127, 126, 128

_NOT_FOUND = ("executable file not found", "no such file or directory", "system cannot find the file specified")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error")
_MOUNT_ADVICE = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


class CannotRun(InvalidArgument):
    """The command itself is wrong: 400, and State.ExitCode says how."""

    exit_code = EXIT_UNKNOWN


class CannotStart(Internal):
    """The runtime failed otherwise: 500."""

    exit_code = EXIT_UNKNOWN


async def launch(engine: "Engine", entry: Entry) -> None:
    """Start the container of `entry`, whose lock is held and whose state allows it. Raises with everything undone."""
    record = entry.record
    undo: list[Callable[[], Awaitable[None]]] = []
    try:
        await _launch(engine, entry, undo)
    except BaseException as error:
        for step in reversed(undo):
            await step()
        shown = _shown(error)
        await _failed(engine, entry, shown, error)
        if shown is error:
            raise
        raise shown from error
    engine.save(record)
    hit("engine.start.after_row")
    engine.publish(record, "start")


async def _launch(engine: "Engine", entry: Entry, undo: list[Callable[[], Awaitable[None]]]) -> None:
    record = entry.record
    joins = resolve_joins(engine, record)
    undo.append(lambda: engine.run_blocking(remove_bundle, engine, record.id))
    directories = asyncio.ensure_future(engine.run_blocking(_prepare_directories, engine, record))
    hit("engine.start.before_network")
    undo.append(lambda: engine.run_blocking(engine.network.detach, record.id))
    network = asyncio.ensure_future(engine.run_blocking(_attach_network, engine, record, joins))
    try:
        config = engine.oci_config(record, joins)
        seccomp = engine.seccomp_filter(config)
    finally:
        results = await asyncio.gather(directories, network, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    hit("engine.start.after_network")
    endpoint = results[1]
    _mount_events(engine, record)
    if isinstance(endpoint, Endpoint):
        apply_endpoint(record, endpoint)
        engine.publish_network("connect", endpoint.network_id, endpoint.network_name, record.id)
    undo.append(lambda: _forget_endpoint(engine, record))
    await _spawn(engine, entry, config, seccomp)


async def _spawn(engine: "Engine", entry: Entry, config: dict[str, Any], seccomp: bytes | None) -> None:
    record = entry.record
    hit("engine.start.before_spawn")
    request = spawn_request(engine, record, config, seccomp)
    waiting = attach.take_pending(entry)
    try:
        monitor = await engine.spawner.create(request, [p.attachment for p in waiting], exits.handler(engine, entry))
    except WherryError as error:
        raise _task_error(error) from error
    finally:
        for pending in waiting:
            pending.close()
    entry.monitor, entry.process, entry.seccomp = monitor, config["process"], seccomp
    hit("engine.start.after_spawn")
    state = record.state
    state.status, state.pid, state.exit_code, state.error = "running", monitor.pid, 0, ""
    state.oom_killed, state.started_at, state.finished_at = False, time.time_ns(), state.finished_at
    record.started_before, record.manually_stopped, record.boot_id = True, False, engine.boot_id


def spawn_request(engine: "Engine", record: Container, config: dict[str, Any], seccomp: bytes | None) -> dict[str, Any]:
    """What the spawner must know to run `record` (runtime.client.Spawner.create)."""
    paths, host = engine.paths, record.host_config
    overlay: dict[str, Any] = {
        "type": "overlay",
        "source": "overlay",
        "lower": record.lower_dirs,
        "upper": str(paths.upper(record.id)),
        "work": str(paths.work(record.id)),
        "options": ["volatile"] if host.AutoRemove else [],
    }
    height, width = host.ConsoleSize
    return {
        "id": record.id,
        "bundle": str(paths.bundle(record.id)),
        "config": config,
        "rootfs_mounts": [overlay],
        "seccomp_filter": base64.b64encode(seccomp).decode("ascii") if seccomp else None,
        "stdio": {
            "tty": record.config.Tty,
            "open_stdin": record.config.OpenStdin,
            "stdin_once": record.config.StdinOnce,
        },
        "log": engine.log_settings(record),
        "socket": str(paths.monitor_socket(record.id)),
        "exit_record": str(paths.exit_record(record.id)),
        "console_size": [height, width] if height and width else None,
        "start": True,
    }


# Directories


def _prepare_directories(engine: "Engine", record: Container) -> None:
    """The bundle, a clean work directory, the sources of binds; no exit record of an earlier run."""
    paths = engine.paths
    os.makedirs(paths.bundle(record.id) / "rootfs", mode=0o700, exist_ok=True)
    try:
        os.unlink(paths.exit_record(record.id))
    except FileNotFoundError:
        pass
    work = paths.work(record.id)
    if record.host_config.AutoRemove and os.path.lexists(work / "work"):
        # A volatile overlay refuses a work directory that an earlier mount left (kernel overlayfs.rst).
        shutil.rmtree(work)
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
            shutil.rmtree(directory, ignore_errors=True)


# Network


def _attach_network(engine: "Engine", record: Container, joins: Joins) -> Endpoint | None:
    """In a worker thread: make the network namespace, then the files that depend on its addresses."""
    endpoint = None
    if joins.network is None and record.host_config.NetworkMode != "host":
        try:
            endpoint = engine.network.attach(_attach_request(engine, record))
        except WherryError as error:
            text = str(error)
            prefixed = text if text.startswith(NETWORK_PREFIX) else NETWORK_PREFIX + text
            raise type(error)(prefixed) from error
    if joins.network_owner is not None:
        owner = joins.network_owner
        record.hosts_path, record.hostname_path = owner.hosts_path, owner.hostname_path
        record.resolv_conf_path = owner.resolv_conf_path
    else:
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
    record.hostname_path = str(directory / "hostname")
    record.hosts_path = str(directory / "hosts")
    record.resolv_conf_path = str(directory / "resolv.conf")


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


async def _forget_endpoint(engine: "Engine", record: Container) -> None:
    clear_endpoint(engine, record)


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


def _mount_events(engine: "Engine", record: Container) -> None:
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


# Errors


def _task_error(error: WherryError) -> WherryError:
    """The runtime's refusal with the status and exit code Docker derives from its text (setExitCodeFromError)."""
    text = str(error)
    if text.startswith("unable to find "):
        return _failure("Internal", text, EXIT_UNKNOWN)
    full = text if text.startswith("failed to create task") else TASK_PREFIX + text
    lower = text.lower()
    if any(words in lower for words in _NOT_FOUND):
        return _failure("InvalidArgument", full, EXIT_NOT_FOUND)
    if any(words in lower for words in _NOT_EXECUTABLE):
        return _failure("InvalidArgument", full, EXIT_NOT_EXECUTABLE)
    if "not a directory" in lower:
        return _failure("InvalidArgument", full + _MOUNT_ADVICE, EXIT_NOT_FOUND)
    return _failure("Internal", full, EXIT_UNKNOWN)


def _failure(kind: str, text: str, exit_code: int) -> WherryError:
    error = CannotRun(text) if kind == "InvalidArgument" else CannotStart(text)
    error.exit_code = exit_code
    return error


def _shown(error: BaseException) -> BaseException:
    """What the client sees: errors of the operating system become `Internal`."""
    if isinstance(error, OSError):
        return Internal(f"{error.filename or ''}: {(error.strerror or str(error)).lower()}".removeprefix(": "))
    return error


async def _failed(engine: "Engine", entry: Entry, shown: BaseException, error: BaseException) -> None:
    state = entry.record.state
    if entry.status != "restarting":
        state.status = "created" if not entry.record.started_before else "exited"
    state.error = str(shown)
    state.exit_code = getattr(error, "exit_code", EXIT_UNKNOWN)
