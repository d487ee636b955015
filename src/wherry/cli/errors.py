"""How a command ends other than well."""

from __future__ import annotations


class StatusError(Exception):
    """End the process with `code`; `str()` goes to stderr as it is, nothing when empty."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class FlagError(Exception):
    """The command line cannot be parsed; the caller adds the usage line."""


class ValueRefused(Exception):
    """A flag's value is not acceptable; the parser adds which value of which flag."""


class HelpRequested(Exception):
    """--help was given; `notice` is to be said first."""

    def __init__(self, notice: str = "") -> None:
        super().__init__(notice)
        self.notice = notice
