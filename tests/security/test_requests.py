"""Requests that no client makes: the engine refuses them quickly and goes on."""

import json
import subprocess

import pytest

pytestmark = pytest.mark.root

NUMBERS = (-1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 1e400, float("nan"), -(2**63), "1", [], {})
FIELDS = (
    *("Memory", "MemorySwap", "MemoryReservation", "NanoCpus", "CpuShares", "CpuPeriod", "CpuQuota", "PidsLimit"),
    *("ShmSize", "OomScoreAdj", "BlkioWeight", "CpuRealtimePeriod", "CpuRealtimeRuntime", "MemorySwappiness"),
)


def post(host, path, body, *options):
    """(status, decoded answer) of a raw body."""
    command = ["curl", "-s", "--max-time", "20", "-X", "POST", "-w", "\n%{http_code}", "--data-binary", "@-", *options]
    command += ["-H", "Content-Type: application/json", "--unix-socket", host.address.removeprefix("unix://")]
    result = subprocess.run([*command, f"http://localhost{path}"], input=body, capture_output=True, check=True)
    text, _, status = result.stdout.decode().rpartition("\n")
    return int(status), json.loads(text) if text.strip() else None


def create(host, body):
    return post(host, "/containers/create", json.dumps(body).encode())


@pytest.mark.parametrize("field", FIELDS)
def test_numbers_of_any_size(host, field):
    """CVE-2018-20699: what is out of range is an error, and costs nothing."""
    for number in NUMBERS:
        status, answer = create(host, {"Image": "busybox", "Cmd": ["true"], "HostConfig": {field: number}})
        assert status in (201, 400, 500), (number, answer)
        if status == 201:
            host.api("POST", f"/containers/{answer['Id']}/start")
            host.api("DELETE", f"/containers/{answer['Id']}?force=1")
    assert host.answers()


@pytest.mark.parametrize("cpus", ["1-9223372036854775807", "0-999999999", "0-99999999999999999999", "0,,1", "-1"])
def test_sets_of_processors(host, cpus):
    """CVE-2018-20699 as it was."""
    status, _ = create(host, {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"CpusetCpus": cpus}})
    assert status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'{"Labels":' + b'{"a":' * 100_000,
        b'{"Image":"busybox","HostConfig":' + b"[" * 100_000,
        b"\xff\xfe",
        b"null",
        b'"x"',
        b'{"Cmd":"' + b"\\u0000" * 1000 + b'"}',
    ],
    ids=["lists", "objects", "labels", "host-config", "not-utf-8", "null", "text", "nul"],
)
def test_bodies_of_any_depth(host, body):
    status, answer = post(host, "/containers/create", body)
    assert 400 <= status < 500, answer
    assert host.answers()


def test_a_body_without_end_is_cut(host):
    command = ["curl", "-s", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-T", "-"]
    command += ["-H", "Content-Type: application/json", "--unix-socket", host.address.removeprefix("unix://")]
    source = subprocess.Popen(["yes", " "], stdout=subprocess.PIPE)
    try:
        target = "http://localhost/containers/create"
        result = subprocess.run([*command, target], stdin=source.stdout, capture_output=True)
        assert result.stdout.endswith(b"400")
    finally:
        source.kill()
        source.communicate()


@pytest.mark.parametrize(
    "change",
    [
        {"Hostname": "a\nb"},
        {"Domainname": "a\nb"},
        {"HostConfig": {"ExtraHosts": ["a\n1.2.3.4 b:1.1.1.1"]}},
        {"HostConfig": {"ExtraHosts": ["a:1.1.1.1\n2.2.2.2 b"]}},
        {"HostConfig": {"DnsSearch": ["a\nnameserver 6.6.6.6"]}},
        {"HostConfig": {"DnsOptions": ["a\nnameserver 6.6.6.6"]}},
        {"HostConfig": {"Dns": ["1.1.1.1\nsearch x"]}},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_no_value_starts_a_line_of_its_own(host, change):
    """CVE-2022-4318, CVE-2026-23953: refused at create, or when the files are written."""
    status, answer = create(host, {"Image": "busybox", "Cmd": ["true"]} | change)
    if status == 201:
        started, _ = host.api("POST", f"/containers/{answer['Id']}/start")
        host.api("DELETE", f"/containers/{answer['Id']}?force=1")
        assert started in (400, 500)
    else:
        assert status == 400


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "..", "a" * 300, "x\0y", "x\ny", "-x", "x/y", "%2e%2e", "_data/../.."]
)
def test_names_of_volumes_are_no_paths(host, name):
    before = sorted(path.name for path in (host.root / "data").iterdir())
    assert post(host, "/volumes/create", json.dumps({"Name": name}).encode())[0] == 400
    mounts = [{"Type": "volume", "Source": name, "Target": "/x"}]
    assert create(host, {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": mounts}})[0] in (400, 500)
    assert sorted(path.name for path in (host.root / "data").iterdir()) == before


@pytest.mark.parametrize("path", ["/containers/..%2f..%2fetc/json", "/v1.51/../containers/json", "//containers//json"])
def test_paths_of_requests_are_no_paths(host, path):
    command = ["curl", "-s", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"]
    command += ["--unix-socket", host.address.removeprefix("unix://"), f"http://localhost{path}"]
    assert int(subprocess.run(command, capture_output=True, check=True).stdout) in (301, 400, 404)


@pytest.mark.parametrize(
    "option", ["apparmor=nonexistent-profile", "label=type:spc_t", "seccomp={", "seccomp=[]", "nonsense=1"]
)
def test_confinement_that_cannot_be_had_is_an_error(host, option):
    """CVE-2025-65105, CVE-2025-64750: never started without."""
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"SecurityOpt": [option]}}
    status, answer = create(host, body)
    if status == 201:
        started, _ = host.api("POST", f"/containers/{answer['Id']}/start")
        host.api("DELETE", f"/containers/{answer['Id']}?force=1")
        assert started in (400, 500)
    else:
        assert status in (400, 500)
