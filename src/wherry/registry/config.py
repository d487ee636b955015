"""What an operator says about registries."""

import msgspec

LOOPBACK = ("127.0.0.0/8", "::1/128")


class ProxyConfig(msgspec.Struct, frozen=True):
    """Proxies by the scheme of what is asked for, as URLs; `no_proxy` in the form of the environment variable."""

    http: str = ""
    https: str = ""
    no_proxy: str = ""


class RegistryConfig(msgspec.Struct, frozen=True):
    """`insecure`: hosts (`host:port`) and networks (CIDR) whose registries may have any certificate or speak plain
    HTTP; loopback always may. `mirrors`: URLs asked before docker.io. `certs_dirs`: directories with one directory per
    `host[:port]`, holding Docker's `*.crt`, `*.cert`, `*.key` or containerd's `hosts.toml`; the first that has the host
    counts. `attempts`: how often what may pass is tried. Times are seconds."""

    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    certs_dirs: tuple[str, ...] = ("/etc/wherry/certs.d", "/etc/docker/certs.d")
    proxy: ProxyConfig = ProxyConfig()
    user_agent: str = "wherry"
    attempts: int = 5
    connect_timeout: float = 30.0
    stall_timeout: float = 60.0
    backoff: float = 1.0
    longest_wait: float = 60.0
