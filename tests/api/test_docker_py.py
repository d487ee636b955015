"""docker-py against the server: it reads whole replies and maps texts to exceptions of its own."""

import docker
import pytest

from tests.api.fake import ID, container
from wherry import errors
from wherry.http.stdcopy import STDERR, STDOUT, frame


@pytest.fixture
def client(server, engine, monkeypatch):
    engine.replace(monkeypatch, "info.version", {"Components": [], "Version": "0.1.0"})
    client = docker.DockerClient(base_url=f"unix://{server.address}", version="auto", timeout=60)
    yield client
    client.close()


def test_version_is_negotiated(client):
    assert client.ping()
    assert client.api._version == "1.51"


def test_containers_are_listed_and_found(client, engine):
    engine.containers.add(container())
    (found,) = client.containers.list()
    assert (found.name, found.status, found.short_id) == ("web", "running", ID[:12])
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nope")


def test_missing_image_is_told_apart(client, engine, monkeypatch):
    engine.replace(monkeypatch, "create.create", error=errors.NotFound("No such image: nope:latest"))
    with pytest.raises(docker.errors.ImageNotFound):
        client.api.create_container("nope", "true")


def test_logs_are_demultiplexed(client, engine, monkeypatch):
    async def lines():
        yield frame(STDOUT, b"out\n") + frame(STDERR, b"err\n")
        yield frame(STDOUT, b"more\n")

    engine.replace(monkeypatch, "logs.logs", lines())
    engine.containers.add(container())
    assert client.containers.get("web").logs() == b"out\nerr\nmore\n"


def test_load_is_read_as_progress(client, engine, monkeypatch):
    async def load(_engine, _stream, *, progress, **_options):
        progress({"stream": "Loaded image ID: sha256:" + "a" * 64 + "\n"})
        progress({"status": "more"})

    engine.replace(monkeypatch, "images.load", function=load)
    steps = list(client.api.load_image(b"x" * 100_000))
    assert steps[0]["stream"].startswith("Loaded image ID")
    assert steps[1] == {"status": "more"}
