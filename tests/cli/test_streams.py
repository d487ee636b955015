"""`run`, `attach` and `exec` as conversations: order of requests, early input, half-close, exit codes, detaching."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest

from tests.cli.fake_engine import CONTAINER_ID, FakeEngine, Reply, as_json

RAW = "application/vnd.docker.raw-stream"
MUX = "application/vnd.docker.multiplexed-stream"
ID = CONTAINER_ID


def frame(stream, data):
    return struct.pack(">BxxxL", stream, len(data)) + data


class Container:
    """A scripted container: what its streams do, and an exit code that is known when they have ended."""

    def __init__(self, talk, code=0, content_type=MUX, start=None):
        self.ended = threading.Event()
        self.started = threading.Event()
        self.talk, self.code, self.content_type = talk, code, content_type
        self.start = start or Reply(204)

    def converse(self, connection, early):
        try:
            self.talk(connection, early, self)
        finally:
            connection.close()
            self.ended.set()

    def routes(self):
        def start(_request):
            self.started.set()
            if self.start.status >= 400:
                self.ended.set()
            return self.start

        return {
            f"POST /containers/{ID}/attach": Reply(101, b"", self.content_type, self.converse),
            f"POST /containers/{ID}/start": start,
            f"POST /containers/{ID}/wait": Wait(self),
            f"POST /containers/{ID}/kill": Reply(204),
            f"POST /containers/{ID}/resize": Reply(200),
            "POST /containers/web/exec": as_json({"Id": "e1"}, 201),
            "POST /exec/e1/start": Reply(101, b"", self.content_type, self.converse),
            "POST /exec/e1/resize": Reply(200),
            "GET /exec/e1/json": as_json({"ExitCode": self.code}),
            f"GET /containers/{ID}/json": as_json(
                {"Id": ID, "State": {"Running": True}, "Config": {"Tty": True, "OpenStdin": True}, "HostConfig": {}}
            ),
        }


class Wait:
    """The reply to /wait: headers at once, the body when the container has ended."""

    def __init__(self, container):
        self.container = container

    def __call__(self, _request):
        def late():
            self.container.ended.wait(60)
            return b'{"StatusCode":%d}\n' % self.container.code

        return Reply(200, late, "application/json")


@pytest.fixture
def engine(tmp_path):
    made = []

    def make(container):
        fake = FakeEngine(str(tmp_path / "engine.sock"), container.routes())
        made.append(fake)
        return fake

    yield make
    for fake in made:
        fake.__exit__(None, None, None)


def start(engine, *arguments, **options):
    environment = {**os.environ, "DOCKER_HOST": engine.host, "HOME": "/nonexistent"}
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, "-m", "wherry.cli.main", *arguments], env=environment, **options)


def paths(engine):
    return [f"{r.method} {r.path.replace(ID, 'ID')}" for r in engine.requests]


def test_order_streams_and_exit_code(engine):
    def talk(connection, _early, container):
        container.started.wait(60)
        whole = frame(1, b"out\n") + frame(2, b"err\n") + frame(1, b"end")
        for byte in whole:
            connection.sendall(bytes([byte]))

    fake = engine(Container(talk, code=7))
    process = start(fake, "run", "--rm", "c-img", "x")
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == (b"out\nend", b"err\n", 7)
    first, *side_by_side, last = paths(fake)
    assert (first, last) == ("POST /containers/create", "POST /containers/ID/start")
    assert sorted(side_by_side) == ["POST /containers/ID/attach", "POST /containers/ID/wait"]
    queries = {r.path.rpartition("/")[2]: r.query for r in fake.requests}
    assert queries["attach"] == "stream=1&stdout=1&stderr=1"
    assert queries["wait"] == "condition=removed"


def test_input_that_is_there_goes_before_the_start_with_its_end(engine):
    seen = {}

    def talk(connection, early, container):
        data = early
        while chunk := connection.recv(65536):
            data += chunk
        seen["input"], seen["started"] = data, container.started.is_set()
        connection.sendall(frame(1, b"bye\n"))

    container = Container(talk)
    fake = engine(container)
    read, write = os.pipe()
    os.write(write, b"typed before")
    os.close(write)
    process = start(fake, "run", "-i", "c-img", "cat", stdin=read)
    os.close(read)
    out, _ = process.communicate(timeout=60)
    assert seen["input"] == b"typed before"
    assert (out, process.returncode) == (b"bye\n", 0)


def test_much_in_both_directions_does_not_stall(engine):
    """An echo that writes before it has read: neither side may block the other."""
    size = 4 << 20

    def talk(connection, early, _container):
        connection.sendall(b"".join(frame(1, b"x" * 65536) for _ in range(size // 65536)))
        got = len(early)
        while chunk := connection.recv(65536):
            got += len(chunk)
        connection.sendall(frame(2, b"%d" % got))

    fake = engine(Container(talk))
    process = start(fake, "run", "-i", "c-img", "cat")
    out, err = process.communicate(b"y" * size, timeout=60)
    assert (len(out), err, process.returncode) == (size, b"%d" % size, 0)


def test_a_start_that_fails_has_the_shells_code(engine):
    message = 'exec: "nope": executable file not found in $PATH'

    def talk(connection, _early, container):
        container.ended.wait(60)

    fake = engine(Container(talk, start=as_json({"message": message}, 400)))
    process = start(fake, "run", "--rm", "c-img", "nope")
    _, err = process.communicate(timeout=60)
    hint = "Run 'wherry run --help' for more information"
    assert err.decode() == f"wherry: Error response from daemon: {message}\n\n{hint}\n"
    assert process.returncode == 127


def test_signals_are_forwarded_by_name(engine):
    def talk(connection, _early, container):
        connection.sendall(frame(1, b"ready\n"))
        container.killed.wait(60)

    container = Container(talk, code=143)
    container.killed = threading.Event()
    fake = engine(container)

    def kill(_request):
        container.killed.set()
        return Reply(204)

    fake.routes[f"POST /containers/{ID}/kill"] = kill
    process = start(fake, "run", "c-img", "x")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert [r.query for r in fake.requests if r.path.endswith("/kill")] == ["signal=TERM"]
    assert process.returncode == 143


def test_exec_streams_and_exit_code(engine):
    fake = engine(Container(lambda connection, *_: connection.sendall(frame(1, b"hi\n")), code=5))
    process = start(fake, "exec", "-e", "A=b", "web", "cmd", "-x")
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"hi\n", 5)
    body = fake.bodies("POST /containers/web/exec")[0]
    assert (body["Cmd"], body["Env"], body["AttachStdin"], body["Tty"]) == (["cmd", "-x"], ["A=b"], False, False)


def on_terminal(fake, *arguments, size=(33, 101)):
    """Start with a pseudo-terminal for all three streams; returns (process, master fd)."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = start(fake, *arguments, stdin=slave, stdout=slave, stderr=slave)
    return process, master, slave


