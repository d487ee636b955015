"""`wherry update` asks and says what the docker CLI does, for every recorded case."""

import json

import pytest

from tests.cli.fake_engine import FakeEngine
from tests.cli.update_cases import DATA, bodies, routes

with open(DATA) as file:
    RECORDS = json.load(file)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with FakeEngine(str(tmp_path_factory.mktemp("update") / "engine.sock"), routes()) as fake:
        yield fake


@pytest.mark.parametrize("record", RECORDS, ids=[" ".join(r["args"]) for r in RECORDS])
def test_as_docker(record, engine, wherry, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    engine.requests.clear()
    out, err, code = wherry(*record["args"])
    assert code == record["code"]
    assert out.replace("wherry", "docker") == record["stdout"]
    assert err.replace("wherry", "docker") == record["stderr"]
    assert bodies(engine) == record["bodies"]
