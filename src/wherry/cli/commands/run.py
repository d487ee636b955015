"""`wherry run`: create, attach, wait, start, relay, in Docker's order, so that no byte and no exit code is lost."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.commands.create import create, prepare, with_help
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.options.create_flags import FLAGS as CREATE_FLAGS
from wherry.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

FLAGS = (
    Flag("detach", "bool", "Run container in background and print container ID", short="d"),
    Flag("detach-keys", "string", "Override the key sequence for detaching a container"),
    Flag("help", "bool", "Print usage"),
    Flag(
        "pull", "string", 'Pull image before running ("always", "missing", "never")', default="missing",
        shown='"missing"',
    ),
    Flag("sig-proxy", "bool", "Proxy received signals to the process", default=True, shown="true"),
    *CREATE_FLAGS,
)  # fmt: skip


def _run(session: Session, parsed: Parsed) -> int:
    body = prepare(session, parsed)
    if parsed["detach"]:
        if parsed["attach"]:
            raise StatusError("conflicting options: cannot specify both --attach and --detach")
        body.update(AttachStdin=False, AttachStdout=False, AttachStderr=False, StdinOnce=False)
    else:
        check_terminal(attach_stdin=body["AttachStdin"], tty=body["Tty"])
    try:
        attached = body["AttachStdin"] or body["AttachStdout"] or body["AttachStderr"]
        container = create(session, parsed, body, _load_interaction if attached else None)
        if not attached:
            try:
                session.engine.call("POST", f"/containers/{container}/start")
            finally:
                session.out(f"{container}\n")  # it is there, whether it started or not
            return 0
        return _attached(session, parsed, body, container)
    except (ClientError, StatusError) as error:
        if isinstance(error, StatusError) and not str(error):
            raise
        raise with_help(session, str(error), exit_code(str(error))) from None


def check_terminal(*, attach_stdin: bool, tty: bool) -> None:
    """Refuse a terminal for the container where the user has none to lend."""
    if attach_stdin and tty:
        from wherry.cli.terminal import is_terminal

        if not is_terminal(0):
            raise StatusError("the input device is not a TTY")


def exit_code(message: str) -> int:
    """125, or the shell's codes where the engine could not execute the command."""
    words = message.lower()
    if any(each in words for each in ("executable file not found", "no such file or directory")):
        return 127
    return 126 if "permission denied" in words or "is a directory" in words else 125


def _load_interaction() -> None:
    """What is needed once the container is there, imported while the engine makes it."""
    import wherry.cli.interaction
    import wherry.cli.signals  # noqa: F401 - for the interaction to find


def _attached(session: Session, parsed: Parsed, body: dict[str, Any], container: str) -> int:
    from wherry.cli.interaction import Interaction

    interaction = Interaction(
        session, container, tty=body["Tty"], detach_keys=parsed["detach-keys"], proxy_signals=parsed["sig-proxy"]
    )
    with interaction:
        interaction.attach(
            stdin=body["AttachStdin"],
            stdout=body["AttachStdout"],
            stderr=body["AttachStderr"],
            condition="removed" if parsed["rm"] else "next-exit",
        )
        interaction.send_early_input()
        try:
            session.engine.call("POST", f"/containers/{container}/start")
        except ClientError:
            if parsed["rm"]:
                interaction.exit_status()  # until it is removed
            raise
        interaction.follow_size()
        if interaction.relay():
            return 0
        return interaction.exit_status()


COMMANDS = {"run": Command("[OPTIONS] IMAGE [COMMAND] [ARG...]", _run, FLAGS, least=1, interspersed=False)}
