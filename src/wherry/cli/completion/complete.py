"""What may stand where the cursor is: commands, flags, values of flags, names of objects."""

from __future__ import annotations

from wherry.cli.completion import names, values
from wherry.cli.registry import BY_NAME, COMMANDS, GROUPS, HIDDEN
from wherry.cli.session import Session, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.cli.flags import Flag

# The numbers of cobra's protocol, to be added up.
NO_SPACE, NO_FILES, ONLY_DIRECTORIES = 2, 4, 16


class Answer:
    """`candidates` as (text, description), and what the shell may do (`directive`)."""

    def __init__(self, candidates: Sequence[tuple[str, str]], directive: int = NO_FILES) -> None:
        self.candidates, self.directive = candidates, directive


class Line:
    """A command line up to the word at the cursor: its `command` (None before there is one), that one's `arguments`
    so far, and the flag whose value the word is (`pending`)."""

    def __init__(self, words: Sequence[str], global_flags: Sequence[Flag]) -> None:
        self.globals: dict[str, str] = {}
        self.given: dict[str, list[str]] = {}
        self.arguments: list[str] = []
        self.path, self.flags = "", tuple(global_flags)
        self.pending: Flag | None = None
        self.only_arguments = False
        self._interspersed = True
        for word in words:
            self._take(word)

    @property
    def has_command(self) -> bool:
        return self.path in BY_NAME

    def _take(self, word: str) -> None:
        pending, self.pending = self.pending, None
        if pending:
            self._give(pending, word)
        elif self.only_arguments or len(word) < 2 or word[0] != "-":
            self._argument(word)
        elif word == "--":
            self.only_arguments = True
        else:
            self._flag(word)

    def _argument(self, word: str) -> None:
        if self.has_command:
            self.arguments.append(word)
            self.only_arguments = self.only_arguments or not self._interspersed
            return
        self.path = f"{self.path} {word}".strip()
        if entry := BY_NAME.get(self.path):
            command = entry.load()
            self.flags, self._interspersed = tuple(command.flags), command.interspersed
        elif self.path in GROUPS:
            self.flags = ()

    def _flag(self, word: str) -> None:
        name, equals, value = word.partition("=")
        flag = self.find(name)
        if flag is None or flag.kind == "bool":
            if flag:
                self.given.setdefault(flag.name, [])
            return
        if equals:
            self._give(flag, value)
        elif word[1] != "-" and len(word) > 2 and word[1] == flag.short:
            self._give(flag, word[2:])
        else:
            self.pending = flag

    def find(self, name: str) -> Flag | None:
        """The flag that "--name" names, or the one in a cluster of letters that takes a value."""
        if name.startswith("--"):
            return next((flag for flag in self.flags if flag.name == name[2:]), None)
        shorts = {flag.short: flag for flag in self.flags if flag.short}
        for letter in name[1:]:
            flag = shorts.get(letter)
            if flag is None or flag.kind != "bool":
                return flag
        return shorts.get(name[-1:])

    def _give(self, flag: Flag, value: str) -> None:
        self.given.setdefault(flag.name, []).append(value)
        if not self.path:
            self.globals[flag.name] = value


def answer(words: Sequence[str], global_flags: Sequence[Flag]) -> int:
    """Write the candidates for the last of `words`, which may be empty; returns the exit code."""
    *before, word = words or [""]
    found = complete(before, word, global_flags)
    lines = [f"{text}\t{about}" if about else text for text, about in found.candidates]
    write_all(1, ("\n".join([*lines, f":{found.directive}"]) + "\n").encode("utf-8", "surrogateescape"))
    return 0


def complete(before: Sequence[str], word: str, global_flags: Sequence[Flag]) -> Answer:
    """The answer for `word` behind the words `before` it (without the program)."""
    line = Line(before, global_flags)
    session = Session({**line.globals, "autostart": False})
    try:
        return _completed(session, line, word)
    finally:
        session.close()


def _completed(session: Session, line: Line, word: str) -> Answer:
    if line.pending:
        return _values(session, line, line.pending, "", word)
    if word.startswith("-") and not line.only_arguments:
        return _flag_or_value(session, line, word)
    if not line.has_command:
        return _commands(line, word)
    return _objects(session, line, word)


def _flag_or_value(session: Session, line: Line, word: str) -> Answer:
    name, equals, start = word.partition("=")
    if equals and (flag := line.find(name)):
        return _values(session, line, flag, f"{name}=", start)
    found = []
    for flag in sorted(line.flags, key=lambda flag: flag.name):
        if flag.hidden or (flag.name in line.given and not flag.multiple and flag.kind != "map"):
            continue
        about = flag.usage.partition("\n")[0]
        found.append((f"--{flag.name}", about))
        if flag.short and len(word) < 3:
            found.append((f"-{flag.short}", about))
    if "help" not in {flag.name for flag in line.flags}:
        found.append(("--help", "Print usage"))
    return Answer([each for each in found if each[0].startswith(word)])


def _commands(line: Line, word: str) -> Answer:
    if line.path and line.path not in GROUPS:
        return Answer([])
    found: dict[str, str] = {}
    for entry in COMMANDS:
        for alias in entry.aliases:
            group, _, last = alias.rpartition(" ")
            # The second names of a group's commands are for those who know them.
            if group == line.path and alias not in HIDDEN and (not group or alias == entry.path):
                found[last] = entry.summary
    for name, summary in GROUPS.items():
        group, _, last = name.rpartition(" ")
        if group == line.path:
            found[last] = summary
    if not line.path:
        found["help"] = "Help about any command"
    return Answer([(name, found[name]) for name in sorted(found) if name.startswith(word)])


def _values(session: Session, line: Line, flag: Flag, prefix: str, start: str) -> Answer:
    """Values of a flag; `prefix` is what stands before them in the same word ("--flag=")."""
    if flag.kind == "bool":
        return Answer([(f"{prefix}{each}", "") for each in ("true", "false") if each.startswith(start)])
    path = BY_NAME[line.path].path if line.has_command else ""
    source = values.of(path, flag.name)
    if source is values.FILES:
        return Answer([], 0)
    if source is values.DIRECTORIES:
        return Answer([], ONLY_DIRECTORIES)
    given = line.given.get("type" if path == "inspect" else "log-driver", [])
    found = source(session, start, given[-1] if given else "") if callable(source) else source
    fitting = [each for each in found if each.startswith(start)]
    more = any(each[-1:] in ("=", ":") for each in fitting)
    return Answer([(f"{prefix}{each}", "") for each in fitting], NO_FILES | (NO_SPACE if more else 0))


def _objects(session: Session, line: Line, word: str) -> Answer:
    path = BY_NAME[line.path].path
    kind = (line.given.get("type") or [""])[-1]
    found = names.for_argument(session, path, line.arguments, kind)
    if found is None:
        return Answer([], 0)
    fitting = [(each, "") for each in found if each.startswith(word) and each not in line.arguments]
    if path == "container cp":  # a path of this machine may stand there as well
        return Answer(fitting, NO_SPACE if fitting else 0)
    return Answer(fitting)
