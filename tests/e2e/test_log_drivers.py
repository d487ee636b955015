"""Forwarding log drivers against servers of the test's own, in the host's network namespace."""

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import zlib

import pytest

from wherry.linux.namespaces import setns

CLONE_NEWNET = 0x40000000
SCRIPT = "echo hi; echo err >&2; printf end"


def inside(host, make):
    """The socket that `make` returns, made in the host's network namespace."""
    made = []

    def work():
        fd = os.open(f"/run/netns/{host.netns}", os.O_RDONLY)
        setns(fd, CLONE_NEWNET)
        os.close(fd)
        made.append(make())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    made[0].settimeout(60)
    return made[0]


@pytest.fixture
def udp_server(host):
    def make():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        return server

    with inside(host, make) as server:
        yield server


@pytest.fixture
def tcp_server(host):
    with inside(host, lambda: socket.create_server(("127.0.0.1", 0))) as server:
        yield server


def conversation(server, wrap=lambda connection: connection):
    """What the first connection that says anything says, to its end."""
    while True:
        connection, _ = server.accept()
        connection.settimeout(60)
        with wrap(connection) as connection:
            said = b"".join(iter(lambda: connection.recv(65536), b""))  # noqa: B023 - used at once
        if said:
            return said


def options(driver, **values):
    words = ["--log-driver", driver]
    for name, value in values.items():
        words += ["--log-opt", f"{name.replace('_', '-')}={value}"]
    return words


FORMS = {
    "": r"<%d>\w{3} [ \d]\d \d\d:\d\d:\d\d T/NAME\[\d+\]: %s\n",
    "rfc3164": r"<%d>\w{3} [ \d]\d \d\d:\d\d:\d\d HOST T/NAME\[\d+\]: %s\n",
    "rfc5424": r"<%d>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d) HOST T/NAME \d+ T/NAME - %s\n",
    "rfc5424micro": r"<%d>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:Z|[+-]\d\d:\d\d) HOST T/NAME \d+ T/NAME - %s\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_syslog_by_datagrams(host, name, udp_server, form):
    address = f"udp://127.0.0.1:{udp_server.getsockname()[1]}"
    wish = options("syslog", syslog_address=address, syslog_format=form, tag="T/{{.Name}}", syslog_facility="local3")
    host.docker("run", "--name", name, "--net", "none", *wish, "busybox", "sh", "-c", SCRIPT)
    got = sorted((udp_server.recv(65536).decode() for _ in range(3)), key=lambda text: text.split()[-1])
    pattern = FORMS[form].replace("HOST", re.escape(socket.gethostname())).replace("NAME", re.escape(name))
    for text, (priority, line) in zip(got, [(158, "end"), (155, "err"), (158, "hi")], strict=True):
        assert re.fullmatch(pattern % (priority, line), text), text
    logs = host.docker("logs", name)
    assert (logs.stdout, logs.stderr) == ("hi\nend", "err\n")
    assert host.out("inspect", "-f", "{{.LogPath}}", name) == ""


def test_syslog_by_stream_keeps_every_line_in_order(host, name, tcp_server):
    wish = options("syslog", syslog_address=f"tcp://127.0.0.1:{tcp_server.getsockname()[1]}", tag="t")
    host.docker("run", "-d", "--name", name, "--net", "none", *wish, "busybox", "seq", "20000")
    lines = conversation(tcp_server).decode().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [str(n) for n in range(1, 20001)]


def test_syslog_over_tls(host, name, tcp_server, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=log "
            f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
        ).split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    said = []

    def serve():
        said.append(conversation(tcp_server, lambda connection: context.wrap_socket(connection, server_side=True)))

    thread = threading.Thread(target=serve)
    thread.start()
    address = f"tcp+tls://127.0.0.1:{tcp_server.getsockname()[1]}"
    wish = options("syslog", syslog_address=address, syslog_tls_ca_cert=certificate, syslog_format="rfc5424", tag="t")
    host.docker("run", "--name", name, "--net", "none", *wish, "busybox", "echo", "secret")
    thread.join(60)
    length, _, text = said[0].decode().partition(" ")
    assert int(length) == len(text)
    assert text.endswith(" t - secret\n")


def test_syslog_to_a_unix_socket(host, name, tmp_path):
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(tmp_path / "log"))
    server.settimeout(60)
    wish = options("syslog", syslog_address=f"unixgram://{tmp_path}/log", tag="t")
    host.docker("run", "--name", name, "--net", "none", *wish, "busybox", "echo", "near")
    with server:
        assert server.recv(65536).endswith(b"]: near\n")


