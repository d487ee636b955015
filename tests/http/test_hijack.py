"""A connection taken over loses no byte and keeps its two directions apart, on every kind of listener."""

import asyncio
import os
import socket
import time

import pytest
import trustme
import websocket

from tests.http.harness import Running, TlsClient, client_tls, talk
from wherry.http.hijack import RAW_STREAM, HttpHijack

UPGRADE = (
    b"POST /hijack HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
)
KINDS = ["unix", "tcp", "tls"]


@pytest.fixture(params=KINDS)
def server(request):
    with Running(request.param, talk) as running:
        yield running


def check_reply(client, expected: bytes) -> None:
    head = client.read_until(b"hello\n")
    assert head.startswith(
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    assert head.partition(b"hello\n")[2] + client.read_all() == expected


def test_data_then_end_then_a_late_reply(server):
    with server.connect() as client:
        client.send(UPGRADE)
        assert client.read_until(b"hello\n").startswith(b"HTTP/1.1 101 UPGRADED")
        client.send(b"some stdin")
        client.end()
        assert client.read_all() == b"SOME STDIN"


def test_head_and_data_in_one_segment(server):
    with server.connect() as client:
        client.send(UPGRADE + b"early")
        client.end()
        check_reply(client, b"EARLY")


def test_head_data_and_end_at_once(server):
    stdin = b"x" * 300_000
    with server.connect() as client:
        client.send(UPGRADE + stdin)
        client.end()
        check_reply(client, stdin.upper())


def test_without_upgrade_header_the_answer_is_200_and_raw(server):
    with server.connect() as client:
        client.send(b"POST /hijack HTTP/1.1\r\nHost: localhost\r\n\r\nraw")
        client.end()
        reply = client.read_all()
        assert reply == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nhello\nRAW"


def test_body_before_the_conversation_is_not_stdin(server):
    with server.connect() as client:
        client.send(UPGRADE.replace(b"Content-Length: 0", b"Content-Length: 4") + b"{  }stdin")
        client.end()
        check_reply(client, b"STDIN")


def test_get_and_immediate_end_is_answered(server):
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.end()
        assert client.read_reply()[2] == b"OK"
        assert client.read_all() == b""


def test_client_that_vanishes_is_noticed_by_the_owner_of_the_conversation(server):
    client = server.connect()
    client.send(UPGRADE)
    client.read_until(b"hello\n")
    client.close()
    with server.connect() as other:
        other.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert other.read_reply()[0] == 200


def test_websocket_conversation(server):
    if server.kind == "tls":
        pytest.skip("the client library cannot be given a memory TLS layer")
    sock = server.connect().sock
    ws = websocket.create_connection(
        "ws://localhost/ws", sockopt=(), socket=sock, timeout=60, suppress_origin=True, class_=websocket.WebSocket
    )
    opcode, data = ws.recv_data()
    assert (opcode, data) == (websocket.ABNF.OPCODE_BINARY, b"hello\n")
    ws.ping(b"are you there")
    assert ws.recv_data_frame(control_frame=True)[1].data == b"are you there"
    ws.send("text")
    ws.send_binary(b" and bytes")
    ws.close()


def test_not_a_websocket_handshake(server):
    with server.connect() as client:
        client.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.read_reply()[0] == 400


def get_with_certificate(address, context) -> None:
    with socket.create_connection(address, 10) as sock:
        client = TlsClient(sock, context)
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.read_reply()[0] == 200


def test_clients_without_a_certificate_of_our_authority_are_refused():
    with Running("tls", talk) as running:
        get_with_certificate(running.address, client_tls())
        for context in (client_tls(certificate=False), client_tls(trustme.CA())):
            with pytest.raises((OSError, AssertionError)):  # TLS 1.3 tells the client at its first read
                get_with_certificate(running.address, context)


def test_plain_http_on_a_tls_listener_is_told_so():
    with Running("tls", talk) as running, socket.create_connection(running.address, 10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(4096).endswith(b"Client sent an HTTP request to an HTTPS server.\n")


def test_conversations_that_come_and_go_leave_no_descriptor(server):
    def round_trip(*, polite: bool) -> None:
        client = server.connect()
        client.send(UPGRADE + b"x")
        client.read_until(b"hello\n")
        if polite:
            client.end()
            client.read_all()
        client.close()

    def settled() -> int:
        before, now = -1, len(os.listdir("/proc/self/fd"))
        while before != now:
            time.sleep(0.1)
            before, now = now, len(os.listdir("/proc/self/fd"))
        return now

    round_trip(polite=True)
    descriptors = settled()
    for turn in range(24):
        round_trip(polite=turn % 2 == 0)
    deadline = time.monotonic() + 60
    while settled() > descriptors and time.monotonic() < deadline:
        time.sleep(0.1)
    assert settled() <= descriptors


def test_an_error_after_the_handover_can_still_be_told():
    async def application(request):
        hijack = HttpHijack(request)
        await hijack.accept(RAW_STREAM)
        sock, _early = await hijack.hand_over()
        sock.close()
        await asyncio.sleep(0.05)
        await hijack.write(b"exec failed\r\n")
        await hijack.close()

    for kind in KINDS:
        with Running(kind, application) as running, running.connect() as client:
            client.send(UPGRADE)
            assert client.read_all().endswith(b"\r\n\r\nexec failed\r\n")
