"""TLS settings of registries: `certs.d` as Docker lays it out, and contexts made of it."""

import os
import ssl
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from wherry.registry.errors import RegistryError

HOSTS_TOML = "hosts.toml"


class Tls(msgspec.Struct, frozen=True):
    """How one host is spoken to over TLS: authorities besides the system's, client certificates as (certificate, key),
    all as paths of PEM files."""

    authorities: tuple[str, ...] = ()
    clients: tuple[tuple[str, str], ...] = ()
    verify: bool = True

    def for_others(self) -> "Tls":
        """The same towards hosts that this one redirects to: they do not see the client's certificate."""
        return Tls(self.authorities, (), self.verify)


def read_directory(directory: Path, *, verify: bool = True) -> Tls:
    """What a directory of `certs.d` says: `*.crt` are authorities, `NAME.cert` and `NAME.key` a client's certificate
    and its key. One that is not there says nothing. Raises `RegistryError` when half of a pair is missing, save beside
    a `hosts.toml`, which may name files as it likes."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return Tls(verify=verify)
    except OSError as error:
        raise RegistryError(f"open {directory}: {(error.strerror or '').lower()}") from None
    authorities = tuple(str(directory / name) for name in names if name.endswith(".crt"))
    return Tls(authorities, _pairs(directory, names, strict=HOSTS_TOML not in names), verify)


def _pairs(directory: Path, names: list[str], *, strict: bool) -> tuple[tuple[str, str], ...]:
    certificates = {name.removesuffix(".cert") for name in names if name.endswith(".cert")}
    keys = {name.removesuffix(".key") for name in names if name.endswith(".key")}
    for name in sorted(certificates - keys if strict else ()):
        raise RegistryError(
            f"missing key {name}.key for client certificate {name}.cert. CA certificates must use the extension .crt"
        )
    for name in sorted(keys - certificates if strict else ()):
        raise RegistryError(f"missing client certificate {name}.cert for key {name}.key")
    return tuple(
        (str(directory / f"{name}.cert"), str(directory / f"{name}.key")) for name in sorted(certificates & keys)
    )


class Contexts:
    """The contexts of TLS settings, made anew when one of the files changed: reading the system's authorities takes
    twenty milliseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[Tls, tuple[tuple[int, int], ...]], ssl.SSLContext] = {}

    def get(self, tls: Tls) -> ssl.SSLContext:
        """Raises `RegistryError` when a file is missing or none that TLS can use."""
        key = (tls, tuple(_stamp(path) for path in (*tls.authorities, *(one for pair in tls.clients for one in pair))))
        with self._lock:
            if key not in self._made:
                if len(self._made) >= _CONTEXTS_MAX:
                    self._made.clear()
                self._made[key] = _context(tls)
            return self._made[key]


_CONTEXTS_MAX = 32


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0  # the context says what is wrong
    return status.st_mtime_ns, status.st_size


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an operator may trust one certificate, root or not
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs()
    for path in tls.authorities if tls.verify else ():
        _load(path, partial(context.load_verify_locations, cafile=path))
    for certificate, key in tls.clients:
        _load(certificate, partial(context.load_cert_chain, certificate, key, _no_password))
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # and OpenSSL would ask for the password on the terminal


def _load(path: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = str(getattr(error, "strerror", None) or error)
        raise RegistryError(f"{path}: {reason.lower()}") from None
