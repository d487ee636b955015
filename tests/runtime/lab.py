"""A bundle with a busybox root file system, and a runtime to run it with.

The runtime is ours, or the one `OCI_RUNTIME` names: tests that hold for every runtime then compare us with it.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = Path(__file__).resolve().parents[2] / "src"
OURS = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from wherry.runtime.oci_cli import main; main()",
]
APPLETS = (
    *("sh", "ls", "cat", "id", "echo", "sleep", "true", "false", "ps", "mount", "umount", "stat", "touch", "mkdir"),
    *("rmdir", "rm", "env", "test", "grep", "hostname", "domainname", "tty", "readlink", "chmod", "mknod", "head"),
    *("wc", "tr", "seq", "kill", "dd", "ln", "sed", "printf", "date", "od", "nc", "unshare", "cut", "sort"),
)
CAPABILITIES = [
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
    "CAP_AUDIT_WRITE",
]
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n1000:x:0:0::/:/bin/sh\n"
GROUP = "root:x:0:\nbob:x:1000:\nextra:x:2000:alice,bob\nwheel:x:3000:\n"

_serial = itertools.count(1)


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class MountInfo(NamedTuple):
    """A line of mountinfo, proc(5)."""

    point: str
    root: str
    options: set[str]
    optional: list[str]
    fstype: str
    source: str
    super_options: set[str]


def parse_mountinfo(text: str) -> dict[str, MountInfo]:
    """By mount point; the topmost of several."""
    found = {}
    for line in text.splitlines():
        fields = line.split(" ")
        dash = fields.index("-")
        found[fields[4]] = MountInfo(
            fields[4],
            fields[3],
            set(fields[5].split(",")),
            fields[6:dash],
            fields[dash + 1],
            fields[dash + 2],
            set(fields[dash + 3].split(",")),
        )
    return found


def make_rootfs(path: Path) -> None:
    """A root file system of busybox and little else."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
        (path / name).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", path / "bin/busybox")
    for applet in APPLETS:
        (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text(PASSWD)
    (path / "etc/group").write_text(GROUP)


def default_config() -> dict[str, Any]:
    """What an engine asks for by default, smaller."""
    plain = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "box",
        "process": {
            "args": ["true"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": plain},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*plain, "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", *plain]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": plain},
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": [*plain, "mode=1777", "size=65536k"],
            },
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


class Lab:
    """One container's bundle; `close` removes whatever is left of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rootfs = directory / "rootfs"
        self.state = directory / "state"
        self.id = f"lab{os.getpid()}-{next(_serial)}"
        self.config = default_config()
        self.config["linux"]["cgroupsPath"] = f"/wherry-test/{self.id}"
        make_rootfs(self.rootfs)

    @property
    def process(self) -> dict[str, Any]:
        return self.config["process"]

    @property
    def linux(self) -> dict[str, Any]:
        return self.config["linux"]

    def add_mount(self, destination: str, source: str | Path, *options: str, fstype: str = "bind") -> None:
        self.config["mounts"].append(
            {"destination": destination, "type": fstype, "source": str(source), "options": list(options)}
        )

    def drop_namespace(self, kind: str) -> None:
        self.linux["namespaces"] = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]

    def write(self) -> None:
        (self.directory / "config.json").write_text(json.dumps(self.config))

    def command(self, *arguments: str) -> list[str]:
        program = os.environ.get("OCI_RUNTIME")
        return [*([program] if program else OURS), "--root", str(self.state), *arguments]

    def cli(self, *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None, **more: Any) -> Result:
        """Call the runtime."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            timeout=30,
            env={**os.environ, **(env or {})},
            **more,
        )
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def run(self, *args: str, **more: Any) -> Result:
        """Run a program in the foreground: config's own args, or `args`."""
        if args:
            self.process["args"] = list(args)
        self.write()
        return self.cli("run", "-b", str(self.directory), self.id, **more)

    def sh(self, script: str, **more: Any) -> Result:
        """Run a shell script in the foreground."""
        return self.run("sh", "-c", script, **more)

    def create(self, *args: str, options: tuple[str, ...] = ()) -> Result:
        """Create, with `options` of the command; the program's output goes nowhere."""
        if args:
            self.process["args"] = list(args)
        self.write()
        with open(os.devnull, "r+b") as null:
            done = subprocess.run(
                self.command(
                    *("--log", str(self.directory / "log"), "create", "-b", str(self.directory), *options, self.id)
                ),
                stdin=null,
                stdout=null,
                stderr=null,
                timeout=30,
            )
        log = self.directory / "log"
        return Result(done.returncode, "", log.read_text() if log.exists() else "")

    def start_sleeping(self) -> int:
        """A container that sleeps; the pid of its init."""
        result = self.create("sleep", "1000")
        assert result.code == 0, result.err
        assert self.cli("start", self.id).code == 0
        return int(self.info()["pid"])

    def info(self) -> dict[str, Any]:
        """What `state` prints."""
        result = self.cli("state", self.id)
        assert result.code == 0, result.err
        return json.loads(result.out)

    def mounts(self, **more: Any) -> dict[str, MountInfo]:
        """The mount table as the container sees it."""
        result = self.run("cat", "/proc/self/mountinfo", **more)
        assert result.code == 0, result.err
        return parse_mountinfo(result.out)

    def close(self) -> None:
        """Remove the container, whatever state it is in."""
        self.cli("delete", "--force", self.id)
