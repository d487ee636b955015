"""The engine's vocabulary: what a client asks for, in the Docker API's own words, and the records kept of it.

Structs whose fields are in CamelCase (`ContainerConfig`, `HostConfig`, ...) are the API's objects (Docker Engine API
1.51, definitions of the same name) and are stored as they are; structs in snake_case (`Container`, `State`, ...) are
records of the engine, encoded for the wire by `wherry.api`.

Null and empty: a list or map that was never given is None and shown as null, one given empty is shown empty, as Docker
does. `to_wire` leaves out the fields that Docker leaves out when they are empty; `from_wire` accepts what Go's decoder
accepts: keys in any case, null for "not given", one string where a list of words is meant.

Times are integers in nanoseconds since the epoch, 0 meaning "never" (`0001-01-01T00:00:00Z` on the wire).
"""

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Struct, field

from wherry.errors import InvalidArgument

T = TypeVar("T")

LabelMap = dict[str, str]
PortSet = dict[str, dict[str, Any]]
"""`{"80/tcp": {}}`."""

# What the client asks for


class HealthConfig(Struct):
    """How to probe a container: times in ns; Test is [] (inherit), [NONE], [CMD, arg...] or [CMD-SHELL, line]."""

    omit_empty: ClassVar = frozenset({"Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"})

    Test: list[str] | None = None
    Interval: int = 0
    Timeout: int = 0
    StartPeriod: int = 0
    StartInterval: int = 0
    Retries: int = 0


class ContainerConfig(Struct):
    """What is independent of the host: definition ContainerConfig. Also the config of an image."""

    omit_empty: ClassVar = frozenset(
        {"ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal", "Shell"}
    )
    omit_null: ClassVar = frozenset({"StopTimeout"})
    words: ClassVar = frozenset({"Cmd", "Entrypoint", "Shell"})

    Hostname: str = ""
    Domainname: str = ""
    User: str = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    ExposedPorts: PortSet | None = None
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: list[str] | None = None
    Cmd: list[str] | None = None
    Healthcheck: HealthConfig | None = None
    ArgsEscaped: bool = False
    Image: str = ""
    Volumes: dict[str, dict[str, Any]] | None = None
    WorkingDir: str = ""
    Entrypoint: list[str] | None = None
    NetworkDisabled: bool = False
    MacAddress: str = ""
    OnBuild: list[str] | None = None
    Labels: LabelMap | None = None
    StopSignal: str = ""
    StopTimeout: int | None = None
    Shell: list[str] | None = None


class LogDriverConfig(Struct):
    """The log driver's name ("" = the daemon's default) and its options."""

    Type: str = ""
    Config: dict[str, str] | None = None


class RestartRule(Struct):
    """Name is "", "no", "always", "unless-stopped" or "on-failure" (with MaximumRetryCount, 0 = for ever)."""

    Name: str = ""
    MaximumRetryCount: int = 0


class PortBinding(Struct):
    """Where a container's port appears on the host; "" means any address, any free port."""

    HostIp: str = ""
    HostPort: str = ""


PortMap = dict[str, list[PortBinding] | None]
"""`{"80/tcp": [binding...]}`."""


class WeightDevice(Struct):
    Path: str = ""
    Weight: int = 0


class ThrottleDevice(Struct):
    Path: str = ""
    Rate: int = 0


class DeviceMapping(Struct):
    PathOnHost: str = ""
    PathInContainer: str = ""
    CgroupPermissions: str = ""


class DeviceRequest(Struct):
    Driver: str = ""
    Count: int = 0
    DeviceIDs: list[str] | None = None
    Capabilities: list[list[str]] | None = None
    Options: dict[str, str] | None = None


class Ulimit(Struct):
    Name: str = ""
    Hard: int = 0
    Soft: int = 0


class MountBindOptions(Struct):
    omit_empty: ClassVar = frozenset(
        {"Propagation", "NonRecursive", "CreateMountpoint", "ReadOnlyNonRecursive", "ReadOnlyForceRecursive"}
    )

    Propagation: str = ""
    NonRecursive: bool = False
    CreateMountpoint: bool = False
    ReadOnlyNonRecursive: bool = False
    ReadOnlyForceRecursive: bool = False


