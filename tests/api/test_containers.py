"""Lists and their filters, and how verbs reach the engine."""

import json
import urllib.parse

import pytest

from tests.api.fake import ID, IMAGE_ID, container
from wherry.engine.model import Health, MountPoint, PortBinding, State
from wherry.errors import NotFound

OTHER = "4" * 64


@pytest.fixture
def two(engine):
    """A running `web` with a port, a volume and labels, and a younger, exited `job`."""
    web = container(
        ports={"80/tcp": [PortBinding("0.0.0.0", "8080")], "90/udp": None},
        mounts=[MountPoint(Type="volume", Name="data", Source="/v/data/_data", Destination="/data")],
    )
    web.config.Labels = {"a": "b", "c": "d"}
    web.config.ExposedPorts = {"80/tcp": {}, "90/udp": {}}
    web.state.health = Health("healthy")
    exited = State(status="exited", exit_code=3, started_at=1, finished_at=2)
    job = container("job", OTHER, created=container().created + 10**9, state=exited)
    engine.containers.add(web)
    engine.containers.add(job)
    return engine


def names(call, query="", **filters):
    if filters:
        encoded = urllib.parse.quote(json.dumps({key.replace("_", "-"): value for key, value in filters.items()}))
        query += f"&filters={encoded}"
    reply = call("GET", f"/containers/json?{query}")
    assert reply.status == 200, reply.json
    return [entry["Names"][0][1:] for entry in reply.json]


def test_which_are_listed(two, call):
    assert names(call) == ["web"]
    assert names(call, "all=1") == ["job", "web"]
    assert names(call, "limit=1") == ["job"]
    assert names(call, "limit=-1") == ["web"]


FILTERS = [
    ({"name": ["we"]}, ["web"]),
    ({"name": ["^/web$"]}, ["web"]),
    ({"name": ["^web$"]}, ["web"]),
    ({"name": ["["]}, []),
    ({"name": ["x"]}, []),
    ({"id": [ID[:12]]}, ["web"]),
    ({"label": ["a"]}, ["web"]),
    ({"label": ["a=b", "c=d"]}, ["web"]),
    ({"label": ["a=b", "c=x"]}, []),
    ({"status": ["exited"]}, ["job"]),
    ({"status": ["exited", "running"]}, ["job", "web"]),
    ({"exited": ["3"]}, ["job"]),
    ({"exited": ["0"]}, []),
    ({"health": ["healthy"]}, ["web"]),
    ({"health": ["none"]}, ["job"]),
    ({"volume": ["data"]}, ["web"]),
    ({"volume": ["/data"]}, ["web"]),
    ({"volume": ["dat"]}, []),
    ({"publish": ["8080"]}, ["web"]),
    ({"publish": ["8000-9000/tcp"]}, ["web"]),
    ({"publish": ["8080/udp"]}, []),
    ({"expose": ["90/udp"]}, ["web"]),
    ({"expose": ["80-90"]}, ["web"]),
    ({"is_task": ["true"]}, []),
    ({"is_task": ["false"]}, ["job", "web"]),
    ({"before": ["job"]}, ["web"]),
    ({"since": ["web"]}, ["job"]),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=str)
def test_filters(two, call, filters, expected):
    assert names(call, "all=1", **filters) == expected


# What Docker 28.5 says to the same filters.
BAD_FILTERS = [
    (
        {"status": ["y"]},
        400,
        "invalid filter 'status=y': invalid value for state (y): "
        "must be one of created, running, paused, restarting, removing, exited, dead",
    ),
    (
        {"health": ["x"]},
        400,
        "invalid filter 'health=x': invalid value for health (x): must be one of none, starting, healthy, unhealthy",
    ),
    ({"exited": ["x"]}, 400, "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"),
    ({"is-task": ["x"]}, 400, "invalid filter 'is-task=[x]'"),
    (
        {"publish": ["x"]},
        500,
        'error while looking up for publish x: strconv.ParseUint: parsing "x": invalid syntax',
    ),
    ({"expose": ["x"]}, 500, 'error while looking up for expose x: strconv.ParseUint: parsing "x": invalid syntax'),
    ({"before": ["x"]}, 404, "No such container: x"),
]


@pytest.mark.parametrize(("filters", "status", "message"), BAD_FILTERS, ids=str)
def test_filter_values_that_cannot_be(two, call, filters, status, message):
    reply = call("GET", "/containers/json?filters=" + urllib.parse.quote(json.dumps(filters)))
    assert (reply.status, reply.json) == (status, {"message": message})


