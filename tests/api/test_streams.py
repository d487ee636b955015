"""Replies that last: wait, logs, attach, exec, events, progress."""

import asyncio
import base64
import json
import threading

import pytest
import websocket

from tests.api.fake import ID, cat, container
from wherry import errors
from wherry.http.hijack import MULTIPLEXED_STREAM, RAW_STREAM
from wherry.http.stdcopy import STDOUT, frame
from wherry.registry.credentials import Credentials

UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Waiter:
    def __init__(self, loop) -> None:
        self.future = loop.create_future()
        self.cancelled = asyncio.Event()

    async def result(self):
        return await self.future

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.fixture
def waiter(server, engine, monkeypatch):
    waiter = Waiter(server.loop)
    engine.replace(monkeypatch, "wait.wait", waiter)
    return waiter


def test_wait_sends_its_head_at_once(server, engine, waiter):
    with server.connect() as client:
        client.send(b"POST /v1.44/containers/x/wait?condition=next-exit HTTP/1.1\r\nHost: h\r\n\r\n")
        head = client.read_until(b"\r\n\r\n")
        assert b"200 OK" in head
        assert b"Transfer-Encoding: chunked" in head
        server.call(waiter.future.set_result, (137, None))
        assert b"".join(client.chunks()) == b'{"StatusCode":137}\n'
    assert engine.calls == [("wait.wait", ("x", "next-exit"), {})]


def test_wait_tells_an_error(server, waiter):
    with server.connect() as client:
        client.send(b"POST /containers/x/wait HTTP/1.1\r\nHost: h\r\n\r\n")
        server.call(waiter.future.set_result, (1, "it broke"))
        assert json.loads(client.read_reply()[2]) == {"StatusCode": 1, "Error": {"Message": "it broke"}}


