"""How a create request of an older API version is meant: what its version did not know is ignored or refused, as
Docker's router does before the engine sees it (moby daemon/server/router/container)."""

from wherry.api.versions import Version
from wherry.engine.model import ContainerConfig, EndpointSettings, HostConfig, Mount, NetworkingConfig
from wherry.errors import InvalidArgument

_MAC_WARNING = (
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
)


def adapt(config: ContainerConfig, host: HostConfig, networking: NetworkingConfig, version: Version) -> list[str]:
    """Change what was asked to what `version` means by it; returns warnings. Raises InvalidArgument for what it cannot
    mean."""
    if version >= (1, 42):
        host.KernelMemory = 0
    else:
        host.ConsoleSize = (0, 0)
    if version < (1, 43):
        host.Annotations = None
    if version < (1, 44):
        if config.Healthcheck is not None:
            config.Healthcheck.StartInterval = 0
        _check_one_network(networking)
    if version < (1, 48):
        for endpoint in (networking.EndpointsConfig or {}).values():
            if endpoint is not None:
                endpoint.GwPriority = 0
    for mount in host.Mounts or ():
        _adapt_mount(mount, version)
    return _place_mac_address(config, host, networking, version)


def _check_one_network(networking: NetworkingConfig) -> None:
    names = list(networking.EndpointsConfig or {})
    if len(names) > 1:
        raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {', '.join(names)}")


def _adapt_mount(mount: Mount, version: Version) -> None:
    _check_options(mount, version)
    if version < (1, 42) and mount.BindOptions is not None:
        mount.BindOptions.CreateMountpoint = False
    if version < (1, 44) and mount.BindOptions is not None and mount.Type == "bind":
        if mount.BindOptions.ReadOnlyForceRecursive:
            raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
        mount.BindOptions.ReadOnlyNonRecursive = mount.ReadOnly
    if version < (1, 45) and mount.VolumeOptions is not None and mount.VolumeOptions.Subpath:
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
    if version < (1, 48) and mount.Type == "image":
        raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')


def _check_options(mount: Mount, version: Version) -> None:
    """Options of another type of mount are nonsense; before 1.42 nobody noticed (but for those of a bind)."""
    for kind, field in (("volume", "VolumeOptions"), ("bind", "BindOptions"), ("tmpfs", "TmpfsOptions")):
        if mount.Type == kind or getattr(mount, field) is None:
            continue
        if version >= (1, 42):
            raise InvalidArgument(f'{field} must not be specified on mount type "{mount.Type}"')
        if kind != "bind":
            setattr(mount, field, None)


def _place_mac_address(
    config: ContainerConfig, host: HostConfig, networking: NetworkingConfig, version: Version
) -> list[str]:
    """The container's own MacAddress belongs to the endpoint of its main network since 1.44; before, it was the only
    one."""
    if version < (1, 44):
        for endpoint in (networking.EndpointsConfig or {}).values():
            if endpoint is not None:
                endpoint.MacAddress = ""
    if not config.MacAddress:
        return []
    addressable = host.NetworkMode not in ("host", "none") and not host.NetworkMode.startswith("container:")
    if version < (1, 44) and not addressable:
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    if addressable:
        _give(_main_endpoint(host, networking), config.MacAddress)
    config.MacAddress = ""
    return [_MAC_WARNING] if version >= (1, 44) else []


def _main_endpoint(host: HostConfig, networking: NetworkingConfig) -> EndpointSettings:
    """The settings of the container's main network, made if there are none."""
    mode = host.NetworkMode or "default"
    endpoints = networking.EndpointsConfig = networking.EndpointsConfig or {}
    default = mode in ("default", "bridge")
    name = next((name for name in endpoints if name == mode or (default and name in ("default", "bridge"))), mode)
    found = endpoints.get(name)
    if found is None:
        found = endpoints[name] = EndpointSettings()
    return found


def _give(endpoint: EndpointSettings, mac: str) -> None:
    if endpoint.MacAddress and endpoint.MacAddress != mac:
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
            "or be left empty"
        )
    endpoint.MacAddress = mac
