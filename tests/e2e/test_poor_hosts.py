"""Hosts that lack something. Each is made by taking it away from the daemon for real: see `poor_host`."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from .host import Host

V1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()


@contextmanager
def without(*what, flags=()):
    host = Host(*flags)
    host.wrapper = (sys.executable, "-m", "tests.e2e.poor_host", *what, "--")
    host.start()
    try:
        host.import_busybox()
        yield host
    finally:
        host.close()


@pytest.fixture(scope="module", params=["cgroups", "ro-cgroups"])
def no_cgroups(request):
    with without(request.param) as host:
        yield host


def test_the_missing_cgroups_are_told_once(no_cgroups):
    assert no_cgroups.log().count("no writable cgroup hierarchy is mounted. Containers run without any limits") == 1
    shown = no_cgroups.docker("info")
    assert "WARNING: no writable cgroup hierarchy is mounted." in shown.stderr
    assert "Cgroup Driver: none" in shown.stdout
    assert no_cgroups.out("info", "-f", "{{.MemoryLimit}} {{.CPUShares}} {{.PidsLimit}}") == "false false false"


def test_containers_run_without_cgroups(no_cgroups):
    out = no_cgroups.out
    assert out("run", "--rm", "busybox", "echo", "runs") == "runs"
    no_cgroups.docker("run", "-d", "--name", "web", "busybox", "sleep", "1000")
    assert out("exec", "web", "echo", "too") == "too"
    assert "sleep 1000" in out("top", "web")
    refused = no_cgroups.docker("pause", "web", check=False)
    assert refused.returncode == 1
    assert "no writable cgroup hierarchy is mounted on this host" in refused.stderr
    no_cgroups.docker("restart", "-t", "0", "web")
    no_cgroups.docker("rm", "-f", "web")


def test_limits_are_discarded_with_a_warning_or_refused(no_cgroups):
    made = no_cgroups.docker("create", "--name", "limited", "-m", "64m", "--pids-limit", "5", "busybox", "true")
    assert "Your kernel does not support memory limit capabilities or the cgroup is not mounted" in made.stderr
    assert "Your kernel does not support PIDs limit capabilities" in made.stderr
    assert no_cgroups.inspect("limited")["HostConfig"]["Memory"] == 0
    no_cgroups.docker("start", "-a", "limited")
    refused = no_cgroups.docker("create", "--cpus", "1", "busybox", "true", check=False)
    assert "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler" in refused.stderr


def test_containers_make_no_devices_when_nothing_watches_them(no_cgroups):
    shown = no_cgroups.out("run", "--rm", "busybox", "grep", "CapBnd", "/proc/self/status")
    assert not int(shown.split()[1], 16) & 1 << 27  # CAP_MKNOD
    everything = no_cgroups.out("run", "--rm", "--cap-add", "ALL", "busybox", "grep", "CapBnd", "/proc/self/status")
    assert not int(everything.split()[1], 16) & 1 << 27
    for words, text in (
        (("--cap-add", "mknod"), "CAP_MKNOD cannot be added: this host has no devices cgroup"),
        (("--device-cgroup-rule", "c 1:3 rwm"), "device cgroup rules cannot be set"),
        (("--device", "/dev/null:/dev/x:r"), "access to /dev/null cannot be limited"),
    ):
        refused = no_cgroups.docker("create", *words, "busybox", "true", check=False)
        assert refused.returncode == 1
        assert text in refused.stderr


def test_what_a_dead_monitor_leaves_is_found_without_cgroups(no_cgroups):
    """The processes of a container are known by their mounts, then."""
    no_cgroups.docker("run", "-d", "--name", "orphan", "busybox", "sleep", "1000")
    pid = no_cgroups.inspect("orphan")["State"]["Pid"]
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    no_cgroups.run("kill", "-9", str(parent))
    no_cgroups.wait_until(
        lambda: no_cgroups.inspect("orphan")["State"]["Status"] == "exited", "the end of the container"
    )
    status = Path(f"/proc/{pid}/status")  # its new parent, process 1, may take its time
    assert not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.skipif(not V1, reason="on cgroup v2 controllers are not mounted one by one")
def test_one_controller_is_missing():
    with without("no-memory", "no-devices") as host:
        assert "cgroup controllers are missing: memory. Limits of these kinds are discarded" in host.log()
        assert "the cgroup controller devices is missing." in host.log()
        assert "WARNING: No memory limit support" in host.docker("info").stderr
        made = host.docker(
            "run", "--rm", "-m", "64m", "--pids-limit", "77", "busybox", "grep", "CapBnd", "/proc/1/status"
        )
        assert "memory limit capabilities" in made.stderr
        assert not int(made.stdout.split()[1], 16) & 1 << 27


@pytest.mark.parametrize(
    ("what", "reason", "modes"),
    # without the capability not even the loopback device of a namespace comes up
    [("nftables", "the kernel has no nf_tables", ("none", "host")), ("net-admin", "not permitted", ("host",))],
)
def test_no_firewall_or_no_links(what, reason, modes):
    """Everything but the bridge works, and who asks for it hears why not."""
    with without(what) as host:
        assert host.log().count("the bridge network is not available: ") == 1
        assert reason in host.log()
        assert "WARNING: the bridge network is not available: " in host.docker("info").stderr
        refused = host.docker("run", "--name", "bridged", "busybox", "true", check=False)
        assert refused.returncode == 125
        assert "failed to set up container networking: the bridge network is not available: " in refused.stderr
        assert reason in refused.stderr
        for mode in modes:
            assert host.out("run", "--rm", "--network", mode, "busybox", "echo", mode) == mode


def test_a_bridge_without_firewall():
    with without("nftables", flags=("--iptables=false",)) as host:
        assert "the bridge network is not available" not in host.log()
        host.docker("run", "-d", "--name", "web", "busybox", "httpd", "-f", "-h", "/www")
        address = host.out("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web")
        fetched = host.out("run", "--rm", "busybox", "wget", "-qO-", f"http://{address}/")
        assert fetched == "hello from inside"
        refused = host.docker("run", "--rm", "-p", "8080:80", "busybox", "true", check=False)
        assert refused.returncode == 125
        assert "ports cannot be published: the daemon runs with --iptables=false" in refused.stderr
