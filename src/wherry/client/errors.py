"""What can go wrong between a client and an engine; every text is ready to be shown."""

from __future__ import annotations


class ClientError(Exception):
    """Base of the errors of this room."""


class APIError(ClientError):
    """The engine answered with an error status; `str()` is Docker's sentence, `message` the engine's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.message = message


class ConnectionFailed(ClientError):
    """Nobody answers at the address."""


class BrokenReply(ClientError):
    """The peer does not speak HTTP, or hung up in the middle of a reply."""


class ConfigError(ClientError):
    """The client's own configuration (hosts, contexts, certificates) is wrong."""
