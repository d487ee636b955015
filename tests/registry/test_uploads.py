"""Uploads that meet trouble on the way."""

import gzip
import os
from functools import partial
from pathlib import Path

import pytest

from tests.network.netlab import isolated
from tests.registry.lab import NAME, configured, image_of, opener, push, read_all, send_blob, telling
from tests.registry.servers import DockerRegistry, Exchange, PythonRegistry, Uploads, digest_of, server_tls
from wherry.registry.credentials import Credentials
from wherry.registry.errors import RegistryError

pytestmark = pytest.mark.root

BLOB = os.urandom(3 << 20)
UPLOADS = f"/v2/{NAME}/blobs/uploads/"


@isolated
@pytest.mark.parametrize("tls", [False, True])
def test_one_request_sends_it_all(tls: bool, tmp_path: Path) -> None:
    import trustme

    context = server_tls(trustme.CA().issue_cert("127.0.0.1")) if tls else None
    with PythonRegistry(tls=context) as registry:
        uploads, sent = Uploads(registry), []
        with configured().repository(registry.address, NAME) as repository:
            repository.upload_blob(digest_of(BLOB), len(BLOB), opener(tmp_path / "blob", BLOB), sent.append)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB
        assert [seen.method for seen in registry.requests if "uploads" in seen.path] == ["POST", "PUT"]
        assert sent[-1] == len(BLOB)
        assert not uploads.open


@isolated
@pytest.mark.parametrize("kept", [0, 1, 1_500_000])
def test_it_goes_on_where_the_registry_got_to(kept: int) -> None:
    with PythonRegistry() as registry:
        uploads, sent = Uploads(registry), []
        registry.reads_bodies = False

        @registry.rule("PUT .*", times=1)
        def cut(exchange: Exchange) -> None:
            uploads.take(exchange, kept)
            registry.reads_bodies = True
            exchange.hang_up(reset=True)

        registry.rules.insert(0, registry.rules.pop())
        with configured().repository(registry.address, NAME) as repository:
            send_blob(repository, BLOB, sent.append)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB
        methods = [seen.method for seen in registry.requests if "uploads" in seen.path]
        anew = ["PATCH", "POST"] if kept == 1 else []  # Range 0-0 says both nothing and one byte
        assert methods == ["POST", "PUT", "GET", *anew, "PATCH", "PUT"]
        if kept > 1:
            assert registry.asked("PATCH .*")[0].headers["content-range"] == f"{kept}-{len(BLOB) - 1}"
        assert sent[-1] == len(BLOB)


@isolated
def test_a_registry_that_lost_the_upload_gets_another() -> None:
    with PythonRegistry() as registry:
        uploads = Uploads(registry)

        @registry.rule("PUT .*/uploads/.*", times=1)
        def lose(exchange: Exchange) -> None:
            uploads.open.clear()
            exchange.error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")

        registry.rules.insert(0, registry.rules.pop())
        with configured().repository(registry.address, NAME) as repository:
            send_blob(repository, BLOB)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB
        assert len(registry.asked("POST .*")) == 2


@isolated
def test_chunks_where_the_registry_names_a_least_size() -> None:
    blob = os.urandom(40 << 20)
    with PythonRegistry() as registry:
        Uploads(registry, chunk_min=1000)
        with configured().repository(registry.address, NAME) as repository:
            send_blob(repository, blob)
        assert registry.store.blobs[digest_of(blob)] == blob
        ranges = [seen.headers["content-range"] for seen in registry.asked("PATCH .*")]
        assert ranges == ["0-16777215", "16777216-33554431", f"33554432-{len(blob) - 1}"]


@isolated
def test_smaller_pieces_where_one_request_is_too_large() -> None:
    with PythonRegistry() as registry:
        Uploads(registry)

        @registry.rule("(PUT|PATCH) .*")
        def limit(exchange: Exchange) -> bool | None:
            if len(exchange.seen.body) <= 1 << 20:
                return False
            return exchange.reply(413, b"<html>Request Entity Too Large</html>", {"Content-Type": "text/html"})

        registry.rules.insert(0, registry.rules.pop())
        with configured(attempts=1).repository(registry.address, NAME) as repository:
            send_blob(repository, BLOB)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB


