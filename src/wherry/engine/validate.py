"""What a container may not ask for, in Docker's words (moby daemon/container.go, daemon_unix.go verify...)."""

import posixpath
from collections.abc import Collection, Iterable

from wherry.engine import log_drivers, runtimes
from wherry.engine.config import EngineConfig
from wherry.engine.defaults import check_capabilities
from wherry.engine.health import ACTIONS, MINIMUM_NS
from wherry.engine.model import ContainerConfig, HealthConfig, HostConfig
from wherry.engine.oci.security import options_of
from wherry.engine.ports import check_bindings
from wherry.engine.signals import parse_signal
from wherry.errors import InvalidArgument

_RESTART_POLICIES = ("", "no", "always", "on-failure", "unless-stopped")


def check_config(config: ContainerConfig) -> None:
    """Raise `InvalidArgument` for what is wrong with the host-independent part alone; cleans WorkingDir."""
    if config.WorkingDir:
        if not posixpath.isabs(config.WorkingDir):
            raise InvalidArgument(
                f"the working directory '{config.WorkingDir}' is invalid, it needs to be an absolute path"
            )
        config.WorkingDir = clean(config.WorkingDir)
    if config.StopSignal:
        parse_signal(config.StopSignal)
    if config.Healthcheck is not None:
        _check_health(config.Healthcheck)
    for variable in config.Env or []:
        if not variable.partition("=")[0]:
            raise InvalidArgument(f"invalid environment variable: {variable}")
    if any("\0" in text for text in _texts(config)):
        raise InvalidArgument("invalid NUL character in the container's configuration")


def _texts(config: ContainerConfig) -> Iterable[str]:
    yield from (config.Hostname, config.Domainname, config.User, config.WorkingDir)
    yield from config.Env or []
    yield from config.Cmd or []
    yield from config.Entrypoint or []


def clean(path: str) -> str:
    """An absolute path without "." and "..", as Go's path.Clean ("//x" is "/x")."""
    return posixpath.normpath("/" + path.lstrip("/"))


def check_host_config(
    config: ContainerConfig, host: HostConfig, daemon: EngineConfig, bounding: Collection[str]
) -> list[str]:
    """Raise what is wrong with `host`; returns warnings to show the client. `bounding`: the capabilities there are."""
    _check_lines(config, host)
    check_restart(host)
    _check_modes(config, host)
    check_bindings(host.PortBindings)
    for name, capabilities in (("CapAdd", host.CapAdd), ("CapDrop", host.CapDrop)):
        _check_capabilities(name, capabilities or [], bounding)
    for entry in host.ExtraHosts or []:
        _check_extra_host(entry)
    if "" in (host.Annotations or {}):
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    if host.Isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation ({host.Isolation}): linux only supports 'default'")
    if host.Cgroup:
        raise InvalidArgument(f"invalid cgroup mode: {host.Cgroup}: only CgroupParent can say where the cgroup is")
    for option in host.StorageOpt or ():
        if option != "size":
            raise InvalidArgument(f"Unknown option {option}")
    if host.StorageOpt:
        raise InvalidArgument("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    runtimes.check_name(host.Runtime or daemon.default_runtime, daemon)
    options_of(host)
    _check_health_action(host)
    log_drivers.check(host.LogConfig.Type, host.LogConfig.Config or {})
    return _network_warnings(host) + _health_warnings(config)


def _check_health(health: HealthConfig) -> None:
    for name in ("Interval", "Timeout", "StartPeriod"):
        _check_duration(health, name)
    if health.Retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    _check_duration(health, "StartInterval")
    if health.Test == ["CMD"]:
        raise InvalidArgument("Test in Healthcheck has no command: [CMD] needs arguments")


def _check_duration(health: HealthConfig, name: str) -> None:
    if getattr(health, name) and getattr(health, name) < MINIMUM_NS:
        raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")


def _health_warnings(config: ContainerConfig) -> list[str]:
    test = (config.Healthcheck.Test if config.Healthcheck else None) or ["NONE"]
    if test[0] in ("NONE", "CMD", "CMD-SHELL"):
        return []
    return [f"Unknown healthcheck type '{test[0]}' (expected 'CMD'): the container will not be probed."]


def _check_health_action(host: HostConfig) -> None:
    action = host.HealthcheckOnFailureAction
    if action not in ACTIONS:
        known = ", ".join(f"'{name}'" for name in ACTIONS if name)
        raise InvalidArgument(f"invalid HealthcheckOnFailureAction '{action}': use one of {known}")


def _check_lines(config: ContainerConfig, host: HostConfig) -> None:
    """What becomes part of a line in /etc/hosts, /etc/hostname or /etc/resolv.conf must not make lines of its own."""
    for name, texts in (
        ("Hostname", [config.Hostname]),
        ("Domainname", [config.Domainname]),
        ("ExtraHosts", host.ExtraHosts),
        ("Dns", host.Dns),
        ("DnsSearch", host.DnsSearch),
        ("DnsOptions", host.DnsOptions),
    ):
        if any(character < " " for text in texts or () for character in text):
            raise InvalidArgument(f"invalid {name}: control characters are not allowed")


def check_restart(host: HostConfig) -> None:
    """Raise `InvalidArgument` for a restart policy that makes no sense."""
    policy = host.RestartPolicy
    if policy.Name not in _RESTART_POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.Name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.MaximumRetryCount < 0 and policy.Name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative"
        )
    if policy.MaximumRetryCount < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.MaximumRetryCount and policy.Name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if host.AutoRemove and policy.Name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_modes(config: ContainerConfig, host: HostConfig) -> None:
    for what, mode, allowed in (
        ("PID", host.PidMode, ("", "host")),
        ("UTS", host.UTSMode, ("", "host")),
        ("IPC", host.IpcMode, ("", "host", "private", "shareable", "none")),
        ("cgroup namespace", host.CgroupnsMode, ("", "host", "private")),
    ):
        joins = what in ("PID", "IPC") and mode.startswith("container:") and len(mode) > len("container:")
        if mode not in allowed and not joins:
            raise InvalidArgument(f"invalid {what} mode: {mode}")
    if host.UsernsMode not in ("", "host"):
        raise InvalidArgument(f"invalid user namespace mode: {host.UsernsMode}")
    if host.UTSMode == "host" and config.Hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.NetworkMode.startswith("container:"):
        _check_joined_network(config, host)
    elif host.NetworkMode == "host" and host.Links:
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )


def _check_joined_network(config: ContainerConfig, host: HostConfig) -> None:
    if host.NetworkMode == "container:":
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    conflicts = (
        (config.Hostname, "hostname and the network mode"),
        (
            host.Links,
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (host.Dns, "dns and the network mode"),
        (host.ExtraHosts, "custom host-to-IP mapping and the network mode"),
        (host.PortBindings or host.PublishAllPorts, "port publishing and the container type network mode"),
        (config.ExposedPorts, "port exposing and the container type network mode"),
    )
    for given, text in conflicts:
        if given:
            raise InvalidArgument(f"conflicting options: {text}")


def _check_capabilities(option: str, names: list[str], bounding: Collection[str]) -> None:
    try:
        check_capabilities(names, bounding)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid {option}: {error}") from None


def _check_extra_host(entry: str) -> None:
    name, colon, address = entry.partition(":")
    if not colon or not name:
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if address != "host-gateway" and not is_address(address):
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"')


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _network_warnings(host: HostConfig) -> list[str]:
    if host.NetworkMode == "host" and (host.PortBindings or host.PublishAllPorts):
        return ["Published ports are discarded when using host network mode"]
    return []
