"""A command starts in milliseconds: what it must not import, and how the engine is started when there is none."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cli.fake_engine import FakeEngine
from tests.cli.output_cases import routes
from wherry.cli.docker_commands import NAMES
from wherry.cli.main import run
from wherry.cli.registry import BY_NAME

HEAVY = {
    "argparse",
    "asyncio",
    "collections",
    "enum",
    "functools",
    "http",
    "json",
    "re",
    "socket",
    "ssl",
    "subprocess",
    "typing",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ["ps"],
        ["create", "--add-host", "a:1.2.3.4", "c-img", "true"],
        ["run", "-d", "c-img", "true"],
        ["exec", "-d", "-e", "A=b", "web", "true"],
        ["stop", "web"],
        ["inspect", "web"],
        ["pull", "busybox"],
    ],
)
def test_no_command_imports_what_is_slow(arguments, tmp_path):
    program = (
        "import sys; from wherry.cli.main import run; code = run(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    with FakeEngine(str(tmp_path / "engine.sock"), routes()) as engine:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "DOCKER_HOST": engine.host, "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            check=True,
        )
    assert not (set(done.stderr.split()) - set(bare.stdout.split())) & HEAVY


@pytest.fixture
def default_socket(tmp_path, monkeypatch):
    path = str(tmp_path / "default.sock")
    monkeypatch.setattr("wherry.client.endpoints.DEFAULT_HOST", f"unix://{path}")
    monkeypatch.setattr("wherry.cli.autostart._log_path", lambda: str(tmp_path / "engine.log"))
    return path


def test_engine_is_started_when_none_answers(default_socket, wherry, monkeypatch, tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = (
        f"import sys; sys.path.insert(0, {root!r}); from tests.cli.fake_engine import FakeEngine; "
        f"from tests.cli.output_cases import routes; FakeEngine({default_socket!r}, routes()); "
        f"import time, os; [time.sleep(0.05) for _ in iter(lambda: os.path.exists({default_socket!r}), False)]"
    )
    monkeypatch.setattr("wherry.cli.autostart.COMMAND", ("-c", script))
    out, err, code = wherry("stop", "web")
    os.unlink(default_socket)
    assert (out, code) == ("web\n", 0)
    assert err == f"starting the engine: wherryd (log: {tmp_path / 'engine.log'})\n"


def test_an_engine_that_dies_shows_its_last_words(default_socket, wherry, monkeypatch, tmp_path):
    (tmp_path / "engine.log").write_text("old words\n")
    monkeypatch.setattr("wherry.cli.autostart.COMMAND", ("-c", "import sys; sys.exit('no overlay here')"))
    out, err, code = wherry("ps")
    assert (out, code) == ("", 1)
    assert err.splitlines()[1:] == ["the engine did not start: wherryd ended with status 1", "no overlay here"]


@pytest.mark.parametrize(
    "words",
    [
        ["--help"], ["help", "run"], ["run", "--help"], ["--version"], ["container"], ["nonesuch"],
        ["completion", "bash"], ["__complete", "rm", ""], ["context", "ls"], ["context", "show"],
        ["context", "create", "ab"], ["context", "inspect"], ["context", "use", "default"],
        ["context", "export", "ab", "-"], ["login"], ["logout"], ["login", "-u", "x"],
        ["manifest", "inspect", "x", "y"], ["manifest", "rm", "x"], ["manifest", "push", "x"], ["run"],
        ["run", "--pull", "x", "y"], ["run", "-p", "x", "y"], ["pull", "X"], ["push", "X"], ["tag", "x", "X"],
        ["load", "-i", "nofile"], ["import", "nofile"], ["image", "from-host", "x"],
        ["image", "from-host", "X", "sh"], ["cp", "a", "b"], ["stop"], ["ps", "--nope"],
        ["search", "--limit", "x", "y"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_engine_is_started_for_what_needs_none(words, default_socket, wherry, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr("wherry.cli.autostart.start_engine", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("os.isatty", lambda _: False)
    wherry(*words)


def test_no_engine_is_started_for_a_named_host(wherry, monkeypatch, tmp_path):
    monkeypatch.setattr("wherry.cli.autostart.start_engine", lambda *_: pytest.fail("started"))
    _, err, code = wherry("-H", f"unix://{tmp_path}/x.sock", "ps")
    assert (code, err[:40]) == (1, "Cannot connect to the Wherry daemon at u")


def test_dial_stdio_passes_both_directions_and_the_half_close(tmp_path):
    import socket

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def serve():
        ping, _ = listener.accept()
        with ping:
            ping.recv(4096)
            ping.sendall(b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 0\r\n\r\n")
            connection, _ = listener.accept()
        with connection:
            data = b""
            while chunk := connection.recv(100):
                data += chunk
            connection.sendall(data.upper())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    done = subprocess.run(
        [sys.executable, "-m", "wherry.cli.main", "-H", f"unix://{tmp_path}/s", "system", "dial-stdio"],
        input=b"words",
        capture_output=True,
        check=True,
        timeout=30,
    )
    listener.close()
    thread.join(60)
    assert done.stdout == b"WORDS"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{bad", "invalid character 'b' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a": 1 "b"}', "invalid character '\"' after object key:value pair"),
        ('{"a": ["[", 2 3]}', "invalid character '3' after array element"),
        ('{"a": }', "invalid character '}' looking for beginning of value"),
        ('{"a": 1', "unexpected EOF"),
        ("[]", "not an object"),
    ],
)
def test_a_broken_configuration_is_warned_of(tmp_path, monkeypatch, wherry, text, complaint):
    (tmp_path / "config.json").write_text(text)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with FakeEngine(str(tmp_path / "engine.sock"), routes()) as engine:
        out, err, code = wherry("-H", engine.host, "ps")
    assert code == 0
    assert out
    assert err == f"WARNING: Error parsing config file ({tmp_path}/config.json): {complaint}\n"


def test_json_is_refused_without_the_json_module(tmp_path):
    """The C scanner wants to raise an exception of a module that the CLI does not import."""
    (tmp_path / "config.json").write_text("{bad")
    done = subprocess.run(
        [sys.executable, "-m", "wherry.cli.main", "--config", str(tmp_path), "context", "show"],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("DOCKER")},
    )
    assert (done.stdout, done.returncode) == ("default\n", 0)
    assert "Error parsing config file" in done.stderr


@pytest.mark.parametrize("words", [["build", "."], ["checkpoint", "ls"], ["checkpoint"], ["bake"]])
def test_commands_that_only_docker_has_are_named(words, capfd):
    """Neither unknown nor ignored; the list is that of the documentation."""
    if any(BY_NAME.get(name) for name in (words[0], " ".join(words[:2]))):
        pytest.skip("wherry has it by now")
    assert run(words) == 1
    said = capfd.readouterr().err
    assert f"wherry: '{words[0]}" in said
    assert "is a Docker command that wherry does not have yet" in said
    assert run(["nonesuch"]) == 1
    assert "unknown command: wherry nonesuch" in capfd.readouterr().err


def test_the_list_of_dockers_commands_is_that_of_the_documentation():
    table = Path(__file__).parents[2] / "docs/docker/commands.tsv"
    lines = table.read_text().splitlines()
    assert {line.split("\t")[0] for line in lines if line and not line.startswith("#")} == NAMES
