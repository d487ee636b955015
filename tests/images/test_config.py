"""Changes and merges, against what a real Docker answered (data/*.json: its words and its JSON)."""

import json
import pathlib

import pytest

from wherry.errors import InvalidArgument
from wherry.images.changes import apply_changes
from wherry.images.config_merge import merge

DATA = pathlib.Path(__file__).parent / "data"


def load(name):
    return json.loads((DATA / name).read_text())


def set_fields(config):
    return {key: value for key, value in config.items() if value}


@pytest.mark.parametrize("case", load("changes.json"), ids=lambda case: "|".join(case["changes"])[:50])
def test_changes_are_dockers(case):
    if "error" in case:
        with pytest.raises(InvalidArgument) as caught:
            apply_changes({}, case["changes"])
        # the one text that depends on how a byte that is none is printed
        assert str(caught.value).replace("\ufffd", "") == case["error"].replace("\ufffd", "")
    else:
        assert set_fields(apply_changes({}, case["changes"])) == set_fields(case["config"])


MERGES = [case for case in load("config_merge.json") if "merged" in case]


@pytest.mark.parametrize("case", MERGES, ids=lambda case: json.dumps(case["user"])[:50])
def test_merges_are_dockers(case):
    user, image = json.dumps(case["user"]), json.dumps(case["image"])
    merged = merge(case["user"], case["image"])
    for key, value in case["merged"].items():
        assert (merged.get(key) or None) == (value or None), key
    assert (json.dumps(case["user"]), json.dumps(case["image"])) == (user, image)


def test_an_empty_string_resets_the_entrypoint_and_leaves_no_command():
    merged = merge({"Entrypoint": [""]}, {"Entrypoint": ["e"], "Cmd": ["c"]})
    assert not merged["Entrypoint"]
    assert not merged["Cmd"]


def test_changes_start_from_the_given_config():
    before = {"Env": ["A=1"], "WorkingDir": "/a", "Shell": ["/bin/bash", "-c"]}
    after = apply_changes(before, ["ENV B=$A", "WORKDIR b", "CMD x y"])
    assert after["Env"] == ["A=1", "B=1"]
    assert after["WorkingDir"] == "/a/b"
    assert after["Cmd"] == ["/bin/bash", "-c", "x y"]
    assert before == {"Env": ["A=1"], "WorkingDir": "/a", "Shell": ["/bin/bash", "-c"]}
