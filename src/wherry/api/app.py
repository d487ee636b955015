"""From a request to its handler and back: versions, errors, and the headers every reply carries."""

import asyncio
import logging
import posixpath
import urllib.parse
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wherry.api import errors, versions
from wherry.api.context import Context, run_to_the_end
from wherry.http.message import Request, Response

if TYPE_CHECKING:
    from wherry.api.router import Route
    from wherry.engine.engine import Engine

log = logging.getLogger(__name__)

COMPATIBLE_WITH = "28.5.2"
"""The Docker release this API is measured against. Clients look for it in the Server header."""

_COMMON_HEADERS = (
    ("Api-Version", versions.text(versions.MAXIMUM)),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", f"Docker/{COMPATIBLE_WITH} (linux)"),
)


class Finder(Protocol):
    def find(self, method: str, path: str) -> "tuple[Route, dict[str, str]] | None": ...


class Call(NamedTuple):
    """What a path means: its route and variables, and the API version asked for."""

    route: "Route"
    variables: dict[str, str]
    version: versions.Version | None


class App:
    """The Docker API of one engine."""

    def __init__(self, engine: "Engine", router: Finder) -> None:
        self._engine = engine
        self._router = router

    async def __call__(self, request: Request) -> Response | None:
        """Answer `request`; None when its connection was taken over."""
        return await self.handle(request)

    async def handle(self, request: Request) -> Response | None:
        call = self._find(request)
        cleaned = clean(request.path)
        if cleaned != request.path and (call is None or "/." in request.path):
            return _redirect(request, cleaned)
        if call is None:
            response: Response | None = Response(
                404, b'{"message":"page not found"}\n', content_type="application/json"
            )
        else:
            response = await self._call(call, request)
        if response is not None:
            response.headers.extend(_COMMON_HEADERS)
        return response

    def _find(self, request: Request) -> Call | None:
        version, path = versions.split(request.path)
        found = self._router.find(request.method, path)
        return None if found is None else Call(*found, version)

    async def _call(self, call: Call, request: Request) -> Response | None:
        log.debug("Calling %s %s", request.method, request.path)
        try:
            if call.version is not None:
                versions.check(call.version)
            ctx = Context(self._engine, request, call.version or versions.MAXIMUM, call.variables)
            if call.route.completes:
                return await run_to_the_end(asyncio.create_task(_awaited(call, ctx)))
            return await call.route.handler(ctx)
        except Exception as error:
            return errors.respond(error, call.version)


def clean(path: str) -> str:
    """`path` without empty segments, "." and "..", as Docker's router wants it; a slash at the end stays."""
    if "//" not in path and "/." not in path and path.startswith("/"):
        return path
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def _redirect(request: Request, path: str) -> Response:
    """Where `request` should have gone. Docker's router answers so before any of its own headers are set. It does so
    for `/containers//name/json`, too, where we take the slash for the name's: that is how inspect shows a name."""
    query = request.target.partition("?")[2]
    location = urllib.parse.quote(path, safe="/:@!$&'()+,;=~") + (f"?{query}" if query else "")
    return Response(301, headers=[("Location", location)])


async def _awaited(call: Call, ctx: Context) -> Response | None:
    return await call.route.handler(ctx)
