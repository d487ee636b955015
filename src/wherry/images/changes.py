"""`--change`: the Dockerfile instructions that import and commit accept, applied to an image's config.

Each change is a piece of a Dockerfile (several lines, continued lines, comments): CMD, ENTRYPOINT, ENV, EXPOSE,
HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR. Words and quirks are Docker's (its classic
builder's parser and dispatchers), asked from a real one.
"""

import json
import posixpath
import re
import signal
from collections.abc import Callable
from typing import Any

from wherry.errors import InvalidArgument
from wherry.images import durations

Config = dict[str, Any]

_SHELL = ["/bin/sh", "-c"]
_WORD = re.compile(r"\s+")
_FLAG = re.compile(r"--([a-z][a-z0-9-]*)(?:=(.*))?\Z", re.IGNORECASE | re.DOTALL)
# A variable, or one of the shell's own parameters, which are all empty here.
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?!$-]")
_BRACED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::?([-+?])(.*))?", re.DOTALL)
_MILLISECOND = 10**6
_PORTS_MAX = 65_535


def apply_changes(config: Config, changes: list[str]) -> Config:
    """A new config: `config` (an image's "config" object) with `changes` applied in order. Raises `InvalidArgument`
    with Docker's words."""
    config = dict(config)
    instructions = _instructions("\n".join(changes)) if changes else []
    for instruction, rest in instructions:
        if instruction in ("ENV", "LABEL") and rest:
            _pairs(rest, instruction)  # a syntax error anywhere comes before all else
    for instruction, rest in instructions:
        handler = _HANDLERS.get(instruction)
        if handler is None:
            raise InvalidArgument(f"{instruction} is not a valid change command")
        handler(config, rest)
    return config


def _instructions(text: str) -> list[tuple[str, str]]:
    """The logical lines of a piece of a Dockerfile: (INSTRUCTION, rest)."""
    lines: list[str] = []
    pending = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not (pending or line.strip()):
            continue
        body = line.rstrip()
        if body.endswith("\\"):
            pending += body[:-1]
        else:
            lines.append((pending + line).strip())
            pending = ""
    if pending.strip():
        lines.append(pending.strip())
    if not lines:
        raise InvalidArgument("file with no instructions")
    found = []
    for line in lines:
        word, *rest = _WORD.split(line, maxsplit=1)
        name = word if word.startswith("-") else word.upper()
        found.append((name, rest[0] if rest else ""))
    return found


# words and quotes


def _expand(text: str, env: dict[str, str]) -> str:
    """One word without its quotes and backslashes, variables replaced: `$A`, `${A}`, `${A:-x}`, `${A:+x}`."""
    out: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise _unterminated(text, "single-quote")
            out.append(text[at + 1 : end])
            at = end + 1
        elif char == '"':
            piece, at = _double_quoted(text, at + 1, env)
            out.append(piece)
        elif char == "\\":
            out.append(text[at + 1 : at + 2])
            at += 2
        elif char == "$":
            piece, at = _variable(text, at + 1, env)
            out.append(piece)
        else:
            out.append(char)
            at += 1
    return "".join(out)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unterminated(text: str, kind: str) -> InvalidArgument:
    return InvalidArgument(
        f"failed to process {_quoted(text)}: unexpected end of statement while looking for matching {kind}"
    )


def _double_quoted(text: str, at: int, env: dict[str, str]) -> tuple[str, int]:
    out: list[str] = []
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(out), at + 1
        if char == "\\" and text[at + 1 : at + 2] in ('"', "$", "\\"):
            out.append(text[at + 1])
            at += 2
        elif char == "$":
            piece, at = _variable(text, at + 1, env)
            out.append(piece)
        else:
            out.append(char)
            at += 1
    raise _unterminated(text, "double-quote")


def _variable(text: str, at: int, env: dict[str, str]) -> tuple[str, int]:
    """The value of the variable whose name begins at `at`, and where the text goes on."""
    if text[at : at + 1] != "{":
        match = _PARAMETER.match(text, at)
        return (env.get(match.group(), ""), match.end()) if match else ("$", at)
    end = text.find("}", at)
    match = _BRACED.fullmatch(text[at + 1 : end]) if end > 0 else None
    if match is None:
        # the parser stumbles over the end of the text as over a modifier that is none
        why = "syntax error: missing '}'" if ":" in text[at:] else "unsupported modifier (\ufffd) in substitution"
        raise InvalidArgument(f"failed to process {_quoted(text)}: {why}")
    name, operator, word = match.groups()
    if operator == "?" and not env.get(name):
        raise InvalidArgument(f"failed to process {_quoted(text)}: {name}: {word}")
    value = env.get(name, "")
    if operator == "-" and not value:
        value = _expand(word, env)
    elif operator == "+":
        value = _expand(word, env) if value else ""
    return value, end + 1


