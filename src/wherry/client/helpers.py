"""Credential helpers: programs `docker-credential-NAME` that keep secrets in a keychain of the user's.

A helper is run with an action, is told on its standard input what it is about, and answers on standard output.
"""

from __future__ import annotations

from wherry.client.errors import ClientError
from wherry.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOT_FOUND = "credentials not found in native keychain"
_INCOMPLETE = ("no credentials server URL", "no credentials username")
_DOING = {"get": "getting", "store": "storing", "erase": "erasing"}


class HelperError(ClientError):
    """A helper is missing or failed; the text is Docker's."""


def get(name: str, server: str) -> tuple[str, str] | None:
    """The (user name, secret) that the helper called `name` keeps for a server; None when there are none."""
    from subprocess import CalledProcessError

    try:
        answer = _run(name, "get", server)
    except CalledProcessError as error:
        if error.output == _NOT_FOUND:
            return None
        raise _failure(name, "get", error) from None
    found = _decoded(answer)
    return str(found.get("Username", "")), str(found.get("Secret", ""))


def store(name: str, server: str, user: str, secret: str) -> None:
    """Give a secret to the helper."""
    _call(name, "store", dumps({"ServerURL": server, "Username": user, "Secret": secret}))


def erase(name: str, server: str) -> None:
    """Have the helper forget what it keeps for a server."""
    _call(name, "erase", server)


def _call(name: str, action: str, told: str) -> None:
    from subprocess import CalledProcessError

    try:
        _run(name, action, told)
    except CalledProcessError as error:
        raise _failure(name, action, error) from None


def _run(name: str, action: str, told: str) -> str:
    """What the helper answers; its standard error is ours. Raises CalledProcessError or HelperError."""
    from subprocess import PIPE, CalledProcessError, run

    program = f"docker-credential-{name}"
    try:
        done = run([program, action], input=told.encode("utf-8", "surrogateescape"), stdout=PIPE)
    except FileNotFoundError:
        reason = f'exec: "{program}": executable file not found in $PATH'
        raise HelperError(f"error {_DOING[action]} credentials - err: {reason}, out: ``") from None
    except OSError as error:
        reason = f"fork/exec {program}: {(error.strerror or '').lower()}"
        raise HelperError(f"error {_DOING[action]} credentials - err: {reason}, out: ``") from None
    answer = done.stdout.decode("utf-8", "surrogateescape").strip()
    if done.returncode:
        raise CalledProcessError(done.returncode, program, answer)
    return answer


def _failure(name: str, action: str, error: Any) -> HelperError:
    if error.output in _INCOMPLETE:
        reason = error.output
    elif error.returncode > 0:
        reason = f"exit status {error.returncode}"
    else:
        from signal import strsignal

        reason = f"signal: {(strsignal(-error.returncode) or '').lower()}"
    return HelperError(f"error {_DOING[action]} credentials - err: {reason}, out: `{error.output}`")


def _decoded(answer: str) -> dict[str, Any]:
    try:
        found = loads(answer)
    except ValueError as error:
        raise HelperError(str(error)) from None
    if not isinstance(found, dict):
        raise HelperError("json: cannot unmarshal what is no object into Go value of type credentials.Credentials")
    return found
