"""The world inside a container equals the one Docker makes, field by field.

`data/<variant>.json` was recorded from Docker 28.5 on the kind of machine the key names (cgroup version, capabilities
of root differ between machines): by running this file with
WHERRY_TEST_AGAINST=unix:///…@netns WHERRY_TEST_RECORD=1.
"""

import json
import os
import platform
from pathlib import Path

import pytest

from .conftest import AGAINST

DATA = Path(__file__).parent / "data"
PROBE = Path(__file__).parent / "probe.py"

VARIANTS = {
    "default": [],
    "privileged": ["--privileged"],
    "user": ["--user", "65534:65534"],
    "capabilities": ["--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--security-opt", "no-new-privileges"],
    "unconfined": ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"],
    "hostly": ["--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"],
    "read-only": ["--read-only", "--tmpfs", "/tmp"],
}

# Where wherry means to differ: (variant or "*", path of the field) → why.
INTENDED = {
    ("*", "/syscalls/socket AF_ALG"): "the newer default profile, which closes CVE-2026-31431",
    ("*", "/mounts:/sys/fs/cgroup"): "the directory of the v1 hierarchies is read-only like what is in it",
    ("*", "/masked//sys/fs/cgroup"): "the same",
    ("hostly", "/hosts"): "the host's file, copied: it differs from machine to machine",
    ("hostly", "/net"): "the host's interfaces",
    ("hostly", "/mounts:/dev/shm"): "the host's, half as large as its memory",
    ("hostly", "/mounts:/sys"): "the host's superblock, which a test host has not mounted before",
}


def machine() -> str:
    version = 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1
    bounding = Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0]
    return f"cgroup v{version}, capabilities {bounding}, Linux {platform.release().rsplit('.', 1)[0]}"


def differences(theirs, ours, path=""):
    """The leaves in which two JSON documents differ: (path, theirs, ours)."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            yield from differences(theirs.get(key), ours.get(key), f"{path}/{key}")
    elif path == "/mounts":
        for point in sorted({m[0] for m in theirs + ours}):
            pair = [[m[1:] for m in mounts if m[0] == point] for mounts in (theirs, ours)]
            yield from differences(*pair, f"/mounts:{point}")
    elif theirs != ours:
        yield path, theirs, ours


@pytest.fixture(scope="module")
def python_image(host):
    if host.docker("image", "inspect", "e2e:python", check=False).returncode != 0:
        host.wherry("image", "from-host", "e2e:python", "python3", "--python")
    return "e2e:python"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_world_inside_is_docker_s(host, python_image, variant):
    command = ("run", "--rm", "-i", *VARIANTS[variant], python_image, "python3", "-")
    ours = json.loads(host.docker(*command, input=PROBE.read_text()).stdout)
    record = DATA / f"{variant}.json"
    recorded = json.loads(record.read_text()) if record.exists() else {}
    if AGAINST and os.environ.get("WHERRY_TEST_RECORD"):
        record.write_text(json.dumps(recorded | {machine(): ours}, indent=1, sort_keys=True) + "\n")
        return
    if machine() not in recorded:
        pytest.skip(f"no record of Docker's on a machine like this: {machine()}")
    unintended = []
    for path, theirs, mine in differences(recorded[machine()], ours):
        reason = INTENDED.get((variant, path)) or INTENDED.get(("*", path))
        print(f"{path}\n  Docker {json.dumps(theirs)}\n  wherry {json.dumps(mine)}\n  {reason or 'NOT INTENDED'}")
        if reason is None:
            unintended.append(path)
    assert unintended == []


def test_the_namespaces_are_docker_s(host, name):
    host.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    pid = host.inspect(name)["State"]["Pid"]
    own = {
        n
        for n in os.listdir("/proc/self/ns")
        if os.readlink(f"/proc/{pid}/ns/{n}") != os.readlink(f"/proc/self/ns/{n}")
    }
    expected = {"ipc", "mnt", "net", "pid", "pid_for_children", "uts"}
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        expected.add("cgroup")
    assert own == expected
