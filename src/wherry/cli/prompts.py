"""Asking the user for what a login needs."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError
from wherry.cli.notes import note
from wherry.cli.terminal import is_terminal
from wherry.client.credentials import INDEX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.session import Session
    from wherry.client.credentials import Auth

_TOKENS = (
    "A Personal Access Token (PAT) can be used instead.\nTo create a PAT, visit https://app.docker.com/settings\n\n"
)


def ask_for_credentials(session: Session, server: str, user: str, password: str, usual: str) -> Auth:
    """The credentials for a server; what is "" is asked for, where `usual` is the user unless another one is named.

    Raises StatusError when there is nobody to ask, or nothing is answered.
    """
    if not (user and password) and not is_terminal(0):
        raise StatusError("Error: Cannot perform an interactive login from a non TTY device")
    user = user.strip()
    if not user:
        session.out("Log in with your Docker ID or email address.\n" if server == INDEX else "")
        session.out(f"Username ({usual}): " if usual else "Username: ")
        user = _line() or usual
    if not user:
        raise StatusError("Error: Non-null Username Required")
    password = password.strip() or _ask_for_password(session, server)
    if not password:
        raise StatusError("Error: Password Required")
    return {"username": user, "password": password, "serveraddress": server}


def _ask_for_password(session: Session, server: str) -> str:
    with _Unseen():
        if server == INDEX:
            note(2, _TOKENS)
        session.out("Password: ")
        try:
            return _line()
        finally:
            session.out("\n")


class _Unseen:
    """While it is entered, the terminal does not show what is typed; a signal that ends us brings that back, too."""

    def __enter__(self) -> None:
        import signal
        import termios

        self._before = termios.tcgetattr(0)
        quiet = termios.tcgetattr(0)
        quiet[3] &= ~termios.ECHO
        self._handlers = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGHUP)}
        termios.tcsetattr(0, termios.TCSANOW, quiet)

    def __exit__(self, *_: object) -> None:
        import signal

        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _restore(self) -> None:
        import termios

        termios.tcsetattr(0, termios.TCSANOW, self._before)

    def _end(self, number: int, _frame: object) -> None:
        import signal

        self._restore()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _line() -> str:
    """A line that is typed, without the space around it; "" at the end of the input."""
    data = b""
    while not data.endswith(b"\n") and (piece := os.read(0, 4096)):
        data += piece
    return data.decode("utf-8", "surrogateescape").strip()
