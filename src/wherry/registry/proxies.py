"""Which proxy a URL is asked for through, by the rules of Go's httpproxy."""

import os
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from wherry.errors import InvalidArgument
from wherry.registry.config import ProxyConfig

_PORTS = {"http": 80, "https": 443}


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy; `tls`: it is spoken to over TLS."""

    host: str
    port: int
    username: str = ""
    password: str = ""
    tls: bool = False


def from_environment(environment: Mapping[str, str] = os.environ) -> ProxyConfig:
    """The proxies that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name; lower-case names count too."""

    def value(name: str) -> str:
        return environment.get(name) or environment.get(name.lower(), "")

    return ProxyConfig(value("HTTP_PROXY"), value("HTTPS_PROXY"), value("NO_PROXY"))


def proxy_for(config: ProxyConfig, scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy for `scheme://host:port`, None for none. Raises `InvalidArgument` when the proxy's URL is wrong."""
    url = config.https if scheme == "https" else config.http
    if not url or not _uses_proxy(config.no_proxy, host.lower().rstrip("."), port):
        return None
    return parse(url)


@lru_cache(maxsize=16)
def parse(url: str) -> Proxy:
    """Parse the URL of a proxy; `host:port` alone is an HTTP proxy."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise InvalidArgument(f"invalid proxy address {_hidden(url)!r}") from None
    if parts.scheme not in _PORTS:
        raise InvalidArgument(f"proxy {_hidden(url)!r}: unsupported scheme {parts.scheme!r}, use http or https")
    if not parts.hostname:
        raise InvalidArgument(f"invalid proxy address {_hidden(url)!r}")
    return _proxy(parts, port or _PORTS[parts.scheme])


def _proxy(parts: SplitResult, port: int) -> Proxy:
    host = parts.hostname or ""
    return Proxy(host, port, unquote(parts.username or ""), unquote(parts.password or ""), parts.scheme == "https")


def _hidden(url: str) -> str:
    """`url` without the password in it."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('://')[0]}://xxxxx@{after}" if at and "://" in before else after


def _uses_proxy(no_proxy: str, host: str, port: int) -> bool:
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return False
    return not any(_excluded(item.strip().lower(), host, port, address) for item in no_proxy.split(","))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _excluded(item: str, host: str, port: int, address: IPv4Address | IPv6Address | None) -> bool:
    if not item or item == "*":
        return item == "*"
    if "/" in item:
        try:
            return address is not None and address in ip_network(item, strict=False)
        except ValueError:
            return False
    name, wanted = _split_port(item)
    if wanted is not None and wanted != port:
        return False
    if (other := _address(name)) is not None:
        return other == address
    name = name.removeprefix("*")
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _split_port(item: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[v6]:port` or a bare IPv6 address."""
    if item.startswith("["):
        name, _, rest = item[1:].partition("]")
        return name, int(rest[1:]) if rest.startswith(":") and _is_port(rest[1:]) else None
    name, colon, port = item.rpartition(":")
    if colon and ":" not in name and _is_port(port):
        return name, int(port)
    return item, None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5
