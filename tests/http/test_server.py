"""Framing, limits and endings: what a daemon on an open port must withstand."""

import asyncio
import json
import os
import socket
import time

import pytest

from tests.http.harness import Running, talk
from wherry.errors import InvalidArgument
from wherry.http.connection import Limits
from wherry.http.message import Response

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def server():
    with Running("unix", talk) as running:
        yield running


POST = b"POST /echo HTTP/1.1\r\nHost: h\r\n"
SMUGGLED = {
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "signed length": b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: +4\r\n\r\nabcd",
    "unknown coding": b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: h\n\n",
    "one bare LF": b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length : 4\r\n\r\nabcd",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "not http": b"\x16\x03\x01\x02\x00",
    "bad chunk size": b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "bad chunk end": b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n",
    "broken escape": b"GET /%f HTTP/1.1\r\nHost: h\r\n\r\n",
    "NUL in the path": b"GET /a%00b HTTP/1.1\r\nHost: h\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
@pytest.mark.parametrize("pace", ["at once", "byte by byte"])
def test_ambiguous_requests_are_refused_and_the_connection_closed(server, name, pace):
    request = SMUGGLED[name]
    with server.connect() as client:
        try:
            if pace == "at once":
                client.send(request + GET)
            else:
                for index in range(len(request)):
                    client.send(request[index : index + 1])
        except BrokenPipeError:
            pass
        reply = client.read_until(b"\r\n\r\n")
        assert reply.split()[1] in (b"400", b"501")
        if name not in ("broken escape", "NUL in the path"):  # well framed: only that request is bad
            assert b"200 OK" not in reply + client.read_all()


def test_head_of_a_mebibyte_is_refused(server):
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
        for _ in range(1024):
            client.send(b"X-Pad: " + b"x" * 1015 + b"\r\n")
        assert b" 431 " in client.recv()


def test_large_head_below_the_limit_is_served(server):
    with server.connect() as client:
        client.send(b"GET /?" + b"f=%7B%7D&" * 20_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.read_reply()[0] == 200


def test_very_many_headers_are_refused(server):
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * 300 + b"\r\n")
        assert b" 431 " in client.read_all()


def test_empty_line_before_a_request_is_ignored(server):
    with server.connect() as client:
        client.send(b"\r\n" + GET)
        assert client.read_reply()[2] == b"OK"


def test_connection_is_kept_and_pipelining_answered_in_order(server):
    with server.connect() as client:
        post = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
        client.send(GET + post + b"one" + post + b"two" + GET)
        assert [client.read_reply()[2] for _ in range(4)] == [b"OK", b"one", b"two", b"OK"]


def test_pipelined_requests_before_the_end_are_all_answered(server):
    with server.connect() as client:
        client.send(GET * 3)
        client.end()
        assert client.read_all().count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_unread_body_is_drained_and_the_connection_kept(server, framing):
    body = b"x" * 100_000
    with server.connect() as client:
        if framing == "length":
            client.send(b"POST /ignores HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        else:
            chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            client.send(b"POST /ignores HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
        assert client.read_reply()[0] == 200
        client.send(GET)
        assert client.read_reply()[2] == b"OK"


def test_long_unread_body_ends_the_connection_but_not_the_reply(server):
    with server.connect() as client:
        client.send(b"POST /ignores HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 1_000_000)
        status, headers, _ = client.read_reply()
        assert (status, headers["connection"]) == (200, "close")
        assert client.read_all() == b""


def test_continue_is_sent_only_when_the_body_is_wanted(server):
    head = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as client:
        client.send(head % b"/echo")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue")
        client.send(b"hi")
        assert client.read_reply()[2] == b"hi"
        client.send(head % b"/ignores")
        status, headers, _ = client.read_reply()
        assert (status, headers["connection"]) == (200, "close")


def test_http_1_0_and_head(server):
    with server.connect() as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" + b"GET / HTTP/1.0\r\n\r\n")
        reply = client.read_all()
        first, _, rest = reply.partition(b"\r\n\r\n")
        assert b"Content-Length: 2" in first
        assert rest.startswith(b"HTTP/1.1 200 OK")
        assert rest.endswith(b"\r\n\r\nOK")


def test_large_body_round_trip_over_tls():
    body = bytes(range(256)) * 8192
    with Running("tls", talk) as running, running.connect() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert client.read_reply()[2] == body


def test_body_as_a_file_for_a_thread():
    def count(file):
        with file:
            return sum(len(chunk) for chunk in iter(lambda: file.read(10_000), b""))

    async def application(request):
        file = request.body.as_file()
        total = await asyncio.get_running_loop().run_in_executor(None, count, file)
        return Response(200, b"%d" % total)

    with Running("unix", application) as running, running.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(300):
            client.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert client.read_reply()[2] == b"3000000"


class Streams:
    """An application with one stream under the test's control; tells when it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.sent = 0

    async def __call__(self, request):
        return Response(200, content_type="text/plain", stream=self._stream(request.path))

    async def _stream(self, path):
        try:
            if path == "/waits":
                await asyncio.Event().wait()
            if path == "/fails":
                yield b"some"
                raise RuntimeError("planted")
            while path == "/floods":
                self.sent += 1
                yield b"x" * 65536
            yield b"done"
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def wait_for(running, event) -> None:
    running.run(asyncio.wait_for(event.wait(), 60))


def test_head_of_a_stream_is_flushed_before_its_first_byte():
    with Running("unix", Streams()) as running, running.connect() as client:
        client.send(b"GET /waits HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in client.read_until(b"\r\n\r\n")


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls"])
def test_client_that_hangs_up_cancels_its_stream(kind):
    streams = Streams()
    with Running(kind, streams, Limits(half_close_s=0.2)) as running:
        client = running.connect()
        client.send(b"GET /waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        client.close()
        wait_for(running, streams.cancelled)


def test_half_closed_client_keeps_its_stream():
    streams = Streams()
    with Running("unix", streams) as running, running.connect() as client:
        client.send(b"GET /ends HTTP/1.1\r\nHost: h\r\n\r\n")
        client.end()
        assert client.read_reply()[2] == b"done"


def test_client_that_does_not_read_holds_the_stream_back():
    streams = Streams()
    with Running("unix", streams) as running, running.connect() as client:
        client.send(b"GET /floods HTTP/1.1\r\nHost: h\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        before = -1
        while streams.sent != before:
            before = streams.sent
            time.sleep(0.2)
        assert streams.sent < 50
    assert streams.sent < 100


def test_stream_that_fails_is_cut_not_ended(caplog):
    with Running("unix", Streams()) as running, running.connect() as client:
        client.send(b"GET /fails HTTP/1.1\r\nHost: h\r\n\r\n")
        assert not client.read_all().endswith(b"0\r\n\r\n")
    assert "planted" in caplog.text


def test_slow_heads_and_idle_connections_are_closed():
    limits = Limits(head_s=1, idle_s=0.3)  # a second to send what is sent at once
    with Running("unix", talk, limits) as running, running.connect() as idle:
        idle.send(GET)
        assert idle.read_reply()[0] == 200
        silent, slow = running.connect(), running.connect()
        slow.send(b"GET / HT")
        assert b" 408 " in slow.read_all()
        assert silent.read_all() == b""
        assert idle.read_all() == b""
        silent.close()
        slow.close()


def test_a_handshake_that_never_comes_is_closed():
    with Running("tls", talk, Limits(head_s=0.3)) as running, socket.create_connection(running.address, 10) as silent:
        assert silent.recv(1) == b""


def test_stalled_body_times_out():
    with Running("unix", talk, Limits(body_s=0.2)) as running, running.connect() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        assert client.read_reply()[0] == 400


def test_too_many_connections():
    with Running("unix", talk, Limits(connections=3)) as running:
        clients = [running.connect() for _ in range(3)]
        for client in clients:
            client.send(GET)
            assert client.read_reply()[0] == 200
        with running.connect() as refused:
            assert b" 503 " in refused.read_all()
        for client in clients:
            client.close()
        while running.server.connections:
            time.sleep(0.01)
        with running.connect() as client:
            client.send(GET)
            assert client.read_reply()[0] == 200


def test_thousands_of_idle_connections_do_not_slow_the_others_down():
    with Running("unix", talk) as running:
        idle = [running.connect() for _ in range(400)]
        start = time.process_time()
        for _ in range(20):
            with running.connect() as client:
                client.send(GET)
                assert client.read_reply()[0] == 200
        assert time.process_time() - start < 0.5
        for client in idle:
            client.close()


BROWSER = {
    "cross origin": b"Origin: http://evil.example\r\n",
    "opaque origin": b"Origin: null\r\n",
    "cross site": b"Sec-Fetch-Site: cross-site\r\n",
    "same site": b"Sec-Fetch-Site: same-site\r\n",
    "form": b"Content-Type: application/x-www-form-urlencoded\r\n",
    "simple post from a page": b"Content-Type: text/plain\r\nOrigin: https://evil.example\r\n",
}


@pytest.mark.parametrize("name", BROWSER)
def test_requests_of_web_pages_are_refused_on_tcp(name):
    with Running("tcp", talk) as running, running.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + BROWSER[name] + b"Content-Length: 0\r\n\r\n")
        assert client.read_reply()[0] == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost:2375", 200),
        (b"127.0.0.1:2375", 200),
        (b"[::1]:2375", 200),
        (socket.gethostname().encode(), 200),
        (b"builder.lan:2375", 200),
        (b"api.moby.localhost", 200),
        (b"evil.example", 403),
        (b"evil.example:2375", 403),
        (b"127.0.0.1.evil.example", 403),
    ],
)
def test_rebound_names_are_refused_on_plain_tcp(host, status):
    allowed = frozenset({"builder.lan"})
    with Running("tcp", talk, allowed_hosts=allowed) as running, running.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert client.read_reply()[0] == status


def test_unix_clients_may_say_what_they_like(server):
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://other\r\n\r\n")
        assert client.read_reply()[0] == 200


def test_peer_of_a_unix_connection():
    async def application(request):
        return Response(200, b"%d" % request.peer.pid)

    with Running("unix", application) as running, running.connect() as client:
        client.send(GET)
        assert client.read_reply()[2] == b"%d" % os.getpid()


def test_shutdown_lets_a_running_request_end():
    started, go_on = asyncio.Event(), asyncio.Event()

    async def application(_request):
        started.set()
        await go_on.wait()
        return Response(200, b"finished")

    with Running("unix", application) as running, running.connect() as client, running.connect() as idle:
        client.send(GET)
        wait_for(running, started)
        closing = asyncio.run_coroutine_threadsafe(running.server.close(5), running.loop)
        assert idle.read_all() == b""
        running.call(go_on.set)
        status, headers, body = client.read_reply()
        assert (status, body, headers["connection"]) == (200, b"finished", "close")
        closing.result(60)


@pytest.mark.parametrize("earlier", [True, False])
def test_shutdown_does_not_wait_for_a_watch(earlier):
    """Neither for one that goes on, nor for one that is only asked for."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def forever():
        yield b"happened"
        await asyncio.Event().wait()

    async def application(_request):
        started.set()
        await go_on.wait()
        return Response(200, stream=forever(), watch=True)

    with Running("unix", application) as running, running.connect() as client:
        client.send(GET)
        wait_for(running, started)
        if earlier:
            running.call(go_on.set)
            client.read_until(b"happened")
        closing = asyncio.run_coroutine_threadsafe(running.server.close(1000), running.loop)
        running.call(go_on.set)
        closing.result(60)
        assert not client.read_all().endswith(b"0\r\n\r\n")


def test_ping_on_a_new_unix_connection_costs_little():
    with Running("unix", talk) as running:
        costs = []
        for _ in range(300):
            start = time.process_time()
            with running.connect() as client:
                client.send(GET)
                client.recv()
            costs.append(time.process_time() - start)
        assert sorted(costs)[len(costs) // 2] < 0.004, "ten times what it takes"


def test_line_ends_never_reach_a_header(caplog):
    async def application(_request):
        return Response(200, b"OK", headers=[("X-Name", "a\r\nX-Injected: b")])

    with Running("unix", application) as running, running.connect() as client:
        client.send(GET)
        assert b"X-Injected" not in client.read_all()
    assert "a line end in a header" in caplog.text


def test_client_that_asks_to_close_is_closed(server):
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert b"Connection: close\r\n" in client.read_all()


def test_what_a_message_quotes_does_not_end_it():
    message = 'no "such" \\ thing\n\u00e9'

    async def refuse(_request):
        raise InvalidArgument(message)

    with Running("unix", refuse) as running, running.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        status, *_, body = client.read_reply()
    assert status == 400
    assert json.loads(body) == {"message": message}
