"""A user's side of a running process: attached streams, raw terminal, forwarded signals, window size, exit status."""

from __future__ import annotations

from wherry.cli.session import terminal_size
from wherry.cli.streams import Conversation
from wherry.client.errors import APIError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from wherry.cli.session import Session
    from wherry.cli.signals import SignalPipe
    from wherry.cli.terminal import RawMode
    from wherry.client.http import Response


class Interaction:
    """Use as a context manager: leaving it restores the terminal and the signal handlers.

    `resize_path` is where window sizes go, the container's own unless an exec is meant.
    """

    def __init__(
        self,
        session: Session,
        container: str,
        *,
        tty: bool,
        detach_keys: str = "",
        proxy_signals: bool = False,
        resize_path: str = "",
    ) -> None:
        self._session, self._container, self._tty = session, container, tty
        self._resize_path = resize_path or f"/containers/{container}/resize"
        self._detach_keys = detach_keys or session.config.text("detachKeys")
        self._proxy_signals = proxy_signals
        self._conversation: Conversation | None = None
        self._signals: SignalPipe | None = None
        self._raw: RawMode | None = None
        self._waiting: Response | None = None
        self._condition = ""

    def __enter__(self) -> Interaction:
        if self._proxy_signals or self._tty:
            from wherry.cli.signals import SIGWINCH, SignalPipe

            self._signals = SignalPipe(None if self._proxy_signals else (SIGWINCH,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._raw:
            self._raw.restore()
        if self._signals:
            self._signals.close()

    def attach(self, *, stdin: bool, stdout: bool, stderr: bool, condition: str) -> None:
        """Attach to the container's streams, and ask for its exit status before there can be one, for exit_status()
        to collect: when it is "removed", at its "next-exit", or of the exit that was ("" too). Raises ClientError."""
        query = {"stream": "1"}
        query.update((name, "1") for name, on in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)) if on)
        if self._detach_keys:
            query["detachKeys"] = self._detach_keys
        path = f"/containers/{self._container}/attach"
        response = self._session.engine.hijack(path, query, meanwhile=lambda: self._watch_exit(condition))
        self.converse(response, stdin=stdin, stdout=stdout, stderr=stderr)

    def converse(self, response: Response, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        """Take over a hijacked connection; the terminal goes raw when the process has one."""
        detach = None
        if self._tty and stdin:
            from wherry.cli.terminal import DetachFilter, RawMode, detach_keys

            detach = DetachFilter(detach_keys(self._detach_keys)).feed
            self._raw = RawMode(0)
        self._conversation = Conversation(
            response,
            stdin=0 if stdin else None,
            stdout=1 if stdout else None,
            stderr=2 if stderr else None,
            tty=self._tty,
            detach=detach,
            signals=self._signals,
            on_signal=self._on_signal,
        )

    def _watch_exit(self, condition: str) -> None:
        self._condition = condition
        path = f"/containers/{self._container}/wait"
        self._waiting = self._session.engine.request("POST", path, {"condition": condition} if condition else None)

    def send_early_input(self) -> None:
        """Hand over what is already typed, or that there is nothing, before the process starts."""
        if self._conversation:
            self._conversation.step(0)

    def follow_size(self) -> None:
        """Tell the engine the size of our window, now and (through the signal) whenever it changes."""
        if self._tty and not self._resize():
            import time

            for attempt in range(1, 6):  # the process may not have its terminal yet
                time.sleep(0.01 * attempt)
                if self._resize():
                    return

    def provoke_redraw(self) -> None:
        """Make a full-screen program that runs already draw itself for us: pretend another size first."""
        if self._tty:
            self._resize(1)

    def _resize(self, off_by: int = 0) -> bool:
        rows, columns = (each + off_by if each else 0 for each in terminal_size(1))
        if not rows and not columns:
            return True
        try:
            self._session.engine.call("POST", self._resize_path, {"h": str(rows), "w": str(columns)})
        except APIError:
            return False
        return True

    def _on_signal(self, number: int) -> None:
        from wherry.cli.signals import SIGWINCH, name_of

        if number == SIGWINCH and self._tty:
            self._resize()
            return
        if not self._proxy_signals:
            return
        try:
            self._session.engine.call("POST", f"/containers/{self._container}/kill", {"signal": name_of(number)})
        except ClientError:
            pass  # it has gone already

    def relay(self) -> bool:
        """Relay until the streams end; True when the user detached instead."""
        assert self._conversation is not None
        try:
            self._conversation.run()
        finally:
            if self._raw:
                self._raw.restore()
        return self._conversation.detached

    def _exit_reply(self) -> bytes:
        assert self._waiting is not None
        try:
            data = self._conversation.await_response(self._waiting) if self._conversation else self._waiting.read()
        except ClientError:
            data = b""
        if not data:  # the daemon has gone; what it was asked for has not
            from wherry.cli.waiting import wait_again

            data = wait_again(self._session.engine, self._container, self._condition)
        return data

    def exit_status(self) -> int:
        """The exit code that attach() asked for; 125 when the engine could not tell it, not even after a restart."""
        from wherry.jsontext import loads

        try:
            reply = loads(self._exit_reply())
        except (ClientError, ValueError) as error:
            self._session.err(f"Error waiting for container: {error}\n")
            return 125
        if problem := (reply.get("Error") or {}).get("Message"):
            self._session.err(f"Error waiting for container: {problem}\n")
            return 125
        code: int = reply.get("StatusCode", 125)
        return code
