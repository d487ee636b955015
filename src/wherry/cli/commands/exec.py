"""`wherry exec`."""

from __future__ import annotations

from os import isatty

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag, lazy
from wherry.cli.session import terminal_size
from wherry.client.engine import quote
from wherry.client.errors import APIError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


def _body(session: Session, parsed: Parsed) -> dict[str, Any]:
    environment = parsed["env"]
    if parsed["env-file"]:
        from wherry.cli.options.files import read_environment

        try:
            environment = read_environment(parsed["env-file"], environment)
        except StatusError as error:
            raise StatusError(str(error)) from None
    attached = not parsed["detach"]
    return {
        "User": parsed["user"],
        "Privileged": parsed["privileged"],
        "Tty": parsed["tty"],
        "ConsoleSize": list(terminal_size(1)) if parsed["tty"] and attached else None,
        "AttachStdin": parsed["interactive"] and attached,
        "AttachStderr": attached,
        "AttachStdout": attached,
        "DetachKeys": parsed["detach-keys"] or session.config.text("detachKeys"),
        "Env": environment or None,
        "WorkingDir": parsed["workdir"],
        "Cmd": parsed.arguments[1:],
    }


def _run(session: Session, parsed: Parsed) -> int:
    body = _body(session, parsed)
    name = quote(parsed.arguments[0], "/:")
    if body["AttachStdin"] and parsed["tty"] and not isatty(0):
        session.engine.call("GET", f"/containers/{name}/json")  # that there is none would be the better reason
        raise StatusError("the input device is not a TTY")
    identifier = session.engine.json("POST", f"/containers/{name}/exec", None, body).get("Id")
    if not identifier:
        raise StatusError("exec ID empty")
    if parsed["detach"]:
        start = {"Detach": True, "Tty": parsed["tty"], "ConsoleSize": body["ConsoleSize"]}
        return session.engine.call("POST", f"/exec/{identifier}/start", None, start) >= 400
    start = {"Detach": False, "Tty": parsed["tty"], "ConsoleSize": body["ConsoleSize"]}
    response = session.engine.hijack(f"/exec/{identifier}/start", None, start, _load_interaction)
    from wherry.cli.interaction import Interaction

    interaction = Interaction(
        session, name, tty=parsed["tty"], detach_keys=parsed["detach-keys"], resize_path=f"/exec/{identifier}/resize"
    )
    with interaction:
        interaction.converse(response, stdin=body["AttachStdin"], stdout=True, stderr=True)
        interaction.follow_size()
        if interaction.relay():
            raise StatusError("read escape sequence")
    return _exit_code(session, identifier)


def _exit_code(session: Session, identifier: str) -> int:
    """Of the exec that has ended. The daemon may be away just now: the process did not need it."""

    def ask() -> int:
        code: int = session.engine.json("GET", f"/exec/{identifier}/json").get("ExitCode") or 0
        return code

    try:
        return ask()
    except APIError:
        raise
    except ClientError:
        from wherry.cli.waiting import patiently

        return patiently(ask)


def _load_interaction() -> None:
    """What is needed once the process runs, imported while the engine starts it."""
    import wherry.cli.interaction  # noqa: F401 - for _run to find


FLAGS = (
    Flag("detach", "bool", "Detached mode: run command in the background", short="d"),
    Flag("detach-keys", "string", "Override the key sequence for detaching a container"),
    Flag("env", "list", "Set environment variables", short="e", parse=lazy("simple:parse_env")),
    Flag("env-file", "list", "Read in a file of environment variables"),
    Flag("interactive", "bool", "Keep STDIN open even if not attached", short="i"),
    Flag("privileged", "bool", "Give extended privileges to the command"),
    Flag("tty", "bool", "Allocate a pseudo-TTY", short="t"),
    Flag("user", "string", 'Username or UID (format: "<name|uid>[:<group|gid>]")', short="u"),
    Flag("workdir", "string", "Working directory inside the container", short="w"),
)
COMMANDS = {
    "exec": Command("[OPTIONS] CONTAINER COMMAND [ARG...]", _run, FLAGS, least=2, interspersed=False),
}
