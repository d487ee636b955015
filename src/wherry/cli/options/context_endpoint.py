"""The engine that `context create --docker` describes: checked, with its certificates read."""

from __future__ import annotations

from wherry.cli.errors import ValueRefused
from wherry.client.endpoints import parse_host
from wherry.client.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KEYS = ("from", "host", "ca", "cert", "key", "skip-tls-verify")


def described(
    options: dict[str, str], stored: Callable[[str], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The endpoint's metadata and its files, by name. `stored` finds another context. Raises ConfigError."""
    if unknown := sorted(set(options) - set(_KEYS)):
        raise ConfigError("\n".join(f"unrecognized config key: {key}" for key in unknown))
    if "from" in options:
        docker = (stored(options["from"]).get("Endpoints") or {}).get("docker")
        if docker is None:
            raise ConfigError(f'unable to get endpoint from context "{options["from"]}"')
        return docker, {}
    files = _read({"ca.pem": options.get("ca"), "cert.pem": options.get("cert"), "key.pem": options.get("key")})
    docker = {"Host": options["host"]} if options.get("host") else {}
    docker["SkipTLSVerify"] = _skip(options.get("skip-tls-verify", ""))
    _check_host(options.get("host", ""))
    try:
        _check_material(files)
    except ConfigError as error:
        raise ConfigError(f"invalid docker endpoint options: failed to retrieve context tls info: {error}") from None
    return docker, files


def _skip(text: str) -> bool:
    from wherry.cli.values import parse_bool
    from wherry.goquote import quote

    try:
        return bool(text) and parse_bool(text)
    except ValueRefused:
        raise ConfigError(f"skip-tls-verify: parsing {quote(text)}: invalid syntax") from None


def _read(paths: dict[str, str | None]) -> dict[str, bytes]:
    from wherry.cli.options.files import read_file

    return {name: read_file(path) for name, path in paths.items() if path}


def _check_host(host: str) -> None:
    """Any scheme may be stored; what is none and what ssh would not take is refused."""
    if host and "://" not in host:
        raise ConfigError(f"unable to apply docker endpoint options: unable to parse docker host `{host}`")
    if host.startswith("ssh://"):
        try:
            parse_host(host)
        except ConfigError as error:
            raise ConfigError(f"invalid docker endpoint options: {error}") from None


def _check_material(files: dict[str, bytes]) -> None:
    authority, certificate, key = (files.get(name, b"") for name in ("ca.pem", "cert.pem", "key.pem"))
    if authority and "CERTIFICATE" not in _blocks(authority):
        raise ConfigError("ca.pem seems invalid")
    if not (certificate and key):
        return
    found = _blocks(certificate)
    if "CERTIFICATE" not in found:
        raise ConfigError("tls: failed to find " + _instead(found))
    found = _blocks(key)
    if not any(each.endswith("PRIVATE KEY") for each in found):
        if found == ["CERTIFICATE"]:
            raise ConfigError("tls: found a certificate rather than a key in the PEM for the private key")
        raise ConfigError("tls: failed to find any PEM data in key input")
    _check_pair(certificate, key)


def _instead(found: list[str]) -> str:
    if len(found) == 1 and found[0].endswith("PRIVATE KEY"):
        return (
            "certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"
        )
    return "any PEM data in certificate input"


def _blocks(data: bytes) -> list[str]:
    """The kinds of the PEM blocks in a file."""
    lines = [line.rstrip() for line in data.splitlines()]
    begins = [line for line in lines if line.startswith(b"-----BEGIN ") and line.endswith(b"-----")]
    return [line[11:-5].decode("ascii", "replace") for line in begins]


def _check_pair(certificate: bytes, key: bytes) -> None:
    """Refuse a key that is not the certificate's."""
    import ssl
    import tempfile

    with tempfile.NamedTemporaryFile() as first, tempfile.NamedTemporaryFile() as second:
        for file, content in ((first, certificate), (second, key)):
            file.write(content)
            file.flush()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(first.name, second.name, password="")
        except ssl.SSLError as error:
            mismatch = "MISMATCH" in (error.reason or "")
            raise ConfigError(
                "tls: private key does not match public key" if mismatch else f"tls: {error.reason or error}"
            ) from None
