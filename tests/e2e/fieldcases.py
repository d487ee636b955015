"""What each field of a create does: one case a field at least, as functions of (host, container name).

A case either finds the effect, inside the container or in the kernel, or the refusal or warning that says why there is
none. `data/fields.txt` lists the fields; test_fields.py demands a case for each.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.fieldtools import (
    BLOCK,
    MB,
    Case,
    hostly,
    inside,
    made,
    mount,
    network,
    refused,
    running,
    shown,
)
from tests.e2e.limitcases import LIMITS


def _namespace(kind: str) -> Callable[[Any, dict[str, Any]], bool]:
    """Whether it is the host's."""

    def same(host, found):
        ours = "/proc/self" if kind != "net" else f"/proc/{host.daemon.pid}"
        return os.readlink(f"/proc/{found['State']['Pid']}/ns/{kind}") == os.readlink(f"{ours}/ns/{kind}")

    return same


def _health(**fields: Any) -> dict[str, Any]:
    return {"Healthcheck": {"Test": ["CMD", "true"]} | fields}


def _status(line: str, script: str = "cat /proc/self/status") -> str:
    return f"{script} | grep {line}"


_NODE = {"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"}
_ENDPOINT_TEXT = "user specified IP address is supported on user defined networks only"


def _autoremove(host, name):
    made(host, name, hostly(AutoRemove=True) | {"Cmd": ["true"]})
    host.docker("start", name)
    host.wait_until(lambda: host.api("GET", f"/containers/{name}/json")[0] == 404, "its removal")


def _restarts(host, name):
    made(
        host,
        name,
        hostly(RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 2}) | {"Cmd": ["sh", "-c", "exit 4"]},
    )
    host.docker("start", name)
    host.wait_until(lambda: host.inspect(name)["RestartCount"] == 2, "two restarts")
    host.wait_until(lambda: host.inspect(name)["State"]["Status"] == "exited", "the end")


def _volumes_from(host, name):
    donor = f"{name}-donor"
    try:
        made(host, donor, {"Volumes": {"/shared": {}}})
        (point,) = host.inspect(donor)["Mounts"]
        Path(point["Source"], "file").write_text("theirs")
        inside(hostly(VolumesFrom=[f"{donor}:ro"]), "cat /shared/file; touch /shared/x", "theirs.*Read-only")(
            host, name
        )
    finally:
        host.docker("rm", "-fv", donor, check=False)


def _volume_labels(host, name):
    made(host, name, mount(Type="volume", VolumeOptions={"Labels": {"a": "b"}}))
    (point,) = host.inspect(name)["Mounts"]
    assert host.api("GET", f"/volumes/{point['Name']}")[1]["Labels"]["a"] == "b"


def _stdin(host, name):
    made(host, name, {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "Cmd": ["cat"]})
    assert host.docker("start", "-ai", name, input="typed").stdout == "typed"


def _stop_timeout(host, name):
    made(host, name, {"StopTimeout": 0, "Cmd": ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]})
    host.docker("start", name)
    host.docker("stop", name)
    assert host.inspect(name)["State"]["ExitCode"] == 137


def _stop_signal(host, name):
    made(
        host,
        name,
        {"StopSignal": "SIGUSR1", "Cmd": ["sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done"]},
    )
    host.docker("start", name)
    host.wait_until(lambda: "up" in host.out("logs", name), "the trap")
    host.docker("stop", name)
    assert host.inspect(name)["State"]["ExitCode"] == 9


def _log_options(host, name):
    body = hostly(LogConfig={"Type": "json-file", "Config": {"labels": "tier"}}) | {"Labels": {"tier": "front"}}
    made(host, name, body | {"Cmd": ["echo", "line"]})
    host.docker("start", "-a", name)
    assert host.out("logs", "--details", name) == "tier=front line"


def _bind(wanted: dict[str, Any], script: str, expected: str) -> Case:
    """A bind of a directory of the host, SOURCE, with one file in it."""

    def check(host, name):
        source = host.root / f"bind-{name}"
        (source / "below").mkdir(parents=True)
        (source / "file").write_text("mine")
        body = {"HostConfig": json.loads(json.dumps(wanted).replace("SOURCE", str(source)))}
        inside(body, script, expected)(host, name)

    return check


def _bind_mount(script: str, expected: str, **fields: Any) -> Case:
    return _bind({"Mounts": [{"Type": "bind", "Source": "SOURCE", "Target": "/m"} | fields]}, script, expected)


