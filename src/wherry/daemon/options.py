"""The options of wherryd: one table for the command line, the configuration file and the documentation.

Names are dockerd's, so that a `daemon.json` and a unit file written for it work; what this engine cannot do is not
in the table and is therefore refused, never ignored.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from wherry.errors import InvalidArgument

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TRUE, _FALSE = {"1", "t", "true"}, {"0", "f", "false"}


def parse_bytes(text: str) -> int:
    """`64m`, `1g`, `65536`, `64MiB` → bytes. Raises ValueError."""
    digits = text.strip().lower().removesuffix("ib").removesuffix("b")
    unit = digits[-1:] if digits[-1:].isalpha() else ""
    if unit not in _UNITS:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(digits.removesuffix(unit)) * _UNITS[unit])


def _parse_bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _parse_pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"invalid argument {text}: expected key=value")
    return key, value


def _parse_runtime(text: str) -> tuple[str, dict[str, Any]]:
    name, path = _parse_pair(text)
    return name.strip().lower(), {"path": path.strip(), "args": []}


def _parse_ulimit(text: str) -> tuple[str, dict[str, Any]]:
    name, value = _parse_pair(text)
    soft, _, hard = value.partition(":")
    return name, {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _parse_pool(text: str) -> dict[str, Any]:
    pool: dict[str, Any] = {}
    for item in text.split(","):
        key, value = _parse_pair(item)
        if key not in ("base", "size"):
            raise ValueError(f"unexpected key '{key}' in '{item}'")
        pool[key] = int(value) if key == "size" else value
    if set(pool) != {"base", "size"}:
        raise ValueError("a pool needs base=CIDR,size=BITS")
    return pool


class Kind(NamedTuple):
    """How one flag's text becomes a value, how repeats combine, and which JSON type the configuration file uses."""

    parse: Callable[[str], Any]
    json: type | tuple[type, ...]
    combine: str = "replace"  # or "list", "map"


STRING = Kind(str, str)
INT = Kind(int, int)
BOOL = Kind(_parse_bool, bool)
BYTES = Kind(parse_bytes, (int, str))
LIST = Kind(str, list, "list")
MAP = Kind(_parse_pair, dict, "map")
ULIMITS = Kind(_parse_ulimit, dict, "map")
POOLS = Kind(_parse_pool, list, "list")
RUNTIMES = Kind(_parse_runtime, dict, "map")


class Option(NamedTuple):
    """One option: its flag, its key in the configuration file, its kind, and whether SIGHUP may change it."""

    flag: str
    key: str
    kind: Kind
    default: Any
    help: str
    short: str = ""
    reload: bool = False


OPTIONS: tuple[Option, ...] = (
    Option("add-runtime", "runtimes", RUNTIMES, {}, "Register an OCI compatible runtime (NAME=PATH)", reload=True),
    Option("bip", "bip", STRING, "", "IPv4 address and prefix of the default bridge"),
    Option("bridge", "bridge", STRING, "", "Attach containers to this bridge ('none': no default bridge)", "b"),
    Option("cdi-spec-dir", "cdi-spec-dirs", LIST, ["/etc/cdi", "/var/run/cdi"], "CDI specification directories to use"),
    Option("cgroup-parent", "cgroup-parent", STRING, "", "Parent cgroup of all containers"),
    Option("data-root", "data-root", STRING, "/var/lib/wherry", "Directory of persistent state"),
    Option("debug", "debug", BOOL, False, "Enable debug mode", "D", reload=True),
    Option("default-address-pool", "default-address-pools", POOLS, [], "Address pools for networks (base=CIDR,size=N)"),
    Option("default-runtime", "default-runtime", STRING, "wherry", "Default OCI runtime of containers", reload=True),
    Option("default-shm-size", "default-shm-size", BYTES, 64 << 20, "Default size of /dev/shm", reload=True),
    Option("default-ulimit", "default-ulimits", ULIMITS, {}, "Default ulimits of containers", reload=True),
    Option("dns", "dns", LIST, [], "DNS server to use", reload=True),
    Option("dns-opt", "dns-opts", LIST, [], "DNS options to use", reload=True),
    Option("dns-search", "dns-search", LIST, [], "DNS search domains to use", reload=True),
    Option("exec-root", "exec-root", STRING, "/run/wherry", "Directory of state that ends with the boot"),
    Option("fixed-cidr", "fixed-cidr", STRING, "", "Part of the default bridge's subnet to take addresses from"),
    Option("group", "group", STRING, "wherry", "Group of the unix socket; root when it does not exist", "G"),
    Option("host", "hosts", LIST, ["unix:///run/wherry.sock"], "Socket to listen on (unix://, tcp://, fd://)", "H"),
    Option("http-proxy", "http-proxy", STRING, "", "Proxy for registries spoken to by HTTP; empty: of the environment"),
    Option("https-proxy", "https-proxy", STRING, "", "Proxy for registries; empty: of the environment"),
    Option("icc", "icc", BOOL, True, "Let containers of the default bridge reach each other"),
    Option("init", "init", BOOL, False, "Run an init in each container", reload=True),
    Option("init-path", "init-path", STRING, "", "Path of the init to use instead of the packaged one"),
    Option("insecure-registry", "insecure-registries", LIST, [], "Registry (or CIDR) without good TLS", reload=True),
    Option("ip", "ip", STRING, "0.0.0.0", "Host address that ports are published on when none is given"),
    Option("ip-forward", "ip-forward", BOOL, True, "Enable net.ipv4.ip_forward"),
    Option("ip-masq", "ip-masq", BOOL, True, "Masquerade what leaves the default bridge"),
    Option("iptables", "iptables", BOOL, True, "Manage firewall rules (in an nf_tables table of our own)"),
    Option("label", "labels", LIST, [], "Labels of the daemon", reload=True),
    Option("live-restore", "live-restore", BOOL, True, "Containers go on when the daemon stops; always so here"),
    Option("log-driver", "log-driver", STRING, "json-file", "Default log driver of containers"),
    Option("log-format", "log-format", STRING, "text", "Format of the daemon's own log (text or json)"),
    Option("log-level", "log-level", STRING, "info", "Level of the daemon's own log", "l", reload=True),
    Option("log-opt", "log-opts", MAP, {}, "Default log options of containers"),
    Option("max-concurrent-downloads", "max-concurrent-downloads", INT, 3, "Layers pulled at a time", reload=True),
    Option("max-concurrent-uploads", "max-concurrent-uploads", INT, 5, "Layers pushed at a time", reload=True),
    Option("max-download-attempts", "max-download-attempts", INT, 5, "How often a registry is asked", reload=True),
    Option("mtu", "mtu", INT, 0, "MTU of the default bridge (0: that of the uplink, at most 1500)"),
    Option("no-new-privileges", "no-new-privileges", BOOL, False, "Set no-new-privileges for new containers"),
    Option("no-proxy", "no-proxy", STRING, "", "Hosts and networks spoken to without a proxy"),
    Option("pidfile", "pidfile", STRING, "/run/wherry.pid", "File that holds the daemon's pid; empty: none", "p"),
    Option("registry-mirror", "registry-mirrors", LIST, [], "Mirror of Docker Hub to ask first (a URL)", reload=True),
    Option("seccomp-profile", "seccomp-profile", STRING, "builtin", "Seccomp profile: a file, 'builtin', 'unconfined'"),
    Option("shutdown-timeout", "shutdown-timeout", INT, 15, "Seconds requests in flight get at shutdown", reload=True),
    Option("storage-driver", "storage-driver", STRING, "", "Storage driver: overlay2 or vfs; empty: what works", "s"),
    Option("storage-opt", "storage-opts", LIST, [], "Storage driver option: overlay2.layers=erofs or =tree"),
    Option("tls", "tls", BOOL, False, "Use TLS on tcp sockets; implied by --tlsverify"),
    Option("tlscacert", "tlscacert", STRING, "/etc/wherry/ca.pem", "Clients must show a certificate of this CA"),
    Option("tlscert", "tlscert", STRING, "/etc/wherry/cert.pem", "Server certificate"),
    Option("tlskey", "tlskey", STRING, "/etc/wherry/key.pem", "Server key"),
    Option("tlsverify", "tlsverify", BOOL, False, "Use TLS and verify the clients"),
)  # fmt: skip

