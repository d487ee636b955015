"""Where a repository is asked for: mirrors first, then the registry itself.

`hosts.toml` in the registry's directory of `certs.d` is containerd's; without one Docker's rules hold: `mirrors` for
docker.io, certificates from the directory, insecure registries by configuration.
"""

import tomllib
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from wherry.registry.certs import HOSTS_TOML, Tls, read_directory
from wherry.registry.config import LOOPBACK, RegistryConfig
from wherry.registry.errors import RegistryError
from wherry.registry.transport import Host, host_of, split_url

DOCKER_IO = "docker.io"
_DOCKER_HOST = "registry-1.docker.io"
_DOCKER_INDEX = "index.docker.io"
_HOSTS_TOML_MAX = 1 << 20
_PORTS = {"http": 80, "https": 443}
PULL, RESOLVE, PUSH = "pull", "resolve", "push"
_ALL = frozenset((PULL, RESOLVE, PUSH))


class Endpoint(msgspec.Struct, frozen=True):
    """A registry's API. `hosts`: ways to speak to it, the first that answers counts. `prefix`: the path of the API's
    root, no slash at its end. `trusted`: it is the registry itself, which the credentials are for. `namespace`: the
    registry that a shared mirror stands for, "" where it need not be told."""

    hosts: tuple[Host, ...]
    prefix: str = "/v2"
    trusted: bool = True
    capabilities: frozenset[str] = _ALL
    headers: tuple[tuple[str, str], ...] = ()
    namespace: str = ""

    @property
    def insecure(self) -> bool:
        """Whether the operator lets it be without a certificate that proves it."""
        return any(host.scheme == "http" or not host.tls.verify for host in self.hosts)


Resolve = Callable[[str], list[str]]


def endpoints_for(config: RegistryConfig, domain: str, resolve: Resolve) -> list[Endpoint]:
    """The endpoints for the registry `domain`, in the order to ask them; the last is the registry itself. `resolve`
    gives the addresses of a host. Raises `RegistryError` for settings that cannot be followed."""
    directory = directory_of(config, domain)
    if directory is not None and (directory / HOSTS_TOML).is_file():
        return _from_hosts_toml(config, domain, directory / HOSTS_TOML, resolve)
    mirrors = [_mirror(config, url) for url in config.mirrors] if domain == DOCKER_IO else []
    return [*mirrors, origin(config, domain, resolve)]


def origin(config: RegistryConfig, domain: str, resolve: Resolve, *, index: bool = False) -> Endpoint:
    """The registry `domain` itself, by Docker's rules; `index`: the one that is searched."""
    name = (_DOCKER_INDEX if index else _DOCKER_HOST) if domain == DOCKER_IO else domain
    addresses = _insecure_addresses(config, domain, resolve)
    tls = tls_of(config, name, verify=addresses is None)
    secure = _host("https", name, tls, addresses or ())
    return Endpoint((secure,) if addresses is None else (secure, _host("http", name, Tls(), addresses)))


def directory_of(config: RegistryConfig, domain: str) -> Path | None:
    """The directory of `certs.d` for `host[:port]`, by containerd's names for it; None when there is none."""
    names = (domain, domain.replace(":", "_") + "_", "_default") if ":" in domain else (domain, "_default")
    found = (Path(place) / name for name in names for place in config.certs_dirs)
    return next((path for path in found if path.is_dir()), None)


def tls_of(config: RegistryConfig, domain: str, *, verify: bool = True) -> Tls:
    """TLS towards `domain` as its directory says."""
    for place in config.certs_dirs:
        if (path := Path(place) / domain).is_dir():
            return read_directory(path, verify=verify)
    return Tls(verify=verify)


def _host(scheme: str, name: str, tls: Tls, addresses: tuple[str, ...] = ()) -> Host:
    host = host_of(split_url(f"{scheme}://{name}"), tls)
    return Host(host.scheme, host.host, host.port, tls, addresses)


# -- insecure registries


