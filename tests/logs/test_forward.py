"""The monitor's side of a forwarded log, and the journal's protocol, without a container."""

import contextlib
import os
import select
import socket
import struct
import threading
from pathlib import Path

import pytest

from tests.logs.lab import T0, Forks, fetch, writer
from wherry.engine import log_drivers
from wherry.errors import InvalidArgument
from wherry.runtime.logs.drivers import check_target
from wherry.runtime.logs.forward.base import HEADER, Message
from wherry.runtime.logs.forward.fluentd import Fluentd
from wherry.runtime.logs.forward.process import forward
from wherry.runtime.monitor.poller import Poller

LARGE = b"x" * 3_000_000


class Unix:
    """A syslog server at a stream socket, and the log that goes to it."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.forks = Forks()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / "server"))
        self.listener.listen()
        self.listener.settimeout(60)
        address = {"protocol": "unix", "address": str(directory / "server"), "format": "", "facility": 3}
        forward = {"driver": "syslog", **address, "tag": "t"}
        self.path = directory / "log"
        self.log = writer(self.path, "local", self.forks, forward=forward, **options)

    def __enter__(self) -> "Unix":
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        for pid in self.forks:
            with contextlib.suppress(ChildProcessError):  # the log has waited for it
                os.waitpid(pid, 0)

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(60)
        return connection


def lines_of(connection: socket.socket) -> list[bytes]:
    with connection:
        data = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    return [line.partition(b": ")[2] for line in data.splitlines()]


def test_what_is_written_arrives_and_is_kept(tmp_path: Path):
    with Unix(tmp_path) as lab:
        lab.log.write(1, b"one\ntw", T0)
        lab.log.write(1, b"o\n", T0)
        lab.log.write(2, b"rest", T0)
        lab.log.close()
        assert lines_of(lab.accept()) == [b"one", b"two", b"rest"]
    assert fetch(lab.path, "local", tty=True) == b"one\ntwo\nrest"


def test_nothing_is_started_for_a_silent_container(tmp_path: Path):
    with Unix(tmp_path) as lab:
        lab.log.close()
        assert not lab.forks


def test_a_slow_server_blocks_until_it_reads(tmp_path: Path):
    poller, ready = Poller(), []
    with Unix(tmp_path) as lab:
        lab.log.attend(poller, lambda: ready.append(True))
        for _ in range(300):
            lab.log.write(1, (b"y" * 99 + b"\n") * 100, T0)
        assert lab.log.blocked
        connection = lab.accept()
        got = b""
        while not ready:
            readable, writable, _ = select.select([connection], [lab.log._fd], [], 20)
            assert readable or writable
            if readable:
                got += connection.recv(1 << 16)
            if writable:
                poller.turn()
        assert not lab.log.blocked
        lab.log.close()
        got += b"".join(iter(lambda: connection.recv(1 << 16), b""))
        connection.close()
        assert got.count(b"y" * 99 + b"\n") == 30_000


def test_non_blocking_drops_whole_records_and_counts_them(tmp_path: Path):
    with Unix(tmp_path, limit=300_000) as lab:
        for number in range(100):
            lab.log.write(1, b"%04d" % number + b"z" * 9995 + b"\n", T0)
            assert not lab.log.blocked
        assert lab.log.lost > 0
        lost = lab.log.lost
        connection = lab.accept()
        lab.log.close()
        lines = lines_of(connection)
        assert all(len(line) == 9999 for line in lines)
        assert len(lines) <= 100 - lost


def test_another_forwarder_takes_over_from_one_that_died(tmp_path: Path):
    with Unix(tmp_path) as lab:
        lab.log.write(1, b"first\n", T0)
        with lab.accept() as connection:
            assert connection.recv(1 << 16).endswith(b": first\n")
        pid = lab.forks.pop()
        os.kill(pid, 9)
        lab.log.reaped(*os.waitpid(pid, 0))
        lab.log._next_start = 0.0
        lab.log.write(1, b"second\n", T0)
        lab.log.close()
        assert lines_of(lab.accept()) == [b"second"]


def journal_fields(data: bytes) -> dict[bytes, bytes]:
    fields, at = {}, 0
    while at < len(data):
        end = data.index(b"\n", at)
        name, equals, value = data[at:end].partition(b"=")
        at = end + 1
        if not equals:
            (size,) = struct.unpack_from("<Q", data, at)
            value, at = data[at + 8 : at + 8 + size], at + 9 + size
        fields[name] = value
    return fields


@pytest.mark.parametrize("text", [b"short", LARGE[:16000]])
def test_journald(tmp_path: Path, text: bytes):
    forks = Forks()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "journal"))
        server.settimeout(60)
        fields = {"CONTAINER_NAME": "web", "CONTAINER_TAG": "two\nlines"}
        forward = {
            "driver": "journald",
            "path": str(tmp_path / "journal"),
            "fields": fields,
            "extra": {"_my.label": "v"},
        }
        log = writer(tmp_path / "log", "local", forks, forward=forward)
        log.write(2, text + b"\n", T0)
        log.close()
        got = journal_fields(server.recv(1 << 20))
    assert (got[b"MESSAGE"], got[b"PRIORITY"], got[b"CONTAINER_NAME"]) == (text, b"3", b"web")
    assert (got[b"CONTAINER_TAG"], got[b"MY_LABEL"]) == (b"two\nlines", b"v")
    assert got[b"CONTAINER_LOG_EPOCH_NS"] == b"%d" % T0
    for pid in forks:
        os.waitpid(pid, 0)


def test_large_journal_entries_travel_as_files(tmp_path: Path):
    from wherry.runtime.logs.forward.base import Message
    from wherry.runtime.logs.forward.journald import Journald

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "journal"))
        target = Journald({"path": str(tmp_path / "journal"), "fields": {}, "extra": {}})
        target.send(iter([Message(1, T0, LARGE, None)]))
        target.close()
        data, fds, _, _ = socket.recv_fds(server, 1024, 1)
    assert data == b""
    with open(fds[0], "rb") as file:
        assert journal_fields(file.read())[b"MESSAGE"] == LARGE


def test_no_journal_no_start(tmp_path: Path):
    forward = {"driver": "journald", "path": str(tmp_path / "none"), "fields": {}, "extra": {}}
    with pytest.raises(OSError, match="journald is not enabled on this host"):
        check_target({"forward": forward})


# Docker 28.5's answers to `create`.
REFUSALS = """
syslog foo=1|unknown log opt 'foo' for syslog log driver
syslog syslog-address=foo|unsupported scheme: ''
syslog syslog-address=ftp://a|unsupported scheme: 'ftp'
syslog syslog-address=udp://[x|parse "udp://[x": missing ']' in host
syslog syslog-facility=zzz|invalid syslog facility
syslog syslog-format=zzz|Invalid syslog format
syslog syslog-address=unix:///nonexist|stat /nonexist: no such file or directory
gelf|gelf-address is a required parameter
gelf foo=1|gelf-address is a required parameter
gelf gelf-address=udp://127.0.0.1|gelf: please provide gelf-address as proto://host:port
gelf gelf-address=udp://[x:1|parse "udp://[x:1": missing ']' in host
gelf gelf-address=ftp://127.0.0.1:1|gelf: endpoint needs to be TCP or UDP
gelf gelf-address=udp://a:1 gelf-compression-type=x|unknown value "x" for log opt "gelf-compression-type" for gelf log driver
gelf gelf-address=udp://a:1 gelf-compression-level=99|unknown value "99" for log opt "gelf-compression-level" for gelf log driver
gelf gelf-address=tcp://a:1 gelf-compression-level=1|compression is only supported on UDP
gelf gelf-address=tcp://a:1 gelf-tcp-max-reconnect=-1|"gelf-tcp-max-reconnect" must be a positive integer
gelf gelf-address=tcp://a:1 gelf-tcp-reconnect-delay=x|"gelf-tcp-reconnect-delay" must be a positive integer
gelf gelf-address=udp://a:1 gelf-tcp-reconnect-delay=1|"gelf-tcp-reconnect-delay" is only valid for TCP
fluentd foo=1|unknown log opt 'foo' for fluentd log driver
fluentd fluentd-address=ftp://x|invalid fluentd-address (ftp://x): unsupported scheme: 'ftp'
fluentd fluentd-address=[x|invalid fluentd-address ([x): parse "tcp://[x": missing ']' in host
fluentd fluentd-address=127.0.0.1:x|invalid fluentd-address (127.0.0.1:x): parse "tcp://127.0.0.1:x": invalid port ":x" after host
fluentd fluentd-async=x|strconv.ParseBool: parsing "x": invalid syntax
fluentd fluentd-buffer-limit=999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999|strconv.ParseFloat: parsing "999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999": value out of range
fluentd fluentd-buffer-limit=x|invalid size: 'x'
fluentd fluentd-retry-wait=x|time: invalid duration "x"
fluentd fluentd-max-retries=x|strconv.ParseUint: parsing "x": invalid syntax
fluentd fluentd-sub-second-precision=x|strconv.ParseBool: parsing "x": invalid syntax
fluentd fluentd-request-ack=x|strconv.ParseBool: parsing "x": invalid syntax
fluentd fluentd-async-reconnect-interval=x|invalid value for fluentd-async-reconnect-interval: time: invalid duration "x"
fluentd fluentd-async-reconnect-interval=1ms|invalid value for fluentd-async-reconnect-interval: value ("1ms") must be between 100ms and 10s
fluentd fluentd-write-timeout=x|invalid value for fluentd-write-timeout: value must be a duration: time: invalid duration "x"
journald foo=1|unknown log opt 'foo' for journald log driver
json-file mode=zz|logger: logging mode not supported: zz
json-file max-buffer-size=1m|logger: max-buffer-size option is only supported with 'mode=non-blocking'
json-file mode=non-blocking max-buffer-size=zz|error parsing option max-buffer-size: invalid size: 'zz'
syslog cache-disabled=zz|invalid value for option cache-disabled: zz
json-file foo=1|unknown log opt 'foo' for json-file log driver
local labels=1|unknown log opt 'labels' for log driver local
zzz|error looking up logging plugin zzz: plugin "zzz" not found
"""  # noqa: E501 - as they came


@pytest.mark.parametrize("case", REFUSALS.strip().splitlines())
def test_options_are_refused_in_dockers_words(case: str):
    words, _, text = case.partition("|")
    driver, *options = words.split()
    with pytest.raises(InvalidArgument) as refusal:
        log_drivers.check(driver, dict(option.split("=", 1) for option in options))
    assert str(refusal.value) == text


def test_every_name_a_driver_has_is_accepted():
    log_drivers.check("json-file", {"cache-disabled": "true", "labels": "a", "mode": "non-blocking"})
    log_drivers.check("syslog", {"syslog-address": "tcp+tls://h", "syslog-facility": "23", "cache-max-size": "zz"})
    assert log_drivers.settings("syslog", {"syslog-address": "udp://h"})["address"] == ["h", 514]
    assert log_drivers.settings("fluentd", {})["address"] == ["127.0.0.1", 24224]
    assert log_drivers.settings("fluentd", {"fluentd-retry-wait": "1m500ms"})["retry_wait"] == 60.5


class Fluent:
    """A fluentd server, and the driver that talks to it asynchronously."""

    def __init__(self, **options: str) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(60)
        address = f"127.0.0.1:{self.server.getsockname()[1]}"
        wish = {"fluentd-address": address, "fluentd-async": "true", **options}
        named = {"tag": "t", "container_id": "i", "container_name": "n", "extra": {}}
        self.target = Fluentd({**log_drivers.settings("fluentd", wish), **named})

    def send(self, text: bytes) -> None:
        self.target.send(iter([Message(1, T0, text, None)]))

    def said(self) -> bytes:
        """What one connection says until it ends."""
        connection, _ = self.server.accept()
        connection.settimeout(60)
        with connection:
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@pytest.mark.parametrize(("interval", "connections"), [("", [[b"one", b"two"]]), ("5s", [[b"one"], [b"two"]])])
def test_fluentd_reconnects_after_its_interval(interval: str, connections: list[list[bytes]]):
    lab = Fluent(**{"fluentd-async-reconnect-interval": interval})
    lab.send(b"one")
    lab.target._opened_at -= 4
    lab.send(b"")
    lab.target._opened_at -= 1.1
    lab.send(b"two")
    lab.target.close()
    for texts in connections:
        said = lab.said()
        assert [text for text in (b"one", b"two") if text in said] == texts
    lab.server.close()


def test_fluentd_tries_again_though_nothing_more_comes():
    lab = Fluent(**{"fluentd-retry-wait": "1ms"})
    address = lab.server.getsockname()
    lab.server.close()  # nobody there
    reader, writer = os.pipe()
    os.write(writer, HEADER.pack(5, 1, T0) + b"late\n")
    thread = threading.Thread(target=forward, args=(reader, lab.target))
    thread.start()
    lab.server = socket.create_server(address)
    lab.server.settimeout(60)
    connection, _ = lab.server.accept()
    connection.settimeout(60)
    assert b"late" in connection.recv(1 << 16)
    os.close(writer)
    thread.join()
    connection.close()
    lab.server.close()
