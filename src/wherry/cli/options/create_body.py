"""The body of POST /containers/create, made of the flags of `run` and `create`.

Checks come in the order of Docker's CLI, so that of several mistakes the same one is reported.
"""

from __future__ import annotations

from wherry.cli.errors import StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed


# EndpointSettings as Docker's client sends it when nothing is asked for.
EMPTY_ENDPOINT: dict[str, Any] = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": None,
    "MacAddress": "",
    "DriverOpts": None,
    "GwPriority": 0,
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}


def _refuse(text: str) -> StatusError:
    return StatusError(text, 125)


def build(parsed: Parsed, image: str, command: list[str], proxies: dict[str, str]) -> dict[str, Any]:
    """The request body; `proxies` are variables for the container unless given. Raises StatusError(…, 125) with the
    bare reason."""
    streams = parsed["attach"]
    if parsed["mac-address"]:
        from wherry.cli.options.networks import is_mac

        if not is_mac(parsed["mac-address"]):
            raise _refuse(f"{parsed['mac-address']} is not a valid mac address")
    swappiness = parsed["memory-swappiness"]
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise _refuse(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    binds, volumes = _volumes(parsed["volume"])
    exposed, bindings = _ports(parsed)
    mappings, requests = _devices(parsed)
    environment, labels = _key_values(parsed, proxies)
    host = _host_config(parsed, binds, bindings, mappings, requests)
    interactive = parsed["interactive"]
    attach_stdin = interactive or "stdin" in streams
    body: dict[str, Any] = {
        "Hostname": parsed["hostname"],
        "Domainname": parsed["domainname"],
        "User": parsed["user"],
        "AttachStdin": attach_stdin,
        "AttachStdout": not streams or "stdout" in streams,
        "AttachStderr": not streams or "stderr" in streams,
        **({"ExposedPorts": exposed} if exposed else {}),
        "Tty": parsed["tty"],
        "OpenStdin": interactive,
        "StdinOnce": interactive and attach_stdin,
        "Env": environment or None,
        "Cmd": command or None,
        "Image": image,
        "Volumes": volumes,
        "WorkingDir": parsed["workdir"],
        "Entrypoint": [parsed["entrypoint"]] if "entrypoint" in parsed.changed else None,
        "OnBuild": None,
        "Labels": labels,
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": _endpoints(parsed)},
    }
    if health := _healthcheck(parsed):
        body["Healthcheck"] = health
    if "stop-signal" in parsed.changed:
        body["StopSignal"] = parsed["stop-signal"]
    if "stop-timeout" in parsed.changed:
        body["StopTimeout"] = parsed["stop-timeout"]
    return body


def _volumes(specs: list[str]) -> tuple[list[str] | None, dict[str, Any]]:
    if not specs:
        return None, {}
    from wherry.cli.options.mounts import split_volumes

    binds, volumes = split_volumes(specs)
    return binds or None, volumes


def _ports(parsed: Parsed) -> tuple[dict[str, Any], dict[str, Any]]:
    if not (parsed["publish"] or parsed["expose"]):
        return {}, {}
    from wherry.cli.options.ports import parse_expose, parse_publish

    exposed, bindings = parse_publish(parsed["publish"])
    parse_expose(parsed["expose"], exposed)
    return exposed, bindings


def _devices(parsed: Parsed) -> tuple[list[Any], list[Any] | None]:
    requests: list[Any] = list(parsed["gpus"])
    mappings: list[Any] = []
    if parsed["device"]:
        from wherry.cli.options.devices import split_devices

        mappings, cdi = split_devices(parsed["device"])
        if cdi:
            requests.append({"Driver": "cdi", "Count": 0, "DeviceIDs": cdi, "Capabilities": None, "Options": None})
    return mappings, requests or None


def _key_values(parsed: Parsed, proxies: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    given = dict(text.partition("=")[::2] if "=" in text else (text, None) for text in parsed["env"])
    given = {**given, **{name: value for name, value in proxies.items() if name not in given}}
    environment = [name if value is None else f"{name}={value}" for name, value in given.items()]
    if not (parsed["env-file"] or parsed["label-file"]):
        return environment, dict(text.partition("=")[::2] for text in parsed["label"])
    from wherry.cli.options.files import read_environment, read_labels

    return read_environment(parsed["env-file"], environment), read_labels(parsed["label-file"], parsed["label"])


def _modes(parsed: Parsed) -> None:
    pid = parsed["pid"]
    if pid not in ("", "host") and not (pid.startswith("container:") and len(pid) > len("container:")):
        raise _refuse("--pid: invalid PID mode")
    if parsed["uts"] not in ("", "host"):
        raise _refuse("--uts: invalid UTS mode")
    if parsed["userns"] not in ("", "host"):
        raise _refuse("--userns: invalid USER mode")
    if parsed["cgroupns"] not in ("", "host", "private"):
        raise _refuse("--cgroupns: invalid CGROUP mode")


def restart_policy(text: str) -> dict[str, Any]:
    """--restart as the API has it; raises StatusError."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise _refuse("invalid restart policy format: no policy provided before colon")
    return {"Name": name, "MaximumRetryCount": _retries(count) if count else 0}


def _retries(count: str) -> int:
    from wherry.cli.errors import ValueRefused
    from wherry.cli.values import parse_number

    try:
        return parse_number(count, base=10)
    except ValueRefused:
        raise _refuse("invalid restart policy format: maximum retry count must be an integer") from None


def _log_config(parsed: Parsed) -> dict[str, Any]:
    if parsed["log-driver"] == "none" and parsed["log-opt"]:
        raise _refuse("invalid logging opts for driver none")
    return {"Type": parsed["log-driver"], "Config": dict(text.partition("=")[::2] for text in parsed["log-opt"])}


def _storage_options(options: list[str]) -> dict[str, Any]:
    if any("=" not in option for option in options):
        raise _refuse("invalid storage option")
    return {"StorageOpt": dict(option.partition("=")[::2] for option in options)} if options else {}


def _capabilities(added: list[str], dropped: list[str]) -> tuple[list[str] | None, list[str] | None]:
    """Normalised, sorted, without duplicates; what is added is not dropped, and ALL stands for everything."""
    add, drop = ({_capability(name) for name in names} for names in (added, dropped))
    add = {"ALL"} if "ALL" in add else add
    drop = {"ALL"} if "ALL" in drop else drop
    return sorted(add) or None, sorted(drop - add) or None


def _capability(name: str) -> str:
    name = name.strip().upper()
    return name if name in ("ALL", "RESET") or name.startswith("CAP_") else f"CAP_{name}"


def _healthcheck(parsed: Parsed) -> dict[str, Any] | None:
    durations = {
        "Interval": "health-interval",
        "Timeout": "health-timeout",
        "StartPeriod": "health-start-period",
        "StartInterval": "health-start-interval",
        "Retries": "health-retries",
    }
    command = parsed["health-cmd"]
    given = bool(command) or any(parsed[flag] for flag in durations.values())
    if parsed["no-healthcheck"]:
        if given:
            raise _refuse("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given:
        return None
    for flag in durations.values():
        if parsed[flag] < 0:
            raise _refuse(f"--{flag} cannot be negative")
    health: dict[str, Any] = {"Test": ["CMD-SHELL", command]} if command else {}
    health.update((key, parsed[flag]) for key, flag in durations.items() if parsed[flag])
    return health


def _security(parsed: Parsed) -> tuple[list[str] | None, list[str] | None]:
    """(options for the engine, the list of masked and read-only paths: None for the engine's own)."""
    if not parsed["security-opt"]:
        return None, None
    from wherry.cli.options.files import security_options

    options, unconfined = security_options(parsed["security-opt"])
    return options, [] if unconfined else None


_NETWORK_FLAGS = ("network", "network-alias", "link", "ip", "ip6", "mac-address", "link-local-ip")


def _endpoints(parsed: Parsed) -> dict[str, Any]:
    if not any(flag in parsed.changed for flag in _NETWORK_FLAGS):
        return {"default": {**EMPTY_ENDPOINT}}
    from wherry.cli.options.networks import endpoints

    return endpoints(parsed)


def _host_config(
    parsed: Parsed, binds: list[str] | None, bindings: dict[str, Any], devices: list[Any], requests: list[Any] | None
) -> dict[str, Any]:
    _modes(parsed)
    restart = restart_policy(parsed["restart"])
    log = _log_config(parsed)
    security, paths = _security(parsed)
    storage = _storage_options(parsed["storage-opt"])
    if parsed["rm"] and restart["Name"] not in ("", "no"):
        _healthcheck(parsed)  # its mistakes are reported first
        raise _refuse("conflicting options: cannot specify both --restart and --rm")
    cap_add, cap_drop = _capabilities(parsed["cap-add"], parsed["cap-drop"])
    networks = parsed["network"]
    return {
        "Binds": binds,
        "ContainerIDFile": parsed["cidfile"],
        "LogConfig": log,
        "NetworkMode": networks[0].target if networks else "default",
        "PortBindings": bindings,
        "RestartPolicy": restart,
        "AutoRemove": parsed["rm"],
        "VolumeDriver": parsed["volume-driver"],
        "VolumesFrom": parsed["volumes-from"] or None,
        "ConsoleSize": [0, 0],
        **({"Annotations": parsed["annotation"]} if parsed["annotation"] else {}),
        "CapAdd": cap_add,
        "CapDrop": cap_drop,
        "CgroupnsMode": parsed["cgroupns"],
        "Dns": parsed["dns"],
        "DnsOptions": parsed["dns-option"],
        "DnsSearch": parsed["dns-search"],
        "ExtraHosts": parsed["add-host"] or None,
        "GroupAdd": parsed["group-add"] or None,
        "IpcMode": parsed["ipc"],
        "Cgroup": "",
        "Links": parsed["link"] or None,
        "OomScoreAdj": parsed["oom-score-adj"],
        "PidMode": parsed["pid"],
        "Privileged": parsed["privileged"],
        "PublishAllPorts": parsed["publish-all"],
        "ReadonlyRootfs": parsed["read-only"],
        "SecurityOpt": security,
        **storage,
        **({"Tmpfs": dict(text.partition(":")[::2] for text in parsed["tmpfs"])} if parsed["tmpfs"] else {}),
        "UTSMode": parsed["uts"],
        "UsernsMode": parsed["userns"],
        "ShmSize": parsed["shm-size"],
        **({"Sysctls": parsed["sysctl"]} if parsed["sysctl"] else {}),
        **({"Runtime": parsed["runtime"]} if parsed["runtime"] else {}),
        "Isolation": parsed["isolation"],
        **_resources(parsed),
        "Devices": devices,
        "DeviceCgroupRules": parsed["device-cgroup-rule"] or None,
        "DeviceRequests": requests,
        **({"Mounts": parsed["mount"]} if parsed["mount"] else {}),
        "MaskedPaths": paths,
        "ReadonlyPaths": paths,
        **({"Init": parsed["init"]} if "init" in parsed.changed else {}),
        **_health_action(parsed),
    }


def _health_action(parsed: Parsed) -> dict[str, Any]:
    action = parsed["health-on-failure"]
    if action and parsed["no-healthcheck"]:
        raise _refuse("--no-healthcheck conflicts with --health-* options")
    return {"HealthcheckOnFailureAction": action} if action else {}


def _resources(parsed: Parsed) -> dict[str, Any]:
    return {
        "CpuShares": parsed["cpu-shares"],
        "Memory": parsed["memory"],
        "NanoCpus": parsed["cpus"],
        "CgroupParent": parsed["cgroup-parent"],
        "BlkioWeight": parsed["blkio-weight"],
        "BlkioWeightDevice": parsed["blkio-weight-device"],
        "BlkioDeviceReadBps": parsed["device-read-bps"],
        "BlkioDeviceWriteBps": parsed["device-write-bps"],
        "BlkioDeviceReadIOps": parsed["device-read-iops"],
        "BlkioDeviceWriteIOps": parsed["device-write-iops"],
        "CpuPeriod": parsed["cpu-period"],
        "CpuQuota": parsed["cpu-quota"],
        "CpuRealtimePeriod": parsed["cpu-rt-period"],
        "CpuRealtimeRuntime": parsed["cpu-rt-runtime"],
        "CpusetCpus": parsed["cpuset-cpus"],
        "CpusetMems": parsed["cpuset-mems"],
        "MemoryReservation": parsed["memory-reservation"],
        "MemorySwap": parsed["memory-swap"],
        "MemorySwappiness": parsed["memory-swappiness"],
        "OomKillDisable": parsed["oom-kill-disable"],
        "PidsLimit": parsed["pids-limit"],
        "Ulimits": _ulimits(parsed["ulimit"]),
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _ulimits(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = {limit["Name"]: limit for limit in given}
    return [last[name] for name in sorted(last)]
