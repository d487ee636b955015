"""Values of flags, where they can be known: words, or functions that ask the engine."""

from __future__ import annotations

from wherry.cli.completion import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.cli.session import Session

    # A function gets what is typed of the value, and the value of the flag it depends on ("" when not given).
    Source = Sequence[str] | Callable[[Session, str, str], Sequence[str]]

FILES: tuple[str, ...] = ("the shell completes names of files",)
DIRECTORIES: tuple[str, ...] = ("the shell completes names of directories",)

_CAPABILITIES = (
    "ALL", *(f"CAP_{name}" for name in (
        "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
        "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE",
        "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST",
        "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT",
        "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME",
        "SYS_TTY_CONFIG", "WAKE_ALARM",
    )),
)  # fmt: skip
_PLATFORMS = (
    "linux/386", "linux/amd64", "linux/arm", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64",
    "linux/arm64/v8", "linux/ppc64le", "linux/riscv64", "linux/s390x",
)  # fmt: skip
_ULIMITS = (
    "as", "chroot", "core", "cpu", "data", "fsize", "locks", "maxlogins", "maxsyslogins", "memlock", "msgqueue",
    "nice", "nofile", "nproc", "priority", "rss", "rtprio", "sigpending", "stack",
)  # fmt: skip
_LOG_OPTIONS = {
    "json-file": ("compress", "env", "env-regex", "labels", "labels-regex", "max-file", "max-size", "tag"),
    "local": ("compress", "max-file", "max-size"),
    "fluentd": (
        "env", "env-regex", "fluentd-address", "fluentd-async", "fluentd-buffer-limit", "fluentd-max-retries",
        "fluentd-request-ack", "fluentd-retry-wait", "fluentd-sub-second-precision", "fluentd-write-timeout", "labels",
        "tag",
    ),
    "gelf": (
        "env", "env-regex", "gelf-address", "gelf-compression-level", "gelf-compression-type",
        "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay", "labels", "tag",
    ),
    "journald": ("env", "env-regex", "labels", "tag"),
    "syslog": (
        "env", "env-regex", "labels", "syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert",
        "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify", "tag",
    ),
}  # fmt: skip
_STATES = ("created", "dead", "exited", "paused", "removing", "restarting", "running")
_EVENTS = (
    "attach", "commit", "connect", "copy", "create", "delete", "destroy", "detach", "die", "disconnect",
    "exec_create", "exec_detach", "exec_die", "exec_start", "export", "health_status", "import", "kill", "load",
    "mount", "oom", "pause", "prune", "pull", "push", "reload", "remove", "rename", "resize", "restart", "save",
    "start", "stop", "tag", "top", "unmount", "unpause", "untag", "update",
)  # fmt: skip
# What --filter takes, by command: the values of each key, if they are few.
_FILTERS: dict[str, dict[str, Sequence[str]]] = {
    "container ls": {
        "ancestor": (), "before": (), "exited": (), "expose": (),
        "health": ("healthy", "none", "starting", "unhealthy"),
        "id": (), "is-task": ("true", "false"), "label": (), "name": (), "network": (), "publish": (), "since": (),
        "status": _STATES, "volume": (),
    },
    "container prune": {"label": (), "label!": (), "until": ()},
    "image ls": {"before": (), "dangling": ("true", "false"), "label": (), "reference": (), "since": (), "until": ()},
    "image prune": {"dangling": ("true", "false"), "label": (), "label!": (), "until": ()},
    "network ls": {
        "dangling": ("true", "false"), "driver": (), "id": (), "label": (), "name": (),
        "scope": ("global", "local", "swarm"), "type": ("builtin", "custom"),
    },
    "network prune": {"label": (), "label!": (), "until": ()},
    "search": {"is-official": ("true", "false"), "stars": ()},
    "system events": {
        "container": (), "daemon": (), "event": _EVENTS, "image": (), "label": (), "network": (),
        "scope": ("local", "swarm"), "type": ("container", "daemon", "image", "network", "volume"), "volume": (),
    },
    "system prune": {"label": (), "label!": (), "until": ()},
    "volume ls": {"dangling": ("true", "false"), "driver": (), "label": (), "name": ()},
    "volume prune": {"all": ("true", "false"), "label": (), "label!": ()},
}  # fmt: skip


def _filters(path: str) -> Source:
    known = _FILTERS.get(path, {})

    def complete(session: Session, start: str, _: str) -> list[str]:
        key, equals, _value = start.partition("=")
        if not equals:
            return [f"{name}=" for name in known]
        named = {"container": names.containers, "image": names.images, "network": names.networks,
                 "volume": names.volumes, "ancestor": names.images, "before": names.containers,
                 "since": names.containers}  # fmt: skip
        found = known.get(key, ()) or (named[key](session) if key in named and key in known else ())
        return [f"{key}={value}" for value in found]

    return complete


