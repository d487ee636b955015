"""Whatever is asked of any route, in any parameter and any field: an answer, soon, that is no 5xx but a known one; and
the engine is well afterwards."""

import json
import re
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from wherry.api.router import ROUTES

from .host import Host
from .wire import Wire

# 5xx that Docker gives, too, for the same kind of request.
KNOWN = re.compile(
    r"strconv\.|ps: error|Couldn't find PID|error while looking up for|should not contain ':'|not implemented"
    r"|swarm|Invalid escape keys|not supported|is not paused|Cannot link|default link name|invalid reference"
    r"|dial tcp|no Host in request URL|no such host"
)
STREAMING = ("/events", "/attach/ws", "/attach", "/session", "/grpc")
PARAMETERS = (
    "all", "before", "buildargs", "changes", "comment", "condition", "container", "copyUIDGID",
    "detachKeys", "dangling",
    "filters", "follow", "force", "fromImage", "fromSrc", "h", "limit", "link", "logs", "message", "name", "noprune",
    "one-shot", "path", "pause", "platform", "ps_args", "repo", "shared-size", "signal", "since", "size", "stderr",
    "stdout", "stream", "t", "tag", "tail", "term", "timestamps", "type", "until", "v", "verbose", "version", "w",
)  # fmt: skip
FIELDS = (
    "Cmd", "Image", "Env", "HostConfig", "NetworkingConfig", "Labels", "Tty", "Detach", "ConsoleSize", "Memory",
    "CpuShares", "CpusetCpus",
    "RestartPolicy", "PidsLimit", "Name", "Driver", "DriverOpts", "Container", "EndpointConfig", "IPAM",
    "Binds", "Mounts", "PortBindings", "ExposedPorts", "Volumes", "Healthcheck", "User", "WorkingDir", "DetachKeys",
    "AttachStdout", "Ulimits", "Devices", "Sysctls", "LogConfig", "StopSignal", "ExtraHosts",
    "username", "serveraddress",
)  # fmt: skip
NAMES = (
    "wirefuzz",
    "wirefuzzstopped",
    "none",
    "busybox",
    "bridge",
    "host",
    "../x",
    "a/b",
    "%00",
    "%ff",
    "",
    "-",
    "x" * 300,
)

words = st.sampled_from(
    [
        "",
        "0",
        "1",
        "-1",
        "true",
        "x",
        "*",
        "(",
        "9" * 30,
        "1.5",
        "a:b",
        "../..",
        "\x00",
        "é",
        "{}",
        "[]",
        "null",
        "10-1",
    ]
)
texts = st.one_of(words, st.text(max_size=12))
filters = st.dictionaries(
    st.sampled_from(["name", "id", "label", "status", "until", "dangling", "type", "before", "publish", "nosuch"]),
    st.one_of(st.lists(texts, max_size=2), st.dictionaries(texts, st.booleans(), max_size=2), texts),
    max_size=2,
).map(json.dumps)
queries = st.lists(st.tuples(st.sampled_from(PARAMETERS), st.one_of(texts, filters)), max_size=4)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(FIELDS), texts), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from(FIELDS), values, max_size=5).map(json.dumps).map(str.encode)
bodies = st.one_of(st.none(), objects, st.binary(max_size=40), objects.map(lambda text: text[: len(text) // 2]))
versions = st.sampled_from(["", "/v1.40", "/v1.43", "/v1.51"])
routes = st.sampled_from([route for route in ROUTES if not route.pattern.endswith(STREAMING)])


@pytest.fixture(scope="module")
def fuzzed():
    own = Host().start()  # what is asked for may be the end of its images
    own.import_busybox()
    yield own
    own.close()


@pytest.fixture
def engine(fuzzed):
    fuzzed.docker("run", "-d", "--name", "wirefuzz", "busybox", "sleep", "1000", check=False)
    fuzzed.docker("create", "--name", "wirefuzzstopped", "busybox", "true", check=False)
    return Wire(fuzzed.address)


def target(pattern: str, name: str, query: list[tuple[str, str]]) -> str:
    path = re.sub(r"\{\w+\}", lambda _: name if name.startswith("%") else quote(name, safe="/"), pattern)
    return path + "?" * bool(query) + "&".join(f"{key}={quote(value)}" for key, value in query)


def ask(engine: Wire, method: str, path: str, body: bytes | None) -> None:
    reply = engine.quietly(method, path, body)
    assert reply.status, f"no answer to {method} {path} {body!r}: {reply.body!r}"
    if reply.status >= 500 and path.partition("?")[0].rpartition("/")[2] != "auth":  # any bad body is, in Docker's
        assert KNOWN.search(reply.body.decode()), f"{method} {path} {body!r}\n{reply}"
    if reply.status >= 400 and reply.headers.get("content-type") == "application/json" and method != "HEAD":
        assert reply.json()["message"].strip(), (method, path)


def fuzz(examples: int):
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < 10_000,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(route=routes, version=versions, name=st.sampled_from(NAMES), query=queries, body=bodies)
    def run(engine, route, version, name, query, body):
        if route.pattern.endswith(("/wait", "/logs", "/stats", "/stop", "/restart")):
            # those may take their time, by request
            query = [pair for pair in query if pair[0] not in ("follow", "condition", "stream", "t")]
            query += [("stream", "0"), ("one-shot", "1"), ("t", "0")]
            name = "wirefuzzstopped" if route.pattern.endswith("/wait") else name
        ask(engine, route.method, version + target(route.pattern, name, query), body)

    return run


def well(engine: Wire, host: Host) -> None:
    log = (host.root / "wherryd.log").read_text()
    assert "Traceback" not in log, log
    assert engine.quietly("GET", "/_ping").body == b"OK"
    assert engine.quietly("GET", "/containers/json?all=1").status == 200


@pytest.mark.timeout(900)
def test_no_request_is_too_strange(engine, fuzzed):
    fuzz(3000)(engine)
    well(engine, fuzzed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_request_is_too_strange_for_long(engine, fuzzed):
    fuzz(60_000)(engine)
    well(engine, fuzzed)
