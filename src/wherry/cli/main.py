"""The entry of `wherry`: global flags, the command's module, its exit code."""

from __future__ import annotations

import gc
import os
import sys

from wherry.cli.errors import FlagError, HelpRequested, StatusError
from wherry.cli.flags import Flag, FlagSet
from wherry.cli.registry import BY_NAME, depth_of
from wherry.cli.session import Session, write_all
from wherry.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from wherry.cli.flags import Parsed

_USAGE = "wherry [OPTIONS] COMMAND [ARG...]"
_LOG_LEVELS = ("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace")
_CERTIFICATES = os.path.join(os.environ.get("HOME", "/root"), ".docker")
GLOBAL_FLAGS = (
    Flag("config", "string", "Location of client config files", shown=f'"{_CERTIFICATES}"'),
    Flag(
        "context", "string",
        "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context "
        'set with "docker context use")', short="c",
    ),
    Flag("debug", "bool", "Enable debug mode", short="D"),
    Flag("host", "list", "Daemon socket to connect to", short="H", word="string"),
    Flag(
        "log-level", "string", 'Set the logging level ("debug", "info", "warn", "error", "fatal")', short="l",
        default="info", shown='"info"',
    ),
    Flag("tls", "bool", "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "string", "Trust certs signed only by this CA", shown=f'"{_CERTIFICATES}/ca.pem"'),
    Flag("tlscert", "string", "Path to TLS certificate file", shown=f'"{_CERTIFICATES}/cert.pem"'),
    Flag("tlskey", "string", "Path to TLS key file", shown=f'"{_CERTIFICATES}/key.pem"'),
    Flag("tlsverify", "bool", "Use TLS and verify the remote"),
    Flag("version", "bool", "Print version information and quit", short="v"),
)  # fmt: skip


def main() -> NoReturn:
    """The console script. Leaves without the interpreter's tear-down, which costs a millisecond and does nothing."""
    gc.set_threshold(100_000)  # a command makes no garbage worth a collection
    code = 1
    try:
        code = run(sys.argv[1:])
    except BrokenPipeError:
        code = 128 + 13
    except KeyboardInterrupt:
        code = 128 + 2
    except OSError as error:  # of a standard stream, a full disk behind it perhaps
        write_all(2, f"wherry: {error.strerror}\n".encode())
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code. Errors are told on standard error."""
    try:
        return _dispatch(arguments)
    except StatusError as error:
        if text := str(error):
            write_all(2, f"{text}\n".encode("utf-8", "surrogateescape"))
        return error.code
    except ClientError as error:
        write_all(2, f"{error}\n".encode("utf-8", "surrogateescape"))
        return 1


def _dispatch(arguments: Sequence[str]) -> int:
    try:
        parsed = FlagSet(GLOBAL_FLAGS, interspersed=False).parse(arguments)
        flags = _global_values(parsed)
    except FlagError as error:
        raise usage_error(error, "wherry", _USAGE) from None
    except HelpRequested as request:
        write_all(2, request.notice.encode())
        return show_help([])
    words = parsed.arguments
    if not words and parsed["version"]:
        from wherry import __version__

        write_all(1, f"Wherry version {__version__}\n".encode())
        return 0
    if not words or words[0] == "help":
        return show_help(words[1:], 1 if words else 2)
    if words[0].startswith("__complete"):
        from wherry.cli.completion.complete import answer

        return answer(words[1:], GLOBAL_FLAGS)
    return _command(words, flags)


def _global_values(parsed: Parsed) -> dict[str, object]:
    """The global flags that were given; raises FlagError, or StatusError for a log level that is none."""
    flags = {name: parsed[name] for name in parsed.changed}
    if "host" in flags:
        first, *others = flags["host"]
        if others:
            raise FlagError(f'invalid argument "{others[0]}" for "-H, --host" flag: specify only one -H')
        flags["host"] = first
    if flags.get("log-level", "info") not in _LOG_LEVELS:
        raise StatusError(f"Unable to parse logging level: {flags['log-level']}")
    return flags


def usage_error(error: FlagError, path: str, usage: str) -> StatusError:
    """What cannot be parsed, with the usage line."""
    return StatusError(f"{error}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information", 125)


def _command(words: Sequence[str], flags: dict[str, object]) -> int:
    depth = depth_of(words)
    name = " ".join(words[:depth])
    entry = BY_NAME.get(name)
    if entry is None:
        from wherry.cli.unknown import no_command

        return no_command(words, GLOBAL_FLAGS, _USAGE)
    path = f"wherry {entry.path if depth > 1 else name}"
    command = entry.load()
    try:
        parsed = command.parse(path, words[depth:])
    except HelpRequested as request:
        write_all(1, request.notice.encode())
        return show_help(words[:depth])
    if parsed.notice:
        write_all(1, parsed.notice.encode())
    session = Session(flags, path)
    try:
        return command.run(session, parsed)
    finally:
        session.close()


def show_help(words: Sequence[str], fd: int = 1) -> int:
    """Write the help of what `words` name to a descriptor; returns 0."""
    from wherry.cli.help import render

    write_all(fd, render(words, GLOBAL_FLAGS).encode())
    return 0


if __name__ == "__main__":
    main()