@isolated
def test_a_chunk_out_of_order_is_mended() -> None:
    with PythonRegistry() as registry:
        Uploads(registry, chunk_min=1000)

        @registry.rule("PATCH .*", times=1)
        def refuse(exchange: Exchange) -> None:
            exchange.reply(416, b"", {"Range": "0-0"})

        registry.rules.insert(0, registry.rules.pop())
        with configured().repository(registry.address, NAME) as repository:
            send_blob(repository, BLOB)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB


@isolated
def test_a_registry_that_takes_nothing_is_left() -> None:
    with PythonRegistry() as registry:
        uploads = Uploads(registry, chunk_min=1000)

        @registry.rule("PATCH .*")
        def nothing(exchange: Exchange) -> None:
            exchange.reply(202, b"", {"Location": exchange.seen.path + "?state=0", "Range": "0-0"})

        registry.rules.insert(0, registry.rules.pop())
        repository = configured(attempts=3).repository(registry.address, NAME)
        with repository, telling(RegistryError, "…the registry takes nothing of the blob"):
            send_blob(repository, BLOB)
        assert len(registry.asked("PATCH .*")) == 3
        assert not uploads.open  # it was cancelled


@isolated
@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("", "…the registry does not say where to upload to"),
        ("ftp://x/y", "invalid URL 'ftp://x/y'"),
        ("http://[::1/", "invalid URL 'http://[::1/'"),
        ("http://user@:1/\x7f", "invalid URL …"),
    ],
)
def test_bad_locations(location: str, text: str) -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME) as repository:
        registry.rule("POST .*")(lambda x: x.reply(202, b"", {"Location": location} if location else {}))
        with telling(RegistryError, text):
            send_blob(repository, b"blob")


@isolated
def test_uploads_to_another_host_carry_no_authorization() -> None:
    me = Credentials("me", "secret")
    with PythonRegistry() as registry, PythonRegistry() as storage:
        registry.challenge = "Basic realm=x"
        registry.rule("POST .*")(
            lambda x: (
                x.reply(202, b"", {"Location": f"{storage.url}/put?token=1"})
                if "authorization" in x.seen.headers
                else False
            )
        )
        storage.rule("PUT /put")(lambda x: x.reply(201, b"", {"Location": "/there"}))
        with configured().repository(registry.address, NAME, me) as repository:
            send_blob(repository, b"blob")
        (seen,) = storage.requests
        assert "authorization" not in seen.headers
        assert (seen.body, seen.query) == (b"blob", {"token": ["1"], "digest": [digest_of(b"blob")]})


@isolated
def test_a_location_that_forgets_tls() -> None:
    """Behind a proxy that ends TLS a registry means itself by http://; the upload stays on TLS."""
    import trustme

    with PythonRegistry(tls=server_tls(trustme.CA().issue_cert("127.0.0.1"))) as registry:
        Uploads(registry, base=f"http://{registry.address}")
        with configured().repository(registry.address, NAME) as repository:
            send_blob(repository, BLOB)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB


@isolated
def test_a_blob_that_is_shorter_than_said(tmp_path: Path) -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        Uploads(registry)
        with telling(RegistryError, "the blob became shorter while it was sent"):
            repository.upload_blob(digest_of(BLOB), 1000, opener(tmp_path / "blob", b"short"), lambda count: None)


@isolated
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_file_is_sent_by_the_kernel(buffering: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opener(tmp_path / "blob", BLOB)
    monkeypatch.setattr("wherry.registry.upload._send_read", None)
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        Uploads(registry)
        opened = partial(open, tmp_path / "blob", "rb", buffering)
        repository.upload_blob(digest_of(BLOB), len(BLOB), opened, lambda count: None)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB


@isolated
def test_a_blob_that_is_no_file_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "blob.gz").write_bytes(gzip.compress(BLOB))
    opened = partial(gzip.open, tmp_path / "blob.gz")
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        Uploads(registry)
        repository.upload_blob(digest_of(BLOB), len(BLOB), opened, lambda count: None)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB


