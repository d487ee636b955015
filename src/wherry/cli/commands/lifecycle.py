"""Verbs on one or more containers: stop, restart, kill, pause, unpause, rm, wait."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.client.engine import quote
from wherry.client.errors import APIError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session
    from wherry.client.http import Response

_MANY = "CONTAINER [CONTAINER...]"
_SIGNAL_TO_SEND = Flag("signal", "string", "Signal to send to the container", short="s")


def each(
    session: Session,
    names: list[str],
    method: str,
    path: Callable[[str], str],
    query: dict[str, str] | None = None,
    result: Callable[[str, Response], str] = lambda name, _: name,
    when_lost: Callable[[str], str] | None = None,
) -> int:
    """Ask for all at once, then print `result` per container in the order given; failures are told at the end.
    `when_lost` gives the result where the connection was lost before the reply; without it, that is an error."""
    failures = []
    exchanges = session.engine.request_all((method, path(quote(name, "/:")), query) for name in names)
    for name, exchange in zip(names, exchanges, strict=True):
        try:
            session.out(_outcome(name, exchange, result, when_lost) + "\n")
        except APIError as error:
            failures.append(str(error))
    if failures:
        raise StatusError("\n".join(failures))
    return 0


def _outcome(
    name: str,
    exchange: Callable[[], Response],
    result: Callable[[str, Response], str],
    when_lost: Callable[[str], str] | None,
) -> str:
    try:
        return result(name, exchange())
    except APIError:
        raise
    except ClientError:
        if when_lost is None:
            raise
    return when_lost(name)


def _verb(verb: str) -> Callable[[Session, Parsed], int]:
    def run(session: Session, parsed: Parsed) -> int:
        return each(session, parsed.arguments, "POST", lambda name: f"/containers/{name}/{verb}")

    return run


def _stop(verb: str) -> Callable[[Session, Parsed], int]:
    def run(session: Session, parsed: Parsed) -> int:
        if {"time", "timeout"} <= parsed.changed:
            raise StatusError("conflicting options: cannot specify both --timeout and --time")
        query = {}
        for flag in ("timeout", "time"):
            if flag in parsed.changed:
                query["t"] = str(parsed[flag])
        if "signal" in parsed.changed:
            query["signal"] = parsed["signal"]

        def done(name: str, response: Response) -> str:
            _, _, hint = response.headers.get("warning", "").partition('"')
            if hint:
                session.err(f"{hint.rstrip(chr(34))}\n")
            return name

        return each(session, parsed.arguments, "POST", lambda name: f"/containers/{name}/{verb}", query, done)

    return run


def _kill(session: Session, parsed: Parsed) -> int:
    query = {"signal": parsed["signal"]} if parsed["signal"] else None
    return each(session, parsed.arguments, "POST", lambda name: f"/containers/{name}/kill", query)


def _rm(session: Session, parsed: Parsed) -> int:
    flags = (("v", "volumes"), ("link", "link"), ("force", "force"))
    query = {key: "1" for key, flag in flags if parsed[flag]}
    names = parsed.arguments
    if not all(name.strip("/") for name in names):
        raise StatusError("container name cannot be empty")
    if parsed["force"]:
        return _force_remove(session, names, query)
    return each(session, names, "DELETE", lambda name: f"/containers/{name.strip('/')}", query)


def _force_remove(session: Session, names: list[str], query: dict[str, str]) -> int:
    """With --force a container that is not there is told, but is no failure."""
    failed = False
    exchanges = session.engine.request_all(
        ("DELETE", f"/containers/{quote(name.strip('/'), '/:')}", query) for name in names
    )
    for name, exchange in zip(names, exchanges, strict=True):
        try:
            exchange()
        except APIError as error:
            session.err(f"{error}\n")
            failed = failed or error.status != 404
            continue
        session.out(f"{name}\n")
    return 1 if failed else 0


def _wait(session: Session, parsed: Parsed) -> int:
    from wherry.jsontext import loads

    def code(_: str, response: Response) -> str:
        return str(loads(response.read())["StatusCode"])

    def again(name: str) -> str:
        from wherry.cli.waiting import wait_again

        return str(loads(wait_again(session.engine, quote(name, "/:"), ""))["StatusCode"])

    return each(session, parsed.arguments, "POST", lambda name: f"/containers/{name}/wait", None, code, again)


def _stop_flags() -> tuple[Flag, ...]:
    return (
        _SIGNAL_TO_SEND,
        Flag("timeout", "int", "Seconds to wait before killing the container", short="t"),
        Flag(
            "time", "int", "Seconds to wait before killing the container", hidden=True,
            deprecated="use --timeout instead",
        ),
    )  # fmt: skip


RM_FLAGS = (
    Flag("force", "bool", "Force the removal of a running container (uses SIGKILL)", short="f"),
    Flag("link", "bool", "Remove the specified link", short="l"),
    Flag("volumes", "bool", "Remove anonymous volumes associated with the container", short="v"),
)
COMMANDS = {
    "stop": Command(f"[OPTIONS] {_MANY}", _stop("stop"), _stop_flags(), least=1),
    "restart": Command(f"[OPTIONS] {_MANY}", _stop("restart"), _stop_flags(), least=1),
    "kill": Command(f"[OPTIONS] {_MANY}", _kill, (_SIGNAL_TO_SEND,), least=1),
    "pause": Command(_MANY, _verb("pause"), least=1),
    "unpause": Command(_MANY, _verb("unpause"), least=1),
    "rm": Command(f"[OPTIONS] {_MANY}", _rm, RM_FLAGS, least=1),
    "wait": Command(_MANY, _wait, least=1),
}
