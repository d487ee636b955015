"""Which requests on a TCP listener smell of a web browser: those are refused.

A page that a user of this machine looks at can make the browser send requests to any address, a loopback one included:
across sites (`Origin`, `Sec-Fetch-Site`), by a form, or under its own name rebound to our address (`Host`). The API has
no cookies to protect it, so such requests get 403 (the family of CVE-2025-54289). Clients of the API send none of
these. A unix socket is out of a browser's reach and needs no guard.
"""

import ipaddress
import socket

from wherry.http.h1 import Head

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_LOCAL_NAMES = frozenset({"localhost", "docker", "host.docker.internal", "gateway.docker.internal"})


def refuse(head: Head, allowed_hosts: frozenset[str], encrypted: bool) -> str | None:
    """Why `head` is refused, or None. `allowed_hosts`: further names this daemon is called by, in lower case.

    Under TLS the name is proven by the certificate, which a rebound name cannot do, so `Host` is not looked at.
    """
    headers = head.headers
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return "cross-origin requests are not allowed"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "cross-site requests are not allowed"
    if headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS:
        return "forms are not accepted"
    if not encrypted and not _is_ours(_name_of(host), allowed_hosts):
        return "the Host header does not name this daemon"
    return None


def _name_of(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_ours(name: str, allowed_hosts: frozenset[str]) -> bool:
    if not name or name in _LOCAL_NAMES or name.endswith(".localhost") or name in allowed_hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = socket.gethostname().lower()
        return name in (own, own.partition(".")[0])
    return True
