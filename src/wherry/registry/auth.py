"""Who we are to a registry: Basic authentication and Bearer tokens, as its challenges ask for them."""

import base64
import json
import threading
import time
from collections.abc import Iterable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from wherry.registry.challenges import Challenge, find, parse
from wherry.registry.credentials import ANONYMOUS, Credentials
from wherry.registry.errors import RegistryError, of_reply
from wherry.registry.transport import (
    BytesBody,
    Host,
    Request,
    Response,
    Transport,
    is_number,
    named_by,
    split_url,
    target_of,
)

_TOKEN_REPLY_MAX = 1 << 20
_SHORTEST_LIFE_S = 60.0
_CLIENT_ID = "docker"
_TOKENS_MAX = 256


class _Token(msgspec.Struct):
    value: str
    expires: float
    uses: int = 0


class NoBasicCredentials(RegistryError):
    """The registry wants a name and a password, and there are none."""

    def __init__(self) -> None:
        super().__init__("no basic auth credentials")


class Authorizer:
    """The credentials for one registry and the tokens they brought. Shared by all threads that talk to it."""

    def __init__(
        self, credentials: Credentials | None, registry: Host, *, insecure: bool = False, offline: bool = False
    ) -> None:
        """`registry`: where it is. `insecure`: the registry may be spoken to without proof of who it is, so that
        its tokens may come over plain HTTP. `offline`: ask for an identity token, too."""
        self._credentials = credentials or ANONYMOUS
        self._registry = registry
        self._insecure = insecure
        self._offline = offline
        self._lock = threading.Lock()
        self._fetching = threading.Lock()
        self._challenges: list[Challenge] = []
        self._tokens: dict[tuple[str, str, frozenset[str]], _Token] = {}
        self.identity_token = ""

    def learn(self, challenges: list[Challenge]) -> None:
        """Remember what the registry asks for."""
        if challenges:
            self._challenges = challenges

    def reject(self, value: str) -> bool:
        """The registry did not accept `value`: have none of it again. Returns whether it was a token that had been used
        before: rights may have changed since."""
        with self._lock:
            found = [key for key, token in self._tokens.items() if f"Bearer {token.value}" == value]
            tokens = [self._tokens.pop(key) for key in found]
        return any(token.uses > 1 for token in tokens)

    def header(self, scopes: Iterable[str], transport: Transport) -> str:
        """The value of `Authorization` for a request within `scopes`, "" for none. Fetches a token where there is none
        that lives; raises `RegistryError` when that fails."""
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        if (bearer := find(self._challenges, "bearer")) is not None:
            return f"Bearer {self._token(bearer, frozenset(scopes), transport)}"
        if find(self._challenges, "basic") is not None:
            return self.basic()
        return ""

    def basic(self) -> str:
        """The value of `Authorization` by name and password. Raises `NoBasicCredentials`."""
        if not self._credentials.username or not self._credentials.password:
            raise NoBasicCredentials
        return _basic(self._credentials)

    def _token(self, bearer: dict[str, str], scopes: frozenset[str], transport: Transport) -> str:
        realm, service = bearer.get("realm", ""), bearer.get("service", "")
        key = (realm, service, scopes | frozenset(bearer.get("scope", "").split()))
        with transport.cancel.locking(self._fetching):  # one thread fetches, the others wait for its token
            token = self._tokens.get(key)
            if token is None or token.expires <= time.monotonic():
                token = self._fetch(realm, service, sorted(key[2]), transport)
            with self._lock:
                if len(self._tokens) >= _TOKENS_MAX:
                    self._tokens.clear()
                token.uses += 1
                self._tokens[key] = token
            return token.value

    def _fetch(self, realm: str, service: str, scopes: list[str], transport: Transport) -> _Token:
        if not realm:
            raise RegistryError("no realm specified for token auth challenge")
        try:
            parts = split_url(realm)
        except RegistryError:
            raise RegistryError(f"invalid token auth challenge realm: {realm[:200]!r}") from None
        host, target = named_by(self._registry, parts), target_of(parts)
        if host.scheme == "http" and not self._insecure:
            what = "ask for a token at" if self._credentials == ANONYMOUS else "send credentials to"
            raise RegistryError(f"refusing to {what} {realm[:200]} over plain HTTP")
        if self._credentials.identity_token:
            request = self._oauth(host, target, service, scopes)
        else:
            request = self._get(host, target, service, scopes)
        with transport.send(request) as response:
            return self._read(response)

    def _get(self, host: Host, target: str, service: str, scopes: list[str]) -> Request:
        credentials = self._credentials
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        if self._offline:
            query += [("offline_token", "true"), ("client_id", _CLIENT_ID)]
        headers = {}
        if credentials.username and credentials.password:
            query.append(("account", credentials.username))
            headers["Authorization"] = _basic(credentials)
        mark = "&" if "?" in target else "?"
        return Request("GET", host, f"{target}{mark}{urlencode(query)}" if query else target, headers)

    def _oauth(self, host: Host, target: str, service: str, scopes: list[str]) -> Request:
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": _CLIENT_ID,
            "scope": " ".join(scopes),
            "refresh_token": self._credentials.identity_token,
        }
        body = BytesBody(urlencode(form).encode())
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request("POST", host, target, headers, body, private=True)

    def _read(self, response: Response) -> _Token:
        if not 200 <= response.status < 300:
            raise error_of(response)
        try:
            document = json.loads(response.read_all(_TOKEN_REPLY_MAX))
        except (ValueError, RecursionError):
            raise RegistryError("unable to decode token response: invalid JSON") from None
        if not isinstance(document, dict):
            raise RegistryError("unable to decode token response: not an object")
        value = _text(document, "token") or _text(document, "access_token")
        if not value:
            raise RegistryError("authorization server did not include a token in the response")
        self.identity_token = _text(document, "refresh_token") or self.identity_token
        return _Token(value, time.monotonic() + _life(document))


def _basic(credentials: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _life(document: dict[str, Any]) -> float:
    """Seconds that the token will be good for: `expires_in` from `issued_at`; 60 at least, as the protocol has it."""
    seconds = document.get("expires_in")
    life = float(seconds) if isinstance(seconds, int | float) and 0 < seconds < 1e9 else _SHORTEST_LIFE_S
    try:
        issued = datetime.fromisoformat(_text(document, "issued_at")[:40])
        age = datetime.now(issued.tzinfo).timestamp() - issued.timestamp()
    except (ValueError, OverflowError):
        age = 0.0
    life = max(life, _SHORTEST_LIFE_S)
    return life * 0.9 - (age if 0 < age < life else 0.0)


def error_of(response: Response) -> RegistryError:
    """The error that a reply is."""
    bearer = find(parse(response.headers("WWW-Authenticate")), "bearer")
    body = b"" if response.request.method == "HEAD" else response.read_start()
    error = of_reply(response.status, response.reason, response.header("Content-Type"), body, bearer)
    error.retry_after = retry_after(response.header("Retry-After"))
    return error


def retry_after(value: str) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date."""
    if is_number(value.strip()):
        return float(value.strip()[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return max(0.0, moment.timestamp() - time.time())
