"""From a request to its handler and back: versions, errors, and the headers every reply carries."""

import asyncio
import logging
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


async def _awaited(call: Call, ctx: Context) -> Response | None:
    return await call.route.handler(ctx)
