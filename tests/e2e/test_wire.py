"""What the engine answers equals what Docker answers, to the header and the field, for every API version it serves.

`data/wire/` was recorded from Docker 28.5 by running this file with WHERRY_TEST_AGAINST=unix:///…@netns
WHERRY_TEST_RECORD=1.
"""

import json
import os
import re
from pathlib import Path

import pytest

from . import conversations
from .conftest import AGAINST
from .wire import Wire

DATA = Path(__file__).parent / "data" / "wire"
RECORDING = AGAINST and os.environ.get("WHERRY_TEST_RECORD")

# Where wherry means to differ: (conversation, what is said, where in the reply), regular expressions → why.
OLD = r"^GET /v(0\.1|1|1\.5|1\.2[34]|1\.39|1\.|\.1)/"
INTENDED = [
    ("", "", "/header builder-version", "there is no BuildKit in the engine"),
    ("", "", "/HostConfig/Runtime", "the engine's own"),
    ("", "", "/State/StopReason", "an addition of wherry's"),
    ("versions", OLD, "", "versions before 1.40, long out of use, are not served"),
    (
        "(routes|system)",
        "/(version|info)$",
        "/(BuildT|Components|Git|Go|MinAPI|Platform|Version)",
        "another program",
    ),
    ("(routes|system)", "/info$", "/(Containerd|Runtimes|InitCommit)", "no containerd, and a runtime of the engine's"),
    ("system", "/info$", "/CDISpecDirs", "there are none without CDI"),
    ("routes", "^(GET|HEAD|PUT) /containers/none/archive", "", "the container is looked for first"),
    ("routes", "//(start|json)|%2Fa/json", "/status", "a slash before a name is the name's, where Docker redirects"),
    ("routes", "a%00b|%zz", "", "what is no path is refused by the server"),
    ("routes", "/networks/", "/[0-9]+/Options/com.docker.network.bridge.name", "it is not Docker's bridge"),
    ("routes", "^(GET /volumes|DELETE /containers)/$", "", "a resource without a name is no route"),
    ("swarm", "", "/status", "that there is no swarm is told before the parameters are looked at"),
    ("plugins", "/enable$", "/status", "there is no plugin, whatever the parameters"),
    ("(bodies|execs)", "", "/message", "the type is named less exactly, the map's key or the index not at all"),
    ("framing", "Content-Length: 3.*Transfer-Encoding", "/status", "refused: a proxy might read another length"),
    ("framing", "Host: a b|GET _ping|PRI ", "/status", "the server is less, or more, patient than Go's"),
    ("framing", "Expect: 100-continue", "/status", "who has sent the body needs no leave to send it"),
    (
        "life",
        "top -ef%20--forest|top -C",
        "/status",
        "ps is not executed: some options are refused",
    ),
    ("life", "", "/NetworkSettings/Networks/bridge/DNSNames", "the bridge has no DNS; Docker fills it in at a rename"),
    ("config", "kernel", "/(Warnings|HostConfig/KernelMemory)", "what the kernel ignores is told, not kept"),
    ("config", "subpath|image", "", "not supported yet"),
    ("config", "security|storage", "/status", "bad input is a 400"),
    ("streams", "/attach/ws", "/header connection", "told that the connection ends"),
]


@pytest.fixture(scope="module")
def wire_image(host):
    host.docker("tag", "busybox", conversations.IMAGE)
    yield
    host.docker("rmi", "-f", conversations.IMAGE)


CASES = [(talk.__name__, talk, ()) for talk in conversations.SINGLE]
CASES += [(f"{talk.__name__}-{v}", talk, (v,)) for talk in conversations.BY_VERSION for v in conversations.VERSIONS]


@pytest.mark.parametrize(("name", "talk", "arguments"), CASES, ids=[case[0] for case in CASES])
def test_it_answers_as_docker_does(host, wire_image, name, talk, arguments):
    wire = Wire(host.address)
    try:
        talk(wire, *arguments)
    finally:
        wire.clean_up()
    record = DATA / f"{name}.json"
    if RECORDING:
        record.write_text(json.dumps(wire.log, indent=0, ensure_ascii=True) + "\n")
        return
    theirs = json.loads(record.read_text())
    assert [entry[0] for entry in wire.log] == [entry[0] for entry in theirs], "the conversation took another course"
    unintended = []
    for their, our in zip(theirs, json.loads(json.dumps(wire.log)), strict=True):
        for path, docker, wherry in differences(their, our):
            reason = intended(name, their[0], path)
            text = f"{their[0]}\n  {path}\n  Docker {json.dumps(docker)}\n  wherry {json.dumps(wherry)}\n  {reason}"
            print(text)
            if reason is None:
                unintended.append(text)
    assert not unintended, "\n".join(unintended)


def intended(name: str, said: str, path: str) -> str | None:
    for talk, saying, place, reason in INTENDED:
        if re.match(talk, name) and re.search(saying, said, re.DOTALL) and re.match(place, path):
            return reason
    return None


def differences(theirs, ours):
    """The places in which two replies differ: (path, theirs, ours)."""
    _, status, headers, body = theirs
    if status != ours[1]:
        yield "/status", [status, body], [ours[1], ours[3]]
        return
    for header in sorted(headers.keys() | ours[2].keys()):
        if headers.get(header) != ours[2].get(header):
            yield f"/header {header}", headers.get(header), ours[2].get(header)
    yield from _leaves(body, ours[3], "")


def _leaves(theirs, ours, path):
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            if key in theirs and key in ours:
                yield from _leaves(theirs[key], ours[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}", theirs.get(key, "(absent)"), ours.get(key, "(absent)")
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for index, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from _leaves(*pair, f"{path}/{index}")
    elif theirs != ours or type(theirs) is not type(ours):
        yield path or "/body", theirs, ours
