"""Processes that join a container which does not want them."""

import json
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

import wherry
from tests.e2e.host import busybox_tar

pytestmark = pytest.mark.root

EXECS = "{{json .ExecIDs}}"


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


def monitor_of(host, name):
    """The process that the container's init belongs to."""
    init = host.inspect(name)["State"]["Pid"]
    return int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_container_that_stops_whoever_joins_it_can_still_be_killed(host, name):
    """SIGSTOP cannot be blocked: an exec that waits for ever would keep everybody else waiting with it."""
    host.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "while :; do kill -STOP -1; done")
    joining = [host.popen("docker", "exec", name, "true") for _ in range(5)]
    try:
        host.wait_until(lambda: json.loads(host.out("inspect", "-f", EXECS, name)), "an exec")
        host.docker("kill", name, timeout=60)
        host.docker("wait", name, timeout=60)
    finally:
        for process in joining:
            process.kill()
            process.communicate()


def test_output_of_those_an_exec_left_behind_does_not_pile_up(host, name):
    """What nobody reads stays with those who write it, in the container, not in the memory of the engine."""
    host.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    monitor = monitor_of(host, name)
    reader = host.popen("docker", "exec", name, "sh", "-c", "yes & sleep 0.2")  # and nobody reads its output
    try:
        host.wait_until(lambda: not json.loads(host.out("inspect", "-f", EXECS, name)), "the exec's end")
        peak = 0
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            peak = max(peak, resident_kib(monitor))
            time.sleep(0.05)
        assert peak < 64 * 1024
        host.docker("kill", name, timeout=60)
    finally:
        reader.kill()
        reader.communicate()


def test_traps_under_the_names_of_modules_are_never_imported(host, name, tmp_path):
    """CVE-2019-14271: what a process that enters a container looks up there, the container decides. Every module of
    the standard library and of ours lies in the image, and leaves a mark when executed."""
    root = tmp_path / "root"
    trap = 'open("/token", "a").write(__name__ + "\\n")\n'
    parent = Path(wherry.__file__).parents[1]
    places = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(parent), f"{sys.base_prefix}/lib"}
    host_python = Path("/proc/self/exe").resolve()
    places.add(str(host_python.parents[1] / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"))
    for place in places:
        directory = root / str(place).lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for module in sys.stdlib_module_names | {"sitecustomize", "usercustomize"}:
            (directory / f"{module}.py").write_text(trap)
        for package in ("encodings", "ctypes", "json", "logging", "wherry"):
            (directory / package).mkdir(exist_ok=True)
            (directory / package / "__init__.py").write_text(trap)
    subprocess.run(["tar", "-C", root, "-x"], check=True, input=busybox_tar())
    layer = subprocess.run(["tar", "-C", root, "-c", "."], check=True, capture_output=True).stdout
    host.docker("import", "-", "wherry-traps", input=layer, text=False)
    try:
        host.docker("run", "-d", "--name", name, "wherry-traps", "sleep", "1000")
        for options in ([], ["-t"], ["-u", "nobody"], ["-u", "ghost"], ["-w", "/nowhere"], ["-e", "A=é"]):
            host.docker("exec", *options, name, "true", check=False)
        host.docker("exec", name, "nope", check=False)
        host.docker("exec", name, "/etc/passwd", check=False)
        assert host.docker("exec", name, "cat", "/token", check=False).returncode == 1
    finally:
        host.docker("rm", "-f", name, check=False)
        host.docker("rmi", "wherry-traps", check=False)


def test_exec_under_a_profile_that_forbids_clone(host, name, tmp_path):
    """As runc does: the filter comes last, and holds."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["clone", "clone3", "fork", "vfork"], "action": "SCMP_ACT_ERRNO"}],
    }
    (tmp_path / "profile").write_text(json.dumps(profile))
    opt = ("--security-opt", f"seccomp={tmp_path}/profile")
    host.docker("run", "-d", "--name", name, *opt, "busybox", "sleep", "1000")
    for more in ((), ("--user", "65534"), ("--privileged",)):
        status = host.out("exec", *more, name, "grep", "-E", "^(Seccomp|NoNewPrivs|CapBnd)", "/proc/self/status")
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t0" in status
        assert ("CapBnd:\t00000000a80425fb" in status) == (more != ("--privileged",))
        forks = host.docker("exec", *more, name, "sh", "-c", "true | true", check=False)
        assert "can't fork: Operation not permitted" in forks.stderr
