"""docker-py drives containers, execs and the system of a real engine."""

import gc
import io
import tarfile

import docker
import pytest

# The sockets of its streams are closed when Python finds them, which Python complains about: here, not in other tests.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client(host):
    connected = docker.DockerClient(base_url=host.address, version="auto", timeout=60)
    yield connected
    connected.close()
    gc.collect()


def close(talk) -> None:
    """docker-py wraps the socket of a conversation and leaves the closing to us."""
    talk._sock.close()
    talk.close()


@pytest.fixture
def running(client):
    container = client.containers.run("busybox", "sleep 1000", detach=True, labels={"py": "1"}, stop_signal="SIGKILL")
    yield container
    container.remove(force=True, v=True)


def test_the_system(client):
    assert client.ping()
    assert client.version()["ApiVersion"] == client.api._version == "1.51"
    assert client.info()["OSType"] == "linux"
    assert client.api.plugins() == []
    assert next(client.events(since=0, until=1), None) is None


def test_run_gives_output_or_raises(client):
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("busybox", "sh -c 'echo oh >&2; exit 3'", remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"oh\n")
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("nosuchimage", "true")


def test_the_life_of_a_container(client, running):
    assert running.status in ("created", "running")
    running.reload()
    assert running.status == "running"
    assert client.containers.get(running.name).id == running.id
    assert [c.id for c in client.containers.list(filters={"label": "py=1"})] == [running.id]
    running.pause()
    running.reload()
    assert running.status == "paused"
    running.unpause()
    running.rename(f"{running.name}-2")
    assert running.update(mem_limit="64m", memswap_limit="128m")["Warnings"] is None
    running.reload()
    assert (running.name[-2:], running.attrs["HostConfig"]["Memory"]) == ("-2", 64 << 20)
    assert running.top()["Processes"][0][-1] == "sleep 1000"
    running.resize(10, 20)
    running.restart(timeout=0)
    running.kill()
    assert running.wait(timeout=10)["StatusCode"] == 137
    running.start()
    running.stop(timeout=1)
    running.reload()
    assert running.status == "exited"
    with pytest.raises(docker.errors.APIError) as failed:
        running.kill()
    assert failed.value.status_code == 409


def test_execs(client, running):
    assert running.exec_run("sh -c 'echo out; echo err >&2; exit 5'", demux=True) == (5, (b"out\n", b"err\n"))
    assert running.exec_run("tty", tty=True).output.strip() == b"/dev/pts/0"
    assert b"".join(running.exec_run(["seq", "3"], stream=True).output) == b"1\n2\n3\n"
    made = client.api.exec_create(running.id, "sleep 1000", environment={"A": "b"}, workdir="/tmp", user="nobody")
    client.api.exec_start(made, detach=True)
    shown = client.api.exec_inspect(made)
    assert (shown["Running"], shown["ProcessConfig"]["user"]) == (True, "nobody")
    talk = client.api.exec_start(client.api.exec_create(running.id, "cat", stdin=True), socket=True)
    talk._sock.sendall(b"hello")
    assert talk.read(13)[-5:] == b"hello"
    close(talk)


def test_logs_and_attach(client):
    container = client.containers.create("busybox", "sh -c 'echo one; read x; echo got $x'", stdin_open=True)
    try:
        talk = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        talk._sock.sendall(b"two\n")
        assert container.wait(timeout=10)["StatusCode"] == 0
        close(talk)
        assert container.logs() == b"one\ngot two\n"
        assert list(container.logs(stream=True, follow=True, tail=1)) == [b"got two\n"]
        assert container.logs(timestamps=True, since=1)[:2] == b"20"
        assert container.attach(logs=True, stream=False) == b"one\ngot two\n"
    finally:
        container.remove(force=True)


def test_events_are_told(client):
    events = client.events(decode=True, filters={"label": "py=events"})
    client.containers.run("busybox", "true", labels={"py": "events"}, remove=True)
    seen = []
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            break
    events.close()
    assert [action for action in seen if action != "attach"] == ["create", "start", "die", "destroy"]


def test_files(client, running):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("note")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    assert running.put_archive("/tmp", data.getvalue())
    stream, stat = running.get_archive("/tmp/note")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        assert archive.extractfile("note").read() == b"hello"
    assert (stat["name"], stat["size"]) == ("note", 5)
    assert {"Path": "/tmp/note", "Kind": 1} in running.diff()


