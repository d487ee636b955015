"""The daemon's configuration: flags, file, and what is refused."""

import json
import os
import re
from pathlib import Path

import msgspec
import pytest

from wherry.daemon import config, wiring
from wherry.daemon.options import OPTIONS, parse_bytes, parse_flags, usage
from wherry.engine import transfers
from wherry.engine.config import EngineConfig
from wherry.errors import InvalidArgument
from wherry.runtime import reaper


def load(*words, file=None):
    flags, actions = parse_flags([*words, *(["--config-file", str(file)] if file else [])])
    return config.load(flags, actions)


@pytest.fixture
def file(tmp_path):
    def write(document):
        path = tmp_path / "daemon.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


def test_flags_in_every_form():
    loaded = load("-D", "--icc=false", "--mtu", "1400", "-H", "unix:///a", "-Htcp://127.0.0.1:1", "--dns=9.9.9.9")
    assert loaded["debug"] is True
    assert loaded["icc"] is False
    assert loaded["mtu"] == 1400
    assert loaded["hosts"] == ["unix:///a", "tcp://127.0.0.1:1"]
    assert loaded["dns"] == ["9.9.9.9"]


def test_maps_pools_ulimits_and_sizes():
    loaded = load(
        *("--log-opt", "max-size=10m", "--log-opt", "max-file=3", "--default-ulimit", "nofile=1024:2048"),
        *("--default-address-pool", "base=10.10.0.0/16,size=24", "--default-shm-size", "128MiB"),
    )
    assert loaded["log-opts"] == {"max-size": "10m", "max-file": "3"}
    assert loaded["default-ulimits"] == {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 2048}}
    assert loaded["default-address-pools"] == [{"base": "10.10.0.0/16", "size": 24}]
    assert loaded["default-shm-size"] == 128 << 20


def test_the_file_gives_values_and_flags_add_to_lists(file):
    path = file({"debug": True, "default-shm-size": "1g", "runtimes": {"crun": {"path": "/usr/bin/crun"}}})
    loaded = load("--label", "a=b", file=path)
    assert loaded["debug"] is True
    assert loaded["default-shm-size"] == 1 << 30
    assert loaded["runtimes"] == {"crun": {"path": "/usr/bin/crun", "args": []}}
    assert loaded["labels"] == ["a=b"]


