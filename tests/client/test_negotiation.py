"""Which version requests are made with, how often an engine is asked, and how many requests are under way at once."""

import threading

import pytest

from tests.cli.fake_engine import FakeEngine, Reply, as_json
from wherry.client.endpoints import Endpoint
from wherry.client.engine import MAX_PARALLEL, Engine
from wherry.client.errors import APIError


class OldEngine(FakeEngine):
    """An engine that speaks API 1.44 at most and names its version, or not, in every reply."""

    def __init__(self, path, header=b"Api-Version: 1.44"):
        self.targets, self.header = [], header
        super().__init__(path, {"GET /thing": as_json({"is": "there"}), "POST /bad": as_json({"message": "no"}, 400)})

    def _serve(self, connection):
        super()._serve(Rewriting(connection, self))


class Rewriting:
    """A connection that shows the request lines, refuses new versions and replaces the header in the replies."""

    def __init__(self, connection, engine):
        self._connection, self._engine, self._too_new = connection, engine, False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._connection.close()

    def recv(self, size):
        data = self._connection.recv(size)
        if b" HTTP/1.1\r\n" in data:
            target = data.split(b" ")[1].decode()
            self._engine.targets.append(target)
            self._too_new = target.startswith(("/v1.45", "/v1.51"))
        return data

    def sendall(self, data):
        if self._too_new:
            message = b'{"message":"client version 1.51 is too new. Maximum supported API version is 1.44"}'
            data = b"HTTP/1.1 400 Bad Request\r\nApi-Version: 1.51\r\nContent-Type: application/json\r\n"
            data += b"Content-Length: %d\r\n\r\n%b" % (len(message), message)
        self._connection.sendall(data.replace(b"Api-Version: 1.51", self._engine.header))


def client(fake, version=""):
    return Engine(Endpoint(fake.host), version)


def test_no_request_is_spent_on_the_version(tmp_path):
    with FakeEngine(str(tmp_path / "s"), {"GET /thing": as_json(1)}) as fake:
        engine = client(fake)
        assert engine.json("GET", "/thing") == 1
        assert engine.version == "1.51"
        engine.close()
        assert [request.path for request in fake.requests] == ["/thing"]


def test_an_older_engine_is_asked_again_with_its_version(tmp_path):
    with OldEngine(str(tmp_path / "s")) as fake:
        engine = client(fake)
        assert engine.json("GET", "/thing") == {"is": "there"}
        assert engine.json("GET", "/thing") == {"is": "there"}
        assert engine.version == "1.44"
        engine.close()
        assert fake.targets == ["/v1.51/thing", "/v1.44/thing", "/v1.44/thing"]


def test_an_engine_whose_errors_do_not_name_its_version_is_pinged(tmp_path):
    with OldEngine(str(tmp_path / "s"), header=b"X-Nothing: 0") as fake:
        engine = client(fake)
        assert engine.json("GET", "/thing") == {"is": "there"}
        engine.close()
        assert fake.targets == ["/v1.51/thing", "/_ping", "/v1.24/thing"]


def test_a_bad_request_is_not_repeated(tmp_path):
    with FakeEngine(str(tmp_path / "s"), {"POST /bad": as_json({"message": "no"}, 400)}) as fake:
        engine = client(fake)
        with pytest.raises(APIError, match="no"):
            engine.call("POST", "/bad", None, {"a": 1})
        engine.close()
        assert len(fake.requests) == 1


def test_a_stream_is_sent_once_to_an_older_engine(tmp_path):
    with OldEngine(str(tmp_path / "s")) as fake:
        fake.routes["POST /load"] = Reply(200)
        engine = client(fake)
        assert engine.call("POST", "/load", None, iter([b"abc"])) == 200
        engine.close()
        assert [r.body for r in fake.requests if r.path == "/load"] == [b"abc"]
        assert fake.targets[0] == "/_ping"


def test_a_pinned_version_is_kept(tmp_path):
    with OldEngine(str(tmp_path / "s")) as fake:
        engine = client(fake, "1.45")
        with pytest.raises(APIError, match="too new"):
            engine.json("GET", "/thing")
        engine.close()
        assert fake.targets == ["/v1.45/thing"]


def test_many_requests_go_side_by_side_within_bounds(tmp_path):
    lock, full = threading.Lock(), threading.Event()
    state = {"now": 0, "peak": 0}

    def stop(_request):
        with lock:
            state["now"] += 1
            state["peak"] = max(state["peak"], state["now"])
            if state["now"] == MAX_PARALLEL:
                full.set()
        assert full.wait(60)
        with lock:
            state["now"] -= 1
        return Reply(204)

    count = MAX_PARALLEL + 20
    with FakeEngine(str(tmp_path / "s"), {f"POST /containers/{i}/stop": stop for i in range(count)}) as fake:
        engine = client(fake)
        asked = engine.request_all(("POST", f"/containers/{i}/stop", None) for i in range(count))
        assert [collect().status for collect in asked] == [204] * count
        engine.close()
    assert state["peak"] == MAX_PARALLEL


def test_what_is_done_meanwhile_is_done_before_the_reply(tmp_path):
    arrived = threading.Event()
    done = threading.Event()

    def reply(_request):
        arrived.set()
        assert done.wait(60)
        return as_json("late")

    def meanwhile():
        assert arrived.wait(60)
        done.set()

    with FakeEngine(str(tmp_path / "s"), {"GET /slow": reply}) as fake:
        engine = client(fake)
        assert engine.json("GET", "/slow", meanwhile=meanwhile) == "late"
        engine.close()
