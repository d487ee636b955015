"""What `volume create` asks the engine for, and the order of names with numbers."""

import pytest

from tests.cli.fake_engine import FakeEngine
from tests.cli.output_cases import routes
from wherry.cli.rows import natural


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["data"], {"Driver": "local", "Name": "data"}),
        ([], {"Driver": "local"}),
        (
            ["-d", "x", "--label", "a=b", "--label", "c", "-o", "type=tmpfs", "--opt", "device=x=y", "data"],
            {
                "Driver": "x",
                "DriverOpts": {"device": "x=y", "type": "tmpfs"},
                "Labels": {"a": "b", "c": ""},
                "Name": "data",
            },
        ),
        (["-o", "bad", "d"], {"Driver": "local", "DriverOpts": {"bad": ""}, "Name": "d"}),
        (["--label", "a=b", "--label", "a=c"], {"Driver": "local", "Labels": {"a": "c"}}),
    ],
)
def test_create_sends_what_docker_sends(arguments, body, wherry, tmp_path, monkeypatch):
    with FakeEngine(str(tmp_path / "s"), routes()) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.host)
        assert wherry("volume", "create", *arguments)[2] == 0
        assert engine.bodies("POST /volumes/create") == [body]


def test_numbers_inside_names_sort_by_value():
    names = ["a-1", "1", "02", "2", "10", "Vol2", "a", "a1", "vol2", "vol10"]
    assert sorted(names, key=natural) == ["1", "02", "2", "10", "Vol2", "a", "a-1", "a1", "vol2", "vol10"]
