"""What the recordings do not show: refusals, joined namespaces, other hosts."""

import json

import pytest

from wherry.engine.defaults import tweak_capabilities
from wherry.engine.model import (
    ContainerConfig,
    DeviceMapping,
    DeviceRequest,
    HostConfig,
    Mount,
    MountBindOptions,
    MountPoint,
    Ulimit,
)
from wherry.engine.oci import ContainerSpecInput, build_config, exec_process, update_resources
from wherry.engine.oci.mounts import merge_tmpfs_options
from wherry.errors import InvalidArgument
from wherry.linux.caps import NAMES

ID = "a" * 64


def build(host=None, **more):
    values = {
        "id": ID,
        "config": ContainerConfig(),
        "host_config": host or HostConfig(),
        "hostname": "h",
        "args": ["/bin/sh"],
        "root_path": "/root",
        "kernel": (6, 1),
        "machine": "x86_64",
    }
    return build_config(ContainerSpecInput(**values | more))


def secure(*options, **more):
    return build(HostConfig(SecurityOpt=list(options)), **more)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (HostConfig(SecurityOpt=["nope"]), 'invalid --security-opt 1: "nope"'),
        (HostConfig(SecurityOpt=["nope=1"]), 'invalid --security-opt 2: "nope=1"'),
        (
            HostConfig(SecurityOpt=["no-new-privileges=perhaps"]),
            'invalid --security-opt 2: "no-new-privileges=perhaps"',
        ),
        (HostConfig(SecurityOpt=["apparmor=mine"]), "AppArmor is not enabled on this system"),
        (HostConfig(SecurityOpt=["label=type:x"]), "SELinux is not enabled on this system"),
        (HostConfig(SecurityOpt=["seccomp={"]), "Decoding seccomp profile failed"),
        (HostConfig(SecurityOpt=["seccomp=[]"]), "Decoding seccomp profile failed"),
        (HostConfig(CapAdd=["NOPE"]), 'unknown capability: "CAP_NOPE"'),
        (HostConfig(DeviceCgroupRules=["c 1:1"]), "invalid device cgroup rule format: 'c 1:1'"),
        (
            HostConfig(Devices=[DeviceMapping("/dev/nope", "/dev/nope", "rwm")]),
            'error gathering device information while adding custom device "/dev/nope": no such file or directory',
        ),
        (
            HostConfig(Devices=[DeviceMapping("/etc/hostname", "/dev/nope", "rwm")]),
            'custom device "/etc/hostname": not a device node',
        ),
        (
            HostConfig(DeviceRequests=[DeviceRequest(Capabilities=[["gpu"]])]),
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
        (HostConfig(Tmpfs={"/x": "nope"}), 'invalid tmpfs option "nope"'),
        (HostConfig(Tmpfs={"/x": "size=1,owner=2"}), 'invalid tmpfs option "owner"'),
    ],
)
def test_refusals(host, text):
    with pytest.raises(InvalidArgument) as raised:
        build(host)
    assert text in str(raised.value)


def test_capability_the_daemon_has_not_got():
    bounding = [name for name in NAMES if name != "CAP_SYS_RESOURCE"]
    with pytest.raises(InvalidArgument, match='not available in the current environment: "CAP_SYS_RESOURCE"'):
        tweak_capabilities(["sys_resource"], None, privileged=False, bounding=bounding)
    assert "CAP_SYS_RESOURCE" not in tweak_capabilities(None, None, privileged=True, bounding=bounding)


def test_inheritable_and_ambient_stay_empty():
    for host in (HostConfig(), HostConfig(Privileged=True), HostConfig(CapAdd=["ALL"])):
        assert set(build(host)["process"]["capabilities"]) == {"bounding", "effective", "permitted"}


def test_apparmor_where_it_is_on():
    loaded = frozenset(["docker-default", "mine"])
    assert build(apparmor_profiles=loaded)["process"]["apparmorProfile"] == "docker-default"
    assert secure("apparmor=mine", apparmor_profiles=loaded)["process"]["apparmorProfile"] == "mine"
    privileged = build(HostConfig(Privileged=True), apparmor_profiles=loaded)
    assert privileged["process"]["apparmorProfile"] == "unconfined"
    with pytest.raises(InvalidArgument, match='AppArmor profile "other" is not loaded'):
        secure("apparmor=other", apparmor_profiles=loaded)


def test_seccomp_choices():
    own = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    assert secure(f"seccomp={json.dumps(own)}")["linux"]["seccomp"] == own
    assert build(seccomp_profile=json.dumps(own))["linux"]["seccomp"] == own
    assert "seccomp" not in build(seccomp_profile="unconfined")["linux"]
    assert "seccomp" in secure("seccomp=builtin", seccomp_profile="unconfined")["linux"]
    # A privileged container has a filter only when one is named.
    assert "seccomp" not in build(HostConfig(Privileged=True), seccomp_profile=json.dumps(own))["linux"]
    named = HostConfig(Privileged=True, SecurityOpt=[f"seccomp={json.dumps(own)}"])
    assert build(named)["linux"]["seccomp"] == own


def test_no_new_privileges_of_the_daemon_can_be_undone():
    assert build(no_new_privileges=True)["process"]["noNewPrivileges"]
    assert "noNewPrivileges" not in secure("no-new-privileges=false", no_new_privileges=True)["process"]
    assert secure("no-new-privileges:true")["process"]["noNewPrivileges"]


