"""Record the OCI configurations that a real Docker gives its runtime, for test_against_docker.

    DOCKER_HOST=unix:///… python -m tests.engine_oci.record BUNDLES [NAME...]

BUNDLES is where that daemon's containerd keeps its bundles, as seen from here (io.containerd.runtime.v2.task/moby).
Needs an image `busybox`; makes containers, a volume wherry-recording and the directory /tmp/wherry-recording, and
removes them again.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
SOURCE = "/tmp/wherry-recording"
CASES: dict[str, list[str]] = {
    "default": [],
    "tty": ["-it"],
    "env": ["-e", "A=1", "-e", "PATH=/x", "-e", "HOSTNAME=h", "-w", "/tmp"],
    "user": ["-u", "1000:1001"],
    "user-uid": ["-u", "1000"],
    "group-add": ["-u", "1000", "--group-add", "44", "--group-add", "55"],
    "names": ["-h", "box", "--domainname", "example.org"],
    "privileged": ["--privileged"],
    "privileged-device": ["--privileged", "--device", "/dev/null:/dev/xnull:r"],
    "privileged-drop": ["--privileged", "--cap-drop", "NET_RAW"],
    "cap-add": ["--cap-add", "SYS_ADMIN", "--cap-add", "cap_net_admin", "--cap-drop", "CHOWN"],
    "cap-drop-all": ["--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE"],
    "cap-add-all": ["--cap-add", "ALL", "--cap-drop", "sys_admin"],
    "read-only": ["--read-only"],
    "read-only-tmpfs": ["--read-only", "--tmpfs", "/run", "--tmpfs", "/x:size=10m,exec,mode=1770"],
    "privileged-read-only": ["--privileged", "--read-only"],
    "binds": ["-v", f"{SOURCE}:/mnt", "-v", f"{SOURCE}:/ro:ro", "-v", f"{SOURCE}:/mnt/in:rprivate"],
    "bind-private": ["-v", f"{SOURCE}:/mnt:private"],
    "mounts": [
        "--mount",
        f"type=bind,src={SOURCE},dst=/a,readonly,bind-recursive=disabled",
        "--mount",
        f"type=bind,src={SOURCE},dst=/b,readonly,bind-recursive=writable",
        "--mount",
        "type=tmpfs,dst=/c,tmpfs-size=65536,tmpfs-mode=700",
        "--mount",
        "type=tmpfs,dst=/d",
    ],
    "volume": ["-v", "wherry-recording:/data", "-v", "wherry-recording:/data2:ro"],
    "bind-dev-shm": ["-v", f"{SOURCE}:/dev/shm"],
    "bind-hosts": ["-v", f"{SOURCE}/f:/etc/hosts"],
    "memory": ["-m", "64m"],
    "memory-all": [
        "-m",
        "64m",
        "--memory-swap",
        "128m",
        "--memory-reservation",
        "32m",
        "--memory-swappiness",
        "50",
        "--oom-kill-disable",
    ],
    "cpus": ["--cpus", "0.5"],
    "cpu": [
        "--cpu-shares",
        "512",
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "25000",
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
    ],
    "pids": ["--pids-limit", "10"],
    "pids-unlimited": ["--pids-limit", "-1"],
    "ulimit": ["--ulimit", "nofile=512:1024", "--ulimit", "core=0"],
    "oom-score": ["--oom-score-adj", "100"],
    "shm-size": ["--shm-size", "128m"],
    "ipc-none": ["--ipc", "none"],
    "ipc-host": ["--ipc", "host"],
    "ipc-shareable": ["--ipc", "shareable"],
    "ipc-private": ["--ipc", "private"],
    "pid-host": ["--pid", "host"],
    "uts-host": ["--uts", "host"],
    "net-none": ["--net", "none"],
    "net-host": ["--net", "host"],
    "cgroupns-private": ["--cgroupns", "private"],
    "cgroup-parent": ["--cgroup-parent", "/kparent"],
    "init": ["--init"],
    "sysctl": ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=65536"],
    "sysctl-override": ["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"],
    "device": [
        "--device",
        "/dev/null:/dev/xnull:r",
        "--device",
        "/dev/zero",
        "--device-cgroup-rule",
        "c 42:* rmw",
        "--device-cgroup-rule",
        "a *:* r",
    ],
    "device-dir": ["--device", "/dev/net"],
    "no-new-privileges": ["--security-opt", "no-new-privileges"],
    "nnp-false": ["--security-opt", "no-new-privileges=false"],
    "seccomp-unconfined": ["--security-opt", "seccomp=unconfined"],
    "systempaths": ["--security-opt", "systempaths=unconfined"],
    "apparmor-unconfined": ["--security-opt", "apparmor=unconfined"],
    "label-disable": ["--security-opt", "label=disable"],
    "writable-cgroups": ["--security-opt", "writable-cgroups=true"],
    "annotation": ["--annotation", "a.b=c"],
    "entrypoint": ["--entrypoint", "/bin/sh"],
    "blkio": ["--device-read-bps", "/dev/vda:1mb", "--device-write-iops", "/dev/vda:100"],
    "blkio-weight": ["--blkio-weight", "300", "--blkio-weight-device", "/dev/vda:200"],
}


def main() -> None:
    bundles, *names = sys.argv[1:]
    os.makedirs(SOURCE, exist_ok=True)
    Path(SOURCE, "f").touch()
    docker("volume", "create", "wherry-recording")
    try:
        for name, flags in CASES.items():
            if not names or name in names:
                record(name, flags, bundles)
    finally:
        docker("volume", "rm", "wherry-recording")
        shutil.rmtree(SOURCE)


def record(name: str, flags: list[str], bundles: str) -> None:
    command = ["-c", "sleep 100"] if name == "entrypoint" else ["/bin/sleep", "100"]
    container = docker("run", "-d", *flags, "busybox", *command)
    try:
        config = json.loads(Path(bundles, container, "config.json").read_text())
        (inspect,) = json.loads(docker("inspect", container))
    finally:
        docker("rm", "-f", container)
    shown = {key: inspect[key] for key in ("Path", "Args", "Config", "HostConfig", "Mounts")}
    write(name, flags, shown, config, container)


def write(name: str, flags: list[str], shown: Any, config: Any, container: str) -> None:
    """The recording, without what is the same everywhere or belongs to that machine alone."""
    for part in ("Config", "HostConfig"):
        # One boolean of Docker's has a third state.
        shown[part] = {
            key: value for key, value in shown[part].items() if value or value == [] or key == "OomKillDisable"
        }
    keep_few_devices(config)
    seccomp = config["linux"].pop("seccomp", None)
    config["linux"]["seccomp"] = None if seccomp is None else known_profile(seccomp)
    text = json.dumps({"flags": flags, "inspect": shown, "oci": config}, indent=1, sort_keys=True)
    text = text.replace(container, "0" * 64).replace(container[:12], "0" * 12)
    (DATA / f"{name}.json").write_text(text + "\n")


def keep_few_devices(config: Any) -> None:
    """Of the host's devices in a privileged container."""
    devices = config["linux"].get("devices", [])
    if len(devices) > 10:
        kept = ("/dev/null", "/dev/zero", "/dev/full", "/dev/xnull")
        config["linux"]["devices"] = [device for device in devices if device["path"] in kept]


def known_profile(seccomp: Any) -> int:
    """Index of the profile in seccomp.json, where it is added if it is new."""
    path = DATA / "profiles" / "seccomp.json"
    profiles = json.loads(path.read_text()) if path.exists() else []
    if seccomp not in profiles:
        profiles.append(seccomp)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(profiles) + "\n")
    return int(profiles.index(seccomp))


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
