"""`wherry pull`: images from registries."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.credentials import for_domain
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.platforms import platform_of
from wherry.cli.progress import show
from wherry.cli.references import parse
from wherry.cli.trust import refuse_trust

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.references import Reference
    from wherry.cli.session import Session


def named(session: Session, parsed: Parsed) -> Reference:
    """The image that the command is about, with the default tag, of which the user is told, or for all tags with none.
    Raises StatusError."""
    reference = parse(parsed.arguments[0])
    if parsed["all-tags"]:
        if reference.tag or reference.digest:
            raise StatusError("tag can't be used with --all-tags/-a")
        return reference
    if not (reference.tag or reference.digest or parsed["quiet"]):
        session.out("Using default tag: latest\n")
    return reference.with_default_tag()


def pull(session: Session, reference: Reference, platform: str, fd: int | None, *, strict: bool = True) -> None:
    """Have the engine pull an image, all tags where the reference has none; the progress goes to `fd`.

    Raises StatusError or ClientError; with `strict` also where a credential helper fails.
    """
    query = {"fromImage": reference.name}
    if platform:
        query["platform"] = platform
    if wanted := reference.digest or reference.tag:
        query["tag"] = wanted
    headers = for_domain(session, reference.domain, strict=strict)
    response = session.engine.request("POST", "/images/create", query, headers=headers)
    show(response, fd)
    session.engine.done(response)


def _run(session: Session, parsed: Parsed) -> int:
    reference = named(session, parsed)
    if not reference.digest:
        refuse_trust(parsed)
    pull(session, reference, platform_of(parsed), None if parsed["quiet"] else 1, strict=False)
    session.out(f"{reference.full}\n")
    return 0


FLAGS = (
    Flag("all-tags", "bool", "Download all tagged images in the repository", short="a"),
    Flag("disable-content-trust", "bool", "Skip image verification", default=True, shown="true"),
    Flag("platform", "string", "Set platform if server is multi-platform capable"),
    Flag("quiet", "bool", "Suppress verbose output", short="q"),
)
COMMANDS = {"pull": Command("[OPTIONS] NAME[:TAG|@DIGEST]", _run, FLAGS, least=1, most=1)}
