"""The conversation with a container's standard streams, in one poll loop: no threads, nothing to join.

Sending never blocks: a container that writes while nobody reads its output, and reads nothing meanwhile, would
otherwise hold us and the engine in each other's way.
"""

from __future__ import annotations

import os
import select

from wherry.cli.session import write_all
from wherry.client.stdcopy import STDOUT, SYSTEM_ERROR, Demux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.cli.signals import SignalPipe
    from wherry.client.http import Response

_CHUNK = 65536


class Conversation:
    """Relays between the user's streams and a hijacked connection.

    `stdin`, `stdout`, `stderr` are descriptors, None when not attached. With `tty` the stream is raw, else
    multiplexed. `detach` watches for the detach keys. `signals` and `on_signal` deliver what the user's terminal and
    others send us; `also` is another response to await (the container's exit), read when it has something.
    """

    def __init__(
        self,
        response: Response,
        *,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        tty: bool,
        detach: Callable[[bytes], tuple[bytes, bool]] | None = None,
        signals: SignalPipe | None = None,
        on_signal: Callable[[int], None] | None = None,
    ) -> None:
        self._response = response
        self._connection = response.connection
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        multiplexed = response.headers.get("content-type") == "application/vnd.docker.multiplexed-stream"
        self._demux = Demux() if multiplexed or not tty else None
        self._detach = detach
        self._signals, self._on_signal = signals, on_signal
        self._outgoing = b""
        self._input_ended = stdin is None
        self._output_ended = False
        self._also: Response | None = None
        self._also_data = bytearray()
        self.detached = False

    def step(self, timeout: int | None = None) -> None:
        """Wait (milliseconds, None = as long as it takes) for one round of events and handle them."""
        poll = select.poll()
        for fd, mask in self._interests().items():
            poll.register(fd, mask)
        if self._connection.pending() or (self._also and self._also.connection.pending()):
            timeout = 0
        ready = dict(poll.poll(timeout))
        if self._signals and self._signals.fileno() in ready:
            for number in self._signals.take():
                if self._on_signal:
                    self._on_signal(number)
        mask = ready.get(self._connection.fileno(), 0)
        if not self._output_ended and (mask & ~select.POLLOUT or self._connection.pending()):
            self._read_output()
        if self._outgoing and mask & select.POLLOUT:
            self._flush_input()
        if self._stdin is not None and self._stdin in ready:
            self._read_input(self._stdin)
        if self._also and (self._also.fileno() in ready or self._also.connection.pending()):
            self._read_also()

    def _interests(self) -> dict[int, int]:
        interests: dict[int, int] = {}
        if not self._output_ended:
            interests[self._connection.fileno()] = select.POLLIN
        if self._outgoing and not self._output_ended:
            interests[self._connection.fileno()] = select.POLLIN | select.POLLOUT
        elif not self._input_ended and self._stdin is not None and not self._output_ended:
            interests[self._stdin] = select.POLLIN
        if self._signals:
            interests[self._signals.fileno()] = select.POLLIN
        if self._also:
            interests[self._also.fileno()] = select.POLLIN
        return interests

    def _read_output(self) -> None:
        data = self._connection.read_some(_CHUNK)
        if not data:
            self._output_ended = True
            return
        if self._demux is None:
            if self._stdout is not None:
                write_all(self._stdout, data)
            return
        for stream, piece in self._demux.feed(data):
            if stream == SYSTEM_ERROR:
                from wherry.cli.errors import StatusError

                raise StatusError(f"error from daemon in stream: {piece.decode('utf-8', 'replace')}")
            target = self._stdout if stream <= STDOUT else self._stderr
            if target is not None:
                write_all(target, piece)

    def _read_input(self, stdin: int) -> None:
        try:
            data = os.read(stdin, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # the terminal has gone
        if not data:
            self._end_input()
            return
        if self._detach:
            data, self.detached = self._detach(data)
            if self.detached:
                self._input_ended = True
        self._outgoing = data
        self._flush_input()

    def _flush_input(self) -> None:
        try:
            sent = self._connection.stream.send_some(self._outgoing)
        except OSError:
            self._outgoing, self._input_ended = b"", True  # the container reads no more; its output may go on
            return
        self._outgoing = self._outgoing[sent:]

    def _end_input(self) -> None:
        self._input_ended = True
        self._connection.stream.shutdown_write()

    def _read_also(self) -> None:
        assert self._also is not None
        data = self._also.read_some()
        self._also_data += data
        if not data:
            self._also = None

    @property
    def streams_ended(self) -> bool:
        """Whether nothing more will be shown."""
        if self._output_ended or self.detached:
            return True
        return self._stdout is None and self._stderr is None and self._input_ended and not self._outgoing

    def run(self) -> None:
        """Relay until the streams end or the user detaches."""
        while not self.streams_ended:
            self.step()

    def await_response(self, response: Response) -> bytes:
        """Read `response` to its end, handling signals meanwhile; returns its body."""
        self._also, self._input_ended = response, True
        while self._also:
            self.step()
        return bytes(self._also_data)

    def close(self) -> None:
        self._connection.close()
