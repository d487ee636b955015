"""What needs no kernel: words, filters, columns, names."""

import asyncio
import re

import pytest

from wherry.engine import detach_keys, names, regex, top
from wherry.engine.containers import STATUSES, TABLE, Entry, Refusal
from wherry.engine.events import HISTORY, QUEUE_LIMIT, EventBus
from wherry.engine.limits import parse_cpuset
from wherry.engine.model import (
    Container,
    ContainerConfig,
    Health,
    HostConfig,
    Mount,
    State,
    from_wire,
    to_wire,
)
from wherry.engine.mounts import parse_bind, parse_mode, parse_mount
from wherry.engine.ports import check_bindings, expand, parse_range
from wherry.engine.signals import parse_signal
from wherry.engine.status import human_duration, status_text
from wherry.engine.validate import clean
from wherry.errors import Conflict, Internal, InvalidArgument, NotModified

S = 1_000_000_000

ROOTS = ("/var/lib/wherry", "/run/wherry")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.3, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_durations_are_worded_as_docker_words_them(seconds: float, words: str) -> None:
    assert human_duration(int(seconds * S)) == words


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(status="running", started_at=100 * S), "Up 5 seconds"),
        (State(status="paused", started_at=100 * S), "Up 5 seconds (Paused)"),
        (State(status="running", started_at=100 * S, health=Health("healthy")), "Up 5 seconds (healthy)"),
        (State(status="running", started_at=100 * S, health=Health("starting")), "Up 5 seconds (health: starting)"),
        (State(status="exited", started_at=1, finished_at=100 * S, exit_code=3), "Exited (3) 5 seconds ago"),
        (State(status="restarting", started_at=1, finished_at=100 * S, exit_code=1), "Restarting (1) 5 seconds ago"),
        (State(status="removing"), "Removal In Progress"),
        (State(status="dead"), "Dead"),
    ],
)
def test_status_text(state: State, text: str) -> None:
    assert status_text(state, 105 * S) == text


def test_every_action_knows_only_real_states() -> None:
    for action, row in TABLE.items():
        for state, outcome in row.items():
            assert state in STATUSES, action
            assert isinstance(outcome, Refusal) or outcome in STATUSES, action


def entry(status: str) -> Entry:
    record = Container("c" * 64, "web", 1, "", "x", [], ContainerConfig(), HostConfig(), state=State(status=status))
    return Entry(record)


def test_refusals_use_dockers_words() -> None:
    with pytest.raises(NotModified):
        entry("running").check("start")
    with pytest.raises(Conflict, match=r"^cannot start a paused container, try unpause instead$"):
        entry("paused").check("start")
    with pytest.raises(Conflict, match=f"^cannot kill container: w: container {'c' * 64} is not running$"):
        entry("exited").check("kill", "w")
    with pytest.raises(Conflict, match='cannot remove container "w": container is running: stop the container before'):
        entry("running").check("remove", "w")
    with pytest.raises(Internal, match=rf"^Container {'c' * 64} is not paused$"):
        entry("running").check("unpause")
    assert entry("exited").check("start") == "running"


def test_wire_round_trip_is_dockers_null_and_empty() -> None:
    host = from_wire(HostConfig, {"binds": ["/a:/b"], "Dns": [], "capadd": "ALL", "PidsLimit": None, "Unknown": 1})
    shown = to_wire(host)
    assert shown["Binds"] == ["/a:/b"]
    assert shown["CapAdd"] == ["ALL"]
    assert shown["Dns"] == []
    assert shown["DnsSearch"] is None
    assert shown["PidsLimit"] is None
    assert not {"Mounts", "Tmpfs", "Sysctls", "Init", "Annotations", "StorageOpt"} & set(shown)
    assert from_wire(HostConfig, shown) == host
    with pytest.raises(InvalidArgument, match="Memory"):
        from_wire(HostConfig, {"Memory": "much"})