@pytest.mark.parametrize("compression", ["gzip", "zlib", "none"])
def test_gelf_by_datagrams(host, name, udp_server, compression):
    address = f"udp://127.0.0.1:{udp_server.getsockname()[1]}"
    wish = options("gelf", gelf_address=address, gelf_compression_type=compression, labels="a", env_regex="^E")
    extra = ("-l", "a=1", "-l", "b=2", "-e", "E1=x")
    command = ("sh", "-c", "head -c 6000 /dev/urandom | sha256sum >&2; cat /bin/busybox | head -c 6000 | tr -c a-z b")
    host.docker("run", "--name", name, "--net", "none", *extra, *wish, "busybox", *command)
    sizes, documents = gelf_documents(udp_server, 2, 47 if compression != "none" else None)
    assert max(sizes) <= 1420
    first, second = sorted(documents, key=lambda d: d["level"])
    assert (first["level"], second["level"]) == (3, 6)
    assert re.fullmatch("[0-9a-f]{64}  -", first["short_message"])
    assert len(second["short_message"]) == 6000
    for document in documents:
        assert (document["version"], document["host"]) == ("1.1", socket.gethostname())
        assert (document["_container_name"], document["_a"], document["_E1"]) == (name, "1", "x")
        assert document["_tag"] == document["_container_id"][:12] == host.inspect(name)["Id"][:12]
        assert document["_image_name"] == "busybox"
        assert "_b" not in document


def gelf_documents(server, count, window):
    sizes, parts, documents = [], {}, []
    while len(documents) < count:
        data = server.recv(65536)
        sizes.append(len(data))
        if data.startswith(b"\x1e\x0f"):
            pieces = parts.setdefault(data[2:10], {})
            pieces[data[10]] = data[12:]
            if len(pieces) < data[11]:
                continue
            data = b"".join(pieces[n] for n in sorted(pieces))
        documents.append(json.loads(zlib.decompress(data, window) if window else data))
    return sizes, documents


def test_gelf_by_stream(host, name, tcp_server):
    wish = options("gelf", gelf_address=f"tcp://127.0.0.1:{tcp_server.getsockname()[1]}")
    host.docker("run", "--name", name, "--net", "none", *wish, "busybox", "seq", "500")
    *documents, rest = conversation(tcp_server).split(b"\0")
    assert rest == b""
    assert [json.loads(d)["short_message"] for d in documents] == [str(n) for n in range(1, 501)]


def unpack(data):
    """The MessagePack values in `data`, as far as a fluentd client makes them."""
    values, at = [], 0

    def take(count):
        nonlocal at
        at += count
        return data[at - count : at]

    def value():
        kind = take(1)[0]
        if kind >> 5 == 5 or kind in (0xD9, 0xDA, 0xDB):
            size = kind & 31 if kind >> 5 == 5 else int.from_bytes(take(1 << (kind - 0xD9)), "big")
            return take(size).decode()
        if kind >> 4 == 9:
            return [value() for _ in range(kind & 15)]
        if kind >> 4 == 8:
            return {value(): value() for _ in range(kind & 15)}
        if kind == 0xD2:
            return int.from_bytes(take(4), "big")
        assert (kind, take(1)) == (0xD7, b"\0")
        return (int.from_bytes(take(4), "big"), int.from_bytes(take(4), "big"))

    while at < len(data):
        values.append(value())
    return values


def test_fluentd(host, name, tcp_server):
    address = f"127.0.0.1:{tcp_server.getsockname()[1]}"
    wish = options("fluentd", fluentd_address=address, tag="my.{{.Name}}", labels="a", fluentd_sub_second_precision="1")
    command = ("sh", "-c", "head -c 16386 /dev/zero | tr '\\0' y; echo; echo q >&2")
    host.docker("run", "--name", name, "--net", "none", "-l", "a=1", *wish, "busybox", *command)
    events = unpack(conversation(tcp_server))
    identity = {"container_id": host.inspect(name)["Id"], "container_name": f"/{name}", "a": "1"}
    pieces = [record for tag, time, record, option in events if record["source"] == "stdout"]
    (last,) = [record for tag, time, record, option in events if record["source"] == "stderr"]
    assert last == identity | {"source": "stderr", "log": "q"}
    assert [(p["log"], p["partial_ordinal"], p["partial_last"]) for p in pieces] == [
        ("y" * 16384, "1", "false"),
        ("yy", "2", "true"),
    ]
    assert pieces[0]["partial_id"] == pieces[1]["partial_id"]
    assert pieces[0]["partial_message"] == "true"
    assert all(tag == f"my.{name}" and 0 <= time[1] < 10**9 for tag, time, _, _ in events)
    assert host.out("logs", name) == "y" * 16386