def test_filter_by_a_container_that_is_not(two, call):
    assert call("GET", "/containers/json?filters=" + urllib.parse.quote('{"since":["nope"]}')).status == 404


def test_ancestor_means_the_image_and_what_was_made_from_it(two, call):
    from types import SimpleNamespace

    child = "sha256:" + "c" * 64
    two.containers.get(OTHER).record.image_id = child
    two.images.by_name["apirec:1"] = SimpleNamespace(id=IMAGE_ID, diff_ids=["d1"])
    two.images.by_name["child:1"] = SimpleNamespace(id=child, diff_ids=["d1", "d2"])
    assert names(call, "all=1", ancestor=["apirec:1"]) == ["job", "web"]
    assert names(call, "all=1", ancestor=["child:1"]) == ["job"]
    assert names(call, "all=1", ancestor=["nope"]) == []


def test_image_is_shown_by_id_once_its_name_means_another(two, call):
    from types import SimpleNamespace

    two.images.by_name["apirec:1"] = SimpleNamespace(id=IMAGE_ID)
    assert call("GET", "/containers/json").json[0]["Image"] == "apirec:1"
    two.images.by_name["apirec:1"].id = "sha256:" + "f" * 64
    assert call("GET", "/containers/json").json[0]["Image"] == IMAGE_ID
    two.images.by_name.clear()
    assert call("GET", "/containers/json").json[0]["Image"] == IMAGE_ID


def test_ports_of_a_list(two, call):
    assert call("GET", "/containers/json").json[0]["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 90, "Type": "udp"},
    ]


def test_sizes_are_measured_without_following_links(two, call, tmp_path):
    upper = two.paths.upper(ID)
    upper.mkdir(parents=True)
    (upper / "file").write_bytes(b"x" * 1000)
    (tmp_path / "outside").write_bytes(b"x" * 5_000_000)
    (upper / "link").symlink_to(tmp_path / "outside")
    (upper / "directory").symlink_to("/usr")
    reply = call("GET", "/containers/web/json?size=1").json
    assert 1000 <= reply["SizeRw"] < 5000
    assert "SizeRw" not in call("GET", "/containers/web/json").json


def test_inspect_finds_by_any_name(two, call):
    for ref in ("web", "/web", ID, ID[:12]):
        assert call("GET", f"/containers/{ref}/json").json["Id"] == ID
    reply = call("GET", "/containers/nope/json")
    assert (reply.status, reply.json) == (404, {"message": "No such container: nope"})


VERBS = [
    ("POST", "stop?t=5&signal=INT", "stop.stop", ("x",), {"timeout": 5, "signal": "INT"}, 204),
    ("POST", "stop", "stop.stop", ("x",), {"timeout": None, "signal": None}, 204),
    ("POST", "stop?t=-1", "stop.stop", ("x",), {"timeout": -1, "signal": None}, 204),
    ("POST", "restart?t=0", "stop.restart", ("x",), {"timeout": 0, "signal": None}, 204),
    ("POST", "kill?signal=9", "stop.kill", ("x", "9"), {}, 204),
    ("POST", "pause", "stop.pause", ("x",), {}, 204),
    ("POST", "unpause", "stop.unpause", ("x",), {}, 204),
    ("POST", "start?detachKeys=a", "start.start", ("x",), {"detach_keys": "a"}, 204),
    ("POST", "rename?name=y", "rename.rename", ("x", "y"), {}, 204),
    ("POST", "resize?h=10&w=20", "resize.resize", ("x", 10, 20), {}, 200),
    ("DELETE", "?v=1&force=true", "remove.remove", ("x",), {"force": True, "volumes": True, "link": False}, 204),
]


@pytest.mark.parametrize(("method", "verb", "function", "args", "kwargs", "status"), VERBS, ids=lambda v: str(v))
def test_verbs(call, engine, monkeypatch, method, verb, function, args, kwargs, status):
    engine.replace(monkeypatch, function)
    separator = "" if verb.startswith("?") else "/"
    reply = call(method, f"/v1.44/containers/x{separator}{verb}")
    assert (reply.status, reply.body) == (status, b"")
    assert engine.calls == [(function, args, kwargs)]


def test_top(call, engine, monkeypatch):
    engine.replace(monkeypatch, "top.top", (["PID", "CMD"], [["1", "sh"]]))
    assert call("GET", "/containers/x/top?ps_args=-o+pid").json == {
        "Processes": [["1", "sh"]],
        "Titles": ["PID", "CMD"],
    }
    assert engine.calls[0][1] == ("x", "-o pid")
    engine.replace(monkeypatch, "top.top", error=NotFound("No such container: x"))
    assert call("GET", "/containers/x/top").status == 404
