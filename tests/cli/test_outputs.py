"""Our output, messages, exit codes and requests are the docker CLI's, for every recorded command."""

import pytest
from fake_engine import FakeEngine
from output_cases import load, routes

RECORDS = load("outputs.json")

# What differs on purpose: "ARGUMENTS": why. The exit code must be Docker's all the same.
INTENDED = {
    "ps --format {{nope .Names}}": "Go adds nothing more; ours names the same function",
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with FakeEngine(str(tmp_path_factory.mktemp("outputs") / "engine.sock"), routes()) as fake:
        yield fake


def as_docker(text):
    return text.replace("wherry", "docker").replace("Wherry", "Docker")


def asked(requests):
    return [request.partition("?")[0] + "?" + "&".join(sorted(request.partition("?")[2].split("&"))) for request in requests]


@pytest.mark.parametrize("record", RECORDS, ids=[" ".join(r["args"])[:70] for r in RECORDS])
def test_as_docker(record, engine, wherry, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    engine.requests.clear()
    out, err, code = wherry(*record["args"])
    assert code == record["code"]
    if " ".join(record["args"]) in INTENDED:
        return
    assert as_docker(out) == as_docker(record["stdout"])
    assert as_docker(err) == as_docker(record["stderr"])
    requests = [f"{r.method} {r.path}?{r.query}" for r in engine.requests if r.path != "/_ping"]
    assert asked(requests) == asked(record["requests"])
