"""--network in its advanced syntax, and the flags that speak of the first network."""

from __future__ import annotations

from wherry.cli.errors import StatusError, ValueRefused
from wherry.cli.options.create_body import EMPTY_ENDPOINT
from wherry.cli.options.csvline import split_csv
from wherry.cli.values import parse_number
from wherry.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed

_LISTS = {"alias": "aliases", "link-local-ip": "link_local"}
_TEXTS = {"name": "target", "ip": "ipv4", "ip6": "ipv6", "mac-address": "mac"}


class Attachment:
    """One network the container shall join."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.aliases: list[str] = []
        self.links: list[str] = []
        self.link_local: list[str] = []
        self.ipv4 = self.ipv6 = self.mac = ""
        self.driver_options: dict[str, str] = {}
        self.gateway_priority = 0

    @property
    def user_defined(self) -> bool:
        return self.target not in ("default", "bridge", "host", "none") and not self.target.startswith("container:")


def parse_network(text: str) -> Attachment:
    """One --network: a name, or fields (name=…,alias=…,ip=…)."""
    if not _is_long(text):
        return Attachment(text)
    attachment = Attachment("")
    for field in split_csv(text):
        key, equals, value = field.lower().partition("=")
        if not equals or not key:
            raise ValueRefused(f"invalid field {field}")
        _apply(attachment, key.strip(), value.strip())
    if not attachment.target:
        raise ValueRefused("network name/id is not specified")
    return attachment


def _is_long(text: str) -> bool:
    """Whether a word character stands on both sides of an equals sign."""
    at = text.find("=")
    while at >= 0:
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        if all(c == "_" or (c.isascii() and c.isalnum()) for c in (before, after) if c) and before and after:
            return True
        at = text.find("=", at + 1)
    return False


def _apply(attachment: Attachment, key: str, value: str) -> None:
    if key in _TEXTS:
        setattr(attachment, _TEXTS[key], value)
    elif key in _LISTS:
        getattr(attachment, _LISTS[key]).append(value)
    elif key == "driver-opt":
        name, equals, content = value.partition("=")
        if not equals:
            raise ValueRefused("invalid key value pair format in driver options")
        attachment.driver_options[name.strip()] = content.strip()
    elif key == "gw-priority":
        try:
            attachment.gateway_priority = parse_number(value, base=10)
        except ValueRefused as refusal:
            raise ValueRefused(f"invalid gw-priority ({value}): {str(refusal).rpartition(': ')[2]}") from None
    else:
        raise ValueRefused(f"invalid field key {key}")


def endpoints(parsed: Parsed) -> dict[str, Any]:
    """The EndpointsConfig of all --network flags; raises StatusError."""
    given: list[Attachment] = parsed["network"]
    attachments = given or [Attachment("default")]
    found: dict[str, Any] = {}
    for index, attachment in enumerate(attachments):
        if index == 0:
            _apply_flags(attachment, parsed)
        settings = _settings(attachment)
        if attachment.target in found:
            raise _refuse(f"network {quote(attachment.target)} is specified multiple times")
        if len(given) == 1 and not any(settings.values()):
            continue  # the engine makes the same of the network mode alone
        found[attachment.target] = settings
    if len({attachment.user_defined for attachment in attachments}) > 1:
        raise _refuse("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return found


def _refuse(text: str) -> StatusError:
    return StatusError(text, 125)


def _apply_flags(attachment: Attachment, parsed: Parsed) -> None:
    for flag, name, conflict in (
        ("network-alias", "aliases", "--network-alias and per-network alias"),
        ("link", "links", "--link and per-network links"),
        ("ip", "ipv4", "--ip and per-network IPv4 address"),
        ("ip6", "ipv6", "--ip6 and per-network IPv6 address"),
        ("mac-address", "mac", "--mac-address and per-network MAC address"),
        ("link-local-ip", "link_local", "--link-local-ip and per-network link-local IP addresses"),
    ):
        if not parsed[flag]:
            continue
        if getattr(attachment, name):
            raise _refuse(f"conflicting options: cannot specify both {conflict}")
        if name != "links" or attachment.user_defined:
            setattr(attachment, name, list(parsed[flag]) if isinstance(parsed[flag], list) else parsed[flag])


def _settings(attachment: Attachment) -> dict[str, Any]:
    if not attachment.target.strip():
        raise _refuse("no name set for network")
    if not attachment.user_defined:
        if attachment.aliases:
            raise _refuse("network-scoped aliases are only supported for user-defined networks")
        if attachment.links:
            raise _refuse("links are only supported for user-defined networks")
    if attachment.mac and not is_mac(attachment.mac):
        raise _refuse(f"{attachment.mac} is not a valid mac address")
    return {
        **EMPTY_ENDPOINT,
        "IPAMConfig": _ipam(attachment),
        "Links": attachment.links or None,
        "Aliases": attachment.aliases or None,
        "MacAddress": attachment.mac,
        "DriverOpts": attachment.driver_options or None,
        "GwPriority": attachment.gateway_priority,
    }


def _ipam(attachment: Attachment) -> dict[str, Any] | None:
    given = {
        "IPv4Address": attachment.ipv4,
        "IPv6Address": attachment.ipv6,
        "LinkLocalIPs": attachment.link_local,
    }
    return {key: value for key, value in given.items() if value} or None


def is_mac(text: str) -> bool:
    """Whether it is a hardware address of 6, 8 or 20 bytes, separated by colons, dashes or (in fours) dots."""
    separator = next((c for c in ":-." if c in text), "")
    parts = text.split(separator) if separator else []
    width = 4 if separator == "." else 2
    size = len(parts) * width // 2
    return size in (6, 8, 20) and all(
        len(part) == width and all(c in "0123456789abcdefABCDEF" for c in part) for part in parts
    )