def _split(rest: str) -> list[str]:
    """Words separated by white space, quotes and backslashes respected but kept."""
    words: list[str] = []
    word = ""
    quote = ""
    at = 0
    while at < len(rest):
        char = rest[at]
        if char == "\\" and quote != "'":
            word += rest[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            if word:
                words.append(word)
            word = ""
            at += 1
            continue
        word += char
        at += 1
    if word:
        words.append(word)
    return words


def _environment(config: Config) -> dict[str, str]:
    return dict(item.partition("=")[::2] for item in config.get("Env") or [])


def _flags(rest: str, known: tuple[str, ...] = ()) -> tuple[dict[str, str], str]:
    """The leading `--name=value` flags of an instruction, and what follows."""
    found: dict[str, str] = {}
    while rest.startswith("--"):
        word, *more = _WORD.split(rest, maxsplit=1)
        if word == "--":
            return found, more[0] if more else ""
        match = _FLAG.match(word)
        name = match.group(1) if match else word[2:]
        if name not in known:
            raise InvalidArgument(f"unknown flag: --{name}")
        if name in found:
            raise InvalidArgument(f"duplicate flag specified: --{name}")
        if match is None or match.group(2) is None:
            raise InvalidArgument(f"missing a value on flag: --{name}")
        found[name] = match.group(2)
        rest = more[0] if more else ""
    return found, rest


def _plain(rest: str) -> str:
    return _flags(rest)[1]


def _json_words(rest: str) -> list[str] | None:
    """The words of a JSON array, or None when `rest` is none."""
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest)
    except ValueError:
        return None
    except RecursionError:
        return None
    if not isinstance(words, list):
        return None
    if not all(isinstance(word, str) for word in words):
        raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
    return words


def _command(rest: str, config: Config) -> list[str]:
    """Exec form as given, shell form behind the shell."""
    rest = _plain(rest)
    words = _json_words(rest)
    if words is not None:
        return words
    return [*(config.get("Shell") or _SHELL), rest] if rest else []


def _pairs(rest: str, instruction: str) -> list[tuple[str, str]]:
    """`name=value …`, or the old `name value` form with one name; quotes kept."""
    rest = _plain(rest)
    words = _split(rest)
    if not words:
        raise InvalidArgument(f"{instruction} requires at least one argument")
    if "=" not in words[0]:
        name, *value = _WORD.split(rest, maxsplit=1)
        if not value:
            raise InvalidArgument(f"{instruction} must have two arguments")
        return [(name, value[0])]
    for word in words:
        if "=" not in word:
            raise InvalidArgument(f"Syntax error - can't find = in {json.dumps(word)}. Must be of the form: name=value")
    return [_cut(word) for word in words]


def _cut(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


# instructions


def _cmd(config: Config, rest: str) -> None:
    command = _command(rest, config)
    # a bare CMD is a shell without a command: so it is with Docker
    config["Cmd"] = command if command or rest else list(config.get("Shell") or _SHELL)


def _entrypoint(config: Config, rest: str) -> None:
    config["Entrypoint"] = _command(rest, config) or None


def _env(config: Config, rest: str) -> None:
    before = _environment(config)
    env = list(config.get("Env") or [])
    for raw_name, raw_value in _pairs(rest, "ENV"):
        name, value = _expand(raw_name, before), _expand(raw_value, before)
        if not name:
            raise InvalidArgument("ENV names can not be blank")
        kept = [item.partition("=")[0] for item in env]
        if name in kept:
            env[kept.index(name)] = f"{name}={value}"
        else:
            env.append(f"{name}={value}")
    config["Env"] = env


def _label(config: Config, rest: str) -> None:
    env = _environment(config)
    labels = dict(config.get("Labels") or {})
    for name, value in _pairs(rest, "LABEL"):
        key = _expand(name, env)
        if not key:
            raise InvalidArgument("LABEL names can not be blank")
        labels[key] = _expand(value, env)
    config["Labels"] = labels


def _expose(config: Config, rest: str) -> None:
    words = _split(_plain(rest))
    if not words:
        raise InvalidArgument("EXPOSE requires at least one argument")
    env = _environment(config)
    ports = dict(config.get("ExposedPorts") or {})
    for word in words:
        for item in _split(_expand(word, env)):
            ports.update((port, {}) for port in _ports(item))
    config["ExposedPorts"] = ports


def _ports(text: str) -> list[str]:
    """`80`, `80/udp`, `8000-8002/tcp`, also with the host's part of `-p`, which means nothing here."""
    ports, _, protocol = text.partition("/")
    protocol = protocol.partition("/")[0].lower() or "tcp"
    container = ports.rpartition(":")[2]
    if not container:
        raise InvalidArgument(f"No port specified: {text}<empty>")
    first, dash, last = container.partition("-")
    last = last if dash else first
    if not (_is_port(first) and _is_port(last)) or int(last) < int(first):
        raise InvalidArgument(f"Invalid containerPort: {container}")
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"Invalid proto: {protocol}")
    return [f"{port}/{protocol}" for port in range(int(first), int(last) + 1)]


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= _PORTS_MAX


