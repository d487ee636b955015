"""What the daemon's configuration means to the engine."""

from msgspec import Struct, field

from wherry.engine.model import Ulimit
from wherry.engine.oci import cdi
from wherry.network.model import NetworkOptions


class OciRuntime(Struct, frozen=True):
    """An executable with runc's command line."""

    path: str
    """absolute, or a name to be found in PATH"""
    args: tuple[str, ...] = ()
    """what comes before our own arguments"""


class EngineConfig(Struct, kw_only=True):
    """Everything the engine can be told at start; the names are dockerd's flags'. Sizes in bytes.

    `reconfigure` takes over what dockerd reloads on SIGHUP: labels, debug, default ulimits, shm size, log driver and
    options, runtimes, DNS defaults.
    """

    data_root: str = "/var/lib/wherry"
    exec_root: str = "/run/wherry"
    debug: bool = False
    storage_driver: str = ""
    """"overlay2", "vfs", or "" for the best that works."""
    storage_opts: list[str] = field(default_factory=list)
    """`["overlay2.layers=tree"]`: the form of new layers, "erofs" or "tree"; without it the faster that works."""
    labels: list[str] = field(default_factory=list)

    bridge: str = ""
    bip: str = ""
    fixed_cidr: str = ""
    default_address_pools: list[dict[str, object]] = field(default_factory=list)
    """`[{"base": "172.30.0.0/16", "size": 24}]`."""
    mtu: int = 0
    icc: bool = True
    ip: str = "0.0.0.0"
    """The address published ports are bound to when the client names none."""
    iptables: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_opts: list[str] = field(default_factory=list)

    default_ulimits: dict[str, Ulimit] = field(default_factory=dict)
    default_shm_size: int = 64 << 20
    log_driver: str = "json-file"
    log_opts: dict[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    cdi_spec_dirs: list[str] = field(default_factory=lambda: list(cdi.DIRECTORIES))
    """Where descriptions of CDI devices are, the least important first."""
    init: bool = False
    init_path: str = ""
    """The reaper of `--init`; "" is the packaged one."""
    seccomp_profile: str = ""
    """"" or "builtin", "unconfined", or the path of a profile in Docker's format."""
    no_new_privileges: bool = False
    runtimes: dict[str, OciRuntime] = field(default_factory=dict)
    """Other OCI runtimes by name."""
    default_runtime: str = "wherry"
    live_restore: bool = True

    registry_mirrors: list[str] = field(default_factory=list)
    """URLs asked before docker.io."""
    insecure_registries: list[str] = field(default_factory=list)
    """Hosts and networks (CIDR)."""
    max_concurrent_downloads: int = 3
    """Of all pulls together; 0: no limit."""
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    """Where these are empty the environment counts."""

    def network_options(self) -> NetworkOptions:
        """The part of the network room."""
        return NetworkOptions(
            bridge=self.bridge,
            bip=self.bip,
            fixed_cidr=self.fixed_cidr,
            default_address_pools=tuple(
                (str(pool["base"]), int(str(pool["size"]))) for pool in self.default_address_pools
            ),
            mtu=self.mtu,
            icc=self.icc,
            ip=self.ip,
            ip_forward=self.ip_forward,
            ip_masq=self.ip_masq,
            iptables=self.iptables,
        )