def test_binds() -> None:
    point = parse_bind("/tmp//x/:/y/../z:ro,rslave", ROOTS)
    assert (point.Type, point.Source, point.Destination, point.RW, point.Propagation) == (
        "bind",
        "/tmp/x",
        "/z",
        False,
        "rslave",
    )
    assert parse_bind("/:/host", ROOTS).Propagation == "rslave"
    assert parse_bind("/run:/run", ROOTS).Propagation == parse_bind("/var/lib/wherry:/x", ROOTS).Propagation == "rslave"
    assert parse_bind("/run/wher:/run", ROOTS).Propagation == "rprivate"
    volume = parse_bind("data:/d", ROOTS)
    assert (volume.Type, volume.Name, volume.Mode, volume.Driver) == ("volume", "data", "z", "local")


@pytest.mark.parametrize(
    ("spec", "kind", "text"),
    [
        ("", InvalidArgument, "invalid volume specification: ''"),
        ("a:b:c:d", InvalidArgument, "invalid volume specification: 'a:b:c:d'"),
        ("/a:/b:foo", InvalidArgument, "invalid mode: foo"),
        ("/a:/b:ro,rw", InvalidArgument, "invalid mode: ro,rw"),
        ("/a:b", InvalidArgument, "mount path must be absolute"),
        ("/a:/", InvalidArgument, "destination can't be '/'"),
        ("a:/b", InvalidArgument, "volume name is too short"),
        ("rel/x:/b", InvalidArgument, "includes invalid characters for a local volume name"),
        ("/a:/b:nocopy", InvalidArgument, "field VolumeOptions must not be specified"),
    ],
)
def test_bad_binds(spec: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        parse_bind(spec, ROOTS)


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        ({"Type": "bind", "Target": "/x"}, "field Source must not be empty"),
        (
            {"Type": "bind", "Source": "/no/such/thing", "Target": "/x"},
            "bind source path does not exist: /no/such/thing",
        ),
        ({"Type": "tmpfs", "Source": "a", "Target": "/x"}, "field Source must not be specified"),
        ({"Type": "foo", "Target": "/x"}, 'invalid mount config for type "foo": mount type unknown'),
        ({"Type": "volume", "Target": "x"}, "mount path must be absolute"),
        (
            {"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}},
            "must not set Subpath when using anonymous volumes",
        ),
        (
            {"Type": "bind", "Source": "/tmp", "Target": "/x", "VolumeOptions": {}},
            'VolumeOptions must not be specified on mount type "bind"',
        ),
    ],
)
def test_bad_mounts(mount: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(text)):
        parse_mount(from_wire(Mount, mount), ROOTS)


def test_modes_take_one_word_of_each_kind() -> None:
    assert parse_mode("ro,z,rshared,nocopy") == (False, "rshared", True)
    with pytest.raises(InvalidArgument):
        parse_mode("z,Z")


def test_paths_are_cleaned_like_go_does() -> None:
    assert clean("//x/./y/../z/") == "/x/z"
    assert clean("/") == "/"


def test_signals() -> None:
    assert [parse_signal(s) for s in ("KILL", "sigterm", "9", "RTMIN+3", "SIGRTMAX")] == [9, 15, 9, 37, 64]
    for bad in ("FOO", "0", "", "RTMIN+99"):
        with pytest.raises(InvalidArgument, match="invalid signal"):
            parse_signal(bad)


def test_ports() -> None:
    assert expand(["80", "81-82/udp", "x/tcp", "80/tcp"]) == ["80/tcp", "81/udp", "82/udp"]
    assert parse_range("100-200") == (100, 200)
    for bad in ("x", "70000", "9-8", "-1"):
        with pytest.raises(InvalidArgument, match="invalid port specification"):
            parse_range(bad)
    with pytest.raises(InvalidArgument, match='invalid port specification: "x"'):
        check_bindings(from_wire(HostConfig, {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}).PortBindings)


def test_cpusets() -> None:
    assert parse_cpuset("0-2,4") == {0, 1, 2, 4}
    assert parse_cpuset("a") is None
    assert parse_cpuset("0,9-1") is None
    assert parse_cpuset("1-1") == {1}


def test_detach_keys() -> None:
    assert detach_keys.parse("") == b"\x10\x11"
    assert detach_keys.parse("ctrl-a,x,ctrl-]") == b"\x01x\x1d"
    with pytest.raises(InvalidArgument, match=r"Invalid detach keys \(zz\) provided"):
        detach_keys.parse("zz")


