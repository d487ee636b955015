"""Whatever stands in a field of a create request: a container, or a refusal with a reason, at once. Never a 500."""

import http.client
import json
import socket
import urllib.parse
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from wherry.engine.model import ContainerConfig, EndpointSettings, HostConfig

BIG = (1 << 31, 1 << 32, (1 << 63) - 1, -(1 << 63))
TOO_BIG = (1 << 63, 1 << 64, 10**400, -(1 << 63) - 1)
# what Go's decoder refuses for a field of each type; None stands for every other type
WRONG: dict[type, tuple[str, ...]] = {
    str: ("1", "1.5", "true", "[]", '["x"]', "{}", '{"a": "b"}'),
    int: ('"x"', '""', "1.5", "true", "[]", "{}", "1e400", "-1e400", "NaN", *map(str, TOO_BIG)),
    bool: ('"true"', "1", "0", "[]", "{}"),
    list: ('"x\\u0000"', "1", "true", "{}", "[[[1]]]", "[1]", "[{}, 1]"),
    dict: ('"x"', "1", "true", "[]", '["x"]', '{"x": 1}', '{"x": [[1]]}'),
}
TEXTS = ("\0", "a\0b", "a\nb", "\r\nX: y", "..", "../../etc", "/", "//", "a:b:c:d:e", ":", "=", "-1", "x" * 100_000)
MEANINGFUL = {
    *((struct, '{"x": 1}') for struct in ("Healthcheck", "LogConfig", "RestartPolicy")),  # unknown keys are ignored
    *((struct, '{"x": [[1]]}') for struct in ("Healthcheck", "LogConfig", "RestartPolicy", "IPAMConfig")),
    ("IPAMConfig", '{"x": 1}'),
    ("ConsoleSize", "[1]"),  # an array of Go's: what is missing is zero
}


class Client:
    """A connection to the engine that is kept."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        """(status, decoded reply)."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("localhost", timeout=60)
            self._connection.sock = socket.socket(socket.AF_UNIX)
            self._connection.sock.connect(self._path)
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        reply = self._connection.getresponse()
        data = reply.read()
        if reply.will_close:
            self.close()
        return reply.status, json.loads(data) if data else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@pytest.fixture(scope="module")
def client(host):
    connection = Client(host.address.removeprefix("unix://"))
    yield connection
    connection.close()


def bare(hint: Any) -> type:
    """int for `int | None`, list for `list[str]` and `tuple[int, int]`."""
    options = [one for one in get_args(hint) or (hint,) if one is not type(None)]
    chosen = hint if getattr(hint, "__origin__", None) in (list, dict, tuple) else options[0]
    origin = getattr(chosen, "__origin__", chosen)
    return list if origin is tuple else dict if issubclass(origin, msgspec.Struct) else origin


def fields(kind: type) -> list[tuple[str, Any]]:
    return [(name, hint) for name, hint in get_type_hints(kind).items() if name in kind.__struct_fields__]


def request(kind: type, field: str, value: str) -> str:
    """A request that is right but for `field`; `value` is JSON text."""
    base = '"Image": "busybox"' + ("" if field == "Cmd" and kind is ContainerConfig else ', "Cmd": ["true"]')
    if kind is ContainerConfig:
        return f'{{{base}, "{field}": {value}}}' if field != "Image" else f'{{"Cmd": ["true"], "Image": {value}}}'
    if kind is HostConfig:
        return f'{{{base}, "HostConfig": {{"{field}": {value}}}}}'
    return f'{{{base}, "NetworkingConfig": {{"EndpointsConfig": {{"bridge": {{"{field}": {value}}}}}}}}}'


def samples(hint: Any) -> list[str]:
    """Values of the right type, as JSON text, that mean nothing or too much."""
    if hint is int:
        return [str(number) for number in (0, -1, *BIG)]
    if hint is str:
        return [json.dumps(text) for text in TEXTS]
    if hint is bool:
        return []
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return ["{}", *(f'{{"{n}": {v}}}' for n, h in fields(hint) for v in samples(_inner(h)))]
    inner = get_args(hint)
    if getattr(hint, "__origin__", None) is dict:
        keys = [f"{{{json.dumps(text)}: {json.dumps({str: ''}.get(inner[1]))}}}" for text in ("", *TEXTS)]
        return ["{}", *keys, *(f'{{"80/tcp": {v}}}' for v in samples(_inner(inner[1])))]
    if getattr(hint, "__origin__", None) in (list, tuple):
        return ["[]", *(f"[{v}]" for v in samples(_inner(inner[0])))]
    return []