def _user(config: Config, rest: str) -> None:
    config["User"] = _expand(_one(rest, "USER"), _environment(config))


def _one(rest: str, instruction: str) -> str:
    rest = _plain(rest)
    if not rest:
        raise InvalidArgument(f"{instruction} requires exactly one argument")
    return rest


def _workdir(config: Config, rest: str) -> None:
    path = _expand(_one(rest, "WORKDIR"), _environment(config))
    if not path:
        raise InvalidArgument("cannot normalize nothing")
    config["WorkingDir"] = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", path))


def _volume(config: Config, rest: str) -> None:
    rest = _plain(rest)
    words = _json_words(rest)
    if words is None:
        words = _WORD.split(rest) if rest else []
    if not words:
        raise InvalidArgument("VOLUME requires at least one argument")
    env = _environment(config)
    volumes = dict(config.get("Volumes") or {})
    for word in words:
        path = _expand(word, env).strip()
        if not path:
            raise InvalidArgument("VOLUME specified can not be an empty string")
        volumes[path] = {}
    config["Volumes"] = volumes


def _onbuild(config: Config, rest: str) -> None:
    trigger = _plain(rest)
    if not trigger:
        raise InvalidArgument("ONBUILD requires at least one argument")
    instruction = _WORD.split(trigger, maxsplit=1)[0].upper()
    if instruction == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if instruction in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{instruction} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or []), trigger]


def _stopsignal(config: Config, rest: str) -> None:
    name = _expand(_one(rest, "STOPSIGNAL"), _environment(config))
    if not _is_signal(name):
        raise InvalidArgument(f"invalid signal: {name}")
    config["StopSignal"] = name


def _is_signal(text: str) -> bool:
    if text.isascii() and text.isdigit():
        return int(text) != 0
    name = text.upper().removeprefix("SIG")
    match = re.fullmatch(r"RTM(?:IN(?:\+(\d{1,2}))?|AX(?:-(\d{1,2}))?)", name)
    if match:
        return int(match.group(1) or 0) <= 15 and int(match.group(2) or 0) <= 14
    return f"SIG{name}" in signal.Signals.__members__


_HEALTH_DURATIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _healthcheck(config: Config, rest: str) -> None:
    flags, rest = _flags(rest, (*_HEALTH_DURATIONS, "retries"))
    if not rest:
        raise InvalidArgument("HEALTHCHECK requires at least one argument")
    kind, *command = _WORD.split(rest, maxsplit=1)
    if kind.upper() == "NONE":
        if command:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD":
        raise InvalidArgument(f"Unknown type {json.dumps(kind.upper())} in HEALTHCHECK (try CMD)")
    words = _json_words(command[0]) if command else []
    test = ["CMD", *words] if words is not None else ["CMD-SHELL", command[0]]
    if len(test) == 1:
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    config["Healthcheck"] = {"Test": test, **_health_numbers(flags)}


def _health_numbers(flags: dict[str, str]) -> dict[str, int]:
    numbers = {}
    for flag, field in _HEALTH_DURATIONS.items():
        if flag in flags:
            value = durations.parse(flags[flag])
            if value < _MILLISECOND and value != 0:
                raise InvalidArgument(f'Interval "{flag}" cannot be less than 1ms')
            numbers[field] = value
    if "retries" in flags:
        text = flags["retries"]
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        if int(text) < 0:
            raise InvalidArgument(f"--retries cannot be negative ({int(text)})")
        numbers["Retries"] = int(text)
    return {field: value for field, value in numbers.items() if value}


_HANDLERS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