def read_until(master, mark):
    data = b""
    while mark not in data:
        ready, _, _ = select.select([master], [], [], 20)
        assert ready, data
        data += os.read(master, 4096)
    return data


def test_terminal_is_raw_sized_and_restored_and_keys_detach(engine):
    seen = []

    def talk(connection, _early, container):
        container.started.wait(60)
        connection.sendall(b"prompt> ")
        while chunk := connection.recv(100):
            seen.append(chunk)
            connection.sendall(b"[" + chunk + b"]")

    fake = engine(Container(talk, content_type=RAW))
    process, master, slave = on_terminal(fake, "run", "-it", "c-img", "sh")
    before = termios.tcgetattr(slave)
    read_until(master, b"prompt> ")
    assert not termios.tcgetattr(slave)[3] & termios.ECHO
    os.write(master, b"\x03ab")
    read_until(master, b"b]")
    os.write(master, b"\x10x\x10\x11")
    assert process.wait(60) == 0
    assert b"".join(seen) == b"\x03ab\x10x"
    assert termios.tcgetattr(slave)[3] & termios.ECHO == before[3] & termios.ECHO
    assert [r.query for r in fake.requests if r.path.endswith("/resize")] == ["h=33&w=101"]
    assert fake.bodies("POST /containers/create")[0]["HostConfig"]["ConsoleSize"] == [33, 101]
    os.close(master)
    os.close(slave)


def test_a_new_window_size_is_told(engine):
    def talk(connection, _early, container):
        container.started.wait(60)
        connection.sendall(b"ready")
        container.resized.wait(60)

    container = Container(talk, content_type=RAW)
    container.resized = threading.Event()
    fake = engine(container)

    def resize(request):
        if request.query == "h=20&w=70":
            container.resized.set()
        return Reply(200)

    fake.routes[f"POST /containers/{ID}/resize"] = resize
    process, master, slave = on_terminal(fake, "run", "-it", "c-img", "sh")
    read_until(master, b"ready")
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 70, 0, 0))
    process.send_signal(signal.SIGWINCH)
    assert process.wait(60) == 0
    assert container.resized.is_set()
    os.close(master)
    os.close(slave)


def test_attach_says_that_it_was_left(engine):
    fake = engine(Container(lambda connection, *_: connection.recv(10), content_type=RAW))
    process, master, slave = on_terminal(fake, "attach", "--detach-keys", "ctrl-a,d", ID)
    while process.poll() is None and not any(r.path.endswith("/attach") for r in fake.requests):
        select.select([], [], [], 0.01)
    os.write(master, b"\x01d")
    assert b"read escape sequence" in read_until(master, b"sequence")
    assert process.wait(60) == 1
    os.close(master)
    os.close(slave)