class VolumeDriverConfig(Struct):
    omit_empty: ClassVar = frozenset({"Name", "Options"})

    Name: str = ""
    Options: dict[str, str] | None = None


class MountVolumeOptions(Struct):
    omit_empty: ClassVar = frozenset({"NoCopy", "Labels", "Subpath", "DriverConfig"})

    NoCopy: bool = False
    Labels: LabelMap | None = None
    Subpath: str = ""
    DriverConfig: VolumeDriverConfig | None = None


class MountImageOptions(Struct):
    omit_empty: ClassVar = frozenset({"Subpath"})

    Subpath: str = ""


class MountTmpfsOptions(Struct):
    omit_empty: ClassVar = frozenset({"SizeBytes", "Mode", "Options"})

    SizeBytes: int = 0
    Mode: int = 0
    Options: list[list[str]] | None = None


class Mount(Struct):
    """One mount asked for with `--mount` (definition Mount)."""

    omit_empty: ClassVar = frozenset(
        {
            "Type",
            "Source",
            "Target",
            "ReadOnly",
            "Consistency",
            "BindOptions",
            "VolumeOptions",
            "ImageOptions",
            "TmpfsOptions",
        }
    )

    Type: str = ""
    Source: str = ""
    Target: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    BindOptions: MountBindOptions | None = None
    VolumeOptions: MountVolumeOptions | None = None
    ImageOptions: MountImageOptions | None = None
    TmpfsOptions: MountTmpfsOptions | None = None


class HostConfig(Struct):
    """What depends on the host: definition HostConfig, the Resources included."""

    omit_empty: ClassVar = frozenset(
        {
            "Annotations",
            "HealthcheckOnFailureAction",
            "KernelMemory",
            "KernelMemoryTCP",
            "Mounts",
            "Runtime",
            "StorageOpt",
            "Sysctls",
            "Tmpfs",
        }
    )
    omit_null: ClassVar = frozenset({"Init"})
    words: ClassVar = frozenset({"CapAdd", "CapDrop"})

    Binds: list[str] | None = None
    ContainerIDFile: str = ""
    LogConfig: LogDriverConfig = field(default_factory=LogDriverConfig)
    NetworkMode: str = ""
    PortBindings: PortMap | None = None
    RestartPolicy: RestartRule = field(default_factory=RestartRule)
    AutoRemove: bool = False
    VolumeDriver: str = ""
    VolumesFrom: list[str] | None = None
    ConsoleSize: tuple[int, int] = (0, 0)
    Annotations: dict[str, str] | None = None
    CapAdd: list[str] | None = None
    CapDrop: list[str] | None = None
    CgroupnsMode: str = ""
    Dns: list[str] | None = None
    DnsOptions: list[str] | None = None
    DnsSearch: list[str] | None = None
    ExtraHosts: list[str] | None = None
    GroupAdd: list[str] | None = None
    IpcMode: str = ""
    Cgroup: str = ""
    Links: list[str] | None = None
    OomScoreAdj: int = 0
    PidMode: str = ""
    Privileged: bool = False
    PublishAllPorts: bool = False
    ReadonlyRootfs: bool = False
    SecurityOpt: list[str] | None = None
    StorageOpt: dict[str, str] | None = None
    Tmpfs: dict[str, str] | None = None
    UTSMode: str = ""
    UsernsMode: str = ""
    ShmSize: int = 0
    Sysctls: dict[str, str] | None = None
    Runtime: str = ""
    Isolation: str = ""
    CpuShares: int = 0
    Memory: int = 0
    NanoCpus: int = 0
    CgroupParent: str = ""
    BlkioWeight: int = 0
    BlkioWeightDevice: list[WeightDevice] | None = None
    BlkioDeviceReadBps: list[ThrottleDevice] | None = None
    BlkioDeviceWriteBps: list[ThrottleDevice] | None = None
    BlkioDeviceReadIOps: list[ThrottleDevice] | None = None
    BlkioDeviceWriteIOps: list[ThrottleDevice] | None = None
    CpuPeriod: int = 0
    CpuQuota: int = 0
    CpuRealtimePeriod: int = 0
    CpuRealtimeRuntime: int = 0
    CpusetCpus: str = ""
    CpusetMems: str = ""
    Devices: list[DeviceMapping] | None = None
    DeviceCgroupRules: list[str] | None = None
    DeviceRequests: list[DeviceRequest] | None = None
    KernelMemory: int = 0
    KernelMemoryTCP: int = 0
    MemoryReservation: int = 0
    MemorySwap: int = 0
    MemorySwappiness: int | None = None
    OomKillDisable: bool | None = None
    PidsLimit: int | None = None
    Ulimits: list[Ulimit] | None = None
    CpuCount: int = 0
    CpuPercent: int = 0
    IOMaximumIOps: int = 0
    IOMaximumBandwidth: int = 0
    Mounts: list[Mount] | None = None
    MaskedPaths: list[str] | None = None
    ReadonlyPaths: list[str] | None = None
    Init: bool | None = None
    HealthcheckOnFailureAction: str = ""
    """An extension: "", "none", "kill", "restart" or "stop", when the container becomes unhealthy."""


