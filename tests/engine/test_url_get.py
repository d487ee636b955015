"""Bodies that are fetched for an import: whole, or an error that says so."""

import socket
import threading
from contextlib import contextmanager

import pytest

from wherry.engine.url_get import Body
from wherry.errors import Internal
from wherry.registry.cancel import Cancellation, Cancelled


@contextmanager
def serving(reply, sent=None):
    """The URL of a server that gives `reply` to the first who asks. It hangs up then, or sets `sent` and waits."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(reply)
            if sent is not None:
                sent.set()
                connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    finally:
        thread.join()
        listener.close()


def whole(url):
    with Body(url, Cancellation()) as body:
        return b"".join(iter(lambda: body.read(3), b""))


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"Content-Length: 0\r\n\r\n", b""),
        (b"\r\nhello", b"hello"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello"),
    ],
)
def test_bodies(headers, text):
    with serving(b"HTTP/1.1 200 OK\r\n" + headers) as url:
        assert whole(url) == text


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "^unexpected EOF$"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello", "unexpected EOF"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n", "unexpected EOF"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: much\r\n\r\nhello", 'bad Content-Length "much"'),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello", 'bad Content-Length "-1"'),
        (b"SSH-2.0\r\n", "transport connection broken"),
        (b"", "EOF|closed"),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n", "status 404 Not Found"),
    ],
)
def test_what_is_not_whole(reply, text):
    with serving(reply) as url, pytest.raises(Exception, match=text) as error:
        whole(url)
    assert error.type.__module__ == Internal.__module__


@pytest.mark.parametrize("reply", [b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_slow_one_is_broken_off(reply):
    cancellation, sent = Cancellation(), threading.Event()
    raised = []

    def read():
        try:
            with Body(url, cancellation) as body:
                while body.read(100):
                    pass
        except Cancelled as error:
            raised.append(error)

    with serving(reply, sent) as url:
        thread = threading.Thread(target=read)
        thread.start()
        assert sent.wait(30)
        cancellation.cancel()
        thread.join(30)
        assert not thread.is_alive()
    assert raised