def _inner(hint: Any) -> Any:
    options = [one for one in get_args(hint) if one is not type(None)]
    return options[0] if type(None) in get_args(hint) else hint


ALL = [(kind, name, hint) for kind in (ContainerConfig, HostConfig, EndpointSettings) for name, hint in fields(kind)]
IDS = [f"{kind.__name__}.{name}" for kind, name, _ in ALL]


def send(client: Client, body: str) -> tuple[int, Any]:
    """Create; what comes into being is removed."""
    status, reply = client.call("POST", "/containers/create", body)
    if status == 201:
        assert client.call("DELETE", f"/containers/{reply['Id']}?force=1&v=1")[0] == 204
    assert status < 500, f"{status} {reply} for {body[:300]}"
    if status >= 400:
        assert reply["message"].strip(), body[:300]
        assert "\0" not in reply["message"]
    return status, reply


@pytest.mark.parametrize(("kind", "field", "hint"), ALL, ids=IDS)
def test_a_value_of_another_type_is_refused(client, kind, field, hint):
    wanted = bare(hint)
    for value in WRONG[wanted]:
        if (field, value) in MEANINGFUL:
            continue
        status, reply = send(client, request(kind, field, value))
        assert status == 400, (value, status, reply)


@pytest.mark.parametrize(("kind", "field", "hint"), ALL, ids=IDS)
def test_a_senseless_value_is_taken_or_refused_at_once(client, kind, field, hint):
    for value in samples(_inner(hint)):
        status, reply = send(client, request(kind, field, value))
        assert status == 400 or r"\u0000" not in value, (value, status, reply)


@pytest.mark.parametrize("field", ["Hostname", "Domainname", "ExtraHosts", "Dns", "DnsSearch", "DnsOptions"])
def test_no_line_of_its_own_in_the_files_of_names(client, field):
    kind = ContainerConfig if field.endswith("name") else HostConfig
    text = "x:1.1.1.1\nnameserver 6.6.6.6"
    status, reply = send(client, request(kind, field, json.dumps(text if kind is ContainerConfig else [text])))
    assert status == 400
    assert field in reply["message"]


@pytest.mark.parametrize("cpus", ["1-9223372036854775807", "0-4294967295", "1-", "-1", "9" * 5000, "0," * 50_000])
def test_a_set_of_cpus_is_not_unrolled(client, cpus):
    """CVE-2018-20699."""
    for field in ("CpusetCpus", "CpusetMems"):
        status, _ = send(client, request(HostConfig, field, json.dumps(cpus)))
        assert status == 400


@pytest.mark.parametrize("depth", [100, 100_000])
def test_depth_is_no_way_to_end_the_engine(client, depth):
    for body in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        assert send(client, body)[0] == 400
        assert send(client, request(HostConfig, "Sysctls", body))[0] == 400


def test_the_engine_is_well_afterwards(host, client):
    assert client.call("GET", "/containers/json?all=1")[0] == 200
    assert "Traceback" not in host.log()


@pytest.mark.parametrize("path", ["containers/json?all=1&", "volumes?", "networks?"])
def test_expressions_that_backtracking_never_ends(host, name, path):
    """Each holds the engine up for longer than anybody lives, in an engine that backtracks."""
    long = "a" * 60 + "b"
    host.docker("volume", "create", long)
    host.docker("create", "--name", long, "busybox", "true")
    try:
        filters = json.dumps({"name": ["(a+)+$", "(a|a)*c", "(.*)*(.*)*(.*)*(.*)*x"]})
        status, answer = host.api("GET", f"/{path}filters={urllib.parse.quote(filters)}")
        assert status == 200
        assert long not in json.dumps(answer)
    finally:
        host.docker("rm", long)
        host.docker("volume", "rm", long)
