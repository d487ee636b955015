"""`docker search`: the index of version 1, which Docker's registry still has."""

import json
from typing import Any
from urllib.parse import urlencode

from wherry.errors import InvalidArgument
from wherry.registry.auth import Authorizer
from wherry.registry.credentials import Credentials
from wherry.registry.endpoints import Endpoint
from wherry.registry.errors import RegistryError, Unreachable
from wherry.registry.transport import Host, Request, Response, Transport

_REPLY_MAX = 4 << 20
_DEFAULT, _MOST = 25, 100


def search(
    endpoint: Endpoint, term: str, limit: int, credentials: Credentials | None, transport: Transport
) -> list[dict[str, Any]]:
    """Up to `limit` results (0: 25) for `term`, as the index has them: name, description, star_count, is_official."""
    limit = limit or _DEFAULT
    if not 1 <= limit <= _MOST:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {_MOST}]")
    target = "/v1/search?" + urlencode({"n": limit, "q": term})
    failure: RegistryError | None = None
    for host in endpoint.hosts:
        try:
            return _ask(host, target, credentials, transport)
        except Unreachable as error:
            failure = error
    assert failure is not None
    raise failure


def _ask(host: Host, target: str, credentials: Credentials | None, transport: Transport) -> list[dict[str, Any]]:
    headers = {"X-Docker-Token": "true"}
    if credentials and credentials.username and credentials.password:
        headers["Authorization"] = Authorizer(credentials, host).basic()
    with transport.send(Request("GET", host, target, headers)) as response:
        if response.status != 200:
            raise RegistryError(f"Unexpected status code {response.status}", status=response.status)
        return _results(response)


def _results(response: Response) -> list[dict[str, Any]]:
    try:
        document = json.loads(response.read_all(_REPLY_MAX))
    except (ValueError, RecursionError):
        raise RegistryError("error decoding registry search results: invalid JSON") from None
    results = document.get("results") or [] if isinstance(document, dict) else None
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise RegistryError("error decoding registry search results: they are no list of objects")
    return results