class EndpointIPAMConfig(Struct):
    omit_empty: ClassVar = frozenset({"IPv4Address", "IPv6Address", "LinkLocalIPs"})

    IPv4Address: str = ""
    IPv6Address: str = ""
    LinkLocalIPs: list[str] | None = None


class EndpointSettings(Struct):
    """A container's place in one network: the first five fields are asked for, the others reported."""

    IPAMConfig: EndpointIPAMConfig | None = None
    Links: list[str] | None = None
    Aliases: list[str] | None = None
    MacAddress: str = ""
    DriverOpts: dict[str, str] | None = None
    GwPriority: int = 0
    NetworkID: str = ""
    EndpointID: str = ""
    Gateway: str = ""
    IPAddress: str = ""
    IPPrefixLen: int = 0
    IPv6Gateway: str = ""
    GlobalIPv6Address: str = ""
    GlobalIPv6PrefixLen: int = 0
    DNSNames: list[str] | None = None


class NetworkingConfig(Struct):
    EndpointsConfig: dict[str, EndpointSettings | None] | None = None


class ExecConfig(Struct):
    """Body of `POST /containers/{id}/exec`."""

    User: str = ""
    Privileged: bool = False
    Tty: bool = False
    ConsoleSize: tuple[int, int] | None = None
    AttachStdin: bool = False
    AttachStderr: bool = False
    AttachStdout: bool = False
    DetachKeys: str = ""
    Env: list[str] | None = None
    WorkingDir: str = ""
    Cmd: list[str] | None = None


# What is kept


class MountPoint(Struct):
    """One mount as resolved by create (definition MountPoint; also the source of the OCI mounts)."""

    omit_empty: ClassVar = frozenset({"Type", "Name", "Driver", "Spec"})

    Type: str = ""
    Name: str = ""
    Source: str = ""
    Destination: str = ""
    Driver: str = ""
    Mode: str = ""
    RW: bool = True
    Propagation: str = ""
    Spec: Mount | None = None
    """The `--mount` it came from; not shown by inspect."""


class HealthResult(Struct):
    """One probe: times in ns."""

    start: int
    end: int
    exit_code: int
    output: str


class Health(Struct):
    """status: "none", "starting", "healthy" or "unhealthy"; the last five results."""

    status: str = "none"
    failing_streak: int = 0
    log: list[HealthResult] = field(default_factory=list)


class State(Struct):
    """What a container is doing; status is one of `containers.STATUSES`."""

    status: str = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    stop_reason: str = ""
    """Why the last run that ended did (`exits.reason`)."""
    health: Health | None = None

    @property
    def running(self) -> bool:
        """Docker's `Running`: true for paused and restarting containers too."""
        return self.status in ("running", "paused", "restarting")


