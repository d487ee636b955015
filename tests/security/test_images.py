"""Images made by an attacker, run by an administrator: nothing of the host is touched or shown."""

import io
import json
import tarfile

import pytest

from .evil import TOKEN, archive, link, make_canary, member, state

pytestmark = pytest.mark.root


@pytest.fixture
def canary(tmp_path):
    """A tree of the host's that is the same afterwards."""
    tree = make_canary(tmp_path / "canary")
    before = state(tree)
    yield tree
    assert state(tree) == before


@pytest.fixture
def load(host, name):
    """Load an image of these entries and this configuration; returns its name."""

    image = "evil/" + "-".join(filter(None, f"{name}x".lower().split("-")))

    def make(members=(), **config):
        config = {"config": {"Cmd": ["sleep", "1000"]}} | config
        host.docker("load", input=archive(image, members, config), text=False)
        return image

    yield make
    host.docker("rm", "-f", name, check=False)
    host.docker("rmi", "-f", image, check=False)


def run(host, name, image, *command, options=()):
    return host.docker("run", "--rm", "--name", name, *options, image, *command, check=False)


@pytest.mark.parametrize(
    "links",
    [
        [("etc/hosts", "file"), ("etc/hostname", "file"), ("etc/resolv.conf", "new"), ("etc/mtab", "file")],
        [("etc", "dir")],
        [("dev", "dir")],
        [("tmp", "dir"), ("var", "dir"), ("root", "dir")],
    ],
    ids=["files", "etc", "dev", "others"],
)
def test_links_where_the_engine_writes(host, name, load, canary, links):
    """CVE-2024-5154, CVE-2015-3627, CVE-2015-3629, CVE-2026-41579: hosts, hostname, devices go into the container."""
    image = load([link(path, f"{canary}/{target}") for path, target in links])
    result = run(host, name, image, "cat", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", options=["-t"])
    assert TOKEN not in result.stdout + result.stderr
    assert result.returncode != 0 or "localhost" in result.stdout


def test_a_working_directory_behind_a_link(host, name, load, canary):
    """CVE-2026-55686: it is made inside."""
    image = load([link("w", str(canary))], config={"WorkingDir": "/w/new/deep", "Cmd": ["pwd"]})
    assert run(host, name, image).stdout.strip() == f"{canary}/new/deep"
    assert run(host, name, image, "ls", "-a", f"{canary}", options=["-w", f"{canary}/x"]).stdout.split() == [
        ".",
        "..",
        "x",
    ]


@pytest.mark.parametrize("path", ["/../../../..{}", "{}", "/data", "/x/../../..{}", "relative"])
def test_volumes_of_an_image_take_nothing_from_the_host(host, name, load, canary, path):
    """CVE-2022-23648: what a VOLUME names is looked for in the image."""
    members = [link("data", f"{canary}/dir")]
    image = load(members, config={"Volumes": {path.format(canary): {}}, "Cmd": ["sleep", "1000"]})
    result = run(host, name, image, "sh", "-c", f"cat /data/* {canary}/* /relative/*")
    assert TOKEN not in result.stdout


@pytest.mark.parametrize("path", ["/proc", "/proc/self/attr", "/proc/../proc/1", "//proc/sys", "/proc/self"])
def test_volumes_over_proc_are_refused(host, name, load, path):
    """CVE-2019-16884, CVE-2015-3631, whoever asks for them."""
    image = load(config={"Volumes": {path: {}}, "Cmd": ["true"]})
    for options in ((), ("-v", f"{name}:{path}"), ("--tmpfs", path)):
        chosen = image if not options else "busybox"
        result = run(host, name, chosen, "cat", "/proc/1/comm", options=options)
        assert result.returncode == 125, (options, result.stdout)
        assert "/proc" in result.stderr
    host.docker("volume", "rm", name, check=False)


def test_what_an_image_says_beside_its_configuration_is_not_heard(host, name, load):
    """CVE-2014-6408, CVE-2026-53488: only what an image may set is taken from it; labels are data."""
    powers = {"Privileged": True, "CapAdd": ["ALL"], "Binds": ["/:/host"], "PidMode": "host", "NetworkMode": "host"}
    powers["SecurityOpt"] = ["seccomp=unconfined", "apparmor=unconfined"]
    labels = {
        "io.wherry.privileged": "true",
        "com.docker.volume.anonymous": "x",
        "org.systemd.property.ExecStart": "x",
        "io.containerd.runc.v2": "x",
    }
    image = load(
        config={"Cmd": ["sleep", "1000"], "Labels": labels, "HostConfig": powers} | powers,
        HostConfig=powers,
        host_config=powers,
    )
    host.docker("run", "-d", "--name", name, image)
    made = host.inspect(name)
    assert not made["HostConfig"]["Privileged"]
    assert not made["HostConfig"]["CapAdd"]
    assert made["Mounts"] == []
    assert made["HostConfig"]["NetworkMode"] == "bridge"
    status = host.out("exec", name, "cat", "/proc/self/status")
    assert "CapEff:\t00000000a80425fb" in status
    assert "Seccomp:\t2" in status
    assert made["Config"]["Labels"] == labels


@pytest.mark.parametrize(
    "config",
    [
        {"Env": ["A=b\nC=d", "HOME=/x\nroot2:x:0:0::/:/bin/sh"]},
        {"Hostname": "a\nb", "Domainname": "c\nd"},
        {"User": "0\nroot"},
        {"User": "4294967296"},
        {"User": "65536:4294967296"},
        {"User": "-1"},
        {"StopSignal": "SIG\n"},
        {"Env": ["=x", "A\0B=c"]},
        {"Entrypoint": ["sh", "\0"]},
        {"WorkingDir": "../../x"},
        {"ExposedPorts": {"99999/tcp": {}, "x": {}}},
    ],
    ids=lambda config: "-".join(config),
)
def test_odd_values_of_an_image_do_no_harm(host, name, load, config):
    """CVE-2022-4318, CVE-2024-40635: they are refused, or stay within what they are."""
    image = load(config={"Cmd": ["sh", "-c", "id -u; cat /etc/hosts /etc/hostname /etc/passwd"]} | config)
    result = run(host, name, image)
    if "User" in config:
        assert result.returncode == 125
        return
    if result.returncode != 0:
        assert "Error response from daemon" in result.stderr
        return
    lines = result.stdout.splitlines()[1:]
    assert not [line for line in lines if line in ("b", "d") or line.startswith("root2")]
    assert result.stdout.count("root:x:0:0") == 1


def test_a_user_that_is_a_number_is_no_name(host, name, load):
    """CVE-2016-3697, CVE-2026-46680; CVE-2022-36109: and its group counts."""
    passwd = b"1000:x:0:0::/:/bin/sh\n0:x:1:1::/:/bin/sh\n"
    image = load([member("etc/passwd", data=passwd, mode=0o644)], config={"User": "1000:1000", "Cmd": ["id"]})
    for words in (run(host, name, image, "sh", "-c", "id -u; id -g; id -G").stdout.split(),):
        assert words == ["1000", "1000", "1000"]
    host.docker("run", "-d", "--name", name, image, "sleep", "1000")
    assert host.out("exec", name, "sh", "-c", "id -u; id -G").split() == ["1000", "1000"]
    assert host.out("exec", "-u", "1000:7", name, "sh", "-c", "id -u; id -G").split() == ["1000", "7"]
    assert host.docker("exec", "-u", "4294967296", name, "id", check=False).returncode != 0


@pytest.mark.parametrize(
    ("trap", "why"),
    [
        (link("etc/passwd", "/proc/kmsg"), "unable to find user ghost"),
        (link("etc/passwd", "/dev/zero"), "/etc/passwd is not a regular file"),
        (member("etc/passwd", tarfile.FIFOTYPE), "/etc/passwd is not a regular file"),
        (member("etc/passwd", tarfile.DIRTYPE), "/etc/passwd is not a regular file"),
        (member("etc/passwd", data=b"a" * (11 << 20)), "/etc/passwd is larger than"),
        (member("etc/passwd", data=b"a\n" * (5 << 20)), "/etc/passwd has more than"),
        (link("etc/passwd", "passwd"), "too many levels of symbolic links"),
    ],
    ids=["kmsg", "zero", "fifo", "directory", "large", "many-lines", "loop"],
)
def test_user_files_cost_little_whatever_they_are(host, name, load, trap, why):
    """CVE-2026-47262, CVE-2024-9676: nobody hangs, least of all the engine."""
    image = load([trap], config={"Cmd": ["sleep", "1000"]})
    assert why in host.docker("run", "--rm", "-u", "ghost", image, "true", check=False, timeout=60).stderr
    host.docker("run", "-d", "--name", name, image, check=False, timeout=60)
    join = host.popen("docker", "exec", "-u", "ghost", name, "true")
    while join.poll() is None:
        assert host.out("version", "-f", "{{.Server.Os}}", timeout=60) == "linux"
    assert join.returncode != 0
    join.communicate()


def test_top_executes_nothing_of_the_container(host, name, load):
    """CVE-2022-1227."""
    trap = b"#!/bin/sh\necho done > /token\n"
    image = load([member(f"bin/{program}", data=trap) for program in ("ps", "nsenter", "top")])
    host.docker("run", "-d", "--name", name, image)
    assert "sleep 1000" in host.out("top", name)
    host.out("top", name, "aux")
    host.docker("inspect", "-s", name)
    assert host.docker("exec", name, "cat", "/token", check=False).returncode == 1


def test_documents_of_any_depth_and_number(host):
    """CVE-2023-25153, CVE-2021-21285: parsers have limits, and the engine goes on."""
    pid = host.daemon.pid
    for document in (
        b"[" * 100_000,
        b'[{"Config":' * 50_000,
        b'{"a":' * 100_000,
        b"null",
        b'[{"Config":null,"Layers":null}]',
        b'[{"Config":"../../../../etc/passwd","RepoTags":null,"Layers":["/etc/passwd"]}]',
        b"[" + b"{}," * 100_000 + b"{}]",
    ):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            info, data = member("manifest.json", data=document)
            tar.addfile(info, io.BytesIO(data))
        result = host.docker("load", input=out.getvalue(), text=False, check=False, timeout=60)
        assert result.returncode == 1
    assert host.daemon.pid == pid
    assert host.daemon.poll() is None
    assert json.loads(host.out("info", "-f", "{{json .ServerErrors}}") or "null") is None
