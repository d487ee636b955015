"""What the engine says of images equals what Docker says.

`data/wire/image_*.json` was recorded from Docker 28.5 (overlay2, not containerd's store) by running this file with
WHERRY_TEST_AGAINST=unix:///…@netns WHERRY_TEST_RECORD=1.
"""

import json
import re

import pytest

from . import image_talks
from .test_wire import DATA, RECORDING, differences
from .wire import Wire

# Where wherry means to differ: (conversation, what is said, where in the reply), regular expressions → why.
INTENDED = [
    ("", "", "/DockerVersion", "the release that wherry says it is compatible with"),
    ("", "label!", "/status", "accepted here, as prunes and containerd's store do"),
    ("", "reference|until|UPPER|names=$|junk|short", "/status", "bad input is a 400"),
    ("image_archives", "", "/(error|errorDetail)", "what is missing is told without the path of a temporary file"),
    ("image_archives", "platform=.*arm64", "/(error|errorDetail)", "nothing to load is an error, not silence"),
    ("image_archives", "names=.*names=", "/index.json/4/manifests", "Docker forgets the image without a name"),
    ("image_archives", "/images/get$", "/(index.json|manifest.json)", "of nothing an empty list, which can be loaded"),
    ("image_archives", "load.quiet=0", "/body", "a layer is told as it comes, known or not"),
    ("image_archives", "images/create", "/status", "what is no URL is told so before anything is fetched"),
    ("image_removals", "tag[?]$", "/status", "a name is asked for, where Docker does nothing"),
    ("image_removals", "", "/(body|ImagesDeleted|bytes)", "Docker keeps a layer that nothing needs any more"),
]

CASES = [(talk.__name__, talk, ()) for talk in image_talks.SINGLE]
CASES += [(f"{t.__name__}-{v}", t, (v,)) for t in image_talks.BY_VERSION for v in image_talks.VERSIONS]


@pytest.mark.parametrize(("name", "talk", "arguments"), CASES, ids=[case[0] for case in CASES])
def test_it_answers_as_docker_does(host, name, talk, arguments):
    wire = Wire(host.address)
    try:
        talk(wire, *arguments)
    finally:
        image_talks.clear(wire)
    record = DATA / f"{name}.json"
    if RECORDING:
        record.write_text(json.dumps(wire.log, indent=0, ensure_ascii=True) + "\n")
        return
    theirs, ours = json.loads(record.read_text()), json.loads(json.dumps(wire.log))
    assert [entry[0] for entry in ours] == [entry[0] for entry in theirs], "the conversation took another course"
    unintended = [
        f"{their[0]}\n  {path}\n  Docker {json.dumps(docker)}\n  wherry {json.dumps(wherry)}"
        for their, our in zip(theirs, ours, strict=True)
        for path, docker, wherry in differences(their, our)
        if not intended(name, their[0], path)
    ]
    assert not unintended, "\n".join(unintended)


def intended(name: str, said: str, path: str) -> bool:
    return any(
        re.match(talk, name) and re.search(saying, said, re.DOTALL) and re.match(place, path)
        for talk, saying, place, _ in INTENDED
    )
