"""Versions, unknown routes, errors and bodies: what is the same for every call."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.api.fake import ID, container
from wherry import errors
from wherry.api import decode
from wherry.api.mediatype import check_json
from wherry.engine.create import CreateResult
from wherry.errors import InvalidArgument

DATA = Path(__file__).parent / "data"

PAGE = {"message": "page not found"}


def test_ping(call):
    reply = call("GET", "/_ping")
    assert (reply.status, reply.body) == (200, b"OK")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    expected = {
        "api-version": "1.51",
        "ostype": "linux",
        "server": "Docker/28.5.2 (linux)",
        "docker-experimental": "false",
        "swarm": "inactive",
        "cache-control": "no-cache, no-store, must-revalidate",
        "pragma": "no-cache",
    }
    assert expected.items() <= reply.headers.items()
    assert "builder-version" in reply.headers


def test_ping_by_head_has_no_body(call):
    reply = call("HEAD", "/_ping")
    assert reply.status == 200
    assert reply.headers["content-length"] == "0"
    assert reply.headers["api-version"] == "1.51"


@pytest.mark.parametrize("path", ["/_ping", "/v1.40/_ping", "/v1.51/_ping"])
def test_every_route_has_a_versioned_twin(call, path):
    assert call("GET", path).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("GET", "/v1.43/nope"),
        ("GET", "/v1.43"),
        ("GET", "/vx/_ping"),
        ("PUT", "/_ping"),
        ("POST", "/containers/json"),
        ("PATCH", "/version"),
        ("GET", "/"),
    ],
)
def test_unknown_routes_and_wrong_methods_are_not_found(call, method, path):
    reply = call(method, path)
    assert (reply.status, reply.json) == (404, PAGE)
    assert reply.headers["api-version"] == "1.51"


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/v1.43/../containers/json?all=1", "/containers/json?all=1"),
        ("/containers/../images/json", "/images/json"),
        ("/containers/x%20y/../a%25b/json", "/containers/a%25b/json"),
        ("/%2e%2e/_ping", "/_ping"),
        ("//_ping", "/_ping"),
        ("//host.example/_ping", "/host.example/_ping"),
        ("/containers//json", "/containers/json"),
        ("/..", "/"),
    ],
)
def test_a_path_with_empty_or_dot_segments_is_sent_to_the_clean_one(call, path, location):
    reply = call("GET", path)
    assert (reply.status, reply.headers["location"], reply.body) == (301, location, b"")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=%zz", 'invalid URL escape "%zz"'),
        ("limit=%", 'invalid URL escape "%"'),
        ("all=1;limit=2", "invalid semicolon separator in query"),
    ],
)
def test_a_query_that_is_no_form_is_refused_by_those_who_read_it(call, query, text):
    reply = call("GET", f"/containers/json?{query}")
    assert (reply.status, reply.json) == (400, {"message": text})
    assert call("GET", f"/_ping?{query}").status == 200


def test_too_new_and_too_old_versions(call):
    reply = call("GET", "/v1.99/_ping")
    assert reply.status == 400
    assert reply.json == {"message": "client version 1.99 is too new. Maximum supported API version is 1.51"}
    reply = call("GET", "/v1.39/_ping")
    assert reply.json == {
        "message": "client version 1.39 is too old. Minimum supported API version is 1.40, "
        "please upgrade your client to a newer version"
    }
    reply = call("GET", "/v1.10/_ping")
    assert (reply.status, reply.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    assert reply.body.startswith(b"client version 1.10 is too old.")


def test_names_with_slashes_and_escapes(call, engine, monkeypatch):
    seen = []
    monkeypatch.setattr(engine.images, "history", lambda name, platform: seen.append(name) or [])
    call("GET", "/images/registry.lan:5000/a/b:c/history")
    call("GET", "/images/a%2Fb/history")
    call("GET", "/v1.44/images/x@sha256:00/history")
    assert seen == ["registry.lan:5000/a/b:c", "a/b", "x@sha256:00"]


KINDS = {
    "NotFound": 404,
    "InvalidArgument": 400,
    "Conflict": 409,
    "Unauthorized": 401,
    "Forbidden": 403,
    "Unavailable": 503,
    "Unimplemented": 501,
    "Internal": 500,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_error_has_its_status(call, engine, monkeypatch, kind):
    engine.replace(monkeypatch, "stop.stop", error=errors.from_kind(kind, 'with "words"'))
    reply = call("POST", "/containers/x/stop")
    assert (reply.status, reply.json) == (KINDS[kind], {"message": 'with "words"'})
    assert reply.headers["content-type"] == "application/json"


def test_not_modified_has_no_body(call, engine, monkeypatch):
    engine.replace(monkeypatch, "start.start", error=errors.NotModified(""))
    reply = call("POST", "/containers/x/start")
    assert (reply.status, reply.body) == (304, b"")
    assert "content-length" not in reply.headers


def test_a_defect_is_reported_with_its_traceback(call, engine, monkeypatch, caplog):
    engine.replace(monkeypatch, "stop.stop", error=ZeroDivisionError("planted"))
    assert call("POST", "/containers/x/stop").status == 500
    assert "ZeroDivisionError" in caplog.text


def test_swarm_and_plugins(call):
    for path in ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/nodes/x", "/services/x/logs"):
        reply = call("GET", path)
        assert reply.status == 503
        assert reply.json["message"].startswith("This node is not a swarm manager. Use ")
    assert call("POST", "/swarm/leave").json == {"message": "This node is not part of a swarm"}
    assert call("GET", "/plugins").json == []
    assert call("GET", "/plugins/x/json").status == 404
    assert call("OPTIONS", "/anything").status == 200


@pytest.mark.parametrize("path", ["/plugins/privileges", "/containers/x/checkpoints"])
def test_what_is_missing_says_so(call, path):
    reply = call("GET", path)
    assert reply.status == 501
    assert reply.json["message"].startswith("not implemented: ")


# The replies of Docker 28.5 to the same bodies, except where Go names one of its types.
BODIES = [
    (b'{"Image":5}', "invalid JSON: json: cannot unmarshal number into Go struct field .Image of type string"),
    (b'{"Image":"x"} x', "unexpected content after JSON"),
    (b'{"Image":"x",', "invalid JSON: unexpected EOF"),
    (b" ", "invalid JSON: got EOF while reading request body"),
    (b"[]", "invalid JSON: json: cannot unmarshal array into Go value of type container.CreateRequest"),
    (
        b'{"Image":"x","HostConfig":5}',
        "invalid JSON: json: cannot unmarshal number into Go struct field .HostConfig of type container.HostConfig",
    ),
    (b"null", "config cannot be empty in order to create a container"),
    (b"{}", "config cannot be empty in order to create a container"),
    (
        b'{"Image":"x","HostConfig":{"Memory":"x"}}',
        "invalid JSON: json: cannot unmarshal string into Go struct field .HostConfig.Memory of type int64",
    ),
    (
        b'{"Image":"x","HostConfig":{"Memory":9223372036854775808}}',
        "invalid JSON: json: cannot unmarshal number 9223372036854775808 into Go struct field .HostConfig.Memory of "
        "type int64",
    ),
    (
        b'{"Image":"x","HostConfig":{"BlkioWeight":70000}}',
        "invalid JSON: json: cannot unmarshal number 70000 into Go struct field .HostConfig.BlkioWeight of type uint16",
    ),
    (
        b'{"Image":"x","Env":"x"}',
        "invalid JSON: json: cannot unmarshal string into Go struct field .Env of type []string",
    ),
    (
        b'{"Image":"x","Tty":"true"}',
        "invalid JSON: json: cannot unmarshal string into Go struct field .Tty of type bool",
    ),
]


@pytest.mark.parametrize(("body", "message"), BODIES)
def test_bodies_that_cannot_be_decoded(call, body, message):
    reply = call("POST", "/containers/create", body, Content_Type="application/json")
    assert (reply.status, reply.json) == (400, {"message": message})


@pytest.mark.parametrize(
    "body",
    [
        b"5",
        b'{"Image":"x","HostConfig":{"Memory":1e400}}',
        b'{"Image":"x","HostConfig":{"Memory":1.5}}',
        b'{"Image":"x","HostConfig":{"Memory":NaN}}',
        b'{"Image":"x","Cmd":[1]}',
        b'{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"bridge":5}}}',
        b"[" * 100_000,
        b'{"Image":"x","Labels":{"a":1}}',
    ],
)
def test_other_nonsense_is_refused_too(call, body):
    reply = call("POST", "/containers/create", body, Content_Type="application/json")
    assert reply.status == 400
    assert reply.json["message"].startswith("invalid JSON: ")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"}", "invalid character '}' looking for beginning of value"),
        (b'{"a"}', "invalid character '}' after object key"),
        (b"{'a': 1}", r"invalid character '\'' looking for beginning of object key string"),
        (b'{"a": 01}', "invalid character '1' after object key:value pair"),
        (b'{"a": [{"b": "]"} 2]}', "invalid character '2' after array element"),
        (b'{"a": NaN}', "invalid character 'N' looking for beginning of value"),
        (b"\xef\xbb\xbf{}", r"invalid character '\ufeff' looking for beginning of value"),
        (b'{"a": "x\ty"}', r"invalid character '\t' in string"),
        (b'{"a": "\x00"}', r"invalid character '\x00' in string"),
        (rb'{"a": "\x"}', r"invalid escape sequence `\x` in string"),
        (b'{"a": "b', "unexpected EOF"),
        (b'{"a": tru', "unexpected EOF"),
        (b'{"a": ', "unexpected EOF"),
        (b"[" * 100_000, "exceeded max depth"),
        (b'{"a":' * 100_000, "exceeded max depth"),
        (b'{"a": "\xff", "b": ' + b"1" * 5000 + b"}", "json: cannot unmarshal number: out of range"),
    ],
)
def test_syntax_errors_are_told_in_go_s_words(call, body, text):
    reply = call("POST", "/containers/create", body, Content_Type="application/json")
    assert (reply.status, reply.json) == (400, {"message": f"invalid JSON: {text}"})


@pytest.mark.parametrize(
    ("sent", "meant"),
    [(b"a\xff\xfeb", "a��b"), (b"\xe2\x82", "��"), (rb"\ud800x", "�x"), (rb"\ud83d\ude00", "😀")],
)
def test_what_is_no_text_becomes_the_replacement_character(call, engine, monkeypatch, sent, meant):
    engine.replace(monkeypatch, "create.create", CreateResult(ID, []))
    body = b'{"Image": "x", "Cmd": ["' + sent + b'"]}'
    assert call("POST", "/containers/create", body, Content_Type="application/json").status == 201
    ((_path, _args, options),) = engine.calls
    assert options["config"].Cmd == [meant]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (";", "malformed Content-Type header (;): mime: no media type"),
        ("application/", "malformed Content-Type header (application/): mime: expected token after slash"),
        ("a b", "malformed Content-Type header (a b): mime: expected slash after first token"),
        (
            "application/json, x/y",
            "malformed Content-Type header (application/json, x/y): mime: unexpected content after media subtype",
        ),
        ("application/json;x", "malformed Content-Type header (application/json;x): mime: invalid media parameter"),
        (
            "application/json; a=b; A=c",
            "malformed Content-Type header (application/json; a=b; A=c): mime: duplicate parameter name",
        ),
        ("text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        ("application", "unsupported Content-Type header (application): must be 'application/json'"),
    ],
)
def test_content_types_are_read_as_go_reads_them(call, given, problem):
    assert call("POST", "/containers/create", {}, Content_Type=given).json == {"message": problem}
    for good in ("APPLICATION/JSON", "application/json;", 'application/json; charset="utf-8"; x=y'):
        assert call("POST", "/containers/create", {}, Content_Type=good).json["message"].startswith("config cannot be")


def test_a_content_type_of_many_parameters_is_read_once():
    """Read anew for each, this would take hours."""
    check_json("application/json" + "".join(f"; p{number}=x" for number in range(1_000_000)) + " ;" * 1_000_000)


def test_other_bodies_name_their_types(call, monkeypatch):
    monkeypatch.setattr("wherry.engine.exec.find_exec", lambda _engine, _id: None)
    prefix = "invalid JSON: json: cannot unmarshal "
    expected = {
        "/volumes/create": ("Name", 5, "number into Go struct field CreateOptions.Name of type string"),
        "/exec/x/start": ("Tty", 5, "number into Go struct field ExecStartOptions.Tty of type bool"),
    }
    for path, (field, value, message) in expected.items():
        assert call("POST", path, {field: value}).json == {"message": prefix + message}
    for path, kind in {
        "/volumes/create": "volume.CreateOptions",
        "/containers/x/exec": "container.ExecOptions",
    }.items():
        assert call("POST", path, []).json == {"message": f"{prefix}array into Go value of type {kind}"}


def test_content_type_rules(call, engine, monkeypatch):
    engine.replace(monkeypatch, "create.create", SimpleNamespace(id="c" * 64, warnings=[]))
    body = b'{"Image":"x"}'
    for good in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        assert call("POST", "/containers/create", body, Content_Type=good).status == 201
    reply = call("POST", "/containers/create", body, Content_Type="text/plain")
    assert reply.json == {"message": "unsupported Content-Type header (text/plain): must be 'application/json'"}
    assert call("POST", "/containers/create", body).status == 400
    assert call("POST", "/containers/create").json == {"message": "invalid JSON: got EOF while reading request body"}


def test_create_decodes_flat_config_in_any_case(call, engine, monkeypatch):
    engine.replace(monkeypatch, "create.create", SimpleNamespace(id="c" * 64, warnings=[]))
    body = {
        "image": "x",
        "CMD": "one",
        "hostconfig": {"memory": 5, "PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
        "NetworkingConfig": None,
        "Unknown": {"ignored": True},
    }
    reply = call("POST", "/v1.44/containers/create?name=n&platform=linux/amd64", body)
    assert reply.json == {"Id": "c" * 64, "Warnings": []}
    _, _, asked = engine.calls[0]
    assert (asked["name"], asked["platform"]) == ("n", "linux/amd64")
    assert (asked["config"].Image, asked["config"].Cmd) == ("x", ["one"])
    assert asked["host_config"].Memory == 5
    assert asked["host_config"].PortBindings["80/tcp"][0].HostPort == "80"


def test_start_takes_no_body(call, engine, monkeypatch):
    engine.replace(monkeypatch, "start.start")
    assert call("POST", "/containers/x/start", b"{}").status == 204
    reply = call("POST", "/containers/x/start", {"Binds": []})
    assert reply.status == 400
    assert "non-empty request body" in reply.json["message"]


FALSE = ("", "0", "no", "False", "NONE")
TRUE = ("1", "true", "yes", "off", "2", "f")


@pytest.mark.parametrize(("value", "expected"), [(v, False) for v in FALSE] + [(v, True) for v in TRUE])
def test_truth_values(value, expected):
    assert decode.flag({"all": [value]}, "all") is expected
    assert decode.flag({}, "all", default=expected) is expected


def test_filters_in_both_forms():
    new = decode.filters({"filters": ['{"label":{"a=b":true,"c":true}}']})
    assert new == {"label": ["a=b", "c"]} == decode.filters({"filters": ['{"label":["a=b","c"]}']})
    assert decode.filters({}) == {}
    for bad in ("{", "5", "[]", '{"a":5}', '{"a":[1]}', '{"a":{"b":1}}'):
        with pytest.raises(InvalidArgument, match="invalid filter"):
            decode.filters({"filters": [bad]})


def test_unknown_filters_are_refused(call):
    for path in ("/containers/json", "/images/json", "/networks", "/volumes"):
        reply = call("GET", path + "?filters=%7B%22x%22%3A%5B%22y%22%5D%7D")
        assert (reply.status, reply.json) == (400, {"message": "invalid filter 'x'"})


def test_numbers_and_times(call):
    assert call("GET", "/containers/json?limit=x").json == {"message": 'strconv.Atoi: parsing "x": invalid syntax'}
    assert decode.timestamp({"since": ["1.5"]}, "since") == 1_500_000_000
    assert decode.timestamp({"since": ["7.000000001"]}, "since") == 7_000_000_001
    assert decode.timestamp({"since": ["0"]}, "since") is None
    for size in ("", "x", "-1", "99999999999"):
        reply = call("POST", f"/containers/x/resize?h={size}&w=5")
        assert reply.status == 400
        assert reply.json["message"].startswith(f'invalid resize height "{size}": ')


def test_keep_alive_after_errors(server, engine):
    engine.containers.add(container())
    with server.connect() as client:
        for _ in range(3):
            client.send(b"POST /containers/create HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd")
            assert client.read_reply()[0] == 400
            client.send(b"POST /nope HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
            assert client.read_reply()[0] == 404
        client.send(b"GET /_ping HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.read_reply()[2] == b"OK"


def test_every_row_of_the_table_answers(call, monkeypatch):
    """No row is shadowed by another: each pattern, filled in, finds itself."""
    from wherry.api.router import ROUTES, Router

    router = Router(ROUTES)
    for route in ROUTES:
        path = route.pattern.replace("{name}", "a/b").replace("{checkpoint}", "c")
        found = router.find(route.method, path)
        assert found is not None, route.pattern
        assert found[0] is route, f"{route.pattern} is shadowed by {found[0].pattern}"
        assert all(value in ("a/b", "c") for value in found[1].values())


def test_the_table_covers_the_whole_api():
    """The engine's part of the API's schema, row by row."""
    from wherry.api.router import ROUTES

    rows = {(route.method, route.pattern) for route in ROUTES}
    schema = (DATA / "endpoints.tsv").read_text().splitlines()
    wanted = {tuple(line.split("\t")) for line in schema}
    assert not {(m, p.replace("{id}", "{name}")) for m, p in wanted} - rows
