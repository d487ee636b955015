"""Replies against recorded ones of Docker 28.5: a record is rebuilt from what Docker said and must encode to just that.

`data/` has one file per object with the replies by API version; the objects were made with
`docker run -d --name apirec1 -p 18080:80 -p 127.0.0.1:18081:81 -P -v apirecvol:/vol -v /tmp:/mnt:ro --tmpfs /t -l x=y
--health-cmd true --restart on-failure:3 -m 64m --cpus 0.5 --ulimit nofile=100:200 --dns 1.1.1.1 --add-host a:1.2.3.4`
(1), `create -it` (2), a run that exited with 3 (3), `--network none` (4) and `--network host` (5).
"""

import json
from datetime import datetime
from pathlib import Path

import pytest

from wherry.api import times
from wherry.api.handlers.exec import shape as exec_shape
from wherry.api.handlers.system import info_for, with_legacy_fields
from wherry.api.shapes import containers, images, volumes
from wherry.engine.model import (
    Container,
    ContainerConfig,
    EndpointSettings,
    ExecConfig,
    ExecRecord,
    Health,
    HostConfig,
    MountPoint,
    PortBinding,
    State,
    from_wire,
)
from wherry.engine.usage import Sizes
from wherry.engine.volumes import Volume
from wherry.images import oci
from wherry.images.records import HistoryItem, Image

DATA = Path(__file__).parent / "data"
VERSIONS = ["1.40", "1.43", "1.44", "1.47", "1.51"]
NEWEST = (1, 51)


def recorded(name: str, version: str = "1.51"):
    return json.loads((DATA / f"{name}.json").read_text())[version]


def number(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def nanoseconds(text: str) -> int:
    if text == times.ZERO:
        return 0
    head, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(head + "+00:00").timestamp())
    return seconds * 10**9 + int(fraction.ljust(9, "0") or 0)


def record_of(shown) -> Container:
    state = shown["State"]
    ports = shown["NetworkSettings"]["Ports"]
    health = state.get("Health")
    return Container(
        id=shown["Id"],
        name=shown["Name"].removeprefix("/"),
        created=nanoseconds(shown["Created"]),
        image_id=shown["Image"],
        path=shown["Path"],
        args=shown["Args"],
        config=from_wire(ContainerConfig, shown["Config"]),
        host_config=from_wire(HostConfig, shown["HostConfig"]),
        networks={n: from_wire(EndpointSettings, e) for n, e in shown["NetworkSettings"]["Networks"].items()},
        state=State(
            status=state["Status"],
            pid=state["Pid"],
            exit_code=state["ExitCode"],
            error=state["Error"],
            started_at=nanoseconds(state["StartedAt"]),
            finished_at=nanoseconds(state["FinishedAt"]),
            health=Health(health["Status"], health["FailingStreak"]) if health else None,
        ),
        mounts=[from_wire(MountPoint, mount) for mount in shown["Mounts"]],
        ports={p: b and [from_wire(PortBinding, item) for item in b] for p, b in ports.items()},
        sandbox_id=shown["NetworkSettings"]["SandboxID"],
        sandbox_key=shown["NetworkSettings"]["SandboxKey"],
        restart_count=shown["RestartCount"],
        driver=shown["Driver"],
        platform=shown["Platform"],
        log_path=shown["LogPath"],
        resolv_conf_path=shown["ResolvConfPath"],
        hostname_path=shown["HostnamePath"],
        hosts_path=shown["HostsPath"],
        lower_dirs=shown["GraphDriver"]["Data"]["LowerDir"].split(":"),
    )


@pytest.mark.parametrize("which", [1, 2, 3, 4, 5])
def test_container_inspect(which):
    shown = recorded(f"inspect{which}")
    sizes = Sizes(shown["SizeRw"], shown["SizeRootFs"])
    ours = containers.inspect(
        record_of(shown), exec_ids=[], version=NEWEST, data_dir="/data/x", rootfs="/run/x/rootfs", sizes=sizes
    )
    graph = ours["GraphDriver"]["Data"]
    assert graph.keys() == shown["GraphDriver"]["Data"].keys()
    assert (graph["UpperDir"], graph["MergedDir"]) == ("/data/x/upper", "/run/x/rootfs")
    ours["GraphDriver"] = shown["GraphDriver"]
    log = shown["State"].get("Health", {}).get("Log")
    if log:
        ours["State"]["Health"]["Log"] = log
    assert json.loads(json.dumps(ours)) == shown
    assert list(ours) == list(shown), "in Docker's order, for those who read it with their eyes"


@pytest.mark.parametrize("which", [1, 2, 3, 4, 5])
def test_container_list(which):
    shown = next(entry for entry in recorded("list") if entry["Names"] == [f"/apirec{which}"])
    record = record_of(recorded(f"inspect{which}"))
    ours = containers.summary(record, "apirec:1", Sizes(0, shown["SizeRootFs"]))
    ours["Status"] = shown["Status"]
    for entry in (ours, shown):
        entry["Ports"].sort(key=str)
        entry["Mounts"].sort(key=str)
    assert ours == shown
    assert list(ours) == list(shown)