def test_fluentd_asks_for_acknowledgement(host, name, tcp_server):
    seen = []

    def serve():
        while len(seen) < 2:
            connection, _ = tcp_server.accept()
            connection.settimeout(60)
            with connection:
                while data := connection.recv(65536):
                    ((_, _, record, option),) = unpack(data)
                    seen.append(record["log"])
                    chunk = option["chunk"].encode()
                    connection.sendall(b"\x81\xa3ack" + bytes([0xA0 | len(chunk)]) + chunk)

    thread = threading.Thread(target=serve)
    thread.start()
    wish = options("fluentd", fluentd_address=f"127.0.0.1:{tcp_server.getsockname()[1]}", fluentd_request_ack="true")
    host.docker("run", "--name", name, "--net", "none", *wish, "busybox", "sh", "-c", "echo one; echo two")
    thread.join(60)
    assert seen == ["one", "two"]


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (options("syslog", syslog_address="tcp://127.0.0.1:1"), "dial tcp 127.0.0.1:1: connect: connection refused"),
        (
            options("gelf", gelf_address="tcp://127.0.0.1:1"),
            "gelf: cannot connect to GELF endpoint: 127.0.0.1:1 dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (options("fluentd", fluentd_address="127.0.0.1:1"), "dial tcp 127.0.0.1:1: connect: connection refused"),
        (
            options("fluentd", fluentd_address="unix:///none"),
            "dial unix /none: connect: no such file or directory",
        ),
        (options("syslog", syslog_address="udp://127.0.0.1:1", tag="{{.Foo"), "template: log-tag:1: unclosed action"),
        (
            options("syslog", syslog_address="udp://127.0.0.1:1", tag="{{.Foo}}"),
            'template: log-tag:1:2: executing "log-tag" at <.Foo>: can\'t evaluate field Foo in type *logger.Info',
        ),
    ],
)
def test_a_server_that_is_not_there_fails_the_start(host, name, wish, text):
    result = host.docker("run", "--name", name, "--net", "none", *wish, "busybox", "true", check=False)
    assert f"failed to create task for container: failed to initialize logging driver: {text}" in result.stderr
    assert host.inspect(name)["State"]["Status"] == "created"


def test_a_server_that_reads_nothing_stops_the_container_but_nobody_else(host, name, tcp_server):
    wish = options("syslog", syslog_address=f"tcp://127.0.0.1:{tcp_server.getsockname()[1]}")
    script = "yes 'a line of output' | head -c 50000000; touch /done; sleep 1000"
    host.docker("run", "-d", "--name", name, "--net", "none", *wish, "busybox", "sh", "-c", script)
    assert host.out("exec", name, "echo", "alive") == "alive"
    assert host.docker("exec", name, "test", "-e", "/done", check=False).returncode == 1
    host.docker("kill", name, timeout=60)
    assert host.out("wait", name, timeout=60) == "137"


def test_non_blocking_drops_what_the_server_does_not_take(host, name, tcp_server):
    address = f"tcp://127.0.0.1:{tcp_server.getsockname()[1]}"
    wish = options("syslog", syslog_address=address, mode="non-blocking", max_buffer_size="64k")
    script = "yes 'a line of output' | head -c 20000000; echo end"
    result = host.docker("run", "--name", name, "--net", "none", *wish, "busybox", "sh", "-c", script, timeout=60)
    assert result.stdout.endswith("end\n")
    assert len(result.stdout) == 20000004


def test_without_a_cache_there_is_nothing_to_read(host, name, udp_server):
    address = f"udp://127.0.0.1:{udp_server.getsockname()[1]}"
    wish = options("syslog", syslog_address=address, cache_disabled="true")
    host.docker("run", "--name", name, "--net", "none", *wish, "busybox", "echo", "x")
    refused = host.docker("logs", name, check=False)
    assert "configured logging driver does not support reading" in refused.stderr
    assert udp_server.recv(65536).endswith(b": x\n")
