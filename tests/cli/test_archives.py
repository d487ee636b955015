"""Archives on their way to the engine: `load`, `import` and `image from-host`, and what the engine reports."""

import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from tests.cli.fake_engine import FakeEngine, Reply

LOADED = b'{"stream":"Loaded image: x:latest\\n"}\r\n'


@pytest.fixture
def engine(tmp_path, monkeypatch, wherry):
    replies = {"POST /images/load": Reply(200, LOADED), "POST /images/create": Reply(200, b'{"status":"sha256:1"}\r\n')}
    with FakeEngine(str(tmp_path / "engine.sock"), replies) as fake:
        monkeypatch.setenv("DOCKER_HOST", fake.host)
        yield fake


def last(engine):
    return engine.requests[-1]


def test_a_file_is_streamed_in_chunks(engine, wherry, tmp_path):
    data = os.urandom(3_000_000)
    (tmp_path / "a.tar").write_bytes(data)
    assert wherry("load", "-i", "a.tar") == ("Loaded image: x:latest\n", "", 0)
    assert last(engine).body == data
    assert last(engine).headers["transfer-encoding"] == "chunked"
    assert last(engine).headers["content-type"] == "application/x-tar"


def test_standard_input_is_streamed(engine):
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "wherry.cli.main",
            "import",
            "-c",
            "CMD a b",
            "-c",
            "ENV X=1",
            "-m",
            "a note",
            "-",
            "x:y",
        ],
        input=b"tar bytes",
        capture_output=True,
        check=True,
    )
    assert process.stdout == b"sha256:1\n"
    assert last(engine).body == b"tar bytes"
    parts = last(engine).query.split("&")
    assert {"fromSrc=-", "repo=x%3Ay", "message=a+note", "changes=CMD+a+b", "changes=ENV+X%3D1"} <= set(parts)


def test_a_failure_in_the_stream_is_the_commands(engine, wherry, tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x")
    broken = b'{"status":"Unpacking"}\r\n{"errorDetail":{"message":"no space left"},"error":"no space left"}\r\n'
    engine.routes["POST /images/load"] = Reply(200, broken)
    assert wherry("load", "-i", "a.tar") == ("Unpacking\n", "no space left\n", 1)


def test_an_engine_that_refuses_early_is_heard(engine, wherry, tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 100)
    engine.routes["POST /images/load"] = Reply(400, b'{"message":"not today"}')
    assert wherry("load", "-i", "a.tar") == ("", "Error response from daemon: not today\n", 1)


@pytest.mark.parametrize("command", [("load", "-i", "d"), ("import", "d", "x")])
def test_a_directory_is_no_archive(engine, wherry, tmp_path, command):
    (tmp_path / "d").mkdir()
    assert wherry(*command) == ("", "read d: is a directory\n", 1)


def test_output_that_can_not_be_written_is_told(engine):
    with open("/dev/full", "w") as full:
        arguments = [sys.executable, "-m", "wherry.cli.main", "ps"]
        engine.routes["GET /containers/json"] = Reply(200, b"[]")
        process = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (process.stderr, process.returncode) == (b"wherry: No space left on device\n", 1)


def test_an_image_of_this_host(engine, wherry):
    program = next(path for path in ("/usr/bin/busybox", "/bin/cat") if os.path.exists(path))
    assert wherry("image", "from-host", "mine", program) == ("Loaded image: x:latest\n", "", 0)
    with tarfile.open(fileobj=io.BytesIO(last(engine).body)) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
    assert manifest[0]["RepoTags"] == ["mine:latest"]


def test_a_program_that_this_host_has_not(engine, wherry):
    out, err, code = wherry("image", "from-host", "mine", "no-such-program-here")
    assert (out, code) == ("", 1)
    assert "no-such-program-here" in err
    assert last(engine).path == "/_ping"
