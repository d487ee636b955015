"""Commands about registries do what the docker CLI was recorded doing: answers, requests with credentials, files."""

import base64
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import termios

import pytest

import wherry as package
from tests.cli.fake_engine import FakeEngine, as_json
from tests.cli.output_cases import routes as output_routes
from tests.cli.registry_cases import DIGEST, HERE, TYPED, asked, cases, environment, prepare, routes, split, tree, write
from tests.cli.terminals import shown

RECORDS = json.loads((HERE / "data" / "registry.json").read_text())
TYPED_RECORDS = json.loads((HERE / "data" / "registry_typed.json").read_text())
CASES = cases()
SUGGESTION = "Log in with your Docker ID or email address"


@pytest.fixture
def place(tmp_path, monkeypatch, wherry):
    """A directory with a configuration of its own and an engine."""
    prepare(tmp_path)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    with FakeEngine(f"{tmp_path}/engine.sock", routes()) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.host)
        yield tmp_path, engine


def run(wherry, words, variables):
    """One command with its variables and its standard input."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile() as given:
        given.write(os.fsencode(variables.pop("STDIN", "")))
        given.seek(0)
        before = os.dup(0)
        for name, value in variables.items():
            patch.setenv(name, value)
        os.dup2(given.fileno(), 0)
        try:
            return wherry(*words)
        finally:
            os.dup2(before, 0)
            os.close(before)


def as_docker(text):
    return text.replace("wherry", "docker").replace("Wherry", "Docker")


def said(text, words):
    """What was said, without what Docker says by mistake, or more often than it need."""
    if words == ["logout", "h.example"]:  # Docker miscounts the failures, and tells of none
        text = text.partition("WARNING: could not erase")[0]
    dropped = ("some noise", "time=", "WARNING: error getting credentials")
    lines = [line for line in text.splitlines() if not line.startswith(dropped)]
    return "\n".join(lines).replace("SRun 'docker", "Run 'docker")


def without_colours(text):
    """Docker's are there even where there is no terminal."""
    return re.sub("\x1b\\[[0-9;]*m", "", text)


def requests(found):
    """Requests without the accidents of order, and without Docker's waiting for what is detached."""
    return [
        {**each, "request": "&".join(sorted(each["request"].replace("?", "&").split("&")))}
        for each in found
        if "/wait&" not in each["request"] and "/wait?" not in each["request"]
    ]


def settings(text):
    """A configuration as far as Docker keeps it: without keys it does not know, user and password in base64."""
    found = json.loads(text)
    for entry in found.get("auths", {}).values():
        if "username" in entry:
            pair = f"{entry.pop('username')}:{entry.pop('password')}"
            entry["auth"] = base64.b64encode(pair.encode()).decode()
    return {key: value for key, value in found.items() if not key.startswith("x-")}


def left(files):
    """{path: content} without modes, which are stricter with us."""
    found = {path: text.partition(" ")[2] for path, text in files.items()}
    return {path: settings(text) if path.endswith("config.json") else text for path, text in found.items()}


@pytest.mark.parametrize("index", range(len(CASES)), ids=[" ".join(case[0])[:60] for case in CASES])
def test_as_docker(index, place, wherry):
    top, engine = place
    recorded = iter(RECORDS[index]["steps"])
    for command in CASES[index]:
        variables, words = split(command)
        if words[0] == "write":
            write(top, *words[1:])
            continue
        engine.requests.clear()
        out, err, code = run(wherry, words, variables)
        step = next(recorded)
        sent = json.loads(json.dumps(asked(engine)).replace(str(top), "@TOP@"))
        out, err = (as_docker(text).replace(str(top), "@TOP@") for text in (out, err))
        assert (out, said(err, words), code) == (
            without_colours(step["stdout"]),
            said(step["stderr"], words),
            step["code"],
        ), command
        assert requests(sent) == requests(step["asked"]), command
    assert left(tree(top)) == left(RECORDS[index]["tree"])


@pytest.mark.parametrize("index", range(len(TYPED)), ids=[" ".join(case[2]) for case in TYPED])
def test_at_a_terminal_as_docker(index, place):
    top, engine = place
    variables, files, words, typed = TYPED[index]
    for name, text in files.items():
        write(top, name, text)
    variables = {**environment(top), "DOCKER_HOST": engine.host, **variables}
    variables["PYTHONPATH"] = os.path.dirname(os.path.dirname(package.__file__))
    text = shown([sys.executable, "-m", "wherry.cli.main"], words, variables, 80, typed)
    record = TYPED_RECORDS[index]
    assert lines(as_docker(text).replace(str(top), "@TOP@")) == lines(record["shown"])
    assert asked(engine) == record["asked"]
    assert left(tree(top)) == left(record["tree"])


