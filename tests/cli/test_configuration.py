"""What variables and config.json do to requests: headers, proxies, platforms, formats, certificates."""

import json
import os

import pytest

from tests.cli.fake_engine import FakeEngine, Reply
from tests.cli.output_cases import routes


@pytest.fixture
def engine(tmp_path):
    more = {"POST /images/create": Reply(200, b'{"status":"done"}\r\n')}
    with FakeEngine(str(tmp_path / "engine.sock"), {**routes(), **more}) as fake:
        yield fake


@pytest.fixture
def configured(tmp_path, monkeypatch, engine, wherry):
    """A function: settings, words, variables -> (stdout, stderr, code), asked of the fake engine."""

    def run(settings, *words, **variables):
        (tmp_path / "config").mkdir(exist_ok=True)
        (tmp_path / "config" / "config.json").write_text(json.dumps(settings))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
        monkeypatch.setenv("DOCKER_HOST", engine.host)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        engine.requests.clear()
        return wherry(*words)

    return run


def environment(engine):
    return sorted(engine.bodies("POST /containers/create")[0]["Env"] or [])


def test_headers_of_the_settings_go_with_every_request(configured, engine):
    configured({"HttpHeaders": {"X-Meta": "a b", "User-Agent": "mine"}}, "ps")
    assert {request.headers["x-meta"] for request in engine.requests} == {"a b"}
    assert all(request.headers["user-agent"].startswith("wherry/") for request in engine.requests)


def test_headers_of_the_environment_stand_in_for_them(configured, engine):
    configured({"HttpHeaders": {"X-Meta": "a"}}, "ps", DOCKER_CUSTOM_HEADERS='x-one=1,"x-two=a,b=c"')
    headers = engine.requests[-1].headers
    assert (headers["x-one"], headers["x-two"], headers.get("x-meta")) == ("1", "a,b=c", None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "missing \"=\" in key=value pair: 'x'"),
        ("=x", "value contains a key=value pair with an empty key: '=x'"),
        ('a"b', 'value must be formatted as comma-separated key=value pairs: parse error on line 1, column 2: bare "'),
    ],
)
def test_headers_that_are_none(text, reason, configured, engine):
    out, err, code = configured({}, "ps", DOCKER_CUSTOM_HEADERS=text)
    assert (out, code, engine.requests) == ("", 1, [])
    assert err.startswith(
        f"Failed to initialize: failed to set custom headers from DOCKER_CUSTOM_HEADERS environment variable: {reason}"
    )


PROXIES = {"httpProxy": "http://p:1", "httpsProxy": "hs", "noProxy": "x", "ftpProxy": "f", "allProxy": "a"}


def test_proxies_are_given_to_containers(configured, engine):
    configured({"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}}}, "create", "busybox")
    assert environment(engine) == ["HTTP_PROXY=http://p:1", "NO_PROXY=x", "http_proxy=http://p:1", "no_proxy=x"]


def test_given_variables_win_over_proxies_one_by_one(configured, engine):
    configured({"proxies": {"default": PROXIES}}, "create", "-e", "HTTP_PROXY=mine", "-e", "no_proxy", "busybox")
    found = environment(engine)
    assert "HTTP_PROXY=mine" in found
    assert "http_proxy=http://p:1" in found
    assert "NO_PROXY=x" in found
    assert "no_proxy" in found
    assert {each.partition("=")[0] for each in found} == {
        name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "FTP_PROXY", "ALL_PROXY")
        for name in (upper, upper.lower())
    }  # fmt: skip


def test_proxies_of_an_engine_win_over_the_default(configured, engine):
    proxies = {"default": {"httpProxy": "d"}, engine.host: {"ftpProxy": "own"}, "tcp://other:1": {"httpProxy": "o"}}
    configured({"proxies": proxies}, "create", "busybox")
    assert environment(engine) == ["FTP_PROXY=own", "ftp_proxy=own"]


def test_the_default_platform(configured, engine):
    def asked(path):
        return [request.query for request in engine.requests if request.path == path]

    configured({}, "create", "--pull", "always", "busybox", DOCKER_DEFAULT_PLATFORM="linux/aarch64")
    assert asked("/containers/create") == ["platform=linux%2Farm64"]
    assert asked("/images/create") == ["fromImage=docker.io%2Flibrary%2Fbusybox&platform=linux%2Faarch64&tag=latest"]
    configured({}, "create", "--platform", "linux/386", "busybox")
    assert asked("/containers/create") == ["platform=linux%2F386"]
    configured({}, "create", "--platform", "", "busybox")
    assert asked("/containers/create") == [""]


def test_formats_of_the_settings(configured):
    settings = {
        "psFormat": "p {{.Names}}", "imagesFormat": "i {{.Tag}}", "networksFormat": "n {{.Name}}",
        "volumesFormat": "v {{.Name}}",
    }  # fmt: skip
    for words, first in ((["ps"], "p web"), (["images"], "i 1.36"), (["volume", "ls"], "v Vol2")):
        assert configured(settings, *words)[0].splitlines()[0] == first
    assert configured(settings, "network", "ls")[0].splitlines() == ["n bridge", "n host"]
    assert configured(settings, "ps", "-q")[0].startswith("4f1a6e0c9b7d\n")
    assert configured(settings, "ps", "--format", "table")[0].startswith("CONTAINER ID")


def test_the_version_of_the_environment(configured, engine):
    assert configured({}, "version", "-f", "{{.Client.APIVersion}}", DOCKER_API_VERSION="v1.44")[0] == "1.44\n"


@pytest.mark.parametrize("flags", [["--tls"], ["--tlsverify"], ["--tlsverify=false"]])
def test_tls_asks_for_the_authority(flags, configured, tmp_path):
    reason = f"open {tmp_path}/config/ca.pem: no such file or directory"
    _, err, code = configured({}, *flags, "ps")
    assert (err, code) == (f"Failed to initialize: unable to resolve docker endpoint: {reason}\n", 1)
    _, err, _ = configured({}, *flags, "--tlscacert", "/nonexistent", "ps")
    assert "open /nonexistent: no such file" in err


def test_directories_of_certificates(configured, tmp_path):
    os.mkdir(tmp_path / "certs")
    _, err, _ = configured({}, "ps", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(tmp_path / "certs"))
    assert f"open {tmp_path}/certs/ca.pem: no such file" in err


@pytest.mark.parametrize(("flags", "paused"), [([], True), (["--no-pause"], False), (["--pause=false"], False)])
def test_newer_clients_commit_without_a_pause_by_another_flag(flags, paused, configured, engine):
    engine.routes["POST /commit"] = Reply(201, b'{"Id":"sha256:1"}')
    assert configured({}, "commit", *flags, "web")[:2] == ("sha256:1\n", "")
    assert ("pause=0" not in engine.requests[-1].query) is paused
