"""`docker login`: are these credentials good, and is there a token to keep in their place?"""

from urllib.parse import urlsplit

from wherry.errors import InvalidArgument, Unauthorized
from wherry.registry.auth import Authorizer
from wherry.registry.challenges import parse
from wherry.registry.credentials import Credentials
from wherry.registry.endpoints import DOCKER_IO, Endpoint
from wherry.registry.errors import RegistryError, Unreachable
from wherry.registry.transport import Request, Response, Transport

_DOCKER_NAMES = ("", "docker.io", "index.docker.io", "registry-1.docker.io")


def domain_of(server: str) -> str:
    """The registry that a server address means: `host[:port]`, or a URL of which only the host counts; "" is Docker's.
    Raises `InvalidArgument`."""
    try:
        host = urlsplit(server if "://" in server else f"https://{server}").netloc
        urlsplit(f"//{host}").port  # noqa: B018 — raises for what is no port
    except ValueError as error:
        raise InvalidArgument(f"unable to parse server address: {error}") from None
    host = host.rpartition("@")[2]
    if server and not host:
        raise InvalidArgument(f"unable to parse server address: {server!r} names no host")
    return DOCKER_IO if host in _DOCKER_NAMES else host


def login(endpoint: Endpoint, credentials: Credentials, transport: Transport) -> str:
    """Try the credentials at one registry. Returns the identity token it gives, "" for none. Raises `Unauthorized` when
    it does not accept them, `RegistryError` when it cannot tell."""
    failure: Unreachable | None = None
    for host in endpoint.hosts:
        request = Request("GET", host, f"{endpoint.prefix}/", dict(endpoint.headers))
        try:
            response = transport.send(request)
        except Unreachable as error:
            failure = error
            continue
        with response:  # whoever answers over TLS is not given the credentials without it
            authorizer = Authorizer(credentials, host, insecure=endpoint.insecure, offline=True)
            if response.request.host.origin == host.origin:
                authorizer.learn(parse(response.headers("WWW-Authenticate")))
        return _prove(request, response, authorizer, transport)
    assert failure is not None
    raise failure


def _prove(request: Request, response: Response, authorizer: Authorizer, transport: Transport) -> str:
    value = _authorization(request, authorizer, transport)
    if value:
        headers = {**request.headers, "Authorization": value}
        with transport.send(Request("GET", request.host, request.target, headers)) as response:
            pass
    if response.status != 200:
        reason = f"{response.status} {response.reason}"
        raise RegistryError(f"login attempt to {request.url} failed with status: {reason}", status=response.status)
    return authorizer.identity_token


def _authorization(request: Request, authorizer: Authorizer, transport: Transport) -> str:
    try:
        return authorizer.header((), transport)
    except Unreachable:
        raise
    except RegistryError as error:
        failure = Unreachable(request.method, request.url, str(error))
        raise (Unauthorized(str(failure)) if error.code == "UNAUTHORIZED" else failure) from None