def test_generated_names_are_valid_and_free() -> None:
    assert re.fullmatch(r"[a-z]+_[a-z]+", names.generate(lambda _: False))
    assert re.fullmatch(r"[a-z]+_[a-z]+_[0-9a-f]{8}", names.generate(lambda _: True))


@pytest.mark.parametrize(
    ("arguments", "titles"),
    [
        ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
        ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("-aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("faux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("l", "F UID PID PPID PRI NI VSZ RSS WCHAN STAT TTY TIME COMMAND"),
        ("-e", "PID TTY TIME CMD"),
        ("-o pid,comm", "PID COMMAND"),
        ("-eo pid,args", "PID COMMAND"),
        ("axo pid,comm", "PID COMMAND"),
        ("-o user -o pid", "USER PID"),
        ("-o pid,comm=a,b", "PID a,b"),
    ],
)
def test_ps_arguments(arguments: str, titles: str) -> None:
    assert " ".join(column.title for column in top.parse_arguments(arguments)) == titles


@pytest.mark.parametrize("arguments", ["-o nope", "-Z", "pid", "-o"])
def test_bad_ps_arguments(arguments: str) -> None:
    with pytest.raises(Internal, match=r"^ps: error: "):
        top.parse_arguments(arguments)


def collect(bus: EventBus, **options: object) -> list[str]:
    async def read() -> list[str]:
        return [m["Action"] async for m in bus.subscribe(**options)]  # type: ignore[arg-type]

    return asyncio.run(read())


def test_events_are_remembered_and_filtered() -> None:
    bus = EventBus()
    for n in range(HISTORY + 5):
        bus.publish("container", f"a{n}", "id1", {"name": "web", "image": "busybox:1", "x": "y"})
    bus.publish("network", "connect", "n1", {"container": "id1", "name": "bridge"})
    bus.publish("container", "exec_start: sh -c x", "id2", {"name": "db"})
    now = 2**62
    everything = collect(bus, since_ns=0, until_ns=1 << 61) if now < 0 else None
    assert everything is None
    end = bus._history[-1]["timeNano"]

    def past(**filters: list[str]) -> list[str]:
        return collect(bus, since_ns=0, until_ns=end, filters=filters)

    assert len(past()) == HISTORY
    assert past(type=["network"]) == ["connect"]
    assert past(container=["id2"]) == ["exec_start: sh -c x"]
    assert "connect" not in past(container=["id1"]), "only the actor counts, not whom it is about"
    assert past(network=["bri"]) == past(network=["n1"]) == ["connect"]
    assert past(event=["exec_start"]) == ["exec_start: sh -c x"]
    assert past(event=["exec"]) == []
    assert past(image=["busybox"]) == past(label=["x=y"]) != []
    assert past(container=["web"], event=["a200"]) == ["a200"]


def test_a_subscriber_that_does_not_read_is_ended() -> None:
    async def go() -> None:
        bus = EventBus()
        slow = bus.subscribe()
        for _ in range(QUEUE_LIMIT + 10):
            bus.publish("container", "x", "id", {})
        assert bus.listeners == 0
        assert len([m async for m in slow]) == QUEUE_LIMIT + 1

    asyncio.run(go())


def test_times_of_events_only_grow() -> None:
    bus = EventBus()
    for _ in range(100):
        bus.publish("container", "x", "id", {})
    times = [m["timeNano"] for m in bus._history]
    assert times == sorted(set(times))


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("", "x", True),
        ("web", "my-web-1", True),
        ("we.", "web", True),
        ("^web$", "web-1", False),
        ("(?i)WEB", "web", True),
        (r"\Aweb\z", "web", True),
        ("[[:digit:]]", "web-1", True),
        ("é", "caf\u00e9", True),
        ("^.$", "\ud800", True),
        ("(a+)+$", "a" * 5000 + "b", False),
        ("(.*)*(.*)*(.*)*x", "a" * 5000, False),
    ],
)
def test_expressions_of_clients(pattern, text, found):
    assert regex.compile_search(pattern)(text) is found


def test_expressions_nobody_can_read():
    for pattern in ("(a", "(?=a)", r"(a)\1", "a{1001}"):
        with pytest.raises(ValueError, match=r"^error parsing regexp: .*: `"):
            regex.compile_search(pattern)
