"""The client of all registries that an engine has."""

import threading

from wherry.registry import dial
from wherry.registry.auth import Authorizer
from wherry.registry.cancel import Cancellation
from wherry.registry.certs import Contexts
from wherry.registry.config import RegistryConfig
from wherry.registry.credentials import ANONYMOUS, Credentials
from wherry.registry.endpoints import Endpoint, endpoints_for
from wherry.registry.errors import RegistryError
from wherry.registry.repository import Repository, check_name
from wherry.registry.sources import Known, Source
from wherry.registry.transport import Transport

_KNOWN_MAX = 64


class Registry:
    """Speaks to registries as `config` says; safe for several threads. It remembers tokens, no connections."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._contexts = Contexts()
        self._lock = threading.Lock()
        self._known: dict[tuple[Endpoint, Credentials], Known] = {}

    def repository(
        self, domain: str, path: str, credentials: Credentials | None = None, *, cancel: Cancellation | None = None
    ) -> Repository:
        """The repository `path` of the registry `domain` (`host[:port]`; `docker.io` is Docker's). Credentials are for
        the registry itself, never for its mirrors. `cancel` breaks off whatever is under way. Only names are looked up
        here. Raises `InvalidArgument`, `RegistryError`, `Cancelled`."""
        cancel = cancel or Cancellation()
        transport = Transport(self._config, self._contexts, cancel)
        endpoints = endpoints_for(self._config, domain, lambda host: _resolve(host, cancel))
        sources = [self._source(endpoint, check_name(path), credentials, transport) for endpoint in endpoints]
        return Repository(domain, path, sources, transport, self._config)

    def _source(self, endpoint: Endpoint, path: str, credentials: Credentials | None, transport: Transport) -> Source:
        mine = credentials if credentials and endpoint.trusted else ANONYMOUS
        return Source(endpoint, path, self._remembered(endpoint, mine), transport)

    def _remembered(self, endpoint: Endpoint, credentials: Credentials) -> Known:
        with self._lock:
            key = (endpoint, credentials)
            known = self._known.pop(key, None)
            if known is None:
                authorizer = Authorizer(credentials, endpoint.hosts[0].tls, insecure=endpoint.insecure)
                known = Known(authorizer)
            self._known[key] = known  # the last one used is the last one forgotten
            if len(self._known) > _KNOWN_MAX:
                del self._known[next(iter(self._known))]
            return known


def _resolve(host: str, cancel: Cancellation) -> list[str]:
    try:
        return dial.resolve(host, cancel)
    except dial.DialError as error:
        raise RegistryError(str(error), passing=error.passing) from None