def test_joined_namespaces():
    host = HostConfig(NetworkMode="container:b", PidMode="container:b", IpcMode="container:b")
    config = build(
        host,
        netns_path="/run/netns/b",
        joins={"pid": "/proc/7/ns/pid", "ipc": "/proc/7/ns/ipc"},
        shm_path="/shm/of/b",
        init_path="/init",
    )
    assert config["linux"]["namespaces"] == [
        {"type": "mount"},
        {"type": "network", "path": "/run/netns/b"},
        {"type": "uts"},
        {"type": "pid", "path": "/proc/7/ns/pid"},
        {"type": "ipc", "path": "/proc/7/ns/ipc"},
    ]
    # Somebody else's network namespace is not reconfigured, and process 1 is somebody else.
    assert config["linux"]["sysctl"] == {}
    assert config["process"]["args"] == ["/bin/sh"]
    shm = [mount for mount in config["mounts"] if mount["destination"] == "/dev/shm"]
    assert [mount["source"] for mount in shm] == ["/shm/of/b"]


def test_init_that_is_not_installed():
    with pytest.raises(InvalidArgument, match='exec: "docker-init": executable file not found'):
        build(init_path="")


def test_cgroup_namespace_is_private_on_v2_unless_asked():
    def has_own(host, v2):
        return {"type": "cgroup"} in build(host, cgroup_v2=v2)["linux"]["namespaces"]

    assert has_own(HostConfig(), True)
    assert has_own(HostConfig(Privileged=True), True)
    assert not has_own(HostConfig(), False)
    assert not has_own(HostConfig(CgroupnsMode="host"), True)
    assert has_own(HostConfig(CgroupnsMode="private"), False)


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("", f"/wherry/{ID}"),
        ("/a/b/", f"/a/b/{ID}"),
        ("a", f"/a/{ID}"),
        ("../../x", f"/x/{ID}"),
    ],
)
def test_cgroup_parent(parent, path):
    assert build(HostConfig(CgroupParent=parent))["linux"]["cgroupsPath"] == path


def test_old_kernel_has_no_recursive_readonly():
    point = MountPoint(Type="bind", Source="/tmp", Destination="/mnt", RW=False)
    assert mount_at("/mnt", mounts=[point], kernel=(5, 11))["options"] == ["rbind", "ro"]
    assert mount_at("/mnt", mounts=[point], kernel=(5, 12))["options"] == ["rbind", "rro"]
    point.Spec = Mount(BindOptions=MountBindOptions(ReadOnlyForceRecursive=True))
    with pytest.raises(InvalidArgument, match="recursive read-only"):
        build(mounts=[point], kernel=(5, 11))


def mount_at(destination, **more):
    return {mount["destination"]: mount for mount in build(**more)["mounts"]}[destination]


def test_two_mounts_in_one_place_are_refused():
    point = MountPoint(Type="bind", Source="/tmp", Destination="/mnt")
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /mnt"):
        build(HostConfig(Tmpfs={"/mnt/": ""}), mounts=[point])


def test_a_mount_over_dev_takes_the_defaults_below_it_away():
    point = MountPoint(Type="bind", Source="/dev", Destination="/dev")
    destinations = [mount["destination"] for mount in build(mounts=[point])["mounts"]]
    assert [path for path in destinations if path.startswith("/dev")] == ["/dev"]


def test_tmpfs_options_keep_the_last_word():
    assert merge_tmpfs_options(["noexec", "size=1m", "exec", "rprivate", "size=2m", "shared", "defaults"]) == [
        "exec",
        "size=2m",
        "shared",
    ]


def test_ulimits_of_the_daemon_fill_in():
    host = HostConfig(Ulimits=[Ulimit("nofile", Hard=10, Soft=5)])
    daemon = {"nofile": Ulimit("nofile", Hard=1, Soft=1), "core": Ulimit("core", Hard=-1, Soft=0)}
    assert build(host, default_ulimits=daemon)["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 10},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
    ]


def test_variable_without_value_is_removed():
    env = build(env=["A=1", "HOSTNAME", "A=2", "B", "PATH=/x"])["process"]["env"]
    assert env == ["PATH=/x", "A=2"]


def test_update_lifts_limits():
    assert update_resources(HostConfig(PidsLimit=-1, Memory=1 << 26, MemorySwap=-1, OomKillDisable=False)) == {
        "memory": {"limit": 1 << 26, "swap": -1, "disableOOMKiller": False},
        "pids": {"limit": -1},
    }
    assert update_resources(HostConfig()) == {}


def test_exec_inherits_from_the_container():
    config = ContainerConfig(Tty=True)
    container = ContainerSpecInput(
        id=ID,
        config=config,
        host_config=HostConfig(CapDrop=["CHOWN"]),
        hostname="h",
        args=["x"],
        root_path="/",
        env=["A=1"],
        user="web",
        cwd="/srv",
    )
    process = build_config(container)["process"]
    plain = exec_process(
        container, process, args=["id"], env=["A=2", "B=3"], cwd="", user="", tty=False, privileged=False
    )
    assert plain["args"] == ["id"]
    assert plain["cwd"] == "/srv"
    assert plain["user"]["username"] == "web"
    assert "terminal" not in plain
    assert {"A=2", "B=3"} <= set(plain["env"])
    assert "A=1" not in plain["env"]
    assert "CAP_CHOWN" not in plain["capabilities"]["bounding"]
    every = exec_process(container, process, args=["id"], env=[], cwd="/", user="0", tty=True, privileged=True)
    assert every["terminal"]
    assert every["user"]["username"] == "0"
    assert set(every["capabilities"]["effective"]) == set(NAMES)
    assert set(every["capabilities"]) == {"bounding", "effective", "permitted"}