def test_registries(file):
    """The proxies are in an object of their own, as in Docker's file; the environment's count where none is given."""
    path = file(
        {"proxies": {"https-proxy": "http://p:1", "no-proxy": "a"}, "insecure-registries": ["10.0.0.0/8", "r:5000"]}
    )
    loaded = load("--registry-mirror", "https://m/path", file=path)
    assert (loaded["https-proxy"], loaded["no-proxy"], loaded["http-proxy"]) == ("http://p:1", "a", "")
    assert loaded["insecure-registries"] == ["10.0.0.0/8", "r:5000"]
    found = transfers.registry_config(wiring.engine_config(loaded))
    assert (found.mirrors, found.insecure) == (("https://m/path",), ("10.0.0.0/8", "r:5000"))
    assert (found.proxy.https, found.attempts) == ("http://p:1", 5)
    for bad in ({"http-proxy": "http://p"}, {"proxies": {"ftp-proxy": "x"}}, {"proxies": "x"}):
        with pytest.raises(InvalidArgument, match="prox"):
            load(file=file(bad))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["-Z"], "unknown shorthand flag: 'Z' in -Z"),
        (["--mtu"], "flag needs an argument: --mtu"),
        (["--mtu", "x"], 'invalid argument "x" for "--mtu" flag'),
        (["--icc=perhaps"], "invalid syntax"),
        (["--registry-mirror", "foo"], 'invalid mirror: no scheme specified for "foo": must use either'),
        (["--registry-mirror", "ftp://a"], 'invalid mirror: unsupported scheme "ftp" in "ftp://a": must use either'),
        (["--registry-mirror", "https://u:p@a"], 'username/password not allowed in URI "https://u:xxxxx@a"'),
        (["--registry-mirror", "https://a?x"], 'query or fragment at end of the URI "https://a?x"'),
        (["--registry-mirror", "https://a:b"], '"https://a:b" is not a valid URI'),
        (["--insecure-registry=-a"], "Cannot begin or end with a hyphen"),
        (["--insecure-registry", "http://a"], "insecure registry http://a should not contain '://'"),
        (["--insecure-registry", "10.0.0.0/99"], "insecure registry 10.0.0.0/99 is not valid"),
        (["--max-concurrent-downloads", "-1"], "invalid max concurrent downloads: -1"),
        (["--max-concurrent-uploads", "-1"], "invalid max concurrent uploads: -1"),
        (["--max-download-attempts", "-1"], "invalid max download attempts: -1"),
        (["word"], "accepts no arguments"),
        (["--log-level", "loud"], "invalid logging level: loud"),
        (["--bip", "10.0.0.1/8", "-b", "br0"], "mutually exclusive"),
        (["--live-restore=false"], "live-restore"),
        (["--storage-driver", "zfs"], "storage driver"),
        (["--config-file", "/nonexistent"], "no such file"),
        (["--log-driver", "splunk"], 'plugin "splunk" not found'),
        (["--log-opt", "bad=1"], "unknown log opt 'bad' for json-file log driver"),
        (["--default-runtime", "crun"], "specified default runtime 'crun' does not exist"),
        (["--dns", "a.b"], "a.b is not an ip address"),
        (["--ip", "here"], "here is not an ip address"),
        (["--label", "x"], "bad attribute format: x"),
        (["--userns-remap", "default"], "unknown flag: --userns-remap"),
        (["--mtu", "-1"], "invalid default MTU: -1"),
        (["--mtu", "10"], "invalid default MTU: 10"),
        (["--mtu", "70000"], "invalid default MTU: 70000"),
        (["--default-address-pool", "base=x,size=24"], "invalid address pool x"),
        (["--default-address-pool", "base=10.0.0.0/24,size=16"], "cannot be cut into subnets of size 16"),
        (["--default-ulimit", "foo=1"], "wrong rlimit value: RLIMIT_FOO"),
        (["--default-ulimit", "nofile=10:5"], "ulimit soft limit must be less than or equal to hard limit: nofile"),
        (["--default-shm-size", "-5"], "default-shm-size can't be negative"),
        (["--bip", "10.0.0.0/24"], "invalid --bip '10.0.0.0/24'"),
        (["--fixed-cidr", "x"], "invalid --fixed-cidr 'x'"),
        (["--bip", "10.0.0.1/24", "--fixed-cidr", "10.1.0.0/16"], "is not part of the bridge's subnet 10.0.0.0/24"),
        (["-H", "foo://x"], "invalid host 'foo://x'"),
        (["-H", "unix://relative"], "unix socket path must be absolute"),
        (["-H", "tcp://127.0.0.1:99999"], "invalid bind address format"),
        (["-H", "tcp://192.0.2.1:2375"], "would give root to anyone who can reach it"),
        (["-H", "tcp://127.0.0.1:2376", "--tls", "--tlscert", "/none"], "could not load X509 key pair (cert: /none"),
        (["--group", "nosuchgroup"], "could not find group nosuchgroup"),
        (["--seccomp-profile", "/none"], "opening seccomp profile (/none) failed"),
    ],
)
def test_what_flags_refuse(words, text):
    with pytest.raises(InvalidArgument, match=re.escape(text)):
        load(*words)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"nope": 1}, "the following directives don't match any configuration option: nope"),
        ("{", "not valid JSON"),
        ("[]", "one JSON object"),
        ({"debug": "yes"}, "debug: expected bool"),
        ({"mtu": True}, "mtu: expected int"),
        ({"default-shm-size": "1q"}, "invalid size"),
        ({"runtimes": {"x": "/bin/x"}}, "runtimes: x"),
        ({"dns": [1]}, "dns: unexpected 1"),
        ({"log-opts": {"max-size": 10}}, "log-opts: unexpected 10"),
        ({"default-ulimits": {"nofile": {"Soft": 1}}}, 'default-ulimits: unexpected {"Soft": 1}'),
        ({"default-address-pools": [{"base": "10.0.0.0/8", "size": "24"}]}, "default-address-pools: unexpected"),
        ({"hosts": []}, "no socket to listen on"),
        ({"default-ulimits": {"foo": {"Name": "foo", "Soft": 1, "Hard": 1}}}, "wrong rlimit value: RLIMIT_FOO"),
        ({"default-ulimits": {"cpu": {"Name": "core", "Soft": 1, "Hard": 1}}}, "cpu has the name of another: core"),
    ],
)
def test_what_the_file_refuses(file, document, text):
    with pytest.raises(InvalidArgument, match=text):
        load(file=file(document))


def test_the_same_thing_said_twice_is_refused(file):
    with pytest.raises(InvalidArgument, match=r"debug: \(from flag: true, from file: false\)"):
        load("--debug", file=file({"debug": False}))


def test_reload_takes_what_it_may_and_names_the_rest(file):
    path = file({"debug": False, "mtu": 1400})
    first = load(file=path)
    file({"debug": True, "mtu": 1300})
    second, refused = config.reload(first)
    assert second["debug"] is True
    assert second["mtu"] == 1400
    assert refused == ["mtu"]


def test_sizes():
    assert [parse_bytes(t) for t in ("7", "1k", "1KB", "2MiB", "0.5g")] == [7, 1024, 1024, 2 << 20, 1 << 29]


def test_no_option_is_ignored():
    """Each is given to the engine, or read by name in the daemon."""
    engine = {field.name.replace("_", "-") for field in msgspec.structs.fields(EngineConfig)}
    sources = Path(config.__file__).parent.glob("*.py")
    daemon = set(re.findall(r'\["([a-z-]+)"\]', "".join(path.read_text() for path in sources)))
    assert {option.key for option in OPTIONS} <= engine | daemon


def test_usage_names_every_option():
    text = usage()
    assert all(f"--{option.flag}" in text for option in OPTIONS)


def test_the_init_is_checked(tmp_path):
    script = tmp_path / "init"
    for prepare, text in (
        (lambda: None, "no such file"),
        (lambda: script.write_text("#!/bin/sh"), "not executable"),
        (lambda: script.chmod(0o755), "not an ELF program"),
    ):
        prepare()
        with pytest.raises(InvalidArgument, match=f"--init-path {script}: {text}"):
            load("--init-path", str(script))
    assert load("--init-path", reaper.path())["init-path"]
    assert config.init_warning(reaper.path()) == ""
    assert "is not static: containers whose image has no /" in config.init_warning(os.path.realpath("/usr/bin/env"))