def lines(text):
    """What a terminal shows, without the way to an account that Docker describes at length."""
    found = text.splitlines()
    if any(line.startswith(SUGGESTION) for line in found):
        found = [line for line in found if line and not line.startswith((SUGGESTION, "You can log in with your"))]
    return found


@pytest.mark.parametrize(
    ("auth", "complaint"),
    [
        ("bad", "illegal base64 data at input byte 0"),
        ("Y@Q=", "illegal base64 data at input byte 1"),
        ("YWI6Y2Q", "illegal base64 data at input byte 4"),
        ("YQ==", "Invalid auth configuration file"),
        ("OmI=", "Invalid auth configuration file"),
    ],
)
def test_an_entry_that_cannot_be_read_is_told_of_and_kept(place, wherry, auth, complaint):
    """Docker's forgets all entries then, and the next login deletes them."""
    top, engine = place
    write(top, "config.json", json.dumps({"auths": {"h.example": {"auth": auth}, "b.example": {"auth": "YTpi"}}}))
    out, err, code = wherry("pull", "-q", "h.example/x")
    assert (out, code) == ("h.example/x:latest\n", 0)
    assert err == f"WARNING: Error parsing config file ({top}/config/config.json): {complaint}\n"
    assert wherry("pull", "-q", "b.example/x")[1:] == ("", 0)
    assert asked(engine)[-1]["auth"] == {"username": "a", "password": "b", "serveraddress": "b.example"}
    assert wherry("login", "-u", "me", "-p", "x", "c.example")[2] == 0
    kept = json.loads((top / "config/config.json").read_text())["auths"]
    assert kept == {"h.example": {"auth": auth}, "b.example": {"auth": "YTpi"}, "c.example": {"auth": "bWU6eA=="}}


def test_a_broken_configuration_is_not_overwritten(place, wherry):
    top, _ = place
    write(top, "config.json", "{bad")
    out, err, code = wherry("login", "-u", "me", "-p", "x", "c.example")
    assert (out, code) == ("", 1)
    assert "Error saving credentials: parsing" in err
    out, err, code = wherry("logout")
    assert "WARNING: could not erase credentials:\nhttps://index.docker.io/v1/: parsing" in err
    assert (top / "config/config.json").read_text() == "{bad"


def test_a_configuration_that_cannot_be_written(place, wherry):
    top, _ = place
    (top / "file").write_text("")
    words = ["login", "-u", "me", "-p", "x", "c.example"]
    for directory, reason in (("file", "not a directory"), ("/proc/x", "no such file or directory")):
        err = wherry("--config", str(top / directory), *words)[1]
        assert err.endswith(f"Error saving credentials: mkdir {top / directory}: {reason}\n")


def test_auths_that_are_none_are_left_alone(place, wherry):
    top, engine = place
    write(top, "config.json", '{"auths": ["x"]}')
    assert wherry("pull", "-q", "x")[2] == 0
    assert asked(engine)[-1]["auth"] == {}
    out, err, code = wherry("login", "-u", "me", "-p", "x", "c.example")
    assert (out, code) == ("", 1)
    assert err.endswith(f'Error saving credentials: {top}/config/config.json: "auths" is no object\n')
    assert '"auths" is no object' in wherry("logout")[1]
    assert (top / "config/config.json").read_text() == '{"auths": ["x"]}'


def test_a_password_may_be_any_bytes(place, wherry):
    top, _ = place
    words = ["login", "-u", "me", "--password-stdin", "c.example"]
    assert run(wherry, words, {"STDIN": "p\udcff\n"})[2] == 0
    kept = json.loads((top / "config/config.json").read_text())["auths"]["c.example"]["auth"]
    assert base64.b64decode(kept) == b"me:p\xff"
    assert wherry("pull", "-q", "c.example/x") == ("c.example/x:latest\n", "", 0)


def test_what_docker_does_not_know_is_kept_and_secrets_are_for_the_user_alone(place, wherry):
    top, _ = place
    write(top, "real.json", '{"x-ours": {"b": [1]}, "psFormat": "p", "auths": {"b.example": {"x": 1}}}')
    path = top / "config/config.json"
    path.symlink_to("real.json")
    path.chmod(0o644)
    assert wherry("login", "-u", "me", "-p", "x", "c.example")[2] == 0
    kept = json.loads((top / "config/real.json").read_text())
    assert kept["auths"] == {"b.example": {"x": 1}, "c.example": {"auth": "bWU6eA=="}}
    assert (kept["x-ours"], kept["psFormat"]) == ({"b": [1]}, "p")
    assert path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