def _signals(*_: object) -> list[str]:
    import signal

    found = {each.name.removeprefix("SIG") for each in signal.Signals if not each.name.startswith("SIGRT")}
    realtime = ("RTMIN", *(f"RTMIN+{n}" for n in range(1, 16)), "RTMAX", *(f"RTMAX-{n}" for n in range(1, 15)))
    return [*sorted(found), *realtime]


def _environment(*_: object) -> list[str]:
    import os

    return sorted(os.environ)


def _containers(prefix: str = "", suffix: str = "") -> Source:
    return lambda session, *_: [f"{prefix}{name}{suffix}" for name in names.containers(session)]


def _or_container(*words: str) -> Source:
    def complete(session: Session, start: str, _: str) -> list[str]:
        if not start.startswith("container:"):
            return [*words, "container:"]
        return [f"container:{name}" for name in names.containers(session)]

    return complete


def _networks(session: Session, start: str, _: str) -> list[str]:
    if start.startswith("container:"):
        return [f"container:{name}" for name in names.containers(session)]
    return [*names.networks(session), "container:"]


def _volumes(session: Session, start: str, _: str) -> list[str]:
    return [] if start[:1] in ("/", ".", "~") else [f"{name}:" for name in names.volumes(session)]


def _plugins(kind: str, fallback: Sequence[str]) -> Source:
    def complete(session: Session, *_: object) -> Sequence[str]:
        plugins = (names.ask(session, "/info") or {}).get("Plugins") or {}
        return plugins.get(kind) or fallback

    return complete


def _runtimes(session: Session, *_: object) -> list[str]:
    return sorted((names.ask(session, "/info") or {}).get("Runtimes") or {})


def _log_options(_: Session, _start: str, driver: str) -> list[str]:
    options = _LOG_OPTIONS.get(driver) or sorted({option for each in _LOG_OPTIONS.values() for option in each})
    return [f"{name}=" for name in ("max-buffer-size", "mode", *options)]


def _mounts(_: Session, start: str, _driver: str) -> list[str]:
    done, comma, _last = start.rpartition(",")
    if not comma:
        return [f"type={kind}" for kind in ("bind", "image", "tmpfs", "volume")]
    return [f"{done},{key}" for key in ("source=", "target=", "readonly", "bind-propagation=", "tmpfs-size=")]


_BY_FLAG: dict[str, Source] = {
    "attach": ("stderr", "stdin", "stdout"),
    "cap-add": _CAPABILITIES,
    "cap-drop": _CAPABILITIES,
    "cert": FILES,
    "cgroupns": ("host", "private"),
    "cidfile": FILES,
    "config": DIRECTORIES,
    "context": lambda session, *_: names.contexts(session),
    "device": FILES,
    "env": _environment,
    "env-file": FILES,
    "from": lambda session, *_: names.contexts(session),
    "health-on-failure": ("kill", "none", "restart", "stop"),
    "input": FILES,
    "ipc": _or_container("host", "none", "private", "shareable"),
    "isolation": ("default",),
    "label-file": FILES,
    "link": _containers(suffix=":"),
    "log-driver": _plugins("Log", tuple(_LOG_OPTIONS)),
    "log-level": ("debug", "error", "fatal", "info", "panic", "warn"),
    "log-opt": _log_options,
    "mount": _mounts,
    "network": _networks,
    "output": FILES,
    "pid": _or_container("host"),
    "platform": _PLATFORMS,
    "pull": ("always", "missing", "never"),
    "restart": ("always", "no", "on-failure", "unless-stopped"),
    "runtime": _runtimes,
    "security-opt": ("apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined"),
    "signal": _signals,
    "stop-signal": _signals,
    "storage-opt": ("size=",),
    "tlscacert": FILES,
    "tlscert": FILES,
    "tlskey": FILES,
    "type": ("container", "image", "network", "volume"),
    "ulimit": tuple(f"{name}=" for name in _ULIMITS),
    "userns": ("host",),
    "uts": ("host",),
    "volume": _volumes,
    "volume-driver": _plugins("Volume", ("local",)),
    "volumes-from": _containers(),
}
_BY_COMMAND: dict[tuple[str, str], Source] = {
    ("manifest annotate", "arch"): (
        "386",
        "amd64",
        "arm",
        "arm64",
        "mips64",
        "mips64le",
        "ppc64le",
        "riscv64",
        "s390x",
    ),
    ("manifest annotate", "os"): ("darwin", "freebsd", "linux", "windows"),
    ("network create", "driver"): _plugins("Network", ("bridge",)),
    ("volume create", "driver"): _plugins("Volume", ("local",)),
}
_INSPECTS = ("json",)
_LISTS = ("json", "table")


def of(path: str, flag: str) -> Source:
    """The source of the values of a flag of the command `path` ("" for the global flags); empty when unknown."""
    if flag == "filter":
        return _filters(path)
    if flag == "format":
        return _LISTS if path.endswith((" ls", " stats", " df", " history", "search")) else _INSPECTS
    return _BY_COMMAND.get((path, flag), _BY_FLAG.get(flag, ()))