def _cdi(host, name):
    directory = host.root / "cdi"
    directory.mkdir(exist_ok=True)
    (host.root / "cdi-file").write_text("from the vendor")
    edits = {
        "env": ["VENDOR=yes"],
        "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/full", "permissions": "rw"}],
        "mounts": [{"hostPath": str(host.root / "cdi-file"), "containerPath": "/vendor", "options": ["ro", "bind"]}],
        "hooks": [
            {
                "hookName": "createRuntime",
                "path": "/bin/sh",
                "args": ["sh", "-c", f"cat > {host.root}/cdi-hook"],
            }
        ],
        "additionalGids": [4321],
    }
    spec = {"cdiVersion": "0.6.0", "kind": "example.com/thing", "devices": [{"name": "one", "containerEdits": edits}]}
    (directory / "example.json").write_text(json.dumps(spec))
    (directory / "other.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: example.com/other\ncontainerEdits: {env: [WHOLE=1]}\n"
        "devices:\n- name: two\n  containerEdits:\n    env: [TWO=2]\n"
    )
    names = ["example.com/thing=one", "example.com/other=two"]
    script = "echo $VENDOR $WHOLE $TWO; cat /vendor; echo; stat -c %t:%T /dev/vendor0; echo x > /dev/vendor0; id -G"
    body = hostly(DeviceRequests=[{"Driver": "cdi", "DeviceIDs": names}])
    expected = r"yes 1 2\nfrom the vendor\n1:7\n.*4321"
    check = inside(body, script, f"(?s){expected}.*(No space left|$)")
    check(host, name)
    assert json.loads((host.root / "cdi-hook").read_text())["status"] == "creating"


def _gpu(**fields: Any) -> dict[str, Any]:
    return hostly(DeviceRequests=[{"Capabilities": [["gpu"]]} | fields])