@isolated
@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_what_cannot_be_mounted_is_uploaded(status: int) -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME) as repository:
        registry.rule("POST .*")(lambda exchange: exchange.reply(status) if "mount" in exchange.seen.query else False)
        Uploads(registry)
        assert not repository.mount_blob(digest_of(BLOB), "team/other")
        send_blob(repository, BLOB)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB


@isolated
def test_a_token_that_is_refused_for_the_other_repository_alone() -> None:
    with PythonRegistry() as registry:
        registry.challenge = f'Bearer realm="{registry.url}/token"'

        @registry.rule("GET /token")
        def grant(exchange: Exchange) -> None:
            denied = any("team/other" in scope for scope in exchange.seen.query.get("scope", []))
            exchange.json(403 if denied else 200, {"token": "t"})

        uploads = Uploads(registry)
        with configured(attempts=1).repository(registry.address, NAME) as repository:
            assert not repository.mount_blob(digest_of(BLOB), "team/other")
            send_blob(repository, BLOB)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB
        assert not uploads.open


@isolated
def test_one_upload_is_opened_instead_of_mounts() -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        uploads = Uploads(registry)
        for path in ("team/other", "team/third"):
            assert not repository.mount_blob(digest_of(BLOB), path)
        send_blob(repository, BLOB)
        assert registry.store.blobs[digest_of(BLOB)] == BLOB
        assert not uploads.open


@isolated
def test_a_refused_body_is_answered_in_the_registrys_words() -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME) as repository:
        uploads = Uploads(registry)
        registry.reads_bodies = False

        @registry.rule("PUT .*")
        def refuse(exchange: Exchange) -> None:
            exchange.error(403, "DENIED", "your quota is used up", {"Connection": "close"})

        registry.rules.insert(0, registry.rules.pop())
        with telling(RegistryError, "denied: your quota is used up"):
            send_blob(repository, b"x" * (64 << 20))
        assert not uploads.open


@isolated
def test_manifests_that_a_registry_does_not_take() -> None:
    image = image_of(10)
    with PythonRegistry() as registry, configured(attempts=2).repository(registry.address, NAME) as repository:
        answers = [
            lambda x: x.reply(503),
            lambda x: x.reply(201, b"", {"Docker-Content-Digest": digest_of(b"another")}),
            lambda x: x.error(400, "MANIFEST_INVALID", "manifest invalid"),
        ]
        registry.rule("PUT .*")(lambda exchange: answers.pop(0)(exchange))
        with telling(RegistryError, f"…the registry stored {digest_of(b'another')!r} instead of {image.digest}"):
            repository.put_manifest("latest", image.manifest, image.media_type)
        with telling(RegistryError, "manifest invalid: manifest invalid"):
            repository.put_manifest("latest", image.manifest, image.media_type)


@isolated
def test_the_real_registry_after_a_cut(tmp_path: Path) -> None:
    """A proxy cuts the first upload short; the next one goes in chunks."""
    with DockerRegistry() as registry, PythonRegistry() as front:
        image, left = image_of(6 << 20), [2 << 20]
        front.rules.append(lambda exchange: _relay(exchange, registry, front, left))
        front.reads_bodies = False
        with configured().repository(front.address, NAME) as repository:
            push(repository, image)
        with configured().repository(registry.address, NAME) as repository:
            assert read_all(repository, image.layers[1]) == image.layers[1]
        assert not left
        assert front.asked("PATCH .*")


def _relay(exchange: Exchange, registry: DockerRegistry, front: PythonRegistry, left: list[int]) -> None:
    """Pass a request on; once, only the first bytes of a long body."""
    length = int(exchange.seen.headers.get("content-length", 0))
    if left and length > left[0] and exchange.seen.method == "PUT":
        exchange.pass_on(registry.host, registry.port, left.pop())
    else:
        exchange.pass_on(registry.host, registry.port, length)
