"""wherry-runtime: the OCI runtime command line, with runc's commands and options.

What Podman (conmon), containerd and Docker call. A runtime is started several times for each container, so what is
imported here is next to nothing: a command that enters a container executes itself once more (see sealing.py), and
what the first of the two processes imports is lost. argparse alone, or typing, would cost a fifth of a start.
"""

import os
import sys

VERSION = "0.1.0"
# No garbage worth collecting is made in the time a command takes.
_SEALED_ENTRY = """\
import gc, sys
gc.disable()
sys.path.append(sys.argv.pop(1))
from wherry.runtime.oci_cli import main
main()
"""

USAGE = """\
usage: wherry-runtime [global options] command [command options] [arguments...]

commands:
  create [-b BUNDLE] [--console-socket PATH] [--pidfd-socket PATH] [--pid-file PATH] [--no-pivot]
         [--no-new-keyring] [--preserve-fds N] ID
  start ID                      run the program of a created container
  run [as create, -d, --keep] ID
  exec [--process FILE | options] ID COMMAND [ARG...]
  state ID                      print the state as JSON
  kill [--all] ID [SIGNAL]
  delete [--force] ID
  list [-q] [-f table|json]     containers under --root
  ps [-f table|json] ID         processes of a container
  pause ID, resume ID
  update [--resources FILE | limits] ID
  events [--stats] [--interval DURATION] ID
  spec [-b BUNDLE] [--rootless] write a config.json to start from
  features                      what this runtime can do, as JSON

global options:
  --root DIR          where containers' state is kept (default /run/wherry-runtime)
  --log FILE          write errors and warnings there (default: stderr)
  --log-format FMT    text (default) or json
  --debug             accepted for compatibility
  --rootless VALUE    accepted for compatibility: true, false or auto
"""


class Usage(Exception):
    """The command line itself is wrong."""


class Option:
    """An option of a command: `takes` a value, may come `many` times."""

    __slots__ = ("many", "name", "takes")

    def __init__(self, name: str, takes: bool, many: bool) -> None:
        self.name = name
        self.takes = takes
        self.many = many


def _table(*specifications: str) -> dict[str, Option]:
    """Options from texts such as "bundle,b", "force,f!" (no value), "env,e*" (many)."""
    table: dict[str, Option] = {}
    for specification in specifications:
        names = specification.rstrip("!*").split(",")
        option = Option(names[0], not specification.endswith("!"), specification.endswith("*"))
        for name in names:
            table[name] = option
    return table


_GLOBAL = _table("root", "log", "log-format", "debug!", "systemd-cgroup!", "rootless", "criu", "help,h!", "version,v!")
_CREATE = ("bundle,b", "console-socket", "pid-file", "pidfd-socket", "no-pivot!", "no-new-keyring!", "preserve-fds")
_EXEC = (
    *("console-socket", "pidfd-socket", "cwd", "env,e*", "tty,t!", "user,u", "additional-gids,g*", "process,p"),
    *("detach,d!", "pid-file", "process-label", "apparmor", "no-new-privs!", "cap,c*", "preserve-fds", "cgroup*"),
    "ignore-paused!",
)
_LIMITS = (
    *("blkio-weight", "cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-rt-period", "cpu-rt-runtime"),
    *("cpuset-cpus", "cpuset-mems", "memory", "memory-reservation", "memory-swap", "pids-limit", "cpu-idle"),
    *("l3-cache-schema", "mem-bw-schema"),
)
COMMANDS: dict[str, dict[str, Option]] = {
    "create": _table(*_CREATE),
    "run": _table(*_CREATE, "detach,d!", "keep!", "no-subreaper!"),
    "start": {},
    "exec": _table(*_EXEC),
    "state": {},
    "kill": _table("all,a!"),
    "delete": _table("force,f!"),
    "list": _table("quiet,q!", "format,f"),
    "ps": _table("format,f"),
    "pause": {},
    "resume": {},
    "update": _table("resources,r", *_LIMITS),
    "events": _table("stats!", "interval"),
    "spec": _table("bundle,b", "rootless!"),
    "features": {},
    "checkpoint": {},
    "restore": {},
}
_ENTERING = frozenset(("create", "run", "exec"))  # these execute a container's programs

Values = dict[str, str | bool | list[str]]


def parse(arguments: list[str], table: dict[str, Option]) -> tuple[Values, list[str]]:
    """Options up to the first argument that is none, and the rest. Raises Usage."""
    values: Values = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        option = table.get(name)
        if option is None:
            raise Usage(f"flag provided but not defined: -{name}")
        if not option.takes:
            values[option.name] = value not in ("false", "0") if equals else True
            continue
        if not equals:
            if not rest:
                raise Usage(f"flag needs an argument: -{name}")
            value = rest.pop(0)
        if option.many:
            several = values.setdefault(option.name, [])
            assert isinstance(several, list)
            several.append(value)
        else:
            values[option.name] = value
    return values, rest


class Log:
    """Where messages go: --log FILE, in text or JSON, else stderr. Callers read the last error out of it."""

    def __init__(self, path: str, json_format: bool) -> None:
        self._path = path
        self._json = json_format

    def write(self, level: str, message: str) -> None:
        """Append one line."""
        import time

        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            import json

            line = json.dumps({"level": level, "msg": message, "time": stamp})
        else:
            quoted = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            line = f'time="{stamp}" level={level} msg="{quoted}"'
        self._append(line + "\n")
        if self._path and level == "error":
            sys.stderr.write(message + "\n")

    def _append(self, line: str) -> None:
        if not self._path:
            sys.stderr.write(line)
            return
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    def warn(self, message: str) -> None:
        """A warning."""
        self.write("warning", message)


def _default_root() -> str:
    if os.geteuid() != 0 and os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(os.environ["XDG_RUNTIME_DIR"], "wherry-runtime")
    return "/run/wherry-runtime"


def _seal(arguments: list[str]) -> None:
    from wherry.runtime.sealing import seal_interpreter

    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    seal_interpreter([source, *arguments], _SEALED_ENTRY)


def _run(arguments: list[str]) -> int:
    """Parse, dispatch; the exit code. Raises Usage, StartError, OSError, ValueError."""
    options, rest = parse(arguments, _GLOBAL)
    if options.get("version"):
        print(f"wherry-runtime version {VERSION}\nspec: 1.2.0")
        return 0
    if options.get("help") or not rest or rest[0] in ("help", "h"):
        print(USAGE, end="")
        return 0
    command, *rest = rest
    if command not in COMMANDS:
        raise Usage(f"no such command: {command}")
    if options.get("systemd-cgroup"):
        raise Usage("--systemd-cgroup is not supported: cgroups are made directly, give a cgroupsPath that is a path")
    if "-h" in rest[:1] or "--help" in rest[:1]:
        print(USAGE, end="")
        return 0
    values, positional = parse(rest, COMMANDS[command])
    if command in _ENTERING:
        _seal(arguments)
    from wherry.runtime import oci_commands

    log = Log(str(options.get("log") or ""), options.get("log-format") == "json")
    root = os.path.abspath(str(options.get("root") or _default_root()))
    return oci_commands.run(command, root, values, positional, log)


def main() -> None:
    """The program: exit code 0, 1 on failure, or that of a container run or exec'd in the foreground."""
    arguments = sys.argv[1:]
    try:
        code = _run(arguments)
    except Usage as error:
        print(f"wherry-runtime: {error}\n\n{USAGE}", end="", file=sys.stderr)
        code = 1
    except BrokenPipeError:
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to be cleaned up, and tearing the interpreter down costs milliseconds


if __name__ == "__main__":
    main()
