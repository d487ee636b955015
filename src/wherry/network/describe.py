"""Networks as GET /networks and GET /networks/{id} show them (engine-api: Network, NetworkInspect)."""

import datetime
from typing import Any

from wherry.network.model import Endpoint, NetworkOptions
from wherry.network.records import NetworkRow

_OPTION = "com.docker.network.bridge."


def _timestamp(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 10**9)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{digits}Z"


def _ipam(row: NetworkRow) -> dict[str, Any]:
    config = None
    if row.bridge:
        config = [{"Subnet": row.bridge.subnet, "Gateway": row.bridge.gateway}]
        if row.bridge.ip_range != row.bridge.subnet:
            config[0]["IPRange"] = row.bridge.ip_range
    return {"Driver": "default", "Options": None, "Config": config}


def _options(row: NetworkRow, options: NetworkOptions) -> dict[str, str]:
    if not row.bridge:
        return {}
    return {
        f"{_OPTION}default_bridge": "true",
        f"{_OPTION}enable_icc": str(options.icc).lower(),
        f"{_OPTION}enable_ip_masquerade": str(options.ip_masq).lower(),
        f"{_OPTION}host_binding_ipv4": options.ip,
        f"{_OPTION}name": row.bridge.bridge,
        "com.docker.network.driver.mtu": str(row.bridge.mtu),
    }


def network(row: NetworkRow, options: NetworkOptions, endpoints: list[Endpoint]) -> dict[str, Any]:
    """The wire's Network, with the `endpoints` in it as Containers."""
    return {
        "Name": row.name,
        "Id": row.id,
        "Created": _timestamp(row.created),
        "Scope": "local",
        "Driver": row.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": _ipam(row),
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {endpoint.container_id: _container(endpoint) for endpoint in endpoints},
        "Options": _options(row, options),
        "Labels": {},
    }


def _container(endpoint: Endpoint) -> dict[str, str]:
    return {
        "Name": endpoint.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.ipv4}/{endpoint.prefix}" if endpoint.ipv4 else "",
        "IPv6Address": "",
    }