class Container(Struct):
    """The persisted record of one container: one JSON document in the database, with a copy beside its data."""

    id: str
    name: str
    """Without the leading slash."""
    created: int
    image_id: str
    """`sha256:...`, or "" for a container without image."""
    path: str
    args: list[str]
    config: ContainerConfig
    host_config: HostConfig
    networks: dict[str, EndpointSettings] = field(default_factory=dict)
    """By the network's name as asked; filled in with addresses while running."""
    asked_macs: dict[str, str] = field(default_factory=dict)
    """The hardware addresses asked for, by network: the others are chosen anew at each start."""
    state: State = field(default_factory=State)
    mounts: list[MountPoint] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    """Legacy links: alias → id of the other container."""
    lower_dirs: list[str] = field(default_factory=list)
    """The image's layer directories, top first, as of create."""
    ports: dict[str, list[PortBinding] | None] = field(default_factory=dict)
    """What is published while it runs (NetworkSettings.Ports)."""
    sandbox_id: str = ""
    sandbox_key: str = ""
    restart_count: int = 0
    manually_stopped: bool = False
    """Stopped or killed by request since the last start: such a container is not restarted by policy."""
    started_before: bool = False
    remove_volumes: bool = False
    """The removal that is under way takes anonymous volumes along."""
    driver: str = "overlay2"
    platform: str = "linux"
    log_path: str = ""
    resolv_conf_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    limits_pending: bool = False
    """An update of its limits was written down, and the kernel may not know it yet."""
    boot_id: str = ""
    """The boot in which it was last started: a pid of another boot means nothing."""


class ExecRecord(Struct):
    """One exec of a running container; kept in memory, as Docker does, until the container ends."""

    id: str
    container_id: str
    config: ExecConfig
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    pid: int = 0
    can_remove: bool = False

    @property
    def entrypoint(self) -> str:
        return (self.config.Cmd or [""])[0]

    @property
    def arguments(self) -> list[str]:
        return (self.config.Cmd or [])[1:]


# Wire


def to_wire(value: Any) -> Any:
    """`value` (a CamelCase struct, or a list or map of them) as plain objects for JSON, rendered as Docker's inspect
    does: null where never given, absent where Docker omits the empty."""
    if isinstance(value, Struct):
        empty: frozenset[str] = getattr(value, "omit_empty", frozenset())
        null: frozenset[str] = getattr(value, "omit_null", frozenset())
        pairs = ((name, getattr(value, name)) for name in value.__struct_fields__)
        return {
            name: to_wire(item)
            for name, item in pairs
            if not (name in empty and not item) and not (name in null and item is None)
        }
    if isinstance(value, dict):
        return {key: to_wire(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_wire(item) for item in value]
    return value


def from_wire(cls: type[T], data: Any) -> T:
    """Build a `cls` from decoded JSON as Go's decoder would; raises `InvalidArgument` when a value has a wrong type."""
    try:
        return msgspec.convert(_normal(cls, data), cls)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error


def _normal(cls: Any, data: Any) -> Any:
    return data if data is None else _normaliser(cls)(data)


def _normalise_struct(cls: Any, data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    names = _field_names(cls)
    words: frozenset[str] = getattr(cls, "words", frozenset())
    out: dict[str, Any] = {}
    for key, value in data.items():
        found = names.get(key.lower()) if isinstance(key, str) else None
        if found is None or value is None:
            continue
        name, kind = found
        out[name] = [value] if name in words and isinstance(value, str) else _normal(kind, value)
    return out


def _pair(data: Any) -> Any:
    """Go's decoder fills an array up with zeros, and drops what is too much."""
    if not isinstance(data, list):
        return data
    if any(type(each) is int and each < 0 for each in data):
        raise InvalidArgument(f"invalid JSON: json: cannot unmarshal number {min(data)} into Go value of type uint")
    return [*data, 0, 0][:2]


@cache
def _field_names(cls: Any) -> dict[str, tuple[str, Any]]:
    hints = get_type_hints(cls)
    return {name.lower(): (name, hints[name]) for name in cls.__struct_fields__}


@cache
def _normaliser(kind: Any) -> Callable[[Any], Any]:
    """How to prepare decoded JSON for `msgspec.convert` to the type `kind`."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return lambda data: _normalise_struct(kind, data)
    arguments = [argument for argument in get_args(kind) if argument is not type(None)]
    origin = getattr(kind, "__origin__", None)
    if origin is dict:
        return lambda data: {k: _normal(arguments[1], v) for k, v in data.items()} if isinstance(data, dict) else data
    if origin is list:
        return lambda data: (
            [_normal(arguments[0], v) for v in data if v is not None] if isinstance(data, list) else data
        )
    if origin is tuple:
        return _pair
    if len(arguments) == 1:
        return _normaliser(arguments[0])
    return lambda data: data
