"""Every kind of host: unix, tcp, TLS with client certificates (and a half-close), ssh; who is talked to."""

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading

import pytest
import trustme

from wherry.client.config import ClientConfig, context_id
from wherry.client.endpoints import Endpoint, TLSFiles, choose, parse_host
from wherry.client.engine import Engine, _encoded
from wherry.client.errors import APIError, ConfigError, ConnectionFailed
from wherry.client.transport import connect

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 0\r\n\r\n"


def serve_once(listener, handle):
    def run():
        connection, _ = listener.accept()
        with connection:
            handle(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def read_head(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(4096)
    return data


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_tcp_and_negotiation(listener):
    thread = serve_once(listener, lambda c: (read_head(c), c.sendall(PING)))
    engine = Engine(Endpoint(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
    assert engine.version == "1.44"
    engine.close()
    thread.join(60)


def test_tls_with_client_certificate_and_half_close(listener, tmp_path):
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    with open(tmp_path / "cert.pem", "wb") as file:
        for pem in client.cert_chain_pems:
            file.write(pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    server.configure_cert(context)
    authority.configure_trust(context)
    seen = {}

    def handle(raw):
        with context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False) as connection:
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
            seen["data"] = len(data)
            connection.sendall(b"after your end" * 1000)

    thread = serve_once(listener, handle)
    files = TLSFiles(*(str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")), True)
    stream = connect(Endpoint(f"tcp://127.0.0.1:{listener.getsockname()[1]}", tls=files))
    stream.sendall(b"x" * 300_000)
    stream.shutdown_write()
    received = b""
    while chunk := stream.recv(65536):
        received += chunk
    stream.close()
    thread.join(60)
    assert seen["data"] == 300_000
    assert received == b"after your end" * 1000


def test_tls_refuses_a_stranger(listener, tmp_path):
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.issue_cert("127.0.0.1").configure_cert(context)

    def handle(raw):
        with pytest.raises((ssl.SSLError, OSError)), context.wrap_socket(raw, server_side=True) as connection:
            connection.recv(1)

    thread = serve_once(listener, handle)
    files = TLSFiles(str(tmp_path / "ca.pem"), "", "", True)
    with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
        connect(Endpoint(f"tcp://127.0.0.1:{listener.getsockname()[1]}", tls=files))
    thread.join(60)


@pytest.mark.parametrize(
    ("there", "socket", "ran"),
    [
        (["wherry", "docker"], "", "wherry system dial-stdio"),
        (["docker"], "", "docker system dial-stdio"),
        (["docker"], "/run/it's.sock", "docker --host unix:///run/it's.sock system dial-stdio"),
    ],
)
def test_ssh_runs_dial_stdio_on_the_other_machine(tmp_path, monkeypatch, there, socket, ran):
    """Wherry's, or Docker's where there is no wherry; of the socket that the host names."""
    script = tmp_path / "ssh"
    script.write_text(
        f"#!{sys.executable}\nimport sys, os\nopen({str(tmp_path / 'args')!r}, 'w').write('\\n'.join(sys.argv[1:]))\n"
        f"head = b''\nwhile b'\\r\\n\\r\\n' not in head: head += os.read(0, 1000)\nos.write(1, {PING!r})\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    engine = Engine(Endpoint(f"ssh://me@far.example:2222{socket}"))
    engine.ping()
    engine.close()
    words = (tmp_path / "args").read_text().split("\n")
    assert words[:4] == ["-l", "me", "-p", "2222"]
    at = words.index("far.example")
    assert words[at - 2 : at] == ["-T", "--"]
    (tmp_path / "bin").mkdir()
    for name in there:
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    # The ssh server hands the words, joined, to the user's shell.
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    said = subprocess.run(
        ["/bin/sh", "-c", " ".join(words[at + 1 :])],
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == ran


def test_nobody_there(tmp_path):
    with pytest.raises(ConnectionFailed, match=r"^Cannot connect to the Wherry daemon at unix:///.*\. Is the wherry"):
        Engine(Endpoint(f"unix://{tmp_path}/none.sock")).ping()


def test_an_idle_connection_that_was_closed_is_replaced(listener):
    heads = []

    def serve():
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                heads.append(read_head(connection))
                connection.sendall(PING)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    engine = Engine(Endpoint(f"tcp://127.0.0.1:{listener.getsockname()[1]}"), "1.44")
    engine.ping()
    engine.ping()
    engine.close()
    thread.join(60)
    assert len(heads) == 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b'HTTP/1.1 409 X\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{"message":"no!"}', "no!"),
        (
            b"HTTP/1.1 500 X\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbad\n\r\n0\r\n\r\n",
            "bad",
        ),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "request returned 404 Not Found for API route"),
    ],
)
def test_errors_have_the_engines_words(listener, reply, message):
    thread = serve_once(listener, lambda c: (read_head(c), c.sendall(reply)))
    engine = Engine(Endpoint(f"tcp://127.0.0.1:{listener.getsockname()[1]}"), "1.51")
    with pytest.raises(APIError) as caught:
        engine.json("GET", "/x")
    assert str(caught.value).startswith(f"Error response from daemon: {message}")
    engine.close()
    thread.join(60)


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("unix:///run/x.sock", ("unix", "/run/x.sock", "")),
        ("tcp://h:1", ("tcp", "h:1", "")),
        ("tcp://h", ("tcp", "h:2375", "")),
        ("tcp://[::1]:5/base/", ("tcp", "[::1]:5", "/base")),
        ("https://h:2376", ("tcp", "h:2376", "")),
        ("tcp://h:", ("tcp", "h:2375", "")),
        ("unix://", ("unix", "", "")),
        ("ssh://u@h:22/run/x.sock", ("ssh", "u@h:22", "/run/x.sock")),
    ],
)
def test_hosts(url, parsed):
    assert parse_host(url) == parsed


@pytest.mark.parametrize(
    "url", ["nope://x", "plain", "", "tcp://h:x", "ssh://u:p@h", "ssh://", "ssh://u@:22", "ssh://h?x=y"]
)
def test_bad_hosts(url):
    with pytest.raises(ConfigError):
        parse_host(url)


@pytest.fixture
def config(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("DOCKER"):
            monkeypatch.delenv(name)
    directory = tmp_path / "contexts" / "meta" / context_id("far")
    directory.mkdir(parents=True)
    (directory / "meta.json").write_text(
        '{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://far:2376","SkipTLSVerify":true}}}'
    )
    tls = tmp_path / "contexts" / "tls" / context_id("far") / "docker"
    tls.mkdir(parents=True)
    (tls / "ca.pem").write_text("")
    return tmp_path


def test_precedence_of_engines(config, monkeypatch):
    def chosen(**flags):
        endpoint = choose(ClientConfig(str(config)), flags)
        return endpoint.url, endpoint.context, endpoint.is_default

    assert chosen() == ("unix:///run/wherry.sock", "default", True)
    (config / "config.json").write_text('{"currentContext": "far"}')
    assert chosen() == ("tcp://far:2376", "far", False)
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert chosen() == ("unix:///run/wherry.sock", "default", True)
    monkeypatch.setenv("DOCKER_HOST", "tcp://env:1")
    assert chosen() == ("tcp://env:1", "default", False)
    assert chosen(host="/bare/path.sock") == ("unix:///bare/path.sock", "default", False)
    assert chosen(context="far")[1] == "far"
    with pytest.raises(ConfigError, match="cannot specify both"):
        chosen(host="x", context="far")
    with pytest.raises(ConfigError, match='context "gone": context not found'):
        chosen(context="gone")


def test_certificates_of_contexts_and_environment(config, monkeypatch):
    tls = choose(ClientConfig(str(config)), {"context": "far"}).tls
    assert (os.path.basename(tls.ca), tls.cert, tls.verify) == ("ca.pem", "", False)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(config))
    with pytest.raises(ConfigError, match=r"^open .*/ca.pem: no such file or directory$"):
        choose(ClientConfig(str(config)), {"host": "tcp://h:1"})
    (config / "ca.pem").write_text("")
    (config / "cert.pem").write_text("")
    tls = choose(ClientConfig(str(config)), {"host": "tcp://h:1"}).tls
    assert (tls.ca, tls.cert, tls.key) == (str(config / "ca.pem"), str(config / "cert.pem"), "")
    assert tls.verify
    with pytest.raises(ConfigError, match=r"^open /nonexistent: no such file"):
        choose(ClientConfig(str(config)), {"host": "tcp://h:1", "tlskey": "/nonexistent"})
    monkeypatch.delenv("DOCKER_TLS_VERIFY")
    assert choose(ClientConfig(str(config)), {"host": "tcp://h:1"}).tls is None
    assert not choose(ClientConfig(str(config)), {"host": "tcp://h:1", "tls": True}).tls.verify


def test_bytes_that_are_no_text_are_replaced_one_by_one():
    """As the docker CLI sends `-e $'A=x\\xff\\xfey' -l $'l=\\xe2\\x82'`."""
    words = [os.fsdecode(word) for word in (b"A=x\xff\xfey", b"l=\xe2\x82", "ü".encode())]
    assert json.loads(_encoded({"Env": words})) == {"Env": ["A=x\ufffd\ufffdy", "l=\ufffd\ufffd", "ü"]}
