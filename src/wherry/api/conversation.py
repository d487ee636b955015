"""A taken-over connection as the engine gets it, with what depends on the API version decided here."""

import socket
from typing import Protocol

from wherry.api.versions import Version
from wherry.http.hijack import RAW_STREAM, Hijack

MULTIPLEXED_SINCE: Version = (1, 42)
"""Older clients are told "raw stream" even where the stream has frames."""


class Takeover(Hijack, Protocol):
    """A `Hijack` that knows whether it has been answered."""

    @property
    def accepted(self) -> bool: ...


class Conversation:
    """A `Hijack`. The engine names the content type by what the stream is; clients that asked for no upgrade or speak
    an old API are told "raw" either way."""

    def __init__(self, takeover: Takeover, version: Version) -> None:
        self._takeover = takeover
        self._told = version >= MULTIPLEXED_SINCE and takeover.upgraded
        self.upgraded = takeover.upgraded

    @property
    def accepted(self) -> bool:
        return self._takeover.accepted

    async def accept(self, content_type: str) -> None:
        await self._takeover.accept(content_type if self._told else RAW_STREAM)

    async def write(self, data: bytes) -> None:
        await self._takeover.write(data)

    async def hand_over(self) -> tuple[socket.socket, bytes]:
        return await self._takeover.hand_over()

    def release(self) -> None:
        self._takeover.release()

    async def close(self) -> None:
        await self._takeover.close()
