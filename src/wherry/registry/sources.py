"""One repository at one endpoint: requests with the right name, headers and authorization."""

import math
import threading
import time
from collections.abc import Mapping

from wherry.registry.auth import Authorizer
from wherry.registry.challenges import Challenge, parse
from wherry.registry.endpoints import Endpoint
from wherry.registry.errors import RegistryError, Unreachable
from wherry.registry.transport import Body, Host, Request, Response, Transport, named_by, split_url, target_of

_SNIFFED = 64
_ROUNDS = 3
_PLAIN_S = 30.0


class Known:
    """What was learnt of an endpoint with some credentials, kept for the next pull: its scheme, its challenges."""

    def __init__(self, authorizer: Authorizer) -> None:
        self.authorizer = authorizer
        self.lock = threading.Lock()
        self._host: Host | None = None
        self._until = 0.0

    @property
    def host(self) -> Host | None:
        """Where it answers, None when that is not known (any more)."""
        return self._host if time.monotonic() < self._until else None

    def found(self, host: Host) -> None:
        self._host = host
        plain = host.scheme == "http"  # a registry may learn TLS
        self._until = time.monotonic() + _PLAIN_S if plain else math.inf

    def forget(self) -> None:
        self._until = 0.0


class Source:
    """Sends requests for the repository `path` to `endpoint`."""

    def __init__(self, endpoint: Endpoint, path: str, known: Known, transport: Transport) -> None:
        self.endpoint = endpoint
        self.path = path
        self._known = known
        self._transport = transport

    @property
    def host(self) -> Host:
        """Where the endpoint answers. The first call asks it; raises `RegistryError` when none of its ways works."""
        with self._transport.cancel.locking(self._known.lock):
            host = self._known.host
            if host is None:
                host = self._find()
                self._known.found(host)
            return host

    def forget(self) -> None:
        """What was learnt may be wrong by now: a registry can come back as another."""
        self._known.forget()

    def _find(self) -> Host:
        """The first of the endpoint's ways that a registry answers on. A way that TLS proved stays the only one."""
        failure: RegistryError | None = None
        for host in self.endpoint.hosts:
            try:
                self._ping(host)
                return host
            except Unreachable as error:
                failure = error
        assert failure is not None
        raise failure

    def _ping(self, host: Host) -> None:
        """`GET /v2/`: is this a registry, and whom does it let in?"""
        request = Request("GET", host, f"{self.endpoint.prefix}/", self._headers({}, own=True))
        with self._transport.send(request) as response:
            own = response.request.host.origin == host.origin
            self._known.authorizer.learn(parse(response.headers("WWW-Authenticate")) if own else [])
            if response.status == 200 and _is_page(response):
                raise RegistryError(f"{request.url} is not a registry: it answers with an HTML page")

    def url(self, rest: str) -> str:
        """The target of what lies below the repository."""
        mark = "&" if "?" in rest else "?"
        namespace = f"{mark}ns={self.endpoint.namespace}" if self.endpoint.namespace else ""
        return f"{self.endpoint.prefix}/{self.path}/{rest}{namespace}"

    def send(
        self, method: str, rest: str, *, headers: Mapping[str, str] | None = None, body: Body | None = None,
        push: bool = False, also: str = "", redirects: bool = True,
    ) -> Response:  # fmt: skip
        """The reply to a request for `rest`, which is a target below the repository or a whole URL that the registry
        gave. `also`: another repository to be read. Raises `RegistryError`; replies of any status are returned."""
        scopes = [f"repository:{self.path}:{'pull,push' if push else 'pull'}"]
        scopes += [f"repository:{also}:pull"] if also else []
        host, target = self._locate(rest)
        own = host.origin == self.host.origin
        for left in reversed(range(_ROUNDS)):
            request = Request(method, host, target, self._headers(headers or {}, own=own), body)
            value = self._authorization(request, scopes, bare=push) if own else ""
            if value:
                request = Request(method, host, target, {**request.headers, "Authorization": value}, body)
            response = self._sent(request, redirects)
            if response.status != 401 or not left or not self._again(response, value):
                break
            response.close()
        return response

    def _sent(self, request: Request, redirects: bool) -> Response:
        try:
            return self._transport.send(request, redirects=redirects)
        except Unreachable:
            self.forget()
            raise

    def _locate(self, rest: str) -> tuple[Host, str]:
        host = self.host
        if "://" not in rest:
            return host, rest if rest.startswith("/") else self.url(rest)
        parts = split_url(rest)
        other = named_by(host, parts)
        default = parts.port is None and host.port == 443
        if other.host == host.host and (default or other.port == host.port):
            return host, target_of(parts)  # behind a proxy that ends TLS, registries say http and mean themselves
        if other.scheme != "https" and host.scheme == "https":
            raise RegistryError(f"refusing to go on from {host.url} to {other.url}: it is without TLS")
        return other, target_of(parts)

    def _authorization(self, request: Request, scopes: list[str], *, bare: bool) -> str:
        """As Docker, failed pulls tell which request it was for, failed pushes (`bare`) do not."""
        if any(name.lower() == "authorization" for name, _ in self.endpoint.headers):
            return ""
        try:
            return self._known.authorizer.header(scopes, self._transport)
        except RegistryError as error:
            if bare or isinstance(error, Unreachable):
                raise
            raise _because(request, error) from None

    def _again(self, response: Response, value: str) -> bool:
        """Whether a request that was refused may be sent again: what the registry asks for is now known better."""
        if response.request.host.origin != self.host.origin:
            return False  # somebody else asks: a redirect led there
        challenges = parse(response.headers("WWW-Authenticate"))
        self._known.authorizer.learn(challenges)
        old = self._known.authorizer.reject(value)
        return bool(challenges) and (not value or old or not _is_final(challenges, value))

    def _headers(self, headers: Mapping[str, str], *, own: bool) -> dict[str, str]:
        """With those that the operator has for this endpoint, which may be secrets."""
        return {**dict(self.endpoint.headers), **headers} if own else dict(headers)


def _is_final(challenges: list[Challenge], value: str) -> bool:
    """Whether the same credentials would only be refused again."""
    if value.startswith("Basic "):
        return True
    return any(one.parameters.get("error") == "insufficient_scope" for one in challenges)


def _because(request: Request, error: RegistryError) -> RegistryError:
    """`error`, which came in the way of `request`: no longer one of the registry's own."""
    wrapped = Unreachable(request.method, request.url, str(error), passing=error.passing)
    wrapped.status, wrapped.retry_after = error.status, error.retry_after
    return wrapped


def _is_page(response: Response) -> bool:
    return response.content_type == "text/html" and response.read_start(_SNIFFED).lstrip()[:1] == b"<"