def test_wait_is_given_up_when_the_client_hangs_up(server, waiter):
    client = server.connect()
    client.send(b"POST /containers/x/wait HTTP/1.1\r\nHost: h\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    client.close()
    server.run(asyncio.wait_for(waiter.cancelled.wait(), 60))


def test_logs_head_and_content_types(call, engine, monkeypatch):
    seen = []

    async def lines():
        yield frame(STDOUT, b"hi\n")

    async def logs(_engine, ref, options):
        seen.append((ref, options))
        return lines()

    engine.replace(monkeypatch, "logs.logs", function=logs)
    engine.containers.add(container())
    path = "/containers/web/logs?stdout=1&tail=5&since=1.5&timestamps=1&follow=true"
    reply = call("GET", path)
    assert reply.headers["content-type"] == MULTIPLEXED_STREAM
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.body == frame(STDOUT, b"hi\n")
    assert call("GET", "/v1.41" + path).headers["content-type"] == RAW_STREAM
    engine.containers.get(ID).record.config.Tty = True
    assert call("GET", path).headers["content-type"] == RAW_STREAM
    ref, options = seen[0]
    assert (ref, options.tail, options.since_ns, options.until_ns) == ("web", 5, 1_500_000_000, None)
    assert (options.stdout, options.stderr, options.timestamps, options.follow) == (True, False, True, True)
    call("GET", "/containers/web/logs?stderr=1&tail=all")
    assert seen[-1][1].tail is None
    assert [options.joined for _, options in seen] == [False] * len(seen)
    call("GET", path, User_Agent="Docker-Client/28.2.2 (linux)")
    assert seen[-1][1].joined


def test_logs_need_a_stream(call):
    reply = call("GET", "/containers/web/logs")
    assert (reply.status, reply.json) == (400, {"message": "Bad parameters: you must choose at least one stream"})


def attach_cat(*, framed=True):
    async def attach(_engine, _ref, options, connection):
        await connection.accept(MULTIPLEXED_STREAM if framed and options.mux else RAW_STREAM)
        sock, early = await connection.hand_over()
        cat(sock, early, framed and options.mux)
        connection.release()

    return attach


@pytest.mark.parametrize(
    ("version", "upgrade", "expected"),
    [("1.44", True, MULTIPLEXED_STREAM), ("1.41", True, RAW_STREAM), ("1.44", False, RAW_STREAM)],
)
def test_attach_with_early_stdin(server, engine, monkeypatch, version, upgrade, expected):
    engine.replace(monkeypatch, "attach.attach", function=attach_cat())
    with server.connect() as client:
        head = f"POST /v{version}/containers/x/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: h\r\n".encode()
        client.send(head + (UPGRADE if upgrade else b"") + b"\r\nearly stdin")
        client.end()
        reply = client.read_all()
    first, _, rest = reply.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 101 UPGRADED" if upgrade else b"HTTP/1.1 200 OK")
    assert f"Content-Type: {expected}".encode() in first
    assert rest == frame(STDOUT, b"early stdin")


@pytest.mark.parametrize("upgrade", [UPGRADE, b""])
def test_attach_errors_are_plain_text(server, engine, monkeypatch, upgrade):
    engine.replace(monkeypatch, "attach.attach", error=errors.NotFound("No such container: x"))
    with server.connect() as client:
        client.send(b"POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: h\r\n" + upgrade + b"\r\n")
        assert client.read_all() == (
            b"HTTP/1.1 404 Not Found\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nNo such container: x\r\n"
        )


def test_attach_over_websocket(server, engine, monkeypatch):
    ended = threading.Event()

    async def attach(_engine, _ref, options, connection):
        assert not options.mux
        await connection.accept(RAW_STREAM)
        await connection.write(b"from the log\n")
        sock, early = await connection.hand_over()
        threading.Thread(target=upper_case, args=(sock, early, ended), daemon=True).start()
        connection.release()

    engine.replace(monkeypatch, "attach.attach", function=attach)
    ws = websocket.create_connection(
        "ws://h/v1.44/containers/x/attach/ws?stream=1&stdin=1&stdout=1", socket=server.connect().sock, timeout=60
    )
    binary = websocket.ABNF.OPCODE_BINARY
    assert ws.recv_data() == (binary, b"from the log\n")
    ws.send("text")
    assert ws.recv_data() == (binary, b"TEXT")
    ws.send_binary(b"bytes")
    assert ws.recv_data() == (binary, b"BYTES")
    ws.close()
    assert ended.wait(60), "closing the socket ends the conversation"


def upper_case(sock, early: bytes, ended: threading.Event) -> None:
    sock.settimeout(60)
    data = early
    while data or (data := sock.recv(65536)):
        sock.sendall(data.upper())
        data = b""
    sock.close()
    ended.set()


def test_websocket_errors_come_before_the_handshake(call, engine, monkeypatch):
    engine.replace(monkeypatch, "attach.attach", error=errors.NotFound("No such container: x"))
    reply = call("GET", "/containers/x/attach/ws?stream=1")
    assert (reply.status, reply.json) == (404, {"message": "No such container: x"})


def test_exec_errors_come_in_band(server, engine, monkeypatch):
    from wherry.engine.model import ExecConfig, ExecRecord

    record = ExecRecord("e1", ID, ExecConfig(Cmd=["x"]), started=True)
    monkeypatch.setattr("wherry.engine.exec.find_exec", lambda _engine, _id: record)
    engine.replace(monkeypatch, "exec.start_exec", error=errors.Conflict("exec command e1 has already run"))
    with server.connect() as client:
        body = b'{"Tty":false}'
        head = b"POST /exec/e1/start HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        client.send(head % len(body) + UPGRADE + b"\r\n" + body)
        first, _, rest = client.read_all().partition(b"\r\n\r\n")
    assert b"101 UPGRADED" in first
    assert MULTIPLEXED_STREAM.encode() in first
    assert rest == frame(STDOUT, b"exec command e1 has already run\r\n")


def test_detached_exec(call, engine, monkeypatch):
    monkeypatch.setattr("wherry.engine.exec.find_exec", lambda _engine, _id: None)
    engine.replace(monkeypatch, "exec.start_exec")
    reply = call("POST", "/exec/e1/start", {"Detach": True, "Tty": True, "ConsoleSize": [10, 20]})
    assert (reply.status, reply.headers["content-length"]) == (200, "0")
    assert engine.calls == [("exec.start_exec", ("e1",), {"detach": True, "tty": True, "console_size": (10, 20)})]
    engine.replace(monkeypatch, "exec.start_exec", error=errors.Conflict("exec command e1 has already run"))
    assert call("POST", "/exec/e1/start", {"Detach": True}).status == 409


def test_exec_without_command(call):
    reply = call("POST", "/containers/x/exec", {})
    assert (reply.status, reply.json) == (400, {"message": "No exec command specified"})


def test_events_stream_until_the_client_leaves(server, engine):
    with server.connect() as client:
        client.send(b"GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D HTTP/1.1\r\nHost: h\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        server.call(engine.events.publish, "network", "connect", "n1", {})
        server.call(engine.events.publish, "container", "start", "c1", {"image": "x:1"})
        event = json.loads(next(client.chunks()))
        assert (event["status"], event["id"], event["from"]) == ("start", "c1", "x:1")
        assert (event["Type"], event["Action"], event["Actor"]["ID"]) == ("container", "start", "c1")
    while engine.events._subscribers:
        server.run(asyncio.sleep(0.05))


def test_past_events_end_the_stream(call, engine, server):
    server.call(engine.events.publish, "container", "start", "c1", {})
    reply = call("GET", "/events?since=1&until=99999999")
    assert (reply.status, reply.body) == (200, b"")
    reply = call("GET", "/events?since=2&until=1")
    assert reply.json == {"message": "`since` time (2) cannot be after `until` time (1)"}


def archive_reader(steps, error=None):
    """`load` or `import_` that reads the whole body in a thread, reporting as it goes."""

    async def work(engine, stream, *, progress, **_options):
        def read():
            size = sum(len(chunk) for chunk in iter(lambda: stream.read(65536), b""))
            for step in steps:
                progress(step)
            return size

        size = await engine.run_blocking(read)
        if error is not None:
            raise error
        return f"sha256:{size}"

    return work


def test_load_reports_in_lines_and_errors_in_band(call, engine, monkeypatch):
    done = {"stream": "Loaded image: x:latest\n"}
    engine.replace(monkeypatch, "images.load", function=archive_reader([done]))
    reply = call("POST", "/images/load", b"x" * 1_000_000)
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.body == b'{"stream":"Loaded image: x:latest\\n"}\r\n'
    engine.replace(monkeypatch, "images.load", function=archive_reader([], errors.InvalidArgument("no tar")))
    reply = call("POST", "/images/load", b"x")
    assert reply.status == 200
    assert reply.body == b'{"errorDetail":{"message":"no tar"},"error":"no tar"}\r\n'


def test_load_asks_for_a_body_that_waits_for_it(server, engine, monkeypatch):
    engine.replace(monkeypatch, "images.load", function=archive_reader([{"stream": "done"}]))
    with server.connect() as client:
        client.send(b"POST /images/load HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"hi")
        assert client.read_until(b"0\r\n\r\n").endswith(b'{"stream":"done"}\r\n\r\n0\r\n\r\n')


def test_import(call, engine, monkeypatch):
    engine.replace(monkeypatch, "images.import_", function=archive_reader([]))
    reply = call("POST", "/images/create?fromSrc=-&repo=x&tag=1&changes=CMD+a", b"x" * 3000)
    assert reply.body == b'{"status":"sha256:3000"}\r\n'
    refused = errors.InvalidArgument("FOO is not a valid change command")
    engine.replace(monkeypatch, "images.import_", function=archive_reader([], refused))
    reply = call("POST", "/images/create?fromSrc=-&changes=FOO", b"x")
    assert (reply.status, reply.json) == (400, {"message": "FOO is not a valid change command"})
    engine.replace(monkeypatch, "images.import_", function=archive_reader([{"status": "one"}], refused))
    reply = call("POST", "/images/create?fromSrc=-", b"x")
    assert reply.status == 200
    assert reply.body.endswith(b'"error":"FOO is not a valid change command"}\r\n')


def test_pull_parses_its_name_and_streams_what_comes(call, engine, monkeypatch):
    asked = []

    async def pull(_engine, reference, *, platform, credentials, report):
        asked.append((str(reference), platform, credentials))
        if "absent" in str(reference):
            raise errors.NotFound("not there")
        report({"status": "one"})
        raise errors.NotFound("then it failed")

    engine.replace(monkeypatch, "transfers.pull", function=pull)
    header = base64.urlsafe_b64encode(b'{"username":"me","password":"it"}').decode()
    reply = call("POST", "/images/create?fromImage=busybox&tag=1&platform=linux/arm64", X_Registry_Auth=header)
    assert reply.status == 200
    assert [json.loads(line) for line in reply.body.splitlines()] == [
        {"status": "one"},
        {"errorDetail": {"message": "then it failed"}, "error": "then it failed"},
    ]
    assert asked == [("docker.io/library/busybox:1", "linux/arm64", Credentials("me", "it"))]
    for query, name in (
        ("x:2&tag=3", "docker.io/library/x:3"),
        ("x", "docker.io/library/x"),
        ("a.b/x&tag=sha256:" + "0" * 64, "a.b/x@sha256:" + "0" * 64),
    ):
        call("POST", f"/images/create?fromImage={query}", X_Registry_Auth="!")
        assert asked[-1] == (name, None, None)
    reply = call("POST", "/images/create?fromImage=absent")
    assert (reply.status, reply.json) == (404, {"message": "not there"})


def test_verbs_go_on_when_the_client_hangs_up(server, engine, monkeypatch):
    started, go_on, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stop(_engine, _ref, **_options):
        started.set()
        await go_on.wait()
        finished.set()

    engine.replace(monkeypatch, "stop.stop", function=stop)
    client = server.connect()
    client.send(b"POST /containers/x/stop HTTP/1.1\r\nHost: h\r\n\r\n")
    server.run(asyncio.wait_for(started.wait(), 60))
    client.close()
    while server.server.connections:
        server.run(asyncio.sleep(0.05))
    server.call(go_on.set)
    server.run(asyncio.wait_for(finished.wait(), 60))
