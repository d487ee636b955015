"""The client of all registries that an engine has."""

import threading
from contextlib import closing
from functools import partial
from typing import Any

from wherry.registry import dial, login, search
from wherry.registry.auth import Authorizer
from wherry.registry.cancel import Cancellation
from wherry.registry.certs import Contexts
from wherry.registry.config import RegistryConfig
from wherry.registry.connections import Pool
from wherry.registry.credentials import ANONYMOUS, Credentials
from wherry.registry.endpoints import Endpoint, Resolve, endpoints_for, origin
from wherry.registry.errors import RegistryError
from wherry.registry.repository import Repository, check_name
from wherry.registry.sources import Known, Source
from wherry.registry.transport import Transport

_KNOWN_MAX = 64


class Registry:
    """Speaks to registries as `config` says; safe for several threads. It remembers tokens; connections only while
    a repository is open."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._contexts = Contexts()
        self._pool = Pool()
        self._lock = threading.Lock()
        self._known: dict[tuple[Endpoint, Credentials], Known] = {}

    def repository(
        self, domain: str, path: str, credentials: Credentials | None = None, *, cancel: Cancellation | None = None
    ) -> Repository:
        """The repository `path` of the registry `domain` (`host[:port]`; `docker.io` is Docker's). Credentials are for
        the registry itself, never for its mirrors. `cancel` breaks off whatever is under way. Only names are looked up
        here. Raises `InvalidArgument`, `RegistryError`, `Cancelled`."""
        cancel = cancel or Cancellation()
        check_name(path)
        endpoints = endpoints_for(self._config, domain, self._resolver(cancel))
        transport = self._transport(cancel)
        sources = [self._source(endpoint, path, credentials, transport) for endpoint in endpoints]
        return Repository(domain, path, sources, transport, self._config)

    def _source(self, endpoint: Endpoint, path: str, credentials: Credentials | None, transport: Transport) -> Source:
        mine = credentials if credentials and endpoint.trusted else ANONYMOUS
        return Source(endpoint, path, self._remembered(endpoint, mine), transport)

    def _remembered(self, endpoint: Endpoint, credentials: Credentials) -> Known:
        with self._lock:
            key = (endpoint, credentials)
            known = self._known.pop(key, None)
            if known is None:
                authorizer = Authorizer(credentials, endpoint.hosts[0], insecure=endpoint.insecure)
                known = Known(authorizer)
            self._known[key] = known  # the last one used is the last one forgotten
            if len(self._known) > _KNOWN_MAX:
                del self._known[next(iter(self._known))]
            return known

    def login(self, server: str, credentials: Credentials, *, cancel: Cancellation | None = None) -> tuple[str, str]:
        """Try credentials at the registry `server` (`host[:port]` or a URL; "" is Docker's). Returns what to say, and
        the identity token to keep instead of the password ("" for none). Raises `Unauthorized`, `RegistryError`."""
        cancel = cancel or Cancellation()
        endpoint = self._origin(login.domain_of(server), cancel)
        with closing(self._transport(cancel)) as transport:
            return "Login Succeeded", login.login(endpoint, credentials, transport)

    def search(
        self, domain: str, term: str, limit: int, credentials: Credentials | None = None, *,
        cancel: Cancellation | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Search the index of a registry; see `search.search`."""
        cancel = cancel or Cancellation()
        endpoint = origin(self._config, domain, self._resolver(cancel), index=True)
        with closing(self._transport(cancel)) as transport:
            return search.search(endpoint, term, limit, credentials, transport)

    def _origin(self, domain: str, cancel: Cancellation) -> Endpoint:
        """The registry itself: credentials are never tried at a mirror."""
        found = [one for one in endpoints_for(self._config, domain, self._resolver(cancel)) if one.trusted]
        return found[-1] if found else origin(self._config, domain, self._resolver(cancel))

    def _transport(self, cancel: Cancellation) -> Transport:
        return Transport(self._config, self._contexts, self._pool, cancel)

    def _resolver(self, cancel: Cancellation) -> Resolve:
        return partial(_resolve, cancel=cancel)


def _resolve(host: str, cancel: Cancellation) -> list[str]:
    try:
        return dial.resolve(host, cancel)
    except dial.DialError as error:
        raise RegistryError(str(error), passing=error.passing) from None
