"""What a command is: its usage line, its flags, its rule for arguments, and the function that does it."""

from __future__ import annotations

from wherry.cli.errors import FlagError, StatusError
from wherry.cli.flags import Flag, FlagSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

_TEMPLATE_HELP = (
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
)
INSPECT_FORMAT_HELP = f"Format output using a custom template:\n{_TEMPLATE_HELP}"
TABLE_FORMAT_HELP = (
    "Format output using a custom template:\n"
    "'table':            Print output in table format with column headers (default)\n"
    "'table TEMPLATE':   Print output in table format using the given Go template\n" + _TEMPLATE_HELP
)


def parse_filter(text: str) -> str:
    """A --filter, normalised: "Name = value" is name=value."""
    from wherry.cli.errors import ValueRefused

    if not text:
        return text
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueRefused("bad format of filter (expected name=value)")
    return f"{name.strip().lower()}={value.strip()}"


FILTER = Flag("filter", "filter", "Filter output based on conditions provided", short="f", parse=parse_filter)
TABLE_FORMAT = Flag("format", "string", TABLE_FORMAT_HELP)
INSPECT_FORMAT = Flag("format", "string", INSPECT_FORMAT_HELP, short="f")


class Command:
    """One command. `usage` is what follows its name in the usage line; `least` and `most` bound its arguments; `long`
    is what its help says instead of the summary.

    `run(session, parsed)` returns the exit code. `interspersed` is false where everything after the first argument
    belongs to somebody else (`run`, `create`, `exec`).
    """

    __slots__ = ("flags", "interspersed", "least", "long", "most", "run", "usage")

    def __init__(
        self,
        usage: str,
        run: Callable[[Session, Parsed], int],
        flags: Sequence[Flag] = (),
        *,
        least: int = 0,
        most: int | None = None,
        interspersed: bool = True,
        long: str = "",
    ) -> None:
        self.usage, self.run, self.flags = usage, run, flags
        self.least, self.most, self.interspersed, self.long = least, most, interspersed, long

    def parse(self, path: str, arguments: Sequence[str]) -> Parsed:
        """Parse the command line of the command called `path` ("wherry ps"); raises StatusError or HelpRequested."""
        try:
            parsed = FlagSet(self.flags, interspersed=self.interspersed).parse(arguments)
        except FlagError as error:
            raise StatusError(
                f"{error}\n\nUsage:  {path} {self.usage}".rstrip() + f"\n\nRun '{path} --help' for more information",
                125,
            ) from None
        self._check_count(path, len(parsed.arguments))
        return parsed

    def _check_count(self, path: str, count: int) -> None:
        most = count if self.most is None else self.most
        if self.least <= count <= most:
            return
        if self.most == 0:
            wanted, hint = "accepts no arguments", "Run"
        else:
            wanted, hint = f"requires {self._wanted()}", "See" if self.most is None else "Run"
        usage = f"Usage:  {path} {self.usage}".rstrip()
        raise StatusError(f"wherry: '{path}' {wanted}\n\n{usage}\n\n{hint} '{path} --help' for more information")

    def _wanted(self) -> str:
        least, most = self.least, self.most
        plural = "argument" if (most or least) == 1 else "arguments"
        if most is None:
            return f"at least {least} {plural}"
        if least == most:
            return f"{least} {plural}"
        if least == 0:
            return f"at most {most} {plural}"
        return f"at least {least} and at most {most} {plural}"
