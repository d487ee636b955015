"""One call of the API, as its handler sees it."""

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from wherry.api import decode
from wherry.api.versions import Version
from wherry.http.message import Request, Response

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_encode = msgspec.json.Encoder().encode


class Context:
    """`engine` to act on, the `request`, the API `version` it asked for, and `vars`, the variables of its path."""

    __slots__ = ("engine", "request", "vars", "version")

    def __init__(self, engine: "Engine", request: Request, version: Version, variables: dict[str, str]) -> None:
        self.engine = engine
        self.request = request
        self.version = version
        self.vars = variables

    @property
    def name(self) -> str:
        """The object the path names."""
        return self.vars["name"]

    def text(self, name: str, default: str = "") -> str:
        return decode.text(self.request.query, name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        return decode.flag(self.request.query, name, default)

    def number(self, name: str) -> int | None:
        return decode.number(self.request.query, name)

    def filters(self) -> decode.Filters:
        return decode.filters(self.request.query)

    async def json(self, *, optional: bool = False) -> Any:
        return await decode.json_body(self.request, optional=optional)


def json_bytes(value: Any) -> bytes:
    """`value` as Go's encoder writes it: one line with its end."""
    return _encode(value) + b"\n"


def json_response(value: Any, status: int = 200) -> Response:
    return Response(status, json_bytes(value), content_type="application/json")


async def run_to_the_end(task: "asyncio.Task[Response | None]") -> Response | None:
    """Wait for `task`; if the client hangs up meanwhile, the task goes on: half a stop is worse than one unseen."""
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)
    return await asyncio.shield(task)


_RUNNING: "set[asyncio.Task[Response | None]]" = set()
"""asyncio keeps only weak references to tasks."""
