"""Bodies read by a thread: from the socket itself where it is plain, through the event loop over TLS."""

import asyncio
import os
import threading

import pytest

from tests.http.harness import Running
from wherry.errors import InvalidArgument
from wherry.http.connection import Limits
from wherry.http.message import Response
from wherry.http.source import Hangup

BODY = os.urandom(1 << 20) * 5
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Reads:
    """Reads bodies in a thread, up to `most` bytes; keeps what was read and how it ended."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.most = most
        self.data = b""
        self.error: Exception | None = None
        self.first = threading.Event()
        self.ended = threading.Event()

    async def __call__(self, request):
        if request.has_body:
            file = request.body.as_file()
            await asyncio.get_running_loop().run_in_executor(None, self.read, file)
        return Response(200, b"%d" % len(self.data))

    def read(self, file) -> None:
        parts, size = [], 0
        try:
            while size < self.most and (data := file.read1(min(self.most - size, 100_000))):
                assert len(data) <= 100_000
                parts.append(data)
                size += len(data)
                self.first.set()
        except (Hangup, InvalidArgument) as error:
            self.error = error
            raise
        finally:
            self.data = b"".join(parts)
            self.ended.set()


def chunks(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


FRAMED = {
    "length": SIZED % len(BODY) + BODY,
    "chunks": CHUNKED + chunks(BODY, 32 << 10),
    "small chunks": CHUNKED + chunks(BODY[: 1 << 16], 7),
    "one chunk": CHUNKED + chunks(BODY, len(BODY)),
}


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls"])
@pytest.mark.parametrize("framing", FRAMED)
def test_all_of_a_body_arrives_and_the_connection_goes_on(kind, framing):
    application = Reads()
    with Running(kind, application) as running, running.connect() as client:
        client.send(FRAMED[framing] + GET)
        status, _, answer = client.read_reply()
        assert application.data == BODY[: len(application.data)]
        assert (status, int(answer)) == (200, 1 << 16 if framing == "small chunks" else len(BODY))
        assert client.read_reply()[0] == 200  # what was sent behind the body is the next request
        client.send(SIZED % 3 + b"abc")
        assert client.read_reply()[2] == b"3"
        assert application.data == b"abc"


def test_headers_of_chunks_may_come_in_pieces():
    application = Reads()
    with Running("unix", application) as running, running.connect() as client:
        client.send(CHUNKED)
        for byte in b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: t\r\n\r\n":
            client.send(bytes((byte,)))
        assert client.read_reply()[0] == 200
        assert application.data == b"hello!"


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_the_event_loop_reads_nothing_meanwhile(kind):
    application = Reads()
    with Running(kind, application) as running, running.connect() as client:
        client.send(CHUNKED + b"5\r\nhello\r\n")
        assert application.first.wait(60)
        (connection,) = running.server.connections
        assert not running.call(connection.transport.is_reading)
        client.send(b"0\r\n\r\n")
        assert client.read_reply()[2] == b"5"
        assert running.call(connection.transport.is_reading)


def test_a_client_that_leaves_ends_the_reading():
    application = Reads()
    with Running("unix", application) as running:
        client = running.connect()
        client.send(CHUNKED + b"5\r\nhello\r\n")
        assert application.first.wait(60)
        client.close()
        assert application.ended.wait(60)
        assert isinstance(application.error, Hangup)


def test_a_server_that_closes_ends_the_reading():
    application = Reads()
    with Running("unix", application) as running, running.connect() as client:
        client.send(CHUNKED + b"5\r\nhello\r\n")
        assert application.first.wait(60)
        (connection,) = running.server.connections
        running.call(connection.abort)
        assert application.ended.wait(60)
        assert isinstance(application.error, Hangup)


@pytest.mark.parametrize("bad", [b"zz\r\n", b"-1\r\n", b"5\nhello", b"1\r\naXX"])
def test_what_is_no_chunk_is_refused(bad):
    application = Reads()
    with Running("unix", application) as running, running.connect() as client:
        client.send(CHUNKED + b"5\r\nhello\r\n")
        assert application.first.wait(60)
        client.send(bad + b"\r\n" + GET)
        assert client.read_reply()[0] == 400
        assert client.read_all() == b""
        assert isinstance(application.error, InvalidArgument)


def test_the_rest_of_a_body_that_is_not_wanted_is_skipped():
    application = Reads(most=5)
    with Running("unix", application) as running, running.connect() as client:
        client.send(CHUNKED + b"7\r\nhello, \r\n")
        assert application.ended.wait(60)
        client.send(b"5\r\nworld\r\n0\r\n\r\n" + GET)
        assert client.read_reply()[2] == b"5"
        assert client.read_reply()[0] == 200


def test_a_body_is_asked_for():
    application = Reads()
    with Running("unix", application) as running, running.connect() as client:
        client.send((SIZED % 5).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(b"hello" + GET)
        assert client.read_reply()[2] == b"5"
        assert client.read_reply()[0] == 200


def test_a_body_that_stalls_is_given_up():
    application = Reads()
    with Running("unix", application, Limits(body_s=0.05, close_s=0.05)) as running, running.connect() as client:
        client.send(CHUNKED + b"5\r\nhello\r\n")
        assert client.read_reply()[0] == 400
        assert isinstance(application.error, InvalidArgument)
