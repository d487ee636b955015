"""`wherry push`: images to registries."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.commands.pull import named
from wherry.cli.credentials import for_domain
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.notes import note
from wherry.cli.progress import show
from wherry.cli.terminal import is_terminal
from wherry.cli.trust import refuse_trust
from wherry.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

_ONE_PLATFORM = (
    "Using --platform pushes only the specified platform manifest of a multi-platform image index.\n"
    "Other components, like attestations, will not be included.\n"
    "To push the complete multi-platform image, remove the --platform flag.\n"
)


def _run(session: Session, parsed: Parsed) -> int:
    refuse_trust(parsed)
    query = {"platform": _platform(session, parsed["platform"])} if parsed["platform"] else {}
    reference = named(session, parsed)
    if reference.digest:
        raise StatusError("cannot push a digest reference")
    if reference.tag:
        query["tag"] = reference.tag
    headers = for_domain(session, reference.domain)
    path = f"/images/{quote(reference.name, '/:')}/push"
    response = session.engine.request("POST", path, query, headers=headers)
    notes: list[str] = []
    try:
        show(response, None if parsed["quiet"] else 1, lambda aux: notes.extend(_notes(aux)))
        session.out(f"{reference.full}\n" if parsed["quiet"] else "")
    finally:
        for text in notes:
            note(1, text)
    session.engine.done(response)
    return 0


def _platform(session: Session, text: str) -> str:
    from wherry.cli.platforms import as_json

    try:
        platform = as_json(text)
    except StatusError as error:
        reason = str(error).removeprefix("invalid platform: ")
        raise StatusError(f"Invalid platform {text}{reason}") from None
    note(1, _ONE_PLATFORM)
    return platform


def _notes(aux: dict[str, Any]) -> list[str]:
    """What the engine says that it pushed otherwise than one would think."""
    if aux.get("manifestPushedInsteadOfIndex"):
        index = (aux.get("originalIndex") or {}).get("digest", "")
        manifest = (aux.get("selectedManifest") or {}).get("digest", "")
        if is_terminal(1):
            index, manifest = f"\x1b[31m{index}\x1b[0m", f"\x1b[32m{manifest}\x1b[0m"
        return [
            "Not all multiplatform-content is present and only the available single-platform image was pushed\n"
            f"{index} -> {manifest}"
        ]
    return []


FLAGS = (
    Flag("all-tags", "bool", "Push all tags of an image to the repository", short="a"),
    Flag("disable-content-trust", "bool", "Skip image signing", default=True, shown="true"),
    Flag(
        "platform", "string",
        "Push a platform-specific manifest as a single-platform image to the registry.\n"
        "Image index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n"
        "'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
    ),
    Flag("quiet", "bool", "Suppress verbose output", short="q"),
)  # fmt: skip
COMMANDS = {"push": Command("[OPTIONS] NAME[:TAG]", _run, FLAGS, least=1, most=1)}
