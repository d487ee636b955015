"""Every route of the API in one table, and how a path finds its row.

A route answers with and without the prefix `/v1.NN`. Names in paths may hold slashes (`/images/library/x/json`), so a
pattern is matched as a whole: `{name}` takes what the fixed parts leave over. The first match in the table wins.
"""

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from wherry.api.app import App
from wherry.api.context import Context
from wherry.api.handlers import (
    containers,
    exec,
    files,
    image_files,
    images,
    networks,
    registries,
    streams,
    swarm,
    system,
    usage,
    volumes,
)
from wherry.errors import Unimplemented
from wherry.http.message import Response

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

Handler = Callable[[Context], Awaitable[Response | None]]


class Route(NamedTuple):
    """One row. `completes`: a client that hangs up does not stop it. `missing`: why it is answered by 501."""

    method: str
    pattern: str
    handler: Handler
    completes: bool = False
    missing: str = ""


def _missing(method: str, pattern: str, what: str) -> Route:
    message = f"not implemented: {what}"

    async def refuse(_ctx: Context) -> Response:
        raise Unimplemented(message)

    return Route(method, pattern, refuse, missing=what)


def _swarm(method: str, pattern: str) -> Route:
    return Route(method, pattern, swarm.not_a_manager, missing="the engine has no swarm mode")


