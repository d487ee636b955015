"""`wherry create` sends what the docker CLI sends, and refuses what it refuses, for every recorded case."""

import json
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from tests.cli.create_cases import FILES
from tests.cli.fake_engine import FakeEngine, Reply

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "data", "create.json")) as file:
    RECORDS = json.load(file)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    top = tmp_path_factory.mktemp("create")
    (top / "work").mkdir()
    for name, content in FILES.items():
        (top / "work" / name).write_text(content)
    routes = {"POST /images/create": Reply(200, b'{"status":"Status: fake"}\r\n')}
    with FakeEngine(str(top / "engine.sock"), routes) as fake:
        yield fake


@pytest.fixture
def run_here(engine, monkeypatch, capfd):
    top = os.path.dirname(engine.socket_path)
    monkeypatch.chdir(os.path.join(top, "work"))
    for name in list(os.environ):
        if name.startswith("DOCKER") or name == "MISSING_IN_HOST":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("FROM_HOST", "host value")
    monkeypatch.setenv("DOCKER_HOST", engine.host)

    def run(arguments):
        from wherry.cli.main import run as run_command

        engine.requests.clear()
        if os.path.exists("x.cid"):
            os.unlink("x.cid")
        code = run_command(arguments)
        captured = capfd.readouterr()
        bodies = engine.bodies("POST /containers/create")
        queries = [r.query for r in engine.requests if r.path == "/containers/create"]
        text = json.dumps([bodies[0] if bodies else None, queries[0] if queries else None, captured.out, captured.err])
        work = os.path.join(top, "work")
        return [*json.loads(text.replace(work, "@WORK@").replace(top, "@TOP@")), code]

    return run


def comparable(body):
    """Docker's client passes --env through a Go map, so that its order is random: compare it sorted."""
    if body and body.get("Env"):
        body["Env"] = sorted(body["Env"])
    return body


def ours(text):
    return text.replace("docker: ", "wherry: ", 1).replace("docker create", "wherry create")


@pytest.mark.parametrize("record", RECORDS, ids=[" ".join(r["args"])[:60] for r in RECORDS])
def test_same_request_and_same_words(record, run_here):
    body, query, out, err, code = run_here(["create", *record["args"]])
    assert comparable(body) == comparable(record["body"])
    assert query == record["query"]
    assert (out, code) == (record["stdout"], record["code"])
    if "broken.json" in " ".join(record["args"]):
        prefix = "compacting json for seccomp profile (broken.json) failed: "
        assert prefix in err
        assert prefix in record["stderr"]
    else:
        assert err == ours(record["stderr"])
