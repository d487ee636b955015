"""`wherry attach`."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.commands.run import check_terminal
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.interaction import Interaction
from wherry.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


def _check_state(state: dict[str, Any]) -> None:
    if not state.get("Running"):
        raise StatusError("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise StatusError("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise StatusError("You cannot attach to a restarting container, wait until it is running")


def _run(session: Session, parsed: Parsed) -> int:
    name = quote(parsed.arguments[0], "/:")
    found = session.engine.json("GET", f"/containers/{name}/json")
    _check_state(found["State"])
    config = found["Config"]
    stdin = not parsed["no-stdin"] and config["OpenStdin"]
    check_terminal(attach_stdin=stdin, tty=config["Tty"])
    interaction = Interaction(
        session,
        found["Id"],
        tty=config["Tty"],
        detach_keys=parsed["detach-keys"],
        proxy_signals=parsed["sig-proxy"] and not config["Tty"],
    )
    with interaction:
        interaction.attach(stdin=stdin, stdout=True, stderr=True, condition="")
        interaction.provoke_redraw()
        interaction.follow_size()
        if interaction.relay():
            raise StatusError("read escape sequence")
        return interaction.exit_status()


FLAGS = (
    Flag("detach-keys", "string", "Override the key sequence for detaching a container"),
    Flag("no-stdin", "bool", "Do not attach STDIN"),
    Flag("sig-proxy", "bool", "Proxy all received signals to the process", default=True, shown="true"),
)
COMMANDS = {"attach": Command("[OPTIONS] CONTAINER", _run, FLAGS, least=1, most=1)}
