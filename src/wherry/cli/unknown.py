"""What is said to a command line that names no command of ours."""

from __future__ import annotations

from wherry.cli.errors import FlagError, HelpRequested, StatusError
from wherry.cli.flags import FlagSet
from wherry.cli.main import show_help, usage_error
from wherry.cli.registry import GROUPS, depth_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.cli.flags import Flag


def no_command(words: Sequence[str], global_flags: Sequence[Flag], usage: str) -> int:
    """Show the help that was asked for, or raise StatusError: a flag or a command that does not exist."""
    depth = depth_of(words)
    depth -= " ".join(words[:depth]) not in GROUPS
    group, rest = " ".join(words[:depth]), words[depth:]
    _refuse_missing([word for word in words if not word.startswith("-")])
    try:
        arguments = FlagSet(() if group else global_flags).parse(rest).arguments
    except HelpRequested as request:
        from wherry.cli.session import write_all

        write_all(1 if group else 2, request.notice.encode())
        return show_help([group] if group else [])
    except FlagError as error:
        path = f"wherry {group}".rstrip()
        raise usage_error(error, path, path if group else usage) from None
    if group and not arguments:
        return show_help([group], 2)
    if not group:
        raise StatusError(f"wherry: unknown command: wherry {words[0]}\n\nRun 'wherry --help' for more information")
    path = f"wherry {group}"
    raise StatusError(
        f"wherry: unknown command: {path} {arguments[0]}\n\nUsage:  {path}\n\nRun '{path} --help' for more information"
    )


def _refuse_missing(words: Sequence[str]) -> None:
    """Raise StatusError for a command that Docker has and this CLI has not."""
    from wherry.cli.docker_commands import NAMES

    for name in (" ".join(words[:2]), words[0]):
        if name in NAMES or any(known.startswith(f"{name} ") for known in NAMES if name not in GROUPS):
            raise StatusError(
                f"wherry: '{name}' is a Docker command that wherry does not have yet\n\n"
                "See docs/compatibility.md for what there is, or run 'wherry --help'"
            )
