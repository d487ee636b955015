"""Our output, messages, exit codes and requests are the docker CLI's, for every recorded command."""

import pytest

from tests.cli.fake_engine import FakeEngine
from tests.cli.output_cases import load, routes

RECORDS = load("outputs.json")

# Commands that ask the engine other things than Docker's CLI does: fewer, or in another order.
ASKS_OTHERWISE = {
    "exec": "Docker looks the container up first, to say that it is missing before it says anything else",
    "attach": "Docker begins to wait before it knows whether there is something to wait for",
    "inspect": "Docker tries the kinds of object of a swarm, too",
    "ps": "Docker checks a template against an empty row first; we find the mistake in the first row",
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with FakeEngine(str(tmp_path_factory.mktemp("outputs") / "engine.sock"), routes()) as fake:
        yield fake


def as_docker(text):
    return text.replace("wherry", "docker").replace("Wherry", "Docker")


def asked(requests):
    """Requests without the accidents of order: several containers are asked at once."""
    parts = [request.partition("?")[::2] for request in requests]
    return sorted(f"{path}?{'&'.join(sorted(query.split('&')))}" for path, query in parts)


@pytest.mark.parametrize("record", RECORDS, ids=[" ".join(r["args"])[:70] for r in RECORDS])
def test_as_docker(record, engine, wherry, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    engine.requests.clear()
    out, err, code = wherry(*record["args"])
    assert code == record["code"]
    assert as_docker(out) == as_docker(record["stdout"])
    assert as_docker(err) == as_docker(record["stderr"])
    if (code and record["args"][0] in ASKS_OTHERWISE) or record["args"][0] == "exec":
        return
    requests = [f"{r.method} {r.path}?{r.query}" for r in engine.requests if r.path != "/_ping"]
    assert asked(requests) == asked(record["requests"])
