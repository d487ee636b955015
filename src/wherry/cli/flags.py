"""Command-line flags with pflag's rules, which differ from argparse's in what scripts depend on.

`-it`, `-p8080:80`, `-p=8080:80`, `--flag=false`; no prefix matching; parsing stops at the first argument where a
command says so (`run`, `exec`); values are checked as they are met, so that the first mistake is the one reported.
"""

from __future__ import annotations

from wherry.cli.errors import FlagError, HelpRequested, ValueRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

# How a kind's values accumulate: the value of the flag before anything is given.
_EMPTY: dict[str, Any] = {"bool": False, "list": list, "map": dict, "filter": list}
_NUMBERS = frozenset(("int", "int64", "uint16", "uint64", "duration", "bytes", "decimal"))


class Flag:
    """One flag. `kind` is the type word shown in the help; `parse` turns the text into a value or raises ValueRefused.

    Kinds list and filter append, map adds a key=value pair; `shown` is the default as the help prints it, "" for none.
    `stores` names the flag that a hidden synonym writes to; `deprecated` is what to do instead of using the flag.
    """

    __slots__ = (
        "default",
        "deprecated",
        "hidden",
        "kind",
        "multiple",
        "name",
        "parse",
        "short",
        "shown",
        "stores",
        "usage",
        "word",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        usage: str,
        *,
        short: str = "",
        default: Any = None,
        shown: str = "",
        parse: Callable[[str], Any] | None = None,
        multiple: bool | None = None,
        hidden: bool = False,
        stores: str = "",
        word: str = "",
        deprecated: str = "",
    ) -> None:
        self.name, self.kind, self.usage, self.short = name, kind, usage, short
        self.multiple = kind in ("list", "filter") if multiple is None else multiple
        self.default = default
        self.shown, self.hidden, self.stores = shown, hidden, stores or name
        self.parse = parse
        self.word, self.deprecated = word or kind, deprecated

    def initial(self) -> Any:
        """The value when the flag is not given."""
        if self.default is not None:
            return self.default
        if self.multiple:
            return []
        empty = _EMPTY.get(self.kind)
        if empty is None:
            return 0 if self.kind in _NUMBERS else ""
        return empty() if callable(empty) else empty

    def describe(self) -> str:
        """The flag as error messages name it: "-p, --publish"."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Parsed:
    """The outcome: `parsed["name"]` is a flag's value, `changed` holds the flags given, `arguments` the rest,
    `notice` what is to be said of deprecated ones."""

    __slots__ = ("arguments", "changed", "notice", "values")

    def __init__(self, values: dict[str, Any], arguments: list[str], changed: set[str], notice: str = "") -> None:
        self.values, self.arguments, self.changed, self.notice = values, arguments, changed, notice

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def lazy(name: str) -> Callable[[str], Any]:
    """A parser "module:function" of wherry.cli.options, imported when the flag is first met."""
    module, _, function = name.partition(":")

    def parse(text: str) -> Any:
        found = __import__(f"wherry.cli.options.{module}", fromlist=(function,))
        return getattr(found, function)(text)

    return parse


class FlagSet:
    """The flags of one command; `interspersed` says whether flags may follow arguments."""

    def __init__(self, flags: Iterable[Flag], *, interspersed: bool = True) -> None:
        self._flags = {flag.name: flag for flag in flags}
        self._shorts = {flag.short: flag for flag in self._flags.values() if flag.short}
        self._interspersed = interspersed
        self._given: dict[str, Any] = {}
        self._changed: set[str] = set()
        self._notice = ""

    def parse(self, arguments: Sequence[str]) -> Parsed:
        """Raises FlagError, or HelpRequested."""
        rest, positional = list(arguments), []
        rest.reverse()  # consumed from the end: pop() is the next one
        while rest:
            word = rest.pop()
            if len(word) < 2 or word[0] != "-":
                positional.append(word)
                if not self._interspersed:
                    break
            elif word == "--":
                break
            elif word[1] == "-":
                self._long(word, rest)
            else:
                self._shorthands(word[1:], rest)
        positional.extend(reversed(rest))
        values = {flag.stores: flag.initial() for flag in self._flags.values() if flag.stores == flag.name}
        values.update(self._given)
        return Parsed(values, positional, self._changed, self._notice)

    def _long(self, word: str, rest: list[str]) -> None:
        name, equals, value = word[2:].partition("=")
        if not name or name[0] == "-":
            raise FlagError(f"bad flag syntax: {word}")
        flag = self._flags.get(name)
        if flag is None:
            if name == "help" and not equals:
                raise HelpRequested
            if name == "help":
                flag = Flag("help", "bool", "")
            else:
                raise FlagError(f"unknown flag: --{name}")
        if not equals:
            if flag.kind == "bool":
                value = "true"
            elif rest:
                value = rest.pop()
            else:
                raise FlagError(f"flag needs an argument: {word}")
        self._set(flag, value)

    def _shorthands(self, shorts: str, rest: list[str]) -> None:
        while shorts:
            letter = shorts[0]
            flag = self._shorts.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpRequested("Flag shorthand -h has been deprecated, use --help\n")
                raise FlagError(f"unknown shorthand flag: {_quoted_rune(letter)} in -{shorts}")
            if len(shorts) > 2 and shorts[1] == "=":
                value, after = shorts[2:], ""
            elif flag.kind == "bool":
                value, after = "true", shorts[1:]
            elif len(shorts) > 1:
                value, after = shorts[1:], ""
            elif rest:
                value, after = rest.pop(), ""
            else:
                raise FlagError(f"flag needs an argument: {_quoted_rune(letter)} in -{shorts}")
            self._set(flag, value)
            shorts = after

    def _set(self, flag: Flag, text: str) -> None:
        try:
            if flag.kind == "bool" and text == "true":
                value: Any = True
            else:
                value = flag.parse(text) if flag.parse else _parse_kind(flag.kind, text)
        except ValueRefused as refusal:
            from wherry.goquote import quote

            raise FlagError(f"invalid argument {quote(text)} for {quote(flag.describe())} flag: {refusal}") from None
        if flag.name == "help":
            if value:
                raise HelpRequested
            return
        self._changed.add(flag.stores)
        if flag.deprecated:
            self._notice += f"Flag --{flag.name} has been deprecated, {flag.deprecated}\n"
        if flag.multiple:
            self._given.setdefault(flag.stores, []).append(value)
        elif flag.kind == "map":
            key, _, content = value.partition("=")
            self._given.setdefault(flag.stores, {})[key] = content
        else:
            self._given[flag.stores] = value


def _quoted_rune(letter: str) -> str:
    from wherry.goquote import quote_rune

    return quote_rune(letter)


def _parse_kind(kind: str, text: str) -> Any:
    if kind in ("string", "list", "map", "filter", "ip"):
        return text
    from wherry.cli.values import PARSERS

    return PARSERS[kind](text)
