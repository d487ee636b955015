"""/networks: bridge, host and none, which every engine has."""

from typing import Any

from wherry.api import decode
from wherry.api.context import Context, json_response
from wherry.api.matching import has_label, search
from wherry.errors import Forbidden, InvalidArgument
from wherry.http.message import Response

_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})


async def list_(ctx: Context) -> Response:
    filters = decode.accept_filters(ctx.filters(), _FILTERS)
    if any(value not in ("true", "1", "false", "0") for value in filters.get("dangling", ())):
        raise InvalidArgument("""invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")""")
    networks: list[dict[str, Any]] = await ctx.engine.run_blocking(ctx.engine.network.networks)
    shown = [network | {"Containers": {}} for network in networks if _matches(network, filters)]
    return json_response(shown)


async def inspect(ctx: Context) -> Response:
    return json_response(await ctx.engine.run_blocking(ctx.engine.network.inspect, ctx.name))


async def remove(ctx: Context) -> Response:
    network = await ctx.engine.run_blocking(ctx.engine.network.inspect, ctx.name)
    raise Forbidden(f"{network['Name']} is a pre-defined network and cannot be removed")


def _matches(network: dict[str, Any], filters: decode.Filters) -> bool:
    if filters.get("dangling") and decode.filter_flag(filters, "dangling", True):
        return False  # a predefined network is never dangling
    exact = {"driver": "Driver", "scope": "Scope"}
    if any(filters.get(key) and network[field] not in filters[key] for key, field in exact.items()):
        return False
    if filters.get("type") and "builtin" not in filters["type"]:
        return False
    for key, field in (("id", "Id"), ("name", "Name")):
        if filters.get(key) and not any(search(value, network[field]) for value in filters[key]):
            return False
    return all(has_label(network.get("Labels") or {}, label) for label in filters.get("label", ()))
