"""What `spec` and `features` print."""

import os
from typing import Any

from wherry.linux import caps, namespaces
from wherry.linux.seccomp import FILTER_FLAGS
from wherry.runtime import mount_options
from wherry.runtime.state import OCI_VERSION

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def example(*, rootless: bool) -> dict[str, Any]:
    """A config.json to start from: a shell in new namespaces with few privileges."""
    linux: dict[str, Any] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
        "maskedPaths": [
            *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
            *("/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"),
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }
    config = {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "wherry",
        "mounts": _example_mounts(),
        "linux": linux,
    }
    if rootless:
        linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        del linux["resources"]
    return config


def _example_mounts() -> list[dict[str, Any]]:
    plain = ["nosuid", "noexec", "nodev"]
    rows: tuple[tuple[str, str, str, list[str]], ...] = (
        ("/proc", "proc", "proc", []),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", "shm", [*plain, "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", plain),
        ("/sys", "sysfs", "sysfs", [*plain, "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*plain, "relatime", "ro"]),
    )
    return [
        {"destination": destination, "type": fstype, "source": source, "options": list(options)}
        for destination, fstype, source, options in rows
    ]


def features() -> dict[str, Any]:
    """features.md and features-linux.md of the runtime specification."""
    options = {
        *mount_options.ATTRIBUTES,
        *mount_options.RECURSIVE,
        *mount_options.PROPAGATION,
        *mount_options.SUPERBLOCK,
        *mount_options.EXTENSIONS,
        *mount_options.NEUTRAL,
    }
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": sorted(options),
        "linux": {
            "namespaces": sorted(namespaces.TYPES),
            "capabilities": list(caps.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": False},
            "seccomp": {
                "enabled": True,
                "actions": [
                    *("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"),
                    *("SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"),
                ],
                "operators": [f"SCMP_CMP_{name}" for name in ("EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE")],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": sorted(FILTER_FLAGS),
                "supportedFlags": sorted(FILTER_FLAGS),
            },
            "apparmor": {"enabled": os.path.exists("/sys/module/apparmor/parameters/enabled")},
            "selinux": {"enabled": os.path.exists("/sys/fs/selinux/enforce")},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"org.opencontainers.runc.checkpoint.enabled": "false"},
        "potentiallyUnsafeConfigAnnotations": [],
    }
