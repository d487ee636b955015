"""Our OCI configurations against those that Docker 28.5 gave its runtime.

Each file of `data` holds what `docker run FLAGS` recorded: the flags, `docker inspect`, and the bundle's config.json
(ids are zeros). What is different on purpose is listed in `INTENDED`, with the reason.
"""

import json
import os
from pathlib import Path

import pytest

from wherry.engine.model import ContainerConfig, HostConfig, MountPoint, from_wire
from wherry.engine.oci import ContainerSpecInput, build_config
from wherry.linux.caps import NAMES

DATA = Path(__file__).parent / "data"
pytestmark = pytest.mark.root
CASES = sorted(path.stem for path in DATA.glob("*.json"))
PROFILES = json.loads((DATA / "profiles" / "seccomp.json").read_text())
DOCKER = "/var/lib/docker"
ID = "0" * 64

# What differs on purpose, and how `comparable` takes it out of both sides:
# - root.path: the root's place is the bundle.
# - process.user: names are looked up by the runtime, inside the container.
# - linux.resources.devices: Docker lists the default rules twice, a historic accident; once is enough.
# - linux.resources.blockIO, linux.sysctl: an empty object says nothing.
# - linux.namespaces, mounts: the order of namespaces, and of mounts of equal depth, says nothing.
# - linux.seccomp: our profile is newer (it denies AF_ALG too) and grouped otherwise; compared call by call.
# - linux.devices of privileged containers: the host's of the day; a few are compared.
# - linux.cgroupsPath: /wherry in place of /docker.


def load(name):
    recorded = json.loads((DATA / f"{name}.json").read_text())
    profile = recorded["oci"]["linux"].pop("seccomp")
    if profile is not None:
        recorded["oci"]["linux"]["seccomp"] = PROFILES[profile]
    return recorded


def spec_input(record):
    inspect, theirs = record["inspect"], record["oci"]
    config, host = from_wire(ContainerConfig, inspect["Config"]), from_wire(HostConfig, inspect["HostConfig"])
    own = f"{DOCKER}/containers/{ID}"
    namespaces = {each["type"] for each in theirs["linux"]["namespaces"]}
    hidden = {mount["source"] for mount in theirs["mounts"]}
    return ContainerSpecInput(
        id=ID,
        config=config,
        host_config=host,
        hostname=config.Hostname,
        domainname=config.Domainname,
        env=config.Env or [],
        args=[inspect["Path"], *inspect["Args"]],
        cwd=config.WorkingDir,
        user=config.User,
        root_path="/root",
        mounts=[point(each, host) for each in inspect["Mounts"]],
        netns_path=None if "network" in namespaces else "/not/used",
        hosts_path=f"{own}/hosts",
        hostname_path=f"{own}/hostname",
        resolv_conf_path=f"{own}/resolv.conf",
        shm_path=f"{own}/mounts/shm" if f"{own}/mounts/shm" in hidden else "",
        init_path="/usr/bin/docker-init" if host.Init else None,
        # The recording daemon had everything but CAP_SYS_RESOURCE.
        bounding=[name for name in NAMES if name != "CAP_SYS_RESOURCE"],
        kernel=(6, 18),
        machine="x86_64",
    )


def point(shown, host):
    made = from_wire(MountPoint, {key: value for key, value in shown.items() if key != "Spec"})
    for mount in host.Mounts or []:
        if mount.Target == made.Destination:
            made.Spec = mount
    return made


def comparable(config):
    """One side without the intended differences."""
    config = json.loads(json.dumps(config))
    process, linux = config["process"], config["linux"]
    config["root"].pop("path")
    process.pop("user")
    linux["resources"]["devices"] = without_repetition(linux["resources"]["devices"])
    for parent, key in ((linux["resources"], "blockIO"), (linux, "sysctl")):
        if not parent.get(key):
            parent.pop(key, None)
    linux["namespaces"] = sorted(json.dumps(each, sort_keys=True) for each in linux["namespaces"])
    linux["cgroupsPath"] = linux["cgroupsPath"].replace("/wherry/", "/docker/")
    if seccomp := linux.pop("seccomp", None):
        linux["seccomp"] = flat(seccomp)
    if len(linux.get("devices", ())) > 2:
        linux["devices"] = [device for device in linux["devices"] if device["path"] in KEPT]
    config["mounts"] = {mount["destination"]: mount for mount in config["mounts"]}
    return config


KEPT = ("/dev/null", "/dev/zero", "/dev/full", "/dev/xnull")


def without_repetition(rules):
    return list(dict.fromkeys(json.dumps(rule, sort_keys=True) for rule in rules))


def flat(seccomp):
    rules = {
        json.dumps({"name": name, **{key: rule.get(key) for key in ("action", "errnoRet", "args")}}, sort_keys=True)
        for rule in seccomp["syscalls"]
        for name in rule["names"]
        if name != "socket"
    }
    return {**seccomp, "syscalls": sorted(rules)}


@pytest.mark.parametrize("name", CASES)
def test_configuration_is_dockers(name, tmp_path):
    record = load(name)
    container = spec_input(record)
    move_devices(container.host_config, tmp_path)
    assert comparable(build_config(container)) == comparable(record["oci"])


@pytest.mark.parametrize("name", CASES)
def test_mounts_come_in_dockers_order(name, tmp_path):
    record = load(name)
    container = spec_input(record)
    move_devices(container.host_config, tmp_path)
    ours = [mount["destination"] for mount in build_config(container)["mounts"]]
    theirs = [mount["destination"] for mount in record["oci"]["mounts"]]
    # Docker's sort is not stable: only the depth and the defaults' order are certain.
    assert [path.count("/") for path in ours] == [path.count("/") for path in theirs]
    assert list(filter(is_default, ours)) == list(filter(is_default, theirs))


def is_default(path):
    return path.startswith(("/proc", "/dev", "/sys"))


# The nodes that the recordings name, as that machine had them.
NODES = {"/dev/null": (1, 3, 0o20666), "/dev/zero": (1, 5, 0o20666), "/dev/net/tun": (10, 200, 0o20600)}
NODES["/dev/vda"] = (254, 0, 0o60660)


def move_devices(host, directory):
    """Let `host` name nodes that are made in `directory`: this machine's may differ."""
    for path, (major, minor, mode) in NODES.items():
        made = directory / path[1:]
        made.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(made, mode, os.makedev(major, minor))
        os.chmod(made, mode & 0o777)
    for mapping in host.Devices or []:
        mapping.PathOnHost = f"{directory}{mapping.PathOnHost}"
    for name in ("BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteIOps"):
        for device in getattr(host, name) or []:
            device.Path = f"{directory}{device.Path}"
