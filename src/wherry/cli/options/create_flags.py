"""The flags that `run` and `create` share, in the order of their help."""

from __future__ import annotations

from wherry.cli.flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def lazy(name: str) -> Callable[[str], Any]:
    """A parser "module:function" of this package, imported when the flag is first met."""
    module, _, function = name.partition(":")

    def parse(text: str) -> Any:
        from importlib import import_module

        return getattr(import_module(f"wherry.cli.options.{module}"), function)(text)

    return parse


def _swap(text: str) -> int:
    from wherry.cli.values import parse_swap

    return parse_swap(text)


# No help shows these: only a Windows daemon takes them.
WINDOWS_ONLY = ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")

FLAGS = (
    Flag("add-host", "list", "Add a custom host-to-IP mapping (host:ip)", parse=lazy("simple:parse_extra_host")),
    Flag("annotation", "map", "Add an annotation to the container (passed through to the OCI runtime)", shown="map[]"),
    Flag("attach", "list", "Attach to STDIN, STDOUT or STDERR", short="a", parse=lazy("simple:parse_stream")),
    Flag("blkio-weight", "uint16", "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)"),
    Flag(
        "blkio-weight-device",
        "list",
        "Block IO weight (relative device weight)",
        shown="[]",
        parse=lazy("simple:parse_weight_device"),
    ),
    Flag("cap-add", "list", "Add Linux capabilities"),
    Flag("cap-drop", "list", "Drop Linux capabilities"),
    Flag("cgroup-parent", "string", "Optional parent cgroup for the container"),
    Flag(
        "cgroupns",
        "string",
        "Cgroup namespace to use (host|private)\n"
        "'host':    Run the container in the Docker host's cgroup namespace\n"
        "'private': Run the container in its own private cgroup namespace\n"
        "'':        Use the cgroup namespace as configured by the\n"
        "           default-cgroupns-mode option on the daemon (default)",
    ),
    Flag("cidfile", "string", "Write the container ID to the file"),
    Flag("cpu-period", "int", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag("cpu-quota", "int", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag("cpu-rt-period", "int", "Limit CPU real-time period in microseconds"),
    Flag("cpu-rt-runtime", "int", "Limit CPU real-time runtime in microseconds"),
    Flag("cpu-shares", "int", "CPU shares (relative weight)", short="c"),
    Flag("cpus", "decimal", "Number of CPUs"),
    Flag("cpuset-cpus", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("cpuset-mems", "string", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag("device", "list", "Add a host device to the container"),
    Flag(
        "device-cgroup-rule",
        "list",
        "Add a rule to the cgroup allowed devices list",
        parse=lazy("simple:parse_device_rule"),
    ),
    Flag(
        "device-read-bps",
        "list",
        "Limit read rate (bytes per second) from a device",
        shown="[]",
        parse=lazy("simple:parse_rate_bytes"),
    ),
    Flag(
        "device-read-iops",
        "list",
        "Limit read rate (IO per second) from a device",
        shown="[]",
        parse=lazy("simple:parse_rate_count"),
    ),
    Flag(
        "device-write-bps",
        "list",
        "Limit write rate (bytes per second) to a device",
        shown="[]",
        parse=lazy("simple:parse_rate_bytes"),
    ),
    Flag(
        "device-write-iops",
        "list",
        "Limit write rate (IO per second) to a device",
        shown="[]",
        parse=lazy("simple:parse_rate_count"),
    ),
    Flag("disable-content-trust", "bool", "Skip image verification", default=True, shown="true"),
    Flag("dns", "list", "Set custom DNS servers", parse=lazy("simple:parse_ip")),
    Flag("dns-option", "list", "Set DNS options"),
    Flag("dns-search", "list", "Set custom DNS search domains", parse=lazy("simple:parse_search_domain")),
    Flag("domainname", "string", "Container NIS domain name"),
    Flag("entrypoint", "string", "Overwrite the default ENTRYPOINT of the image"),
    Flag("env", "list", "Set environment variables", short="e", parse=lazy("simple:parse_env")),
    Flag("env-file", "list", "Read in a file of environment variables"),
    Flag("expose", "list", "Expose a port or a range of ports"),
    Flag(
        "gpus",
        "gpu-request",
        "GPU devices to add to the container ('all' to pass all GPUs)",
        parse=lazy("devices:parse_gpus"),
        multiple=True,
    ),
    Flag("group-add", "list", "Add additional groups to join"),
    Flag("health-cmd", "string", "Command to run to check health"),
    Flag("health-interval", "duration", "Time between running the check (ms|s|m|h) (default 0s)"),
    Flag("health-retries", "int", "Consecutive failures needed to report unhealthy"),
    Flag(
        "health-start-interval",
        "duration",
        "Time between running the check during the start period (ms|s|m|h) (default 0s)",
    ),
    Flag(
        "health-start-period",
        "duration",
        "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)",
    ),
    Flag("health-timeout", "duration", "Maximum time to allow one check to run (ms|s|m|h) (default 0s)"),
    Flag("hostname", "string", "Container host name", short="h"),
    Flag("init", "bool", "Run an init inside the container that forwards signals and reaps processes"),
    Flag("interactive", "bool", "Keep STDIN open even if not attached", short="i"),
    Flag("ip", "string", "IPv4 address (e.g., 172.30.100.104)"),
    Flag("ip6", "string", "IPv6 address (e.g., 2001:db8::33)"),
    Flag("ipc", "string", "IPC mode to use"),
    Flag("isolation", "string", "Container isolation technology"),
    Flag("kernel-memory", "bytes", "Kernel memory limit"),
    Flag("label", "list", "Set meta data on a container", short="l", parse=lazy("simple:parse_label")),
    Flag("label-file", "list", "Read in a line delimited file of labels"),
    Flag("link", "list", "Add link to another container", parse=lazy("simple:parse_link")),
    Flag("link-local-ip", "list", "Container IPv4/IPv6 link-local addresses"),
    Flag("log-driver", "string", "Logging driver for the container"),
    Flag("log-opt", "list", "Log driver options"),
    Flag("mac-address", "string", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    Flag("memory", "bytes", "Memory limit", short="m"),
    Flag("memory-reservation", "bytes", "Memory soft limit"),
    Flag("memory-swap", "bytes", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap", parse=_swap),
    Flag("memory-swappiness", "int", "Tune container memory swappiness (0 to 100)", default=-1, shown="-1"),
    Flag(
        "mount", "mount", "Attach a filesystem mount to the container", parse=lazy("mounts:parse_mount"), multiple=True
    ),
    Flag("name", "string", "Assign a name to the container"),
    Flag("network", "network", "Connect a container to a network", parse=lazy("networks:parse_network"), multiple=True),
    Flag("network-alias", "list", "Add network-scoped alias for the container"),
    Flag("no-healthcheck", "bool", "Disable any container-specified HEALTHCHECK"),
    Flag("oom-kill-disable", "bool", "Disable OOM Killer"),
    Flag("oom-score-adj", "int", "Tune host's OOM preferences (-1000 to 1000)"),
    Flag("pid", "string", "PID namespace to use"),
    Flag("pids-limit", "int", "Tune container pids limit (set -1 for unlimited)"),
    Flag("platform", "string", "Set platform if server is multi-platform capable"),
    Flag("privileged", "bool", "Give extended privileges to this container"),
    Flag("publish", "list", "Publish a container's port(s) to the host", short="p"),
    Flag("publish-all", "bool", "Publish all exposed ports to random ports", short="P"),
    Flag("quiet", "bool", "Suppress the pull output", short="q"),
    Flag("read-only", "bool", "Mount the container's root filesystem as read only"),
    Flag("restart", "string", "Restart policy to apply when a container exits", default="no", shown='"no"'),
    Flag("rm", "bool", "Automatically remove the container and its associated anonymous volumes when it exits"),
    Flag("runtime", "string", "Runtime to use for this container"),
    Flag("security-opt", "list", "Security Options"),
    Flag("shm-size", "bytes", "Size of /dev/shm"),
    Flag("stop-signal", "string", "Signal to stop the container"),
    Flag("stop-timeout", "int", "Timeout (in seconds) to stop a container"),
    Flag("storage-opt", "list", "Storage driver options for the container"),
    Flag("sysctl", "map", "Sysctl options", shown="map[]", parse=lazy("simple:parse_sysctl")),
    Flag("tmpfs", "list", "Mount a tmpfs directory"),
    Flag("tty", "bool", "Allocate a pseudo-TTY", short="t"),
    Flag("ulimit", "ulimit", "Ulimit options", shown="[]", parse=lazy("simple:parse_ulimit"), multiple=True),
    Flag("use-api-socket", "bool", "Bind mount Docker API socket and required auth"),
    Flag("user", "string", "Username or UID (format: <name|uid>[:<group|gid>])", short="u"),
    Flag("userns", "string", "User namespace to use"),
    Flag("uts", "string", "UTS namespace to use"),
    Flag("volume", "list", "Bind mount a volume", short="v"),
    Flag("volume-driver", "string", "Optional volume driver for the container"),
    Flag("volumes-from", "list", "Mount volumes from the specified container(s)"),
    Flag("workdir", "string", "Working directory inside the container", short="w"),
    Flag("cpu-count", "int", "CPU count (Windows only)", hidden=True),
    Flag("cpu-percent", "int", "CPU percent (Windows only)", hidden=True),
    Flag("io-maxbandwidth", "bytes", "Maximum IO bandwidth limit for the system drive (Windows only)", hidden=True),
    Flag("io-maxiops", "uint64", "Maximum IOps limit for the system drive (Windows only)", hidden=True),
    Flag("dns-opt", "list", "Set DNS options", hidden=True, stores="dns-option"),
    Flag(
        "net",
        "network",
        "Connect a container to a network",
        parse=lazy("networks:parse_network"),
        multiple=True,
        hidden=True,
        stores="network",
    ),
    Flag("net-alias", "list", "Add network-scoped alias for the container", hidden=True, stores="network-alias"),
)
