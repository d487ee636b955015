"""What a container can reach of the engine and of the host."""

import json
import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

DEFAULT_CAPABILITIES = "00000000a80425fb"
STREAMS = re.compile(r"pipe:\[\d+\]|/dev/null|/dev/pts/\d+|/dev/console")
OPEN = ["ls", "-l", "/proc/self/fd"]
STATUS = ["cat", "/proc/self/status"]


def descriptors(text):
    """What `ls` has open, without the directory it lists."""
    pairs = re.findall(r"(\d+) -> ([^\r\n]+)", text)
    return {int(fd): target for fd, target in pairs if not re.fullmatch(r"/proc/\d+/fd", target)}


@pytest.fixture
def sleeping(host, name):
    host.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    return name


@pytest.mark.parametrize("options", [[], ["-i"], ["-t"]], ids=["plain", "stdin", "terminal"])
def test_descriptors_are_the_streams_alone(host, sleeping, options):
    """CVE-2024-21626, CVE-2016-9962: nothing of the engine comes along, in `run` or in `exec`."""
    texts = [
        host.docker("run", "--rm", *options, "busybox", *OPEN, input="").stdout,
        host.docker("exec", *options, sleeping, *OPEN, input="").stdout,
    ]
    for text in texts:
        found = descriptors(text)
        assert set(found) == {0, 1, 2}, text
        assert all(STREAMS.fullmatch(target) for target in found.values()), text


@pytest.mark.parametrize(
    ("options", "effective"),
    [
        ([], DEFAULT_CAPABILITIES),
        (["-u", "1000"], "0000000000000000"),
        (["--cap-drop", "ALL"], "0000000000000000"),
        (["--cap-add", "NET_ADMIN"], "00000000a80435fb"),
        (["-u", "1000", "--cap-add", "NET_ADMIN"], "0000000000000000"),
        (["--privileged"], None),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_capabilities_of_run_and_exec(host, name, options, effective):
    """CVE-2022-29162, CVE-2022-24769, CVE-2018-10856: nothing inheritable, nothing ambient, nothing for users."""
    host.docker("run", "-d", "--name", name, *options, "busybox", "sleep", "1000")
    pid = host.inspect(name)["State"]["Pid"]
    for text in (Path(f"/proc/{pid}/status").read_text(), host.out("exec", name, *STATUS)):
        sets = dict(re.findall(r"Cap(\w+):\s+(\w+)", text))
        assert sets["Inh"] == sets["Amb"] == "0" * 16
        if effective is not None:
            assert sets["Eff"] == sets["Prm"] == effective
        assert ("Seccomp:\t2" in text) == ("--privileged" not in options)


def test_exec_as_a_user_has_no_capabilities_and_privileged_exec_has_all(host, sleeping):
    assert "CapEff:\t0000000000000000" in host.out("exec", "-u", "1000", sleeping, *STATUS)
    text = host.out("exec", "--privileged", sleeping, *STATUS)
    sets = dict(re.findall(r"Cap(\w+):\s+(\w+)", text))
    own = re.search(r"CapBnd:\s+(\w+)", Path("/proc/self/status").read_text())
    assert own is not None
    assert sets["Eff"] == own.group(1)
    assert sets["Inh"] == sets["Amb"] == "0" * 16


@pytest.mark.parametrize(("user", "groups"), [("1000:1234", ["1234"]), ("nobody", ["65534"]), ("0:7", ["7"])])
def test_the_primary_group_is_among_the_supplementary_ones(host, name, user, groups):
    """CVE-2022-36109 and its like: else a set-group-id program leaves the group, and what a file denies to it."""
    host.docker("run", "-d", "--name", name, "-u", user, "busybox", "sleep", "1000")
    for text in (
        Path(f"/proc/{host.inspect(name)['State']['Pid']}/status").read_text(),
        host.out("exec", name, *STATUS),
        host.out("exec", "-u", user, name, *STATUS),
    ):
        assert re.search(r"^Groups:(.*)$", text, re.MULTILINE)[1].split() == groups


def test_every_process_is_in_the_containers_cgroup(host, name):
    """CVE-2023-6476, CVE-2025-47291: those that join as well, from their first moment."""
    host.docker("run", "-d", "--name", name, "--pids-limit", "64", "busybox", "sleep", "1000")
    identity = host.inspect(name)["Id"]
    ours = {line for line in host.out("exec", name, "cat", "/proc/self/cgroup").splitlines() if identity in line}
    init = host.out("exec", name, "cat", "/proc/1/cgroup").splitlines()
    assert ours == {line for line in init if identity in line}
    assert ours


# Each of these has told, or changed, something of the host somewhere once.
MASKED = {
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
}  # fmt: skip
READ_ONLY = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}


def test_masks_hold_for_those_who_join(host, sleeping):
    """CVE-2018-10892, CVE-2017-16539 and the like."""
    masked = host.inspect(sleeping)["HostConfig"]["MaskedPaths"]
    assert set(masked) >= MASKED
    assert set(host.inspect(sleeping)["HostConfig"]["ReadonlyPaths"]) >= READ_ONLY
    script = 'for p in "$@"; do if [ -d $p ]; then ls -A $p; elif [ -e $p ]; then head -c 1 $p; fi; done; echo end'
    assert host.out("exec", sleeping, "sh", "-c", script, "sh", *masked) == "end"
    paths = ("/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity")
    for path in filter(os.path.exists, paths):
        result = host.docker("exec", sleeping, "sh", "-c", f"echo x > {path}", check=False)
        assert "Read-only file system" in result.stderr, path


def test_environment_of_the_engine_stays_there(name):
    """CVE-2021-3602, CVE-2020-14370."""
    from tests.e2e.host import Host

    os.environ["WHERRY_CANARY"] = "canary-env"
    try:
        own = Host().start()
    finally:
        del os.environ["WHERRY_CANARY"]
    try:
        own.import_busybox()
        own.docker("run", "-d", "--name", name, "-e", "SECRET=of-another", "busybox", "sleep", "1000")
        assert b"canary-env" in Path(f"/proc/{own.daemon.pid}/environ").read_bytes()
        seen = own.out("run", "--rm", "busybox", "env") + own.out("exec", name, "env")
        assert "canary-env" not in seen
        assert "of-another" not in own.out("run", "--rm", "busybox", "env")
    finally:
        own.close()


def test_no_socket_of_the_engine_has_an_abstract_name(host, name):
    """CVE-2020-15257: a container in the host's network could connect to it."""
    before = set(Path(f"/proc/{os.getpid()}/net/unix").read_text().split())
    host.docker("run", "-d", "--name", name, "--network", "host", "busybox", "sleep", "1000")
    table = host.out("exec", name, "cat", "/proc/net/unix")
    assert not [word for word in table.split() if word.startswith("@") and word not in before]


def test_what_lies_in_the_roots_is_for_root_alone(host, sleeping):
    """CVE-2021-41091, CVE-2021-21284, CVE-2024-25621: nobody else gets in, so set-uid files in layers are out of
    reach, and nothing is writable for others."""
    identity = host.inspect(sleeping)["Id"]
    data, run = host.root / "data", host.root / "run"
    assert stat.S_IMODE(data.stat().st_mode) == 0o710
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    for directory in (data / "content", data / "layers", data / "trash", data / "tmp"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "containers" / identity).stat().st_mode) == 0o710
    control = run / "containers" / identity / "monitor.sock"
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    assert stat.S_IMODE((host.root / "wherry.sock").stat().st_mode) == 0o660
    for path in (data, data / "layers", data / "volumes", control, run / "spawner.log"):
        script = f"import os; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.stat({str(path)!r} + '/..')"
        assert subprocess.run(["python3", "-c", f"{script}; os.listdir({str(path)!r})"], capture_output=True).returncode
    writable = [
        path
        for root in (data, run)
        for path in root.rglob("*")
        if not {"upper", "layers", "_data"} & set(path.relative_to(root).parts)
        and not path.is_symlink()
        and path.stat().st_mode & 0o022
        and not path.is_socket()
    ]
    assert writable == []


