"""`wherry start`."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.interaction import Interaction
from wherry.client.engine import quote
from wherry.client.errors import APIError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


def _run(session: Session, parsed: Parsed) -> int:
    names = parsed.arguments
    refused = [flag for flag in ("checkpoint", "checkpoint-dir") if flag in parsed.changed]
    if refused:
        reason = "is only supported on a Docker daemon with experimental features enabled"
        raise StatusError("\n".join(f'"--{flag}" {reason}' for flag in refused))
    if not (parsed["attach"] or parsed["interactive"]):
        return _start_all(session, names)
    if len(names) > 1:
        raise StatusError("you cannot start and attach multiple containers at once")
    return _start_attached(session, parsed, names[0])


def _start_all(session: Session, names: list[str]) -> int:
    failed = []
    for name in names:
        try:
            session.engine.call("POST", f"/containers/{quote(name, '/:')}/start")
        except APIError as error:
            session.err(f"{error}\n")
            failed.append(name)
            continue
        session.out(f"{name}\n")
    if failed:
        raise StatusError(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _start_attached(session: Session, parsed: Parsed, name: str) -> int:
    found = session.engine.json("GET", f"/containers/{quote(name, '/:')}/json")
    container, config = found["Id"], found["Config"]
    stdin = parsed["interactive"] and config["OpenStdin"]
    interaction = Interaction(
        session, container, tty=config["Tty"], detach_keys=parsed["detach-keys"], proxy_signals=not config["Tty"]
    )
    with interaction:
        condition = "removed" if found["HostConfig"].get("AutoRemove") else "next-exit"
        interaction.attach(stdin=stdin, stdout=True, stderr=True, condition=condition)
        interaction.send_early_input()
        try:
            session.engine.call("POST", f"/containers/{container}/start")
        except ClientError:
            if found["HostConfig"].get("AutoRemove"):
                interaction.exit_status()
            raise
        interaction.follow_size()
        if interaction.relay():
            return 0
        return interaction.exit_status()


FLAGS = (
    Flag("attach", "bool", "Attach STDOUT/STDERR and forward signals", short="a"),
    Flag("checkpoint", "string", "Restore from this checkpoint", hidden=True),
    Flag("checkpoint-dir", "string", "Use a custom checkpoint storage directory", hidden=True),
    Flag("detach-keys", "string", "Override the key sequence for detaching a container"),
    Flag("interactive", "bool", "Attach container's STDIN", short="i"),
)
COMMANDS = {"start": Command("[OPTIONS] CONTAINER [CONTAINER...]", _run, FLAGS, least=1)}