def members(stream) -> dict[str, bytes]:
    """The regular files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isreg()}


def test_export_and_commit(client, running):
    assert running.exec_run(["sh", "-c", "echo mine > /root/note; rm /www/index.html"]).exit_code == 0
    exported = members(running.export())
    assert exported["root/note"] == b"mine\n"
    assert "www/index.html" not in exported
    image = running.commit(
        "py-made", "v1", message="by hand", author="me", changes="ENV A=b", conf={"Labels": {"l": "x"}}
    )
    try:
        assert image.tags == ["py-made:v1"]
        assert (image.attrs["Author"], image.attrs["Comment"], image.labels["l"]) == ("me", "by hand", "x")
        assert image.history()[0]["Comment"] == "by hand"
        seen = client.containers.run("py-made:v1", ["sh", "-c", "cat /root/note; echo $A; ls /www"], remove=True)
        assert seen == b"mine\nb\n"
    finally:
        client.images.remove("py-made:v1")


def test_archives_of_directories(client, running):
    running.exec_run(
        ["sh", "-c", "mkdir -p /tmp/d/sub; echo one > /tmp/d/f; echo two > /tmp/d/sub/g; ln -s f /tmp/d/l"]
    )
    stream, stat = running.get_archive("/tmp/d", chunk_size=512)
    assert members(stream) == {"d/f": b"one\n", "d/sub/g": b"two\n"}
    assert stat["mode"] & 1 << 31, "a directory, as Go has it"
    running.stop(timeout=0)
    stream, stat = running.get_archive("/tmp/d/l")
    assert stat["linkTarget"] == "/tmp/d/f"
    with pytest.raises(docker.errors.NotFound):
        running.get_archive("/tmp/nothing")
    with pytest.raises(docker.errors.NotFound):
        running.put_archive("/nowhere", b"\0" * 1024)


def test_stats(client, running):
    once = running.stats(stream=False)
    assert once["id"] == running.id
    assert once["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert once["precpu_stats"]["system_cpu_usage"] > 0
    flowing = running.stats(decode=True)
    first, second = next(flowing), next(flowing)
    flowing.close()
    assert second["precpu_stats"]["cpu_usage"] == first["cpu_stats"]["cpu_usage"]
    assert second["read"] > first["read"]
    running.stop(timeout=0)
    assert running.stats(stream=False)["memory_stats"] == {}


def test_prune(client):
    """Only what has the label goes: others have their things here."""
    ours = {"label": "py=prune"}
    labels = {"labels": {"py": "prune"}}
    client.volumes.create("py-volume", **labels)
    kept = client.volumes.create("py-kept", **labels)
    gone = client.containers.create("busybox", "true", **labels)
    user = client.containers.run("busybox", "sleep 1000", detach=True, volumes=["py-kept:/x"], **labels)
    try:
        assert client.containers.prune(ours) == {"ContainersDeleted": [gone.id], "SpaceReclaimed": 0}
        assert client.containers.prune(ours) == {"ContainersDeleted": None, "SpaceReclaimed": 0}
        assert client.volumes.prune({**ours, "all": True})["VolumesDeleted"] == ["py-volume"]
        assert client.images.prune({"dangling": True, **ours}) == {"ImagesDeleted": None, "SpaceReclaimed": 0}
        assert client.networks.prune(ours)["NetworksDeleted"] is None
    finally:
        user.remove(force=True)
        kept.remove()


def test_volumes_with_options(client):
    volume = client.volumes.create("py-memory", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=42"})
    try:
        assert volume.attrs["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=42"}
        part = docker.types.Mount("/part", "py-filled", type="volume")
        part["VolumeOptions"] = {"Subpath": "index.html"}
        client.containers.create("busybox", "true", name="py-fills", volumes=["py-filled:/www"])
        command = ["sh", "-c", "stat -c %u /x; cat /part"]
        seen = client.containers.run("busybox", command, volumes=["py-memory:/x"], mounts=[part], remove=True)
        assert seen == b"42\nhello from inside\n"
        with pytest.raises(docker.errors.APIError, match='create py-bad: invalid option: "foo"'):
            client.volumes.create("py-bad", driver_opts={"foo": "bar"})
    finally:
        client.containers.get("py-fills").remove()
        client.volumes.get("py-filled").remove()
        volume.remove()
