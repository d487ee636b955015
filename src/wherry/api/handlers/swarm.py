"""Swarm: this node is in none, and says so in Docker's words."""

from wherry.api.context import Context
from wherry.errors import Unavailable
from wherry.http.message import Response


async def not_a_manager(_ctx: Context) -> Response:
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
        "swarm and try again."
    )


async def not_in_a_swarm(_ctx: Context) -> Response:
    raise Unavailable("This node is not part of a swarm")