# Not options of the configuration: they decide what the process does at all.
ACTIONS = {
    "config-file": "Configuration file (default /etc/wherry/daemon.json, used when it exists)",
    "help": "Print usage",
    "validate": "Check the configuration and exit",
    "version": "Print the version and exit",
}

BY_FLAG = {option.flag: option for option in OPTIONS}
BY_SHORT = {option.short: option for option in OPTIONS if option.short}
BY_KEY = {option.key: option for option in OPTIONS}


def usage() -> str:
    """The text of `wherryd --help`."""
    rows = [(f"  -{o.short}, " if o.short else "      ") + f"--{o.flag}" for o in OPTIONS]
    rows += [f"      --{name}" for name in ACTIONS]
    texts = [o.help for o in OPTIONS] + list(ACTIONS.values())
    table = sorted(zip(rows, texts, strict=True), key=lambda pair: pair[0].split("--")[1])
    lines = [f"{row:<32} {text}" for row, text in table]
    return "Usage:  wherryd [OPTIONS]\n\nA container engine.\n\nOptions:\n" + "\n".join(lines) + "\n"


def _flag_value(option: Option, text: str, given: dict[str, Any]) -> None:
    try:
        value = option.kind.parse(text)
    except ValueError as error:
        raise InvalidArgument(f'invalid argument "{text}" for "--{option.flag}" flag: {error}') from None
    if option.kind.combine == "list":
        given.setdefault(option.key, []).append(value)
    elif option.kind.combine == "map":
        given.setdefault(option.key, {})[value[0]] = value[1]
    else:
        given[option.key] = value


def _split(argument: str) -> tuple[str, str | None, bool]:
    """(name, inline value, is short) of one command line word."""
    if argument.startswith("--"):
        name, equals, value = argument[2:].partition("=")
        return name, value if equals else None, False
    return argument[1:2], argument[2:].removeprefix("=") or None, True


def parse_flags(arguments: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Split a command line into (values by configuration key, actions by name).

    Raises `InvalidArgument` for an unknown flag, a missing or malformed value, or a positional argument.
    """
    given: dict[str, Any] = {}
    actions: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word == "-":
            raise InvalidArgument("\"wherryd\" accepts no arguments.\nSee 'wherryd --help'.")
        name, value, short = _split(word)
        if name in ("v", "h") and short:
            name = {"v": "version", "h": "help"}[name]
        if name in ACTIONS:
            if name == "config-file" and value is None:
                value = _next(words, name)
            actions[name] = value or ""
            continue
        option = BY_SHORT.get(name) if short else BY_FLAG.get(name)
        if option is None:
            raise InvalidArgument(f"unknown shorthand flag: '{name}' in {word}" if short else f"unknown flag: --{name}")
        if value is None:
            value = "true" if option.kind is BOOL else _next(words, option.flag)
        _flag_value(option, value, given)
    return given, actions


def _next(words: Any, flag: str) -> str:
    value = next(words, None)
    if value is None:
        raise InvalidArgument(f"flag needs an argument: --{flag}")
    return str(value)