def _insecure_addresses(config: RegistryConfig, domain: str, resolve: Resolve) -> tuple[str, ...] | None:
    """None when the registry must prove itself. Otherwise the addresses it has to be spoken to at: whoever is let off
    for its address is not looked up again; () when it is let off by name."""
    hosts = [item for item in config.insecure if "/" not in item]
    if domain in hosts or (domain == DOCKER_IO and "index.docker.io" in hosts):
        return ()
    networks = [ip_network(item, strict=False) for item in (*config.insecure, *LOOPBACK) if "/" in item]
    try:
        addresses = resolve(urlsplit(f"//{domain}").hostname or domain)
    except RegistryError:
        return None  # whoever connects says why
    inside = [one for one in addresses if any(ip_address(one.partition("%")[0]) in network for network in networks)]
    return tuple(inside) or None


# -- mirrors of Docker's configuration


def _mirror(config: RegistryConfig, url: str) -> Endpoint:
    parts = split_url(url)
    tls = tls_of(config, parts.netloc, verify=parts.netloc not in config.insecure)
    return Endpoint((host_of(parts, tls),), parts.path.rstrip("/") + "/v2", False, frozenset((PULL, RESOLVE)))


# -- hosts.toml


def _from_hosts_toml(config: RegistryConfig, domain: str, path: Path, resolve: Resolve) -> list[Endpoint]:
    document = _read(path)
    hosts = document.get("host", {})
    if not isinstance(hosts, dict) or not all(isinstance(table, dict) for table in hosts.values()):
        raise RegistryError(f"{path}: 'host' is not a table of tables")
    found = [_of_table(domain, path, url, table) for url, table in hosts.items()]
    if "server" in document:
        server = {key: value for key, value in document.items() if key != "host"}
        return [*found, _of_table(domain, path, str(server.pop("server")), server)]
    return [*found, origin(config, domain, resolve)]


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _HOSTS_TOML_MAX:
            raise RegistryError(f"{path}: larger than {_HOSTS_TOML_MAX} bytes")
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RegistryError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """What may be said of one host."""

    capabilities: tuple[str, ...] = (PULL, RESOLVE, PUSH)
    ca: str | list[str] = []
    client: str | list[str | list[str]] = []
    skip_verify: bool = False
    override_path: bool = False
    header: dict[str, str | list[str]] = {}
    dial_timeout: str = ""


def _of_table(domain: str, path: Path, url: str, values: dict[str, Any]) -> Endpoint:
    try:
        table = msgspec.convert(values, _Table)
        parts = split_url(url if "://" in url else f"https://{url}")
    except (msgspec.ValidationError, RegistryError) as error:
        raise RegistryError(f"{path}: host {url!r}: {error}") from None
    host = host_of(parts, _table_tls(path, table))
    own = _DOCKER_HOST if domain == DOCKER_IO else domain
    trusted = parts.netloc in (own, domain)
    prefix = parts.path.rstrip("/") if table.override_path else parts.path.rstrip("/").removesuffix("/v2") + "/v2"
    headers = tuple((name, value) for name, values in table.header.items() for value in _listed(values))
    return Endpoint((host,), prefix, trusted, frozenset(table.capabilities), headers, "" if trusted else domain)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _table_tls(path: Path, table: _Table) -> Tls:
    def place(name: str) -> str:
        return str(path.parent / name)

    authorities = tuple(place(name) for name in _listed(table.ca))
    clients = [table.client] if isinstance(table.client, str) else table.client
    pairs = tuple((place(one), place(one)) if isinstance(one, str) else _client(path, one) for one in clients)
    return Tls(authorities, pairs, not table.skip_verify)


def _client(path: Path, pair: list[str]) -> tuple[str, str]:
    if len(pair) not in (1, 2):
        raise RegistryError(f"{path}: 'client' is a file or a list of [certificate, key]")
    return str(path.parent / pair[0]), str(path.parent / (pair[1] or pair[0] if len(pair) == 2 else pair[0]))