CASES: dict[str, list[Case]] = {
    **LIMITS,
    # Config
    "ContainerConfig.Hostname": [
        inside({"Hostname": "thehost"}, "hostname; grep -c thehost /etc/hosts", r"thehost\n1"),
    ],
    "ContainerConfig.Domainname": [
        inside({"Hostname": "h", "Domainname": "the.domain"}, "cat /proc/sys/kernel/domainname /etc/hosts",
               r"(?s)^the.domain\n.*h.the.domain h"),
    ],
    "ContainerConfig.User": [
        inside({"User": "65534:0"}, "id -u; id -g", "65534\n0"),
        refused({"User": "nobody-at-all"}, "unable to find user nobody-at-all", 500),
    ],
    "ContainerConfig.AttachStdin": [shown({"AttachStdin": True}, "Config", "AttachStdin", value=True)],
    "ContainerConfig.AttachStdout": [shown({"AttachStdout": True}, "Config", "AttachStdout", value=True)],
    "ContainerConfig.AttachStderr": [shown({"AttachStderr": True}, "Config", "AttachStderr", value=True)],
    "ContainerConfig.ExposedPorts": [
        running({"ExposedPorts": {"81/tcp": {}}}, lambda _, c: c["NetworkSettings"]["Ports"], {"81/tcp": None}),
    ],
    "ContainerConfig.Tty": [inside({"Tty": True}, "tty", "/dev/pts/0")],
    "ContainerConfig.OpenStdin": [_stdin],
    "ContainerConfig.StdinOnce": [_stdin],
    "ContainerConfig.Env": [
        inside({"Env": ["A=1", "PATH=/bin"]}, "env", "(?m)^A=1$"),
        refused({"Env": ["=x"]}, "invalid environment variable: =x"),
    ],
    "ContainerConfig.Cmd": [inside({"Cmd": ["echo", "commanded"]}, "", "^commanded$")],
    "ContainerConfig.Healthcheck": [shown(_health(), "Config", "Healthcheck", "Test", value=["CMD", "true"])],
    "ContainerConfig.ArgsEscaped": [shown({"ArgsEscaped": True}, "Config", "ArgsEscaped", value=True)],
    "ContainerConfig.Image": [refused({"Image": "no/such"}, "No such image: no/such:latest", 404)],
    "ContainerConfig.Volumes": [inside({"Volumes": {"/v": {}}}, "grep ' /v ' /proc/self/mountinfo", "_data /v rw")],
    "ContainerConfig.WorkingDir": [
        inside({"WorkingDir": "/made/for/it"}, "pwd", "^/made/for/it$"),
        refused({"WorkingDir": "relative"}, "the working directory 'relative' is invalid"),
    ],
    "ContainerConfig.Entrypoint": [inside({"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"]}, "", "^entry cmd$")],
    "ContainerConfig.NetworkDisabled": [inside({"NetworkDisabled": True}, "ls /sys/class/net", "^lo$")],
    "ContainerConfig.OnBuild": [shown({"OnBuild": ["RUN x"]}, "Config", "OnBuild", value=["RUN x"])],
    "ContainerConfig.Labels": [shown({"Labels": {"a": "b"}}, "Config", "Labels", value={"a": "b"})],
    "ContainerConfig.StopSignal": [_stop_signal, refused({"StopSignal": "NOPE"}, "[Ii]nvalid signal: NOPE")],
    "ContainerConfig.StopTimeout": [_stop_timeout],
    "ContainerConfig.Shell": [shown({"Shell": ["sh"]}, "Config", "Shell", value=["sh"])],
    "ContainerConfig.MacAddress": [
        inside({"MacAddress": "02:42:00:00:00:42"}, "cat /sys/class/net/eth0/address", "02:42:00:00:00:42"),
    ],
    # The rest of HostConfig
    "HostConfig.Devices": [inside(hostly(Devices=[_NODE]), "stat -c %t:%T /dev/mine", "^1:3$")],
    "HostConfig.DeviceCgroupRules": [
        inside(hostly(DeviceCgroupRules=["b 7:0 r"]), "mknod /k b 7 0; head -c 0 < /k && echo may", "may"),
        inside({}, "mknod /k b 7 0; head -c 0 < /k && echo may", "not permitted"),
        refused(hostly(DeviceCgroupRules=["x"]), "invalid device cgroup rule format: 'x'"),
    ],
    "HostConfig.DeviceRequests": [_cdi],
    "HostConfig.Binds": [
        _bind({"Binds": ["SOURCE:/m:ro"]}, "cat /m/file; touch /m/x", "mine.*Read-only"),
    ],
    "HostConfig.ContainerIDFile": [shown(hostly(ContainerIDFile="/x"), "HostConfig", "ContainerIDFile", value="/x")],
    "HostConfig.LogConfig.Type": [
        shown(hostly(LogConfig={"Type": "local"}), "HostConfig", "LogConfig", "Type", value="local"),
        refused(hostly(LogConfig={"Type": "nope"}), 'plugin "nope" not found'),
    ],
    "HostConfig.LogConfig.Config": [_log_options],
    "HostConfig.NetworkMode": [
        running(hostly(NetworkMode="host"), _namespace("net"), True),
        inside(hostly(NetworkMode="none"), "ls /sys/class/net", "^lo$"),
        refused(hostly(NetworkMode="nope"), "network nope not found", 404),
    ],
    "HostConfig.PortBindings": [
        running(
            hostly(PortBindings={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}]}),
            lambda _, c: c["NetworkSettings"]["Ports"]["80/tcp"], [{"HostIp": "127.0.0.1", "HostPort": "18080"}],
        ),
    ],
    "HostConfig.RestartPolicy": [_restarts],
    "HostConfig.AutoRemove": [
        _autoremove,
        refused(hostly(AutoRemove=True, RestartPolicy={"Name": "always"}), "can't create 'AutoRemove' container"),
    ],
    "HostConfig.VolumeDriver": [
        refused(hostly(VolumeDriver="nope", Binds=["vol:/v"]), 'plugin "nope" not found', 404),
        refused(hostly(VolumeDriver="nope") | {"Volumes": {"/v": {}}}, 'plugin "nope" not found', 404),
    ],
    "HostConfig.VolumesFrom": [_volumes_from, refused(hostly(VolumesFrom=[""]), "cannot be an empty string")],
    "HostConfig.Mounts": [inside(mount(), "grep ' /m ' /proc/self/mountinfo", "tmpfs")],
    "HostConfig.ConsoleSize": [inside(hostly(ConsoleSize=[31, 77]) | {"Tty": True}, "stty size", "31 77")],
    "HostConfig.Annotations": [
        shown(hostly(Annotations={"a": "b"}), "HostConfig", "Annotations", value={"a": "b"}),
        refused(hostly(Annotations={"": "b"}), "the empty string is not permitted as an annotation key"),
    ],
    "HostConfig.CapAdd": [
        inside(hostly(CapAdd=["NET_ADMIN"]), _status("CapBnd"), "00000000a80435fb|a80435fb"),
        refused(hostly(CapAdd=["nope"]), 'invalid CapAdd: unknown capability: "CAP_NOPE"'),
    ],
    "HostConfig.CapDrop": [inside(hostly(CapDrop=["ALL"]), _status("CapBnd"), "0000000000000000")],
    "HostConfig.CgroupnsMode": [
        running(hostly(CgroupnsMode="private"), _namespace("cgroup"), False),
        running(hostly(CgroupnsMode="host"), _namespace("cgroup"), True),
    ],
    "HostConfig.Dns": [inside(hostly(Dns=["192.0.2.53"]), "cat /etc/resolv.conf", "nameserver 192.0.2.53")],
    "HostConfig.DnsOptions": [inside(hostly(DnsOptions=["ndots:3"]), "cat /etc/resolv.conf", "options.*ndots:3")],
    "HostConfig.DnsSearch": [inside(hostly(DnsSearch=["x.test"]), "cat /etc/resolv.conf", "search x.test")],
    "HostConfig.ExtraHosts": [
        inside(hostly(ExtraHosts=["other:192.0.2.7"]), "cat /etc/hosts", r"192.0.2.7\s+other"),
        inside(hostly(ExtraHosts=["gate:host-gateway"]), "cat /etc/hosts", r"172\.\d+\.\d+\.1\s+gate"),
        refused(hostly(ExtraHosts=["a:[::1]"]), r'invalid IP address in add-host: "\[::1\]"'),
    ],
    "HostConfig.GroupAdd": [
        inside(hostly(GroupAdd=["nogroup", "77"]), "id -G", "65534 77|77 65534"),
        refused(hostly(GroupAdd=["nope"]), "unable to find group nope", 500),
    ],
    "HostConfig.IpcMode": [
        running(hostly(IpcMode="host"), _namespace("ipc"), True),
        running(hostly(IpcMode="private"), _namespace("ipc"), False),
        inside(hostly(IpcMode="none"), "grep -c ' /dev/shm ' /proc/self/mountinfo", "^0$"),
        refused(hostly(IpcMode="x"), "invalid IPC mode: x"),
    ],
    "HostConfig.Cgroup": [refused(hostly(Cgroup="x"), "invalid cgroup mode: x")],
    "HostConfig.Links": [
        refused(hostly(Links=["gone:x"]), "could not get container for gone: No such container: gone"),
    ],
    "HostConfig.OomScoreAdj": [inside(hostly(OomScoreAdj=321), "cat /proc/self/oom_score_adj", "^321$")],
    "HostConfig.PidMode": [
        running(hostly(PidMode="host"), _namespace("pid"), True),
        refused(hostly(PidMode="x"), "invalid PID mode: x"),
    ],
    "HostConfig.Privileged": [inside(hostly(Privileged=True), _status("Seccomp:"), r"Seccomp:\s+0")],
    "HostConfig.PublishAllPorts": [
        running(
            hostly(PublishAllPorts=True) | {"ExposedPorts": {"82/tcp": {}}},
            lambda _, c: bool(c["NetworkSettings"]["Ports"]["82/tcp"][0]["HostPort"]), True,
        ),
    ],
    "HostConfig.ReadonlyRootfs": [inside(hostly(ReadonlyRootfs=True), "touch /x", "Read-only file system")],
    "HostConfig.SecurityOpt": [
        inside(hostly(SecurityOpt=["no-new-privileges:true"]), _status("NoNewPrivs"), "1"),
        inside(hostly(SecurityOpt=["no-new-privileges=0"]), _status("NoNewPrivs"), "0"),
        inside(hostly(SecurityOpt=["seccomp=unconfined"]), _status("Seccomp:"), r":\s+0"),
        inside(hostly(SecurityOpt=["seccomp=builtin"]), _status("Seccomp:"), r":\s+2"),
        inside(
            hostly(SecurityOpt=[
                'seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],'
                '"action":"SCMP_ACT_ERRNO"}]}'
            ]), "mkdir /x", "not permitted",
        ),
        refused(hostly(SecurityOpt=["seccomp={"]), "Decoding seccomp profile failed"),
        refused(hostly(SecurityOpt=["apparmor=nope"]), "AppArmor"),
        refused(hostly(SecurityOpt=["label=type:x"]), "SELinux"),
        inside(hostly(SecurityOpt=["writable-cgroups"]), "grep /sys/fs/cgroup /proc/self/mountinfo", "cgroup.* rw,"),
        refused(hostly(SecurityOpt=["x=y"]), 'invalid --security-opt 2: "x=y"'),
    ],
    "HostConfig.StorageOpt": [
        refused(hostly(StorageOpt={"size": "1g"}), "--storage-opt is supported only for overlay over xfs"),
        refused(hostly(StorageOpt={"foo": "1"}), "Unknown option foo"),
    ],
    "HostConfig.Tmpfs": [
        inside(hostly(Tmpfs={"/t": "size=1m,mode=700"}), "grep ' /t ' /proc/self/mountinfo", "size=1024k,mode=700"),
        refused(hostly(Tmpfs={"/t": "nope=1"}), 'invalid tmpfs option "nope"'),
    ],
    "HostConfig.UTSMode": [
        running(hostly(UTSMode="host"), _namespace("uts"), True),
        running(hostly(), _namespace("uts"), False),
    ],
    "HostConfig.UsernsMode": [
        running(hostly(UsernsMode="host"), _namespace("user"), True),
        refused(hostly(UsernsMode="private"), "invalid user namespace mode: private"),
    ],
    "HostConfig.ShmSize": [
        inside(hostly(ShmSize=3 * MB), "grep ' /dev/shm ' /proc/self/mountinfo", "size=3072k"),
        refused(hostly(ShmSize=-1), "SHM size can not be less than 0"),
    ],
    "HostConfig.Sysctls": [
        inside(hostly(Sysctls={"net.core.somaxconn": "57"}), "cat /proc/sys/net/core/somaxconn", "^57$"),
        refused(hostly(Sysctls={"vm.swappiness": "1"}), '"vm.swappiness" is not in a separate kernel namespace', 500),
    ],
    "HostConfig.Runtime": [refused(hostly(Runtime="nope"), "unknown or invalid runtime name: nope")],
    "HostConfig.Isolation": [refused(hostly(Isolation="hyperv"), r"invalid isolation \(hyperv\)")],
    "HostConfig.MaskedPaths": [inside(hostly(MaskedPaths=["/proc/uptime"]), "wc -c < /proc/uptime", "^0$")],
    "HostConfig.ReadonlyPaths": [inside(hostly(ReadonlyPaths=["/tmp"]), "touch /tmp/x", "Read-only")],
    # Parts
    "RestartPolicy.Name": [refused(hostly(RestartPolicy={"Name": "x"}), "invalid restart policy: unknown policy 'x'")],
    "RestartPolicy.MaximumRetryCount": [
        _restarts,
        refused(hostly(RestartPolicy={"Name": "always", "MaximumRetryCount": 1}), "can only be used with 'on-failure'"),
    ],
    **{
        f"HealthConfig.{field}": [shown(_health(**{field: value}), "Config", "Healthcheck", field, value=value)]
        for field, value in {
            "Test": ["CMD-SHELL", "true"], "Interval": 3 * 10**9, "Timeout": 2 * 10**9, "Retries": 4,
            "StartPeriod": 10**9, "StartInterval": 10**9,
        }.items()
    },
    "Mount.Target": [
        inside(mount(Target="/else/where"), "grep ' /else/where ' /proc/self/mountinfo", "tmpfs"),
        refused(mount(Target=""), "field Target must not be empty"),
    ],
    "Mount.Source": [
        _bind_mount("cat /m/file", "mine"),
        refused(mount(Source="/x"), "field Source must not be specified"),
    ],
    "Mount.Type": [
        refused(mount(Type="nope"), 'invalid mount config for type "nope": mount type unknown'),
        inside(mount(Type="volume"), "grep ' /m ' /proc/self/mountinfo", "_data /m"),
    ],
    "Mount.ReadOnly": [inside(mount(ReadOnly=True), "touch /m/x", "Read-only")],
    "Mount.Consistency": [shown(mount(Consistency="cached"), "HostConfig", "Mounts", 0, "Consistency", value="cached")],
    "Mount.BindOptions.Propagation": [
        _bind_mount("grep ' /m ' /proc/self/mountinfo", "/m rw.* - ", BindOptions={"Propagation": "rprivate"}),
        _bind_mount("true", "not a shared mount|^$", BindOptions={"Propagation": "rshared"}),
        refused(mount(Type="bind", Source="/", BindOptions={"Propagation": "x"}), "invalid propagation mode: x"),
    ],
    "Mount.BindOptions.NonRecursive": [_bind_mount("cat /m/file", "mine", BindOptions={"NonRecursive": True})],
    "Mount.BindOptions.CreateMountpoint": [
        _bind_mount("ls -d /m", "/m", Source="SOURCE/new", BindOptions={"CreateMountpoint": True}),
        refused(mount(Type="bind", Source="/no/such/path"), "bind source path does not exist: /no/such/path"),
    ],
    "Mount.BindOptions.ReadOnlyNonRecursive": [
        _bind_mount("touch /m/x", "Read-only", ReadOnly=True, BindOptions={"ReadOnlyNonRecursive": True}),
    ],
    "Mount.BindOptions.ReadOnlyForceRecursive": [
        _bind_mount(
            "touch /m/x", "Read-only|recursive read-only", ReadOnly=True,
            BindOptions={"ReadOnlyForceRecursive": True, "Propagation": "rprivate"},
        ),
        refused(
            mount(
                Type="bind", Source="/", ReadOnly=True,
                BindOptions={"ReadOnlyForceRecursive": True, "ReadOnlyNonRecursive": True},
            ),
            "mount options conflict",
        ),
    ],
    "Mount.TmpfsOptions.SizeBytes": [
        inside(mount(TmpfsOptions={"SizeBytes": 2 * MB}), "grep ' /m ' /proc/self/mountinfo", "size=2048k"),
    ],
    "Mount.TmpfsOptions.Mode": [inside(mount(TmpfsOptions={"Mode": 0o711}), "stat -c %a /m", "^711$")],
    "Mount.TmpfsOptions.Options": [
        inside(mount(TmpfsOptions={"Options": [["uid", "42"]]}), "stat -c %u /m", "^42$"),
        refused(mount(TmpfsOptions={"Options": [["nope"]]}), "invalid tmpfs option"),
    ],
    "Mount.VolumeOptions.NoCopy": [
        shown(mount(Type="volume", VolumeOptions={"NoCopy": True}), "HostConfig", "Mounts", 0, "VolumeOptions",
              value={"NoCopy": True}),
    ],
    "Mount.VolumeOptions.Labels": [_volume_labels],
    "Mount.VolumeOptions.DriverConfig.Name": [
        refused(
            mount(Type="volume", VolumeOptions={"DriverConfig": {"Name": "nope"}}), 'plugin "nope" not found', 404
        ),
    ],
    "Mount.VolumeOptions.DriverConfig.Options": [
        refused(
            mount(Type="volume", VolumeOptions={"DriverConfig": {"Options": {"x": "y"}}}), 'invalid option: "x"',
        ),
        inside(
            mount(Type="volume", VolumeOptions={
                "DriverConfig": {"Options": {"type": "tmpfs", "device": "tmpfs", "o": "uid=42"}}
            }),
            "stat -c %u /m", "^42$",
        ),
    ],
    "Mount.VolumeOptions.Subpath": [
        refused(
            mount(Type="volume", Source="part", VolumeOptions={"Subpath": "../x"}),
            "subpath must be a relative path within the volume",
        ),
        refused(mount(Type="volume", VolumeOptions={"Subpath": "x"}), "must not set Subpath when using anonymous"),
    ],
    "Mount.ImageOptions.Subpath": [
        refused(mount(Type="image", ImageOptions={"Subpath": "x"}), "mounts of type image are not supported", 501),
        refused(mount(ImageOptions={"Subpath": "x"}), 'ImageOptions must not be specified on mount type "tmpfs"'),
    ],
    "EndpointSettings.Links": [refused(network(Links=["a:b"]), "links are supported on user-defined networks only")],
    "EndpointSettings.DriverOpts": [refused(network(DriverOpts={"a": "b"}), "driver options are supported on user")],
    "EndpointSettings.GwPriority": [
        # Of one network it says nothing; it is kept for the day of the second.
        shown(network(GwPriority=5), "NetworkSettings", "Networks", "bridge", "GwPriority", value=5),
    ],
    "EndpointIPAMConfig.LinkLocalIPs": [
        refused(network(IPAMConfig={"LinkLocalIPs": ["169.254.1.1"]}), "link-local addresses are supported on user"),
    ],
    "EndpointSettings.IPAMConfig": [refused(network(IPAMConfig={"IPv4Address": "172.17.0.99"}), _ENDPOINT_TEXT)],
    "EndpointSettings.MacAddress": [
        inside(network(MacAddress="02:42:00:00:00:43"), "cat /sys/class/net/eth0/address", "02:42:00:00:00:43"),
        refused(network(MacAddress="x"), "invalid MAC address x"),
    ],
    "EndpointSettings.Aliases": [refused(network(Aliases=["a"]), "network-scoped alias is supported only for")],
    "EndpointIPAMConfig.IPv4Address": [refused(network(IPAMConfig={"IPv4Address": "172.17.0.99"}), _ENDPOINT_TEXT)],
    "EndpointIPAMConfig.IPv6Address": [refused(network(IPAMConfig={"IPv6Address": "fd00::9"}), _ENDPOINT_TEXT)],
    **{
        f"EndpointSettings.{field}": [
            running(
                network(**{field: asked}),
                lambda _, c, field=field, asked=asked: c["NetworkSettings"]["Networks"]["bridge"][field] != asked, True,
            )
        ]
        # Reported by the engine: what a client says of them does not count.
        for field, asked in {
            "NetworkID": "x", "EndpointID": "x", "Gateway": "192.0.2.1", "IPAddress": "192.0.2.2", "IPPrefixLen": 3,
            "IPv6Gateway": "fd00::1", "GlobalIPv6Address": "fd00::2", "GlobalIPv6PrefixLen": 3, "DNSNames": ["x"],
        }.items()
    },
    "NetworkingConfig.EndpointsConfig": [
        refused({"NetworkingConfig": {"EndpointsConfig": {"bridge": None}}}, "EndpointsConfig is nil"),
    ],
    "DeviceMapping.PathOnHost": [
        refused(hostly(Devices=[_NODE | {"PathOnHost": "/dev/gone"}]), '"/dev/gone": no such file or directory'),
    ],
    "DeviceMapping.PathInContainer": [inside(hostly(Devices=[_NODE]), "ls -l /dev/mine", "/dev/mine")],
    "DeviceMapping.CgroupPermissions": [
        inside(
            hostly(Devices=[{"PathOnHost": BLOCK, "PathInContainer": "/dev/k", "CgroupPermissions": "w"}]),
            "head -c 0 < /dev/k", "not permitted",
        ),
        refused(hostly(Devices=[_NODE | {"CgroupPermissions": "q"}]), "invalid device permissions for /dev/null: q"),
    ],
    "DeviceRequest.Driver": [refused(_gpu(Driver="nvidia"), r'driver "nvidia" with capabilities: \[\[gpu\]\]')],
    "DeviceRequest.Capabilities": [refused(_gpu(Count=-1), r'driver "" with capabilities: \[\[gpu\]\]')],
    "DeviceRequest.Count": [refused(_gpu(Driver="cdi", Count=1), "unexpected count in CDI device request")],
    "DeviceRequest.Options": [refused(_gpu(Driver="cdi", Options={"a": "b"}), "unexpected options in CDI device")],
    "DeviceRequest.DeviceIDs": [
        _cdi,
        refused(
            _gpu(Driver="cdi", DeviceIDs=["a.com/b=c", "x"]),
            "CDI device injection failed: unresolvable CDI devices a.com/b=c, x",
        ),
    ],
    "PortBinding.HostIp": [
        running(
            hostly(PortBindings={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
            lambda _, c: c["NetworkSettings"]["Ports"]["80/tcp"][0]["HostIp"], "127.0.0.1",
        ),
    ],
    "PortBinding.HostPort": [
        refused(hostly(PortBindings={"80/tcp": [{"HostPort": "x"}]}), 'invalid port specification: "x"'),
    ],
    "Ulimit.Name": [refused(hostly(Ulimits=[{"Name": "x", "Soft": 1, "Hard": 1}]), "wrong rlimit value: RLIMIT_X")],
    "Ulimit.Soft": [refused(hostly(Ulimits=[{"Name": "core", "Soft": 2, "Hard": 1}]), "core: 2 > 1")],
    "Ulimit.Hard": [inside(hostly(Ulimits=[{"Name": "nofile", "Soft": 90, "Hard": 91}]), "ulimit -Hn", "^91$")],
}  # fmt: skip
