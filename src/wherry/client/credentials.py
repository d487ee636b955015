"""Whom the user is at which registry: config.json's `auths`, credential helpers, DOCKER_AUTH_CONFIG.

What is known of a registry is a dict with Docker's keys: username, password, identitytoken, registrytoken, email and
serveraddress, those that are set. The file holds user and password in base64, as "auth"; a helper keeps them where
`credHelpers` (by registry) or `credsStore` name one.
"""

from __future__ import annotations

import os

from wherry.client import helpers
from wherry.client.errors import ConfigError
from wherry.client.helpers import HelperError
from wherry.jsontext import decode, dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from wherry.client.config import ClientConfig

    Auth = dict[str, str]
    T = TypeVar("T")

INDEX = "https://index.docker.io/v1/"
"""The name under which credentials of docker.io are kept."""
VARIABLE = "DOCKER_AUTH_CONFIG"
_TOKEN_USER = "<token>"  # what a helper has for a user where the secret is an identity token
_FIELDS = ("username", "password", "email", "identitytoken", "registrytoken")
_TOLD = ("username", "password", "serveraddress", "identitytoken", "registrytoken")
# Docker's own web login keeps tokens of its own beside the credentials of docker.io.
_OF_INDEX = (f"{INDEX}access-token", f"{INDEX}refresh-token")


def server_of(domain: str) -> str:
    """The name under which credentials of a reference's domain are kept."""
    return INDEX if domain == "docker.io" else domain


def hostname(url: str) -> str:
    """A registry's address without scheme and path."""
    scheme, separator, rest = url.partition("://")
    return (rest if separator and scheme in ("http", "https") else url).partition("/")[0]


def fields(auth: Auth) -> Auth:
    """What the engine is told of credentials."""
    return {key: auth[key] for key in _TOLD if auth.get(key)}


def header(auth: Auth) -> dict[str, str]:
    """The header that tells the engine of credentials; there even where there are none."""
    from binascii import b2a_base64

    text = b2a_base64(dumps(fields(auth)).encode("utf-8", "replace"), newline=False).decode()
    return {"X-Registry-Auth": text.replace("+", "-").replace("/", "_")}


def lookup(config: ClientConfig, server: str) -> Auth:
    """The credentials for a server, {} when there are none; raises HelperError."""
    if (found := _environment().get(server)) is not None:
        return found
    known = in_file(config, server)
    helper = _helper(config, server)
    if not helper:
        return known
    kept = helpers.get(helper, server)
    known = {"email": known["email"]} if "email" in known else {}
    if kept is None:
        return known
    user, secret = kept
    named = {"identitytoken": secret} if user == _TOKEN_USER else {"username": user, "password": secret}
    return {**known, **named, "serveraddress": server}


def lookup_if_possible(config: ClientConfig, server: str) -> Auth:
    """The same; where a helper fails, what the file has."""
    try:
        return lookup(config, server)
    except HelperError:
        return in_file(config, server)


def in_file(config: ClientConfig, server: str) -> Auth:
    """What the file has for a server, old files under its URL."""
    entries = config.settings.get("auths")
    if not isinstance(entries, dict):
        return {}
    name = server
    if name not in entries:
        name = next((each for each in entries if hostname(each) == server), "")
    entry = entries.get(name)
    if not isinstance(entry, dict):
        return {}
    try:
        return {**_opened(entry), "serveraddress": name}
    except ConfigError as error:
        text = f"WARNING: Error parsing config file ({config.path}): {error}\n"
        os.write(2, text.encode("utf-8", "surrogateescape"))
        return {}


def store(config: ClientConfig, auth: Auth) -> bool:
    """Keep credentials; returns whether a password was added to the file. Raises HelperError or ConfigError."""
    server, helper = auth["serveraddress"], _helper(config, auth["serveraddress"])
    if helper:
        token = auth.get("identitytoken")
        user = _TOKEN_USER if token else auth.get("username", "")
        helpers.store(helper, server, user, token or auth.get("password", ""))
        auth = {"email": auth["email"]} if "email" in auth else {}
    settings, entry = config.read_again(), _entry(auth)
    entries = _auths(config, settings)
    if entries.get(server) == entry:
        return False
    entries = {**entries, server: entry}
    auths = {key: entries[key] for key in sorted(entries)}
    config.save({"auths": auths, **settings} | {"auths": auths}, secret=not helper)
    return bool(auth.get("password"))


def erase(config: ClientConfig, server: str) -> None:
    """Forget the credentials for a server; raises HelperError or ConfigError."""
    if helper := _helper(config, server):
        helpers.erase(helper, server)
    settings = config.read_again()
    entries = _auths(config, settings)
    if server in entries:
        config.save({**settings, "auths": {key: entry for key, entry in entries.items() if key != server}})
    if server == INDEX:
        for each in _OF_INDEX:
            if each in entries:
                erase(config, each)


