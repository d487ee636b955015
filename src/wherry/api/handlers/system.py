"""/_ping, /version, /info, /events, and what an engine without plugins says about them."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from wherry.api import decode, versions
from wherry.api.context import Context, json_bytes, json_response
from wherry.engine import info as engine_info
from wherry.errors import InvalidArgument, NotFound
from wherry.http.message import Response

_PING_HEADERS = (
    ("Builder-Version", "1"),
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Swarm", "inactive"),
)


async def ping(ctx: Context) -> Response:
    """Alive, and which API this is: the first thing every client asks."""
    body = b"" if ctx.request.method == "HEAD" else b"OK"
    return Response(200, body, content_type="text/plain; charset=utf-8", headers=list(_PING_HEADERS))


async def options(_ctx: Context) -> Response:
    """CORS pre-flight: allowed to ask, and told nothing."""
    return Response(200)


async def version(ctx: Context) -> Response:
    shown: dict[str, Any] = await engine_info.version(ctx.engine)
    limits = {"ApiVersion": versions.text(versions.MAXIMUM), "MinAPIVersion": versions.text(versions.MINIMUM)}
    for component in shown.get("Components", ()):
        if component["Name"] == "Engine":
            component["Details"] = component.get("Details", {}) | limits
    return json_response(shown | limits)


async def info(ctx: Context) -> Response:
    return json_response(info_for(await engine_info.info(ctx.engine), ctx.version))


def info_for(shown: dict[str, Any], version: versions.Version) -> dict[str, Any]:
    """GET /info as it was in API `version`: `shown` is the newest."""
    shown = dict(shown)
    if version < (1, 42):
        shown.setdefault("KernelMemory", True)
    if version < (1, 44):
        shown["Runtimes"] = {
            name: {key: value for key, value in runtime.items() if key != "status"}
            for name, runtime in (shown.get("Runtimes") or {}).items()
        }
    if version < (1, 46):
        shown.pop("Containerd", None)
    if version < (1, 47):
        registry = shown.get("RegistryConfig")
        if registry is not None:
            nothing = {"AllowNondistributableArtifactsCIDRs": None, "AllowNondistributableArtifactsHostnames": None}
            shown["RegistryConfig"] = registry | nothing
    if version < (1, 49):
        shown.pop("FirewallBackend", None)
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            if name in shown:
                shown[name] = shown[name] | {"Expected": shown[name]["ID"]}
    if version < (1, 50):
        shown |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    return shown


async def events(ctx: Context) -> Response:
    """GET /events: a line per event, from `since`, until `until` or for ever."""
    query = ctx.request.query
    since, until = decode.timestamp(query, "since"), decode.timestamp(query, "until")
    if since is not None and until is not None and since > until:
        raise InvalidArgument(f"`since` time ({ctx.text('since')}) cannot be after `until` time ({ctx.text('until')})")
    subscription = ctx.engine.events.subscribe(since, until, ctx.filters())
    return Response(200, content_type="application/json", stream=_event_lines(subscription), watch=True)


async def _event_lines(subscription: Any) -> AsyncIterator[bytes]:
    try:
        async for message in subscription:
            yield json_bytes(with_legacy_fields(message))
    finally:
        subscription.close()


def with_legacy_fields(message: dict[str, Any]) -> dict[str, Any]:
    """`message` with the fields of old: before API 1.52 containers' and images' events had them at the top, and
    command-line clients of that time crash without."""
    kind = message["Type"]
    if kind not in ("container", "image"):
        return message
    actor = message["Actor"]
    legacy = {"status": message["Action"]} | ({"id": actor["ID"]} if actor["ID"] else {})
    if kind == "container" and actor["Attributes"].get("image"):
        legacy["from"] = actor["Attributes"]["image"]
    return legacy | message


async def no_plugins(ctx: Context) -> Response:
    filters = decode.accept_filters(ctx.filters(), ("capability", "enabled"))
    decode.filter_flag(filters, "enabled", default=False)
    return json_response(msgspec.Raw(b"[]"))


async def no_such_plugin(ctx: Context) -> Response:
    raise NotFound(f'plugin "{ctx.name}" not found')
