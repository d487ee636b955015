"""The plan of a configuration: pure data, no root needed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux.cgroupfs import Hierarchies
from wherry.runtime import devices, mount_options, operations, process, spec, sysctls
from wherry.runtime.failure import StartError
from wherry.runtime.spec import Host

from .lab import default_config

LEGACY = Host(
    Hierarchies({"cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct", "name=systemd": "/c/systemd"}, None),
    True,
    (0, 0),
)
UNIFIED = Host(Hierarchies({}, "/sys/fs/cgroup"), False, (0, 0))


def plan(config: dict[str, Any], host: Host = LEGACY, **more: Any) -> spec.Plan:
    return spec.plan(config, "/bundle", host, **more)


def kinds(operations_: tuple[operations.Operation, ...]) -> list[str]:
    return [type(operation).__name__ for operation in operations_]


def test_default_plan() -> None:
    made = plan(default_config())
    assert made.namespaces.new == ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | ns.CLONE_NEWNS
    assert made.root == (operations.RootPropagation(m.MS_SLAVE | m.MS_REC), operations.BindRoot("/bundle/rootfs"))
    assert kinds(made.mounts) == [
        *("Filesystem", "Filesystem", "Filesystem", "Filesystem", "EnterCgroup", "LegacyCgroupMount", "Filesystem"),
        *("Filesystem", "MakeDevices", "DeviceLinks"),
    ]
    assert kinds(made.settings) == ["WorkingDirectory", "Hostname", *["ReadOnlyPath"] * 5, "MaskPaths"]
    assert len(made.describe()) == 2 + 10 + 1 + 8


def test_legacy_hierarchies_that_share_a_mount() -> None:
    (mount,) = (op for op in plan(default_config()).mounts if isinstance(op, operations.LegacyCgroupMount))
    assert mount.hierarchies == (("cpu,cpuacct", "/c/cpu,cpuacct"), ("name=systemd", "/c/systemd"))
    assert not mount.own_namespace


def test_unified_hierarchy() -> None:
    (mount,) = (op for op in plan(default_config(), UNIFIED).mounts if isinstance(op, operations.UnifiedCgroupMount))
    assert mount.point == "/sys/fs/cgroup"


def test_overlay_root() -> None:
    overlay = {"type": "overlay", "lower": ["/l/2", "/l/1"], "upper": "/u", "work": "/w", "options": ["volatile"]}
    root = plan(default_config(), rootfs_mounts=[overlay]).root[1]
    assert root == operations.OverlayRoot("/bundle/rootfs", ("/l/2", "/l/1"), "/u", "/w", (("volatile", None),))


def test_read_only_tmpfs_is_remounted_at_the_end_and_the_root_too() -> None:
    config = default_config()
    config["root"]["readonly"] = True
    config["mounts"].append({"destination": "/x", "type": "tmpfs", "source": "t", "options": ["ro"]})
    settings = plan(config).settings
    assert operations.RemountReadOnly("/x") in settings
    assert operations.RemountReadOnly("/") in settings
    assert operations.RemountReadOnly("/sys") not in settings


def test_own_device_replaces_a_default_one() -> None:
    config = default_config()
    config["linux"]["devices"] = [{"path": "/dev//null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}]
    (made,) = (op for op in plan(config).mounts if isinstance(op, operations.MakeDevices))
    assert len(made.nodes) == len(devices.DEFAULT)
    assert made.nodes[-1] == devices.Device("/dev/null", "c", 1, 3, 0o600, 0, 0)


def test_bound_dev_is_left_alone() -> None:
    config = default_config()
    config["mounts"] = [{"destination": "/dev", "source": "/dev", "options": ["rbind"]}]
    assert kinds(plan(config).mounts) == ["Bind", "EnterCgroup"]


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("linux", "namespaces"), [{"type": "mount"}, {"type": "moon"}], 'invalid namespace type "moon"'),
        (("linux", "namespaces"), [{"type": "mount"}, {"type": "mount"}], "duplicated namespace"),
        (("linux", "namespaces"), [{"type": "pid"}], "a new mount namespace is needed"),
        (("linux", "namespaces"), [{"type": "mount", "path": "/x"}], "a new mount namespace is needed"),
        (("linux", "rootfsPropagation"), "sideways", "rootfsPropagation=sideways is not supported"),
        (("linux", "devices"), [{"path": "x", "type": "c"}], "invalid device"),
        (("linux", "timeOffsets"), {"boottime": {"secs": 1}}, "no new time namespace"),
        (("linux", "personality"), {"domain": "PDP11"}, "invalid personality domain"),
        (("mounts",), [{"destination": "/x"}], "neither a type nor the option bind"),
        (("mounts",), [{}], "malformed configuration: KeyError"),
        (("mounts",), 7, "malformed configuration"),
        (("process", "args"), [], "args must not be empty"),
        (("process", "args"), ["a\0b"], "zero byte"),
        (("process", "cwd"), "tmp", "Cwd must be an absolute path"),
        (("process", "cwd"), "", "Cwd property must not be empty"),
        (("process", "env"), ["A"], 'invalid environment variable: "A"'),
        (("process", "env"), ["=x"], "invalid environment variable"),
        (("process", "env"), ["A=b\0c"], "nul byte"),
        (("process", "user"), {"uid": 4294967296, "gid": 0}, "uids and gids must be in range"),
        (("process", "user"), {"uid": -1, "gid": 0}, "uids and gids must be in range"),
        (("process", "rlimits"), [{"type": "RLIMIT_X", "soft": 1, "hard": 1}], "invalid rlimit type"),
        (("process", "scheduler"), {"policy": "SCHED_NOW"}, "invalid scheduler policy"),
        (("process", "ioPriority"), {"class": "IOPRIO_CLASS_RT", "priority": 9}, "invalid ioPriority"),
        (("process", "execCPUAffinity"), {"final": "0-x"}, "bad CPU affinity"),
        (("windows",), {"x": 1}, "'windows' is not supported"),
        (("root",), None, "config.json has no root"),
    ],
)
def test_configurations_that_are_refused(path: tuple[str, ...], value: Any, text: str) -> None:
    config = default_config()
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(StartError) as caught:
        plan(config)
    assert caught.value.kind == "InvalidArgument"
    assert text in caught.value.message


def test_unknown_capability_is_warned_of() -> None:
    warnings: list[str] = []
    process.plan({"args": ["x"], "cwd": "/", "capabilities": {"bounding": ["CAP_MOON"]}}, warnings)
    assert warnings == ["ignoring unknown capabilities ['CAP_MOON']"]


def test_every_mount_option_has_one_meaning() -> None:
    tables = [mount_options.ATTRIBUTES, mount_options.RECURSIVE, mount_options.PROPAGATION, mount_options.SUPERBLOCK]
    words = [word for table in [*tables, mount_options.NEUTRAL, mount_options.EXTENSIONS] for word in table]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["ro", "rw"], mount_options.MountOptions(set=0, clear=m.ATTR_RDONLY)),
        (["rw", "ro"], mount_options.MountOptions(set=m.ATTR_RDONLY)),
        (["noatime", "relatime"], mount_options.MountOptions(set=0, clear=m.ATTR_ATIME)),
        (
            ["size=5m", "huge", "sync"],
            mount_options.MountOptions(data=(("size", "5m"), ("huge", None)), superblock=("sync",)),
        ),
        (["rbind", "rro"], mount_options.MountOptions(bind=True, recursive_bind=True, recursive_set=m.ATTR_RDONLY)),
    ],
)
def test_mount_options(options: list[str], wanted: mount_options.MountOptions) -> None:
    assert mount_options.parse(options) == wanted


@given(st.lists(st.sampled_from(sorted(mount_options.ATTRIBUTES))))
def test_nothing_is_both_set_and_cleared_but_the_access_time(options: list[str]) -> None:
    parsed = mount_options.parse(options)
    assert parsed.set & parsed.clear & ~m.ATTR_ATIME == 0


OWN = frozenset(("network", "ipc", "uts", "user"))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("kernel/shmmax", "kernel/shmmax"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ("user.max_user_namespaces", "user/max_user_namespaces"),
    ],
)
def test_sysctl_names(name: str, path: str) -> None:
    assert sysctls.plan({name: "1"}, OWN) == ((path, "1"),)
    with pytest.raises(StartError):
        sysctls.plan({name: "1"}, frozenset())


@given(st.text(alphabet="netkrlcop_.+/&=v4", max_size=40))
def test_no_sysctl_name_climbs(name: str) -> None:
    try:
        ((path, _),) = sysctls.plan({name: "1"}, OWN)
    except StartError:
        return
    parts = path.split("/")
    assert ".." not in parts
    assert "" not in parts
    assert parts[0] in ("net", "user") or path.startswith(("fs/mqueue/", "kernel/"))
    assert path != "kernel/core_pattern"


@pytest.mark.parametrize(("kind", "name"), [("ipc", "kernel.shmmax"), ("network", "net.ipv4.ip_forward")])
def test_no_sysctl_of_the_host_through_a_joined_namespace(kind: str, name: str) -> None:
    """A container that joins one which has the host's namespace is in the host's."""
    config = default_config()
    (entry,) = (entry for entry in config["linux"]["namespaces"] if entry["type"] == kind)
    entry["path"] = f"/proc/self/ns/{'net' if kind == 'network' else kind}"
    config["linux"]["sysctl"] = {name: "1"}
    assert kind in plan(config).namespaces.own
    with pytest.raises(StartError, match="is not allowed in the hosts"):
        plan(config, Host.probe(LEGACY.hierarchies))
