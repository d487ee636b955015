"""Containers on the wire: definitions ContainerSummary, ContainerInspectResponse, ContainerState, Port."""

import os
from collections.abc import Sequence
from typing import Any

from wherry.api.times import rfc3339
from wherry.api.versions import Version
from wherry.engine.model import Container, EndpointSettings, HealthResult, State, to_wire
from wherry.engine.status import status_text
from wherry.engine.usage import Sizes

_BUILTIN_NETWORKS = frozenset({"bridge", "host", "none", "default"})


# -- lists


def summary(record: Container, image: str, sizes: Sizes | None, aliases: Sequence[str] = ()) -> dict[str, Any]:
    """One entry of GET /containers/json; `image` is what to show for the image (its name, or its id once the name
    means another one); `aliases` are the names that legacy links give."""
    entry: dict[str, Any] = {
        "Id": record.id,
        "Names": sorted(["/" + record.name, *aliases]),
        "Image": image,
        "ImageID": record.image_id,
        "Command": _command(record),
        "Created": record.created // 1_000_000_000,
        "Ports": list_ports(record),
    }
    if sizes is not None:
        entry |= _sizes(sizes, always=False)
    return entry | {
        "Labels": record.config.Labels or {},
        "State": record.state.status,
        "Status": status_text(record.state),
        "HostConfig": _host_config_summary(record),
        "NetworkSettings": {"Networks": _networks(record)},
        "Mounts": _mounts(record),
    }


def _host_config_summary(record: Container) -> dict[str, Any]:
    shown: dict[str, Any] = {"NetworkMode": record.host_config.NetworkMode}
    if record.host_config.Annotations:
        shown["Annotations"] = record.host_config.Annotations
    return shown


def _command(record: Container) -> str:
    """The path and its arguments; those with spaces are quoted, for the eye alone."""
    arguments = (f"'{argument}'" if " " in argument else argument for argument in record.args)
    return " ".join([record.path, *arguments])


def list_ports(record: Container) -> list[dict[str, Any]]:
    """Port entries of a list: one per binding, one without public port per port that is only exposed."""
    ports: list[dict[str, Any]] = []
    for key, bindings in sorted(record.ports.items(), key=_port_order):
        number, _, protocol = key.partition("/")
        private = {"PrivatePort": int(number), "Type": protocol or "tcp"}
        if not bindings:
            ports.append(private)
        for binding in bindings or ():
            public = {"IP": binding.HostIp, "PrivatePort": int(number), "PublicPort": int(binding.HostPort or 0)}
            ports.append(public | {"Type": protocol or "tcp"})
    return ports


def _port_order(item: tuple[str, Any]) -> tuple[int, str]:
    number, _, protocol = item[0].partition("/")
    return int(number), protocol


# -- inspect


def inspect(
    record: Container, *, exec_ids: list[str], version: Version, data_dir: str, rootfs: str, sizes: Sizes | None
) -> dict[str, Any]:
    """GET /containers/{id}/json. `data_dir` holds the container's own layer, `rootfs` is where it is mounted."""
    shown: dict[str, Any] = {
        "Id": record.id,
        "Created": rfc3339(record.created),
        "Path": record.path,
        "Args": record.args,
        "State": state(record.state),
        "Image": record.image_id,
        "ResolvConfPath": record.resolv_conf_path,
        "HostnamePath": record.hostname_path,
        "HostsPath": record.hosts_path,
        "LogPath": record.log_path if record.host_config.LogConfig.Type in ("json-file", "local") else "",
        "Name": "/" + record.name,
        "RestartCount": record.restart_count,
        "Driver": record.driver,
        "Platform": record.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids or None,
        "HostConfig": to_wire(record.host_config),
        "GraphDriver": {"Data": _graph_driver(record, data_dir, rootfs), "Name": record.driver},
    }
    if sizes is not None:
        shown |= _sizes(sizes, always=True)
    return shown | {
        "Mounts": _mounts(record),
        "Config": _config(record),
        "NetworkSettings": _network_settings(record, version),
    }


def _config(record: Container) -> dict[str, Any]:
    """The configuration; the address asked for on the main network is shown in it, as of old."""
    mac = record.asked_macs.get(record.host_config.NetworkMode, "")
    shown: dict[str, Any] = to_wire(record.config)
    return shown | {"MacAddress": mac} if mac else shown


def state(state: State) -> dict[str, Any]:
    """Definition ContainerState."""
    shown: dict[str, Any] = {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_at),
        "FinishedAt": rfc3339(state.finished_at),
    }
    if state.stop_reason:
        shown["StopReason"] = state.stop_reason
    if state.health is not None:
        shown["Health"] = {
            "Status": state.health.status,
            "FailingStreak": state.health.failing_streak,
            "Log": [_health_result(result) for result in state.health.log],
        }
    return shown


def _health_result(result: HealthResult) -> dict[str, Any]:
    times = {"Start": rfc3339(result.start), "End": rfc3339(result.end)}
    return times | {"ExitCode": result.exit_code, "Output": result.output}


def _graph_driver(record: Container, data_dir: str, rootfs: str) -> dict[str, str] | None:
    if record.driver == "vfs":
        return None
    return {
        "ID": record.id,
        "LowerDir": ":".join(record.lower_dirs),
        "MergedDir": rootfs,
        "UpperDir": os.path.join(data_dir, "upper"),
        "WorkDir": os.path.join(data_dir, "work"),
    }


def _network_settings(record: Container, version: Version) -> dict[str, Any]:
    networks = _networks(record)
    default = networks.get("bridge") or to_wire(EndpointSettings())
    shown = {
        "Bridge": "",
        "SandboxID": record.sandbox_id,
        "SandboxKey": record.sandbox_key,
        "Ports": {port: to_wire(bindings) for port, bindings in record.ports.items()},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
    }
    for key in (
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ):
        shown[key] = default[key]
    if version < (1, 45):
        _add_short_id_alias(record, networks)
    return shown | {"Networks": networks}


def _add_short_id_alias(record: Container, networks: dict[str, Any]) -> None:
    """Before API 1.45 the short id was among the aliases in every network of a user's own."""
    for name, endpoint in networks.items():
        if name not in _BUILTIN_NETWORKS:
            aliases = [*(endpoint["Aliases"] or ()), record.id[:12]]
            endpoint["Aliases"] = list(dict.fromkeys(aliases))


def _networks(record: Container) -> dict[str, Any]:
    return {name: to_wire(endpoint) for name, endpoint in record.networks.items()}


def _mounts(record: Container) -> list[dict[str, Any]]:
    mounts = [to_wire(mount) for mount in record.mounts]
    for mount in mounts:
        mount.pop("Spec", None)
    return mounts


def _sizes(sizes: Sizes, *, always: bool) -> dict[str, int]:
    """Lists leave a zero out, inspect does not."""
    pairs = {"SizeRw": sizes.writable, "SizeRootFs": sizes.root_fs}
    return {name: size for name, size in pairs.items() if always or size}
