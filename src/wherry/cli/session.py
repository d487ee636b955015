"""What a running command has at hand: configuration, the engine, the standard streams."""

from __future__ import annotations

import os

from wherry.client.config import ClientConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.client.endpoints import Endpoint
    from wherry.client.engine import Engine


def write_all(fd: int, data: bytes) -> None:
    """Write everything to a descriptor, past partial writes."""
    while data:
        try:
            written = os.write(fd, data)
        except BlockingIOError:
            # Somebody shares the terminal and made it non-blocking.
            from select import select

            select([], [fd], [])
            continue
        if written == len(data):
            return
        data = data[written:]


def terminal_size(fd: int) -> tuple[int, int]:
    """(rows, columns); zeros when it is no terminal."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return rows, columns


class Session:
    """`flags` are the global flags given (host, context, tls…). Connections are made when first needed."""

    def __init__(self, flags: dict[str, Any], path: str = "wherry") -> None:
        self.flags = flags
        self.path = path
        self.config = ClientConfig(flags.get("config"))
        self._endpoint: Endpoint | None = None
        self._engine: Engine | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where the engine is; raises StatusError when the configuration is wrong."""
        if self._endpoint is None:
            from wherry.cli.errors import StatusError
            from wherry.client.endpoints import choose
            from wherry.client.errors import ConfigError

            try:
                self._endpoint = choose(self.config, self.flags)
            except ConfigError as error:
                text = str(error)
                if not text.startswith("conflicting"):
                    text = f"Failed to initialize: unable to resolve docker endpoint: {text}"
                raise StatusError(text) from None
        return self._endpoint

    @property
    def engine(self) -> Engine:
        """The engine, connected; on the default socket one is started when none answers."""
        if self._engine is None:
            from wherry.client.engine import Engine
            from wherry.client.errors import ConnectionFailed

            version = os.environ.get("DOCKER_API_VERSION", "").removeprefix("v")
            engine = Engine(self.endpoint, version, "wherry/0.1.0 (linux)", self._custom_headers())
            if self.endpoint.is_default and self.flags.get("autostart", True):
                try:
                    engine.reach()
                except ConnectionFailed:
                    from wherry.cli.autostart import start_engine

                    start_engine(self.endpoint, self.err)
            self._engine = engine
        return self._engine

    def _custom_headers(self) -> dict[str, str]:
        """What the settings add to every request, or DOCKER_CUSTOM_HEADERS instead. Raises StatusError."""
        if given := os.environ.get("DOCKER_CUSTOM_HEADERS"):
            from wherry.cli.options.simple import custom_headers

            return custom_headers(given)
        headers = self.config.settings.get("HttpHeaders")
        return headers if isinstance(headers, dict) else {}

    def close(self) -> None:
        if self._engine:
            self._engine.close()

    def out(self, text: str) -> None:
        """Write text to standard output."""
        write_all(1, text.encode("utf-8", "surrogateescape"))

    def err(self, text: str) -> None:
        """Write text to standard error."""
        write_all(2, text.encode("utf-8", "surrogateescape"))
