"""At a terminal, our output is the docker CLI's to the byte: moving bars, tables, help by its width."""

import os
import sys

import pytest

import wherry as package
from tests.cli.output_cases import load
from tests.cli.terminals import engine, shown

RECORDS = load("terminals.json")


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    with engine(str(tmp_path_factory.mktemp("terminals"))) as running:
        yield running


@pytest.mark.parametrize("record", RECORDS, ids=[f"{r['columns']} {' '.join(r['args'])}" for r in RECORDS])
def test_as_docker(record, fake):
    source = os.path.dirname(os.path.dirname(package.__file__))
    environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": fake.host, "PYTHONPATH": source}
    ours = shown([sys.executable, "-m", "wherry.cli.main"], record["args"], environment, record["columns"])
    assert ours.replace("wherry", "docker").replace("Wherry", "Docker") == record["shown"]