def test_another_user_cannot_control_a_monitor(host, sleeping):
    """Were the directories open, who connects is still looked at."""
    identity = host.inspect(sleeping)["Id"]
    control = host.root / "run/containers" / identity / "monitor.sock"
    directory = os.open(control.parent, os.O_PATH)
    child = os.fork()
    if not child:
        os.setgroups([])
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.chmod(control, 0o666)
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            connection.connect(f"/proc/self/fd/{directory}/monitor.sock")
            connection.settimeout(60)
            connection.send(json.dumps({"op": "status", "seq": 1}).encode())
            os._exit(1 if connection.recv(100) else 0)
        except OSError:
            os._exit(0)
    os.close(directory)
    _, status = os.waitpid(child, 0)
    control.chmod(0o600)
    assert os.waitstatus_to_exitcode(status) == 0
    assert host.out("exec", sleeping, "echo", "still") == "still"


@pytest.mark.parametrize(
    "sysctl",
    [
        "kernel.core_pattern=|/x",
        "kernel/core_pattern=x",
        "net/../kernel/core_pattern=x",
        "net.ipv4.ip_forward=1+kernel.core_pattern=x",
        "fs.mqueue/../../kernel/core_pattern=x",
        "net..kernel.core_pattern=x",
        "kernel.hostname=x",
        "vm.overcommit_memory=1",
    ],
)
def test_sysctls_of_the_host_cannot_be_named(host, name, sysctl):
    """CVE-2022-0811."""
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    result = host.docker("run", "--rm", "--name", name, "--sysctl", sysctl, "busybox", "true", check=False)
    assert result.returncode != 0
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_shared_memory_of_a_pair_is_given_back(host, name):
    """CVE-2024-3056: the file system goes with the last of those who share it, whatever one of them put there."""
    host.docker("run", "-d", "--name", name, "--ipc", "shareable", "busybox", "sleep", "1000")
    device = os.stat(f"/proc/{host.inspect(name)['State']['Pid']}/root/dev/shm").st_dev
    mark = f" {os.major(device)}:{os.minor(device)} "

    def mounted() -> bool:
        return any(mark in text for text in map(text_of, Path("/proc").glob("[0-9]*/mountinfo")))

    other = f"{name[:50]}-other"
    try:
        host.docker("run", "-d", "--name", other, "--ipc", f"container:{name}", "busybox", "sleep", "1000")
        host.docker("exec", other, "dd", "if=/dev/zero", "of=/dev/shm/fill", "bs=1M", "count=8")
        host.docker("kill", name)
        assert mounted()
    finally:
        host.docker("kill", other, name, check=False)
        host.docker("rm", "-f", other, check=False)
    host.wait_until(lambda: not mounted(), "the end of the file system")


def text_of(path: Path) -> str:
    """The content of a file of procfs; "" when its process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