ROUTES: tuple[Route, ...] = (
    Route("GET", "/_ping", system.ping),
    Route("HEAD", "/_ping", system.ping),
    Route("GET", "/version", system.version),
    Route("GET", "/info", system.info),
    Route("GET", "/events", system.events),
    Route("OPTIONS", "/", system.options),
    Route("OPTIONS", "*", system.options),
    Route("OPTIONS", "/{name}", system.options),
    Route("POST", "/auth", registries.log_in),
    Route("GET", "/system/df", usage.disk),
    # Containers
    Route("GET", "/containers/json", containers.list_),
    Route("POST", "/containers/create", containers.create, completes=True),
    Route("POST", "/containers/prune", usage.prune_containers, completes=True),
    Route("GET", "/containers/{name}/json", containers.inspect),
    Route("GET", "/containers/{name}/top", containers.top),
    Route("GET", "/containers/{name}/logs", streams.logs),
    Route("DELETE", "/containers/{name}/logs", streams.clear_logs, completes=True),  # an extension
    Route("GET", "/containers/{name}/changes", files.changes),
    Route("GET", "/containers/{name}/export", files.export),
    Route("GET", "/containers/{name}/stats", containers.stats),
    Route("HEAD", "/containers/{name}/archive", files.head),
    Route("GET", "/containers/{name}/archive", files.get),
    Route("PUT", "/containers/{name}/archive", files.put),
    _missing("GET", "/containers/{name}/checkpoints", "checkpoints are not supported yet"),
    _missing("POST", "/containers/{name}/checkpoints", "checkpoints are not supported yet"),
    _missing("DELETE", "/containers/{name}/checkpoints/{checkpoint}", "checkpoints are not supported yet"),
    Route("POST", "/containers/{name}/start", containers.start, completes=True),
    Route("POST", "/containers/{name}/stop", containers.stop, completes=True),
    Route("POST", "/containers/{name}/restart", containers.restart, completes=True),
    Route("POST", "/containers/{name}/kill", containers.kill, completes=True),
    Route("POST", "/containers/{name}/pause", containers.pause, completes=True),
    Route("POST", "/containers/{name}/unpause", containers.unpause, completes=True),
    Route("POST", "/containers/{name}/rename", containers.rename, completes=True),
    Route("POST", "/containers/{name}/resize", containers.resize),
    Route("POST", "/containers/{name}/update", containers.update, completes=True),
    Route("POST", "/containers/{name}/wait", streams.wait),
    Route("POST", "/containers/{name}/attach", streams.attach),
    Route("GET", "/containers/{name}/attach/ws", streams.attach_websocket),
    Route("POST", "/containers/{name}/exec", exec.create),
    Route("DELETE", "/containers/{name}", containers.remove, completes=True),
    Route("POST", "/exec/{name}/start", exec.start),
    Route("POST", "/exec/{name}/resize", exec.resize),
    Route("GET", "/exec/{name}/json", exec.inspect),
    # Images
    Route("GET", "/images/json", images.list_),
    Route("POST", "/images/create", images.create),
    Route("POST", "/images/load", images.load),
    Route("GET", "/images/search", registries.search),
    Route("GET", "/images/get", images.save),
    Route("GET", "/images/layers", image_files.layers),  # an extension
    Route("POST", "/images/prune", usage.prune_images, completes=True),
    Route("GET", "/images/{name}/json", images.inspect),
    Route("GET", "/images/{name}/history", images.history),
    Route("GET", "/images/{name}/get", images.save),
    Route("GET", "/images/{name}/changes", image_files.changes),  # an extension
    Route("POST", "/images/{name}/flatten", image_files.flatten, completes=True),  # an extension
    Route("POST", "/images/{name}/push", registries.push),
    Route("POST", "/images/{name}/tag", images.tag, completes=True),
    Route("DELETE", "/images/{name}", images.remove, completes=True),
    Route("GET", "/distribution/{name}/json", registries.distribution),
    Route("POST", "/commit", images.commit, completes=True),
    _missing("POST", "/build", "building is not supported yet"),
    Route("POST", "/build/prune", usage.prune_build_cache),
    _missing("POST", "/build/cancel", "building is not supported yet"),
    _missing("POST", "/session", "BuildKit sessions are not supported yet"),
    _missing("POST", "/grpc", "BuildKit's gRPC API is not supported yet"),
    # Networks and volumes
    Route("GET", "/networks", networks.list_),
    Route("GET", "/networks/", networks.list_),
    _missing("POST", "/networks/create", "networks of one's own are not supported yet"),
    Route("POST", "/networks/prune", usage.prune_networks, completes=True),
    _missing("POST", "/networks/{name}/connect", "networks of one's own are not supported yet"),
    _missing("POST", "/networks/{name}/disconnect", "networks of one's own are not supported yet"),
    Route("GET", "/networks/{name}", networks.inspect),
    Route("DELETE", "/networks/{name}", networks.remove),
    Route("GET", "/volumes", volumes.list_),
    Route("POST", "/volumes/create", volumes.create, completes=True),
    Route("POST", "/volumes/prune", usage.prune_volumes, completes=True),
    Route("GET", "/volumes/{name}", volumes.inspect),
    Route("DELETE", "/volumes/{name}", volumes.remove, completes=True),
    Route("PUT", "/volumes/{name}", swarm.no_cluster_volumes, missing="only volumes of a swarm can be changed"),
    # Plugins: none, and there is no way to get any
    Route("GET", "/plugins", system.no_plugins),
    Route("GET", "/plugins/{name}/json", system.no_such_plugin),
    _missing("GET", "/plugins/privileges", "plugins are not supported"),
    _missing("POST", "/plugins/pull", "plugins are not supported"),
    _missing("POST", "/plugins/create", "plugins are not supported"),
    _missing("POST", "/plugins/{name}/upgrade", "plugins are not supported"),
    *(
        Route("POST", f"/plugins/{{name}}/{verb}", system.no_such_plugin)
        for verb in ("enable", "disable", "push", "set")
    ),
    Route("DELETE", "/plugins/{name}", system.no_such_plugin),
    # Swarm: this node is in none, which is an answer, not an error of ours
    Route("POST", "/swarm/leave", swarm.not_in_a_swarm, missing="the engine has no swarm mode"),
    _missing("POST", "/swarm/init", "the engine has no swarm mode"),
    _missing("POST", "/swarm/join", "the engine has no swarm mode"),
    _swarm("GET", "/swarm"),
    _swarm("GET", "/swarm/unlockkey"),
    _swarm("POST", "/swarm/update"),
    _swarm("POST", "/swarm/unlock"),
    *(_swarm("GET", f"/{kind}") for kind in ("nodes", "services", "tasks", "secrets", "configs")),
    *(_swarm("POST", f"/{kind}/create") for kind in ("services", "secrets", "configs")),
    *(_swarm("GET", f"/{kind}/{{name}}/logs") for kind in ("services", "tasks")),
    *(_swarm("POST", f"/{kind}/{{name}}/update") for kind in ("nodes", "services", "secrets", "configs")),
    *(_swarm("GET", f"/{kind}/{{name}}") for kind in ("nodes", "services", "tasks", "secrets", "configs")),
    *(_swarm("DELETE", f"/{kind}/{{name}}") for kind in ("nodes", "services", "secrets", "configs")),
)


class Router:
    """Finds the row of a request."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._fixed: dict[tuple[str, str], Route] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if "{" not in route.pattern:
                self._fixed.setdefault((route.method, route.pattern), route)
            else:
                key = (route.method, _first_segment(route.pattern))
                self._patterns.setdefault(key, []).append((_compile(route.pattern), route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of `path` (without version) and the variables in it; None when there is none."""
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return fixed, {}
        for key in ((method, _first_segment(path)), (method, "{name}")):
            for pattern, route in self._patterns.get(key, ()):
                match = pattern.fullmatch(path)
                if match is not None:
                    return route, match.groupdict()
        return None


def _first_segment(path: str) -> str:
    return path[1:].partition("/")[0]


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(pattern)), re.DOTALL)


def build_app(engine: "Engine") -> App:
    """The application that serves `engine` to `wherry.http.server.Server`."""
    return App(engine, Router(ROUTES))
