"""The real docker command against the server: the order and the half-closes of its requests are not ours to invent."""

import os
import shutil
import subprocess
import threading
from types import SimpleNamespace

import pytest

from tests.api.fake import ID, container
from tests.http.harness import Running, authority
from wherry.api.router import build_app
from wherry.http.hijack import MULTIPLEXED_STREAM
from wherry.http.stdcopy import STDOUT, frame

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line client")


class OneContainer:
    """Enough of an engine for `docker run -i --rm IMAGE cat`."""

    def __init__(self, engine, monkeypatch) -> None:
        self.order: list[str] = []
        self._engine = engine
        for name in ("create.create", "attach.attach", "wait.wait", "start.start"):
            engine.replace(monkeypatch, name, function=getattr(self, name.partition(".")[2]))
        monkeypatch.setattr(engine, "container_exit", None, raising=False)

    async def create(self, _engine, **_options):
        self.order.append("create")
        self._engine.containers.add(container())
        return SimpleNamespace(id=ID, warnings=[])

    async def attach(self, _engine, _ref, _options, connection):
        self.order.append("attach")
        await connection.accept(MULTIPLEXED_STREAM)
        self._client, self._early = await connection.hand_over()
        connection.release()

    async def wait(self, engine, _ref, condition):
        self.order.append(f"wait {condition}")
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._exit = self._loop.create_future()

        async def result():
            return await self._exit

        return SimpleNamespace(result=result, cancel=lambda: None)

    async def start(self, _engine, _ref, **_options):
        self.order.append("start")
        threading.Thread(target=self._cat, daemon=True).start()

    def _cat(self) -> None:
        sock = self._client
        sock.setblocking(True)
        sock.settimeout(60)
        data = self._early
        while more := sock.recv(65536):
            data += more
        for at in range(0, len(data), 30_000):
            sock.sendall(frame(STDOUT, data[at : at + 30_000]))
        sock.close()
        self._loop.call_soon_threadsafe(self._exit.set_result, (7, None))


def docker(host, *arguments, stdin=b"", **environment):
    return subprocess.run(
        ["docker", "-H", host, *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
    )


@pytest.fixture(params=["unix", "tcp", "tls"])
def listening(request, engine, tmp_path):
    """The API on one kind of listener: `(host, environment)` for the docker command."""
    with Running(request.param, build_app(engine)) as running:
        if request.param == "unix":
            yield f"unix://{running.address}", {}
        elif request.param == "tcp":
            yield "tcp://{}:{}".format(*running.address), {}
        else:
            client = authority().issue_cert("client@example.org")
            authority().cert_pem.write_to_path(tmp_path / "ca.pem")
            client.private_key_pem.write_to_path(tmp_path / "key.pem")
            client.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
            host = f"tcp://127.0.0.1:{running.address[1]}"
            yield host, {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}


def test_run_with_stdin_that_ends_before_the_start(listening, engine, monkeypatch):
    host, environment = listening
    scripted = OneContainer(engine, monkeypatch)
    stdin = os.urandom(50_000) * 2
    done = docker(host, "run", "-i", "--rm", "img", "cat", stdin=stdin, **environment)
    assert done.stderr == b""
    assert done.stdout == stdin
    assert done.returncode == 7
    assert scripted.order == ["create", "attach", "wait removed", "start"]


def test_version(listening, engine, monkeypatch):
    host, environment = listening
    details = {"Arch": "amd64", "BuildTime": "", "GitCommit": "", "GoVersion": "", "KernelVersion": "6", "Os": "linux"}
    version = {
        "Platform": {"Name": "wherry"},
        "Components": [{"Name": "Engine", "Version": "0.1.0", "Details": details}],
        "Version": "0.1.0",
        "Os": "linux",
        "Arch": "amd64",
    }
    engine.replace(monkeypatch, "info.version", version)
    done = docker(host, "version", "--format", "{{.Server.Version}} {{.Server.APIVersion}}", **environment)
    assert (done.stdout, done.returncode) == (b"0.1.0 1.51\n", 0), done.stderr


def test_ps_and_inspect(listening, engine):
    host, environment = listening
    engine.containers.add(container())
    done = docker(host, "ps", "--format", "{{.Names}} {{.Command}}", "--no-trunc", **environment)
    assert done.stdout == b"web \"sh -c 'echo hi; sleep 100'\"\n", done.stderr
    done = docker(host, "inspect", "--format", "{{.State.Pid}}", "web", **environment)
    assert done.stdout == b"4711\n", done.stderr


def test_errors_reach_the_terminal(listening, engine):
    host, environment = listening
    done = docker(host, "attach", "nope", **environment)
    assert b"No such container: nope" in done.stderr
    assert done.returncode == 1