def test_short_id_alias_before_1_45():
    record = record_of(recorded("inspect2"))
    record.networks = {"mine": EndpointSettings(Aliases=["db"]), "bridge": EndpointSettings()}
    settings = {"exec_ids": [], "data_dir": "", "rootfs": "", "sizes": None}
    old = containers.inspect(record, version=(1, 44), **settings)["NetworkSettings"]["Networks"]
    assert old["mine"]["Aliases"] == ["db", record.id[:12]]
    assert old["bridge"]["Aliases"] is None
    new = containers.inspect(record, version=(1, 45), **settings)["NetworkSettings"]["Networks"]
    assert new["mine"]["Aliases"] == ["db"]


def image_of(shown) -> Image:
    return Image(
        id=shown["Id"],
        repo_tags=shown["RepoTags"],
        repo_digests=shown["RepoDigests"],
        created=shown["Created"],
        created_ns=nanoseconds(shown["Created"]),
        size=shown["Size"],
        architecture=shown["Architecture"],
        os=shown["Os"],
        variant="",
        os_version="",
        config={"Cmd": ["sh"], "Env": ["PATH=/bin", "A=b"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"l": "v"}},
        diff_ids=shown["RootFS"]["Layers"],
        history=[],
        parent="",
        comment=shown["Comment"],
        author="",
        docker_version=shown["DockerVersion"],
        manifest=oci.Descriptor("", "", 0),
        tagged_ns=nanoseconds(shown["Metadata"]["LastTagTime"]),
        containers=5,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_image_inspect(version):
    shown = recorded("image", version)
    ours = images.inspect(image_of(recorded("image")), ["/layers/a"], number(version))
    assert ours.pop("GraphDriver")["Data"].keys() == shown.pop("GraphDriver")["Data"].keys()
    assert json.loads(json.dumps(ours)) == shown


@pytest.mark.parametrize("version", VERSIONS)
def test_image_list(version):
    (shown,) = recorded("images", version)
    ours = images.summary(image_of(recorded("image")), number(version))
    shown["Containers"] = 5 if version == "1.51" else -1
    assert ours == shown


def test_untagged_image_before_1_43():
    image = image_of(recorded("image") | {"RepoTags": []})
    assert images.summary(image, (1, 42))["RepoTags"] == ["<none>:<none>"]
    assert images.summary(image, (1, 43))["RepoTags"] == []


def test_image_history():
    (shown,) = recorded("history")
    item = HistoryItem(shown["Id"], shown["Created"], "", ["apirec:1"], shown["Size"], shown["Comment"])
    assert images.history(item) == shown


def test_volume():
    shown = recorded("volume")
    volume = Volume("apirecvol", nanoseconds(shown["CreatedAt"]) + 5, False, "local", {}, {}, shown["Mountpoint"])
    assert volumes.inspect(volume) == shown


@pytest.mark.parametrize("version", VERSIONS)
def test_info_of_older_versions_has_their_fields(version):
    newest, shown = recorded("info"), recorded("info", version)
    assert json.dumps(info_for(newest, number(version)).keys() ^ shown.keys(), default=list) == "[]"
    ours = info_for(newest, number(version))
    for key in ("RuncCommit", "RegistryConfig", "KernelMemory", "BridgeNfIptables", "Runtimes", "Containerd"):
        assert ours.get(key) == shown.get(key)


def test_exec():
    config = ExecConfig(Cmd=["echo", "hi"], AttachStdout=True)
    assert exec_shape(ExecRecord("e" * 64, "c" * 64, config)) == {
        "ID": "e" * 64,
        "Running": False,
        "ExitCode": None,
        "ProcessConfig": {"tty": False, "entrypoint": "echo", "arguments": ["hi"], "privileged": False},
        "OpenStdin": False,
        "OpenStderr": False,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": "c" * 64,
        "DetachKeys": "",
        "Pid": 0,
    }


def test_events_carry_the_fields_of_old():
    actor = {"ID": "c" * 64, "Attributes": {"image": "x:1", "name": "n"}}
    message = {"Type": "container", "Action": "start", "Actor": actor, "scope": "local", "time": 1, "timeNano": 2}
    assert with_legacy_fields(message) == {"status": "start", "id": "c" * 64, "from": "x:1", **message}
    network = message | {"Type": "network"}
    assert with_legacy_fields(network) == network


@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1_795_377_249_254_770_568, "2026-11-22T19:54:09.254770568Z"),
        (1_795_377_249_235_512_600, "2026-11-22T19:54:09.2355126Z"),
        (1_795_377_249_000_000_000, "2026-11-22T19:54:09Z"),
    ],
)
def test_times(time_ns, expected):
    assert times.rfc3339(time_ns) == expected