def servers(config: ClientConfig) -> list[str]:
    """The servers of which the file has something."""
    entries = config.settings.get("auths")
    return sorted(entries) if isinstance(entries, dict) else []


def _auths(config: ClientConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """The entries of the file, about to be changed; raises ConfigError when they are not what they should be."""
    entries = settings.get("auths") or {}
    if not isinstance(entries, dict):
        raise ConfigError(f'{config.path}: "auths" is no object')
    return entries


def _helper(config: ClientConfig, server: str) -> str:
    """The name of the helper for a server; "" where the file itself keeps the credentials."""
    by_server = config.settings.get("credHelpers")
    if isinstance(by_server, dict) and server in by_server:
        return str(by_server[server])
    return config.text("credsStore")


def _opened(entry: dict[str, Any]) -> Auth:
    """An entry of the file with user and password in the clear; raises ConfigError."""
    found = {key: entry[key] for key in _FIELDS if isinstance(entry.get(key), str) and entry[key]}
    if isinstance(entry.get("auth"), str) and entry["auth"]:
        found.update(_decoded(entry["auth"]))
    return {key: value for key, value in found.items() if value}


def _decoded(auth: str) -> Auth:
    """User and password; raises ConfigError in Docker's words."""
    from binascii import Error, a2b_base64

    text = auth.replace("\r", "").replace("\n", "")
    try:
        decoded = a2b_base64(text, strict_mode=True).decode("utf-8", "surrogateescape")
    except Error:
        raise ConfigError(f"illegal base64 data at input byte {_illegal_at(text)}") from None
    user, colon, password = decoded.partition(":")
    if not colon or not user:
        raise ConfigError("Invalid auth configuration file")
    return {"username": user, "password": password.strip("\0")}


def _illegal_at(text: str) -> int:
    """Where Go's decoder stops: at a character that is none of the alphabet, or at the start of what is no quartet."""
    for at, character in enumerate(text):
        if not (character.isascii() and (character.isalnum() or character in "+/")):
            return at
    return len(text) // 4 * 4


def _entry(auth: Auth) -> dict[str, str]:
    """Credentials as the file has them."""
    from binascii import b2a_base64

    entry = {}
    if auth.get("username") or auth.get("password"):
        pair = f"{auth.get('username', '')}:{auth.get('password', '')}".encode("utf-8", "surrogateescape")
        entry["auth"] = b2a_base64(pair, newline=False).decode()
    entry.update({key: auth[key] for key in _FIELDS[2:] if auth.get(key)})
    return entry


def _environment() -> dict[str, Auth]:
    """The credentials in the variable, by server; none, with a warning, when it is not what it should be."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return {}
    try:
        return _parsed(text)
    except (ValueError, ConfigError) as error:
        reason = str(error).replace("end of JSON input", "EOF")
        said = f"Failed to create credential store from {VARIABLE}:  {reason}\n"
        os.write(2, said.encode("utf-8", "surrogateescape"))
        return {}


def _parsed(text: str) -> dict[str, Auth]:
    document, end = decode(text)
    if text[end:].strip():
        raise ConfigError(f"{VARIABLE} does not support more than one JSON object")
    document = _typed(document, dict, "value of type configfile.configEnv")
    _only(document, "auths")
    field, kind = "configEnv.auths", "configfile.configEnvAuth"
    found = {}
    for server, value in _typed(document.get("auths"), dict, f"struct field {field} of type map[string]{kind}").items():
        entry = _typed(value, dict, f"struct field {field}.{server} of type {kind}")
        _only(entry, "auth")
        auth = _typed(entry.get("auth"), str, f"struct field {field}.{server}.auth of type string")
        if not auth:
            raise ConfigError(f"{VARIABLE} environment variable is missing key `auth` for {server}")
        found[server] = {**_decoded(auth), "serveraddress": server}
    return found


def _typed(value: Any, wanted: type[T], what: str) -> T:
    """A value of the variable, empty for null; raises ConfigError in Go's words when it is another than `wanted`."""
    if value is None:
        return wanted()
    if isinstance(value, wanted):
        return value
    kind = {list: "array", dict: "object", str: "string", bool: "bool"}.get(type(value), "number")
    raise ConfigError(f"json: cannot unmarshal {kind} into Go {what}")


def _only(document: dict[str, Any], key: str) -> None:
    other = next((each for each in document if each != key), None)
    if other is not None:
        raise ConfigError(f'json: unknown field "{other}"')