def test_tokens_of_a_login_by_dockers_web_page_go_with_the_credentials(place, wherry):
    top, _ = place
    index = "https://index.docker.io/v1/"
    names = (index, f"{index}access-token", f"{index}refresh-token")
    write(top, "config.json", json.dumps({"auths": {name: {} for name in (*names, "h.example")}, "credsStore": "safe"}))
    (top / "bin/STORE").write_text(json.dumps({name: {"Username": "u", "Secret": "s"} for name in names}))
    assert wherry("logout")[2] == 0
    assert json.loads((top / "bin/STORE").read_text()) == {}
    assert json.loads((top / "config/config.json").read_text())["auths"] == {"h.example": {}}


@pytest.mark.parametrize(
    ("variables", "words", "refused"),
    [
        ({"DOCKER_CONTENT_TRUST": "1"}, ["pull", "x"], True),
        ({"DOCKER_CONTENT_TRUST": "yes"}, ["push", "x"], True),
        ({"DOCKER_CONTENT_TRUST": "1"}, ["create", "x"], True),
        ({"DOCKER_CONTENT_TRUST": "1"}, ["create", "busybox"], True),
        ({"DOCKER_CONTENT_TRUST": "1"}, ["create", f"x@{DIGEST}"], False),
        ({"DOCKER_CONTENT_TRUST": "1"}, ["pull", f"x@{DIGEST}"], False),
        ({"DOCKER_CONTENT_TRUST": "1"}, ["pull", "--disable-content-trust", "x"], False),
        ({"DOCKER_CONTENT_TRUST": "false"}, ["pull", "x"], False),
        ({}, ["pull", "--disable-content-trust=false", "x"], True),
    ],
)
def test_signatures_are_not_silently_left_unchecked(place, wherry, variables, words, refused):
    _, engine = place
    _, err, code = run(wherry, words, dict(variables))
    assert (code != 0) is refused
    assert ("content trust is not supported" in err) is refused
    assert bool([r for r in engine.requests if r.path.startswith("/images")]) is not refused


def test_what_a_search_finds_cannot_steer_the_terminal(place, wherry):
    _, engine = place
    found = [{"name": "x\x1b[2J", "description": "a\x07b\u202e", "star_count": 1, "is_official": False}]
    engine.routes["GET /images/search"] = as_json(found)
    out, _, code = wherry("search", "x")
    assert code == 0
    assert out.splitlines()[1].split() == ["x\ufffd[2J", "a\ufffdb\ufffd", "1"]


def test_info_names_the_user(place, wherry):
    """Between what Docker has there."""
    top, engine = place
    engine.routes["GET /info"] = output_routes()["GET /info"]
    assert "Username" not in wherry("info")[0]
    write(top, "config.json", '{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6eA=="}}}')
    assert "\n Debug Mode: false\n Username: me\n Experimental: false\n" in wherry("info")[0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGHUP, -1)])
def test_a_password_that_is_not_given_after_all_leaves_the_terminal_echoing(place, number, code):
    top, engine = place
    outer, inner = pty.openpty()
    before = termios.tcgetattr(inner)
    variables = {**os.environ, **environment(top), "DOCKER_HOST": engine.host}
    command = [sys.executable, "-m", "wherry.cli.main", "login", "-u", "me", "h.example"]
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=variables, start_new_session=True)
    data = b""
    while b"Password: " not in data:
        data += os.read(outer, 1000)
    assert not termios.tcgetattr(inner)[3] & termios.ECHO
    process.send_signal(number)
    assert process.wait(20) == code
    assert termios.tcgetattr(inner) == before
    os.close(outer)
    os.close(inner)


WRONG = "json: cannot unmarshal {} into Go struct field configEnv.auths{}"
OF_AUTHS = " of type map[string]configfile.configEnvAuth"
ODD_VARIABLES = [
    ('{"auths": {"x": null}}', "DOCKER_AUTH_CONFIG environment variable is missing key `auth` for x"),
    ('{"auths": {"x": {"auth": null}}}', "DOCKER_AUTH_CONFIG environment variable is missing key `auth` for x"),
    ('{"auths": ["a"]}', WRONG.format("array", OF_AUTHS)),
    ('{"auths": 5}', WRONG.format("number", OF_AUTHS)),
    (
        '{"auths": {"x": true}}',
        WRONG.format("bool", ".x of type configfile.configEnvAuth"),
    ),
    (
        '{"auths": {"x": {"auth": {}}}}',
        WRONG.format("object", ".x.auth of type string"),
    ),
]


@pytest.mark.parametrize(("text", "reason"), ODD_VARIABLES)
def test_an_odd_variable_is_told_in_dockers_words(text, reason, place, wherry, monkeypatch):
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", text)
    _, err, code = wherry("pull", "x")
    assert (err, code) == (f"Failed to create credential store from DOCKER_AUTH_CONFIG:  {reason}\n", 0)


def test_a_variable_that_is_null_says_nothing(place, wherry, monkeypatch):
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", "null")
    assert wherry("pull", "x")[1:] == ("", 0)
