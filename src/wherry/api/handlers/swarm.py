"""Swarm: this node is in none, and says so in Docker's words."""

from wherry.api.context import Context
from wherry.errors import Unavailable
from wherry.http.message import Response


async def not_a_manager(ctx: Context) -> Response:
    ctx.filters()  # those that cannot be read are told first
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
        "swarm and try again."
    )


async def not_in_a_swarm(_ctx: Context) -> Response:
    raise Unavailable("This node is not part of a swarm")


async def no_cluster_volumes(_ctx: Context) -> Response:
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")
