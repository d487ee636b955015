"""The client with registries that break off, lie, stall and send elsewhere."""

import gzip
import json
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from tests.network.netlab import isolated
from tests.registry.lab import NAME, check_pull, configured, holding, read_all, send_blob, telling
from tests.registry.servers import (
    Exchange,
    PythonRegistry,
    digest_of,
    listen,
    make_image,
    make_layer,
    other_address,
    server_tls,
)
from wherry.errors import InvalidArgument
from wherry.registry.cancel import Cancellation, Cancelled
from wherry.registry.client import Registry
from wherry.registry.credentials import Credentials
from wherry.registry.errors import RegistryError

pytestmark = pytest.mark.root

BLOBS = f"GET /v2/{NAME}/blobs/.*"
MANIFESTS = f"(HEAD|GET) /v2/{NAME}/manifests/.*"
ME = Credentials("me", "secret")


# -- connections that break


@isolated
@pytest.mark.parametrize("reset", [False, True])
def test_a_blob_that_breaks_off_is_resumed(reset: bool) -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        blob = holding(registry).layers[1]

        @registry.rule(BLOBS, times=2)
        def cut(exchange: Exchange) -> None:
            first = int(exchange.seen.headers.get("range", "bytes=0-")[6:-1])
            headers = {"Content-Range": f"bytes {first}-{len(blob) - 1}/{len(blob)}"} if first else {}
            part = blob[first : first + 100_000]
            exchange.reply(206 if first else 200, part, headers, length=len(blob) - first)
            exchange.hang_up(reset=reset)

        assert read_all(repository, blob) == blob
        assert "range" not in registry.asked(BLOBS)[0].headers
        if not reset:  # a reset may take along what was sent before it
            assert [seen.headers["range"] for seen in registry.asked(BLOBS)[1:]] == ["bytes=100000-", "bytes=200000-"]


@isolated
def test_a_registry_that_ignores_range_is_read_anew() -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        blob = holding(registry).layers[1]
        registry.ranges = False

        @registry.rule(BLOBS, times=1)
        def cut(exchange: Exchange) -> None:
            exchange.reply(200, blob[:70_000], length=len(blob))
            exchange.hang_up()

        assert read_all(repository, blob) == blob
        assert read_all(repository, blob, offset=1000) == blob[1000:]


@isolated
def test_attempts_are_bounded_however_little_comes_each_time() -> None:
    pauses: list[float] = []
    with PythonRegistry() as registry, configured(attempts=4).repository(registry.address, NAME) as repository:
        blob = holding(registry).layers[1]

        @registry.rule(BLOBS)
        def drip(exchange: Exchange) -> None:
            first = int(exchange.seen.headers.get("range", "bytes=0-")[6:-1])
            headers = {"Content-Range": f"bytes {first}-{len(blob) - 1}/{len(blob)}"} if first else {}
            exchange.reply(206 if first else 200, blob[first : first + 1], headers, length=len(blob) - first)
            exchange.hang_up()

        with telling(RegistryError, f'Get "{registry.url}/v2/{NAME}/blobs/{digest_of(blob)}": unexpected EOF'):
            read_all(repository, blob, waiting=pauses.append)
        assert len(registry.asked(BLOBS)) == 4
        assert len(pauses) == 3


@isolated
@pytest.mark.parametrize(
    ("content_range", "status"),
    [("bytes 0-9/10", 206), ("bytes 5-9/10", 206), ("nonsense", 206), ("", 206), ("bytes 100000-9/77", 206)],
)
def test_another_range_than_asked_for(content_range: str, status: int) -> None:
    with PythonRegistry() as registry, configured(attempts=2).repository(registry.address, NAME) as repository:
        blob = holding(registry).layers[1]

        @registry.rule(BLOBS)
        def lie(exchange: Exchange) -> None:
            exchange.reply(status, blob[100_000:], {"Content-Range": content_range})

        with telling(RegistryError, "…the registry sends another range than asked for"):
            read_all(repository, blob, offset=100_000)


@isolated
def test_stalls_are_given_up_and_resumed() -> None:
    with PythonRegistry() as registry, configured(stall_timeout=1.0).repository(registry.address, NAME) as repository:
        image = holding(registry)
        blob = image.layers[1]

        @registry.rule(f"GET /v2/{NAME}/blobs/{digest_of(blob)}", times=1)
        def stall(exchange: Exchange) -> None:
            exchange.reply(200, blob[:1000], length=len(blob))
            exchange.wait_for_hang_up()

        @registry.rule(MANIFESTS, times=1)
        def silence(exchange: Exchange) -> None:
            exchange.wait_for_hang_up()

        check_pull(repository, image)
        assert read_all(repository, blob) == blob


@isolated
def test_a_kept_connection_that_the_registry_closed_is_replaced() -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME) as repository:
        image = holding(registry)

        @registry.rule(f"HEAD /v2/{NAME}/manifests/.*")
        def close_after(exchange: Exchange) -> None:
            headers = {"Content-Type": image.media_type, "Docker-Content-Digest": image.digest}
            exchange.reply(200, image.manifest, headers)
            exchange.hang_up()

        for _ in range(3):
            repository.resolve("latest")


@isolated
def test_connections_are_kept() -> None:
    client = configured()
    with PythonRegistry() as registry, client.repository(registry.address, NAME) as repository:
        image = holding(registry)
        for _ in range(3):
            check_pull(repository, image)
        with client.repository(registry.address, NAME) as another:
            check_pull(another, image)
        assert registry.connections == 2  # the first spoke TLS


# -- statuses


@isolated
def test_what_passes_is_tried_again() -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        image = holding(registry)
        statuses = [503, 500, 502, 504]

        @registry.rule(f".*/{NAME}/(manifests|blobs)/.*", times=4)
        def fail(exchange: Exchange) -> None:
            exchange.reply(statuses.pop(), b"not now")

        check_pull(repository, image)


@isolated
def test_too_many_requests() -> None:
    with PythonRegistry() as registry:
        image, pauses = holding(registry), []
        blob = image.layers[1]
        answers = [{"Retry-After": "0"}, {}, {"Retry-After": "Thu, 01 Jan 2015 00:00:00 GMT"}]

        @registry.rule(BLOBS)
        def limit(exchange: Exchange) -> bool | None:
            if not answers:
                return False
            return exchange.error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.", answers.pop())

        with configured().repository(registry.address, NAME) as repository:
            assert read_all(repository, blob, waiting=pauses.append) == blob
            answers.append({"Retry-After": "86400"})  # longer than anybody waits
            before = len(pauses)
            with telling(RegistryError, "toomanyrequests: You have reached your pull rate limit."):
                read_all(repository, blob, waiting=pauses.append)
            assert len(pauses) == before


@isolated
@pytest.mark.parametrize(
    ("status", "content_type", "body", "text"),
    [
        (500, "text/plain", b"oops", "received unexpected HTTP status: 500 Internal Server Error"),
        (404, "text/html", b"<html>not here</html>", "unknown: <html>not here</html>"),
        (404, "application/json", b"{}", "…response body: no error details found in HTTP response body: \"{}\""),
        (404, "application/json", b"{hello", "…404 response body: invalid character 'h' looking for…"),
        (404, "application/json", b'{"errors":[{"code":"NOBODYS","message":"m"},{}]}', "unknown: m"),
        (401, "application/json", b"{}", "unauthorized: authentication required"),
        (429, "", b"go away\x1b[31m", "toomanyrequests: go away\N{REPLACEMENT CHARACTER}[31m"),
        (400, "application/json", b"[" * 100_000, "error parsing HTTP 400 response body: …"),
        (400, "application/json", b'{"errors":[7]}', "error parsing HTTP 400 response body: …"),
        (400, "text/plain", b"x" * 100_000, "unknown: " + "x" * 4096),
    ],
)  # fmt: skip
def test_errors_in_dockers_words(status: int, content_type: str, body: bytes, text: str) -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME) as repository:

        @registry.rule(MANIFESTS)
        def refuse(exchange: Exchange) -> None:
            exchange.reply(status, body, {"Content-Type": content_type} if content_type else {})

        with telling(RegistryError, text):
            repository.resolve("latest")


# -- lies


@isolated
def test_content_that_is_not_what_its_digest_says() -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        image = holding(registry)
        registry.store.blobs[digest_of(image.config)] = image.config[:-1] + b" "
        with telling(RegistryError, f"filesystem layer verification failed for digest {digest_of(image.config)}"):
            repository.small_blob(digest_of(image.config), len(image.config))
        registry.store.manifests[f"{NAME}@{image.digest}"] = (image.media_type, image.manifest + b" ")
        with telling(RegistryError, f"manifest verification failed for digest {image.digest}"):
            repository.manifest(image.digest)


@isolated
@pytest.mark.parametrize("change", [-1, 1, 1000])
@pytest.mark.parametrize("announced", [True, False])
def test_a_blob_of_another_size(change: int, announced: bool) -> None:
    with PythonRegistry() as registry, configured(attempts=2).repository(registry.address, NAME) as repository:
        blob = b"b" * 100_000
        content = (blob + b"x" * 1000)[: len(blob) + change]

        @registry.rule(BLOBS)
        def lie(exchange: Exchange) -> None:
            if announced:
                exchange.reply(200, content)
            else:
                exchange.raw(b"HTTP/1.0 200 OK\r\n\r\n" + content)
                exchange.hang_up()

        with pytest.raises(RegistryError) as caught:
            read_all(repository, blob)
        how = "less" if change < 0 else "more"
        assert f"{how} than the 100000 bytes announced" in str(caught.value) or (
            not announced and change < 0 and "unexpected" in str(caught.value)
        )


@isolated
def test_without_a_length_at_all() -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        blob = holding(registry).layers[1]

        @registry.rule(BLOBS, times=1)
        def old(exchange: Exchange) -> None:
            exchange.raw(b"HTTP/1.0 200 OK\r\n\r\n" + blob)
            exchange.hang_up()

        @registry.rule(BLOBS)
        def chunked(exchange: Exchange) -> None:
            pieces = [blob[at : at + 50_000] for at in range(0, len(blob), 50_000)] + [b""]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            exchange.reply(200, body, {"Transfer-Encoding": "chunked"})

        assert read_all(repository, blob) == blob
        assert read_all(repository, blob) == blob


@isolated
@pytest.mark.parametrize(
    ("digest", "text"),
    [
        ("sha256:" + "a" * 64, "manifest verification failed for digest sha256:" + "a" * 64),
        ("sha256:../../../x", "…Docker-Content-Digest: invalid checksum digest length"),
        ("md5:" + "a" * 32, "…Docker-Content-Digest: unsupported digest algorithm"),
    ],
)
def test_a_wrong_digest_header(digest: str, text: str) -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        image = holding(registry)

        @registry.rule(f"GET /v2/{NAME}/manifests/.*")
        def lie(exchange: Exchange) -> None:
            exchange.reply(200, image.manifest, {"Content-Type": image.media_type, "Docker-Content-Digest": digest})

        with telling(RegistryError, text):
            repository.manifest("latest")


@isolated
def test_a_length_that_is_no_number() -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME) as repository:
        image = holding(registry)
        headers = {"Content-Length": "\N{SUPERSCRIPT TWO}", "Connection": "close"}

        @registry.rule("GET .*/manifests/.*")
        def answer(exchange: Exchange) -> None:
            exchange.reply(200, image.manifest, {**headers, "Content-Type": image.media_type})
            exchange.hang_up()

        assert repository.manifest("latest").data == image.manifest


@isolated
def test_head_lies_about_a_digest() -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        image = holding(registry)

        @registry.rule(f"HEAD /v2/{NAME}/manifests/.*")
        def lie(exchange: Exchange) -> None:
            headers = {"Content-Type": image.media_type, "Docker-Content-Digest": digest_of(b"another")}
            exchange.reply(200, image.manifest, headers)

        with telling(RegistryError, f"manifest verification failed for digest {image.digest}"):
            repository.resolve(image.digest)


@isolated
def test_pages_where_a_registry_should_be() -> None:
    page = (200, b"<!doctype html><title>Sign in to the hotel</title>", {"Content-Type": "text/html; charset=utf-8"})
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        image = holding(registry)
        check_pull(repository, image)
        registry.rule(".*")(lambda exchange: exchange.reply(*page))
        with telling(RegistryError, f"{registry.url}/v2/{NAME}/manifests/latest is not a registry's: it answers with…"):
            repository.resolve("latest")
        with telling(RegistryError, "…is not a registry's: it answers with an HTML page"):
            read_all(repository, image.layers[0])
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        registry.rule(".*")(lambda exchange: exchange.reply(*page))
        with telling(RegistryError, f"{registry.url}/v2/ is not a registry: it answers with an HTML page"):
            repository.resolve("latest")


@isolated
def test_bombs() -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME) as repository:
        endless = threading.Event()

        @registry.rule(f"GET /v2/{NAME}/manifests/huge")
        def huge(exchange: Exchange) -> None:
            exchange.reply(200, b"{" + b" " * (4 << 20) + b"}", {"Content-Type": "application/json"})

        @registry.rule(f"GET /v2/{NAME}/manifests/endless")
        def chunks(exchange: Exchange) -> None:
            exchange.reply(200, b"", {"Transfer-Encoding": "chunked"})
            while not endless.is_set():
                exchange.raw(b"10000\r\n" + b" " * 0x10000 + b"\r\n")

        @registry.rule(f"GET /v2/{NAME}/manifests/headers")
        def headers(exchange: Exchange) -> None:
            exchange.raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000)

        @registry.rule(f"GET /v2/{NAME}/manifests/line")
        def line(exchange: Exchange) -> None:
            exchange.raw(b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 1_000_000)

        @registry.rule(f"GET /v2/{NAME}/manifests/garbage")
        def garbage(exchange: Exchange) -> None:
            exchange.raw(b"garbage\r\n\r\n")
            exchange.hang_up()

        for name in ("huge", "endless"):
            with telling(
                RegistryError, f"{registry.url}/v2/{NAME}/manifests/{name}: the reply is larger than 4194304 bytes"
            ):
                repository.manifest(name)
        endless.set()
        for name in ("headers", "line"):
            with telling(RegistryError, "…malformed HTTP response: got more than…"):
                repository.manifest(name)
        with telling(RegistryError, '…transport connection broken: malformed HTTP response "garbage"'):
            repository.manifest("garbage")


@isolated
def test_a_compressed_blob_is_refused() -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        blob = b"plain"
        registry.rule(BLOBS)(
            lambda exchange: exchange.reply(200, gzip.compress(blob), {"Content-Encoding": "gzip"}),
        )
        with telling(RegistryError, "…unexpected Content-Encoding"):
            read_all(repository, blob)


@isolated
def test_what_would_become_part_of_a_url_is_checked() -> None:
    with PythonRegistry() as registry:
        client = configured()
        for name in ("../x", "a//b", "A", "a b", "a?b", "", "a" * 256, "a/../b"):
            with pytest.raises(InvalidArgument):
                client.repository(registry.address, name)
        with client.repository(registry.address, NAME) as repository:
            for reference in ("../x", "a/b", "", "x" * 129, "sha256:../x", "sha256:" + "A" * 64, "a b", "ä"):
                with pytest.raises(InvalidArgument):
                    repository.resolve(reference)
            with pytest.raises(InvalidArgument):
                repository.blob("sha256:..", 1)
            with pytest.raises(InvalidArgument):
                repository.blob(digest_of(b""), -1)
        assert not registry.requests


@isolated
@pytest.mark.parametrize(
    "body", [b"[]", b'{"tags": null}', b'{"tags": 7}', b'{"tags": ["ok", 7, "../no"]}', b"nonsense"]
)
def test_odd_lists_of_tags(body: bytes) -> None:
    with PythonRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        registry.rule(".*/tags/list")(lambda exchange: exchange.reply(200, body))
        if body == b"nonsense":
            with telling(RegistryError, "…invalid JSON"):
                repository.tags()
        else:
            assert repository.tags() in ([], ["ok"])


@isolated
def test_tags_by_pages() -> None:
    with PythonRegistry() as registry, PythonRegistry() as elsewhere:
        where = {"1": "/v2/team/app/tags/list?n=1&last=1", "2": "?n=1&last=2", "3": ""}

        @registry.rule(".*/tags/list")
        def page(exchange: Exchange) -> None:
            last = str(int(exchange.seen.query.get("last", ["0"])[0]) + 1)
            headers = {"Link": f'<{where[last]}>; rel="next"'} if where[last] else {}
            exchange.json(200, {"tags": [f"t{last}"]}, headers)

        with configured(attempts=1).repository(registry.address, NAME) as repository:
            assert repository.tags() == ["t1", "t2", "t3"]
            where["3"] = "/v2/team/app/tags/list?last=0"  # for ever
            with telling(RegistryError, "…more than 100000 tags"):
                registry.rules.insert(0, lambda exchange: _many(exchange))
                repository.tags()
        assert not elsewhere.requests


def _many(exchange: Exchange) -> None:
    headers = {"Link": f'<{exchange.seen.path}>; rel="next"'}
    exchange.json(200, {"tags": [f"t{number}" for number in range(30_000)]}, headers)


# -- other places


@isolated
@pytest.mark.parametrize("challenge", ["Basic realm=x", 'Bearer realm="REGISTRY/token",service="s"'])
def test_no_authorization_goes_to_another_host(challenge: str) -> None:
    with PythonRegistry() as registry, PythonRegistry() as elsewhere:
        registry.challenge = challenge.replace("REGISTRY", registry.url)
        registry.rule("GET /token")(lambda exchange: exchange.json(200, {"token": "secret"}))
        elsewhere.challenge = f'Basic realm="{elsewhere.url}"'  # asks, and gets nothing
        elsewhere.accepts = lambda authorization, seen: seen.path.startswith("/free")
        image = holding(registry)
        elsewhere.store = registry.store
        for path in ("", "/free"):
            registry.rules[1:] = []

            @registry.rule(BLOBS)
            def away(exchange: Exchange, path: str = path) -> bool | None:
                if "authorization" not in exchange.seen.headers:
                    return False
                return exchange.reply(307, b"", {"Location": f"{elsewhere.url}{path}{exchange.seen.path}"})

            with configured(attempts=1).repository(registry.address, NAME, ME) as repository:
                repository.resolve("latest")
                with pytest.raises(RegistryError):
                    read_all(repository, image.layers[1])
        assert len(elsewhere.requests) == 2
        assert not any("authorization" in seen.headers for seen in elsewhere.requests)


@isolated
def test_a_blob_from_another_host() -> None:
    with PythonRegistry() as registry, PythonRegistry() as storage:
        image = holding(registry)
        registry.rule(BLOBS)(lambda x: x.reply(302, b"", {"Location": f"{storage.url}{x.seen.path}?signature=a%20b"}))
        storage.store = registry.store
        with configured().repository(registry.address, NAME, ME) as repository:
            check_pull(repository, image)
            assert read_all(repository, image.layers[1], offset=7) == image.layers[1][7:]
        assert {seen.query["signature"][0] for seen in storage.requests} == {"a b"}
        assert storage.requests[-1].headers["range"] == "bytes=7-"


@isolated
@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("SELF", 'Get "…": stopped after 10 redirects'),
        ("ftp://127.0.0.1/x", "invalid URL 'ftp://127.0.0.1/x'"),
        ("http://127.0.0.1:99999/x", "invalid URL …"),
        ("http://[::1/x", "invalid URL …"),
        ("file:///etc/passwd", "invalid URL …"),
        ("http://a" * 5000, "…the registry gives a URL that is too long"),
    ],
)
def test_bad_redirects(location: str, text: str) -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME) as repository:
        registry.rule(BLOBS)(
            lambda x: x.reply(307, b"", {"Location": location.replace("SELF", x.seen.path)}),
        )
        with telling(RegistryError, text):
            read_all(repository, b"blob")
        assert len(registry.asked(BLOBS)) <= 10


@isolated
def test_nothing_goes_from_tls_to_plain_text() -> None:
    address, authority = other_address(), trustme.CA()
    tls = server_tls(authority.issue_cert("127.0.0.1", address))
    with PythonRegistry(tls=tls) as registry, PythonRegistry() as plain:
        registry.rule(BLOBS)(
            lambda exchange: exchange.reply(307, b"", {"Location": f"{plain.url}{exchange.seen.path}"})
        )
        refused = f"…refusing to follow a redirect from https to {plain.url}"
        with configured().repository(registry.address, NAME, ME) as repository, telling(RegistryError, refused):
            read_all(repository, b"blob")
        assert not plain.requests


@isolated
def test_a_registry_without_tls_has_to_be_allowed() -> None:
    address = other_address()
    with PythonRegistry(address=address) as registry:
        image = holding(registry)
        with configured(attempts=1).repository(registry.address, NAME, ME) as repository:
            failed = f'Head "https://{registry.address}/v2/": http: server gave HTTP response to HTTPS client'
            with telling(RegistryError, failed.replace("Head", "Get")):
                repository.resolve("latest")
        assert not registry.requests
        for allowed in (registry.address, "10.250.0.0/16"):
            with configured(insecure=(allowed,)).repository(registry.address, NAME) as repository:
                check_pull(repository, image)


@isolated
def test_a_bad_certificate_is_not_a_reason_for_plain_text() -> None:
    address = other_address()
    with PythonRegistry(address=address, tls=server_tls(trustme.CA().issue_cert(address))) as registry:
        image = holding(registry)
        with configured().repository(registry.address, NAME, ME) as repository:
            unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority"
            with telling(RegistryError, f'Get "https://{registry.address}/v2/": {unknown}'):
                repository.resolve("latest")
        assert not registry.requests
        with configured(insecure=(registry.address,)).repository(registry.address, NAME) as repository:
            check_pull(repository, image)


@isolated
def test_a_token_realm_without_tls_is_not_asked(tmp_path: Path) -> None:
    address, authority = other_address(), trustme.CA()
    tls = server_tls(authority.issue_cert(address))
    with PythonRegistry(address=address, tls=tls) as registry, PythonRegistry() as tokens:
        registry.challenge = f'Bearer realm="{tokens.url}/token",service="s"'
        (tmp_path / registry.address).mkdir()
        authority.cert_pem.write_to_path(tmp_path / registry.address / "ca.crt")
        client = configured(certs_dirs=(str(tmp_path),))
        refused = f"…refusing to send credentials to {tokens.url}/token over plain HTTP"
        with client.repository(registry.address, NAME, ME) as repository, telling(RegistryError, refused):
            repository.resolve("latest")
        with telling(RegistryError, refused):
            client.login(registry.address, ME)
        refused = f"…refusing to ask for a token at {tokens.url}/token over plain HTTP"
        with client.repository(registry.address, NAME) as repository, telling(RegistryError, refused):
            repository.resolve("latest")
        assert not tokens.requests


# -- cancelling: whatever blocks; the tests would hang for an hour otherwise

PATIENT = {"stall_timeout": 3600, "connect_timeout": 3600, "backoff": 3600, "longest_wait": 3600}


class Canceller:
    """Cancels when told that something is about to block."""

    def __init__(self) -> None:
        self.cancel = Cancellation()
        self.blocked = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.blocked.wait()
        time.sleep(0.05)  # into the system call; should it not be there yet, the test passes all the same
        self.cancel.cancel()

    def hold(self, exchange: Exchange) -> None:
        """Leave a request alone."""
        self.blocked.set()
        threading.Event().wait()


@isolated
@pytest.mark.parametrize("where", ["head", "body", "pause"])
def test_cancelling_a_read(where: str) -> None:
    canceller = Canceller()
    with PythonRegistry() as registry:
        blob = holding(registry).layers[1]

        @registry.rule(BLOBS)
        def answer(exchange: Exchange) -> None:
            if where == "pause":
                exchange.reply(503)
                return
            if where == "body":
                exchange.reply(200, blob[:1000], length=len(blob))
            canceller.hold(exchange)

        repository = configured(**PATIENT).repository(registry.address, NAME, cancel=canceller.cancel)
        with repository, pytest.raises(Cancelled):
            read_all(repository, blob, waiting=lambda seconds: canceller.blocked.set())


@isolated
def test_cancelling_an_upload_that_nobody_reads() -> None:
    canceller = Canceller()
    with PythonRegistry() as registry:
        registry.reads_bodies = False
        registry.rule("POST .*")(lambda exchange: exchange.reply(202, b"", {"Location": "/v2/up"}))
        registry.rule("PUT .*")(canceller.hold)
        repository = configured(**PATIENT).repository(registry.address, NAME, cancel=canceller.cancel)
        with repository, pytest.raises(Cancelled):
            send_blob(repository, b"x" * (64 << 20))


@isolated
def test_cancelling_a_connection_that_nobody_takes() -> None:
    canceller = Canceller()
    with socket.socket() as full, ExitStack() as fillers:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        address = f"127.0.0.1:{full.getsockname()[1]}"
        with configured(**PATIENT).repository(address, NAME, cancel=canceller.cancel) as repository:
            canceller.blocked.set()
            with pytest.raises(Cancelled):
                repository.resolve("latest")


@isolated
def test_cancelling_a_handshake() -> None:
    canceller = Canceller()
    with listen(other_address()) as silent:
        address = f"10.250.0.1:{silent.getsockname()[1]}"
        repository = configured(**PATIENT).repository(address, NAME, cancel=canceller.cancel)
        threading.Thread(target=_take, args=(silent, canceller), daemon=True).start()
        with repository, pytest.raises(Cancelled):
            repository.resolve("latest")


def _take(silent: socket.socket, canceller: Canceller) -> None:
    connection, _ = silent.accept()
    connection.recv(5)
    canceller.hold(None)  # type: ignore[arg-type]


@isolated
def test_cancelling_a_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    canceller = Canceller()

    def never(*args: object, **options: object) -> None:
        canceller.blocked.set()
        threading.Event().wait()

    monkeypatch.setattr(socket, "getaddrinfo", never)
    with pytest.raises(Cancelled):
        configured(**PATIENT).repository("somewhere.example", NAME, cancel=canceller.cancel)


@isolated
@pytest.mark.parametrize("what", ["/v2/", "/token"])
def test_cancelling_who_waits_for_what_another_asks(what: str) -> None:
    first, second = Canceller(), Canceller()
    client = configured(**PATIENT)
    with PythonRegistry() as registry:
        registry.challenge = f'Bearer realm="{registry.url}/token",service="s"'
        registry.rule(f"GET {what}")(first.hold)
        first.cancel.cancel = second.blocked.set  # type: ignore[method-assign]  # let the second begin instead
        threading.Thread(target=_resolve, args=(client, registry, first.cancel), daemon=True).start()
        with pytest.raises(Cancelled):
            client.repository(registry.address, NAME, cancel=_begun(first, second)).resolve("latest")


def _resolve(client: Registry, registry: PythonRegistry, cancel: Cancellation) -> None:
    client.repository(registry.address, NAME, cancel=cancel).resolve("latest")


def _begun(first: Canceller, second: Canceller) -> Cancellation:
    """The second's, once the first is under way."""
    first.blocked.wait()
    return second.cancel


@isolated
def test_cancelled_before_it_began() -> None:
    cancel = Cancellation()
    cancel.cancel()
    with PythonRegistry() as registry, pytest.raises(Cancelled):
        configured().repository(registry.address, NAME, cancel=cancel).resolve("latest")
    assert not registry.requests


# -- sharing


@isolated
def test_many_threads_share_one_token_and_a_few_connections() -> None:
    with PythonRegistry() as registry:
        registry.challenge = f'Bearer realm="{registry.url}/token",service="s"'
        registry.accepts = lambda authorization, seen: authorization == "Bearer secret"
        registry.rule("GET /token")(lambda exchange: exchange.json(200, {"access_token": "secret", "expires_in": 3600}))
        image = make_image([make_layer({f"f{number}": b"x" * 100_000}) for number in range(8)])
        registry.store.put(NAME, "latest", image)
        with configured().repository(registry.address, NAME) as repository:
            failures: list[BaseException] = []

            def work() -> None:
                try:
                    check_pull(repository, image)
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not failures
        assert len(registry.asked("GET /token")) == 1
        assert len(registry.asked("GET /v2/")) == 1
        assert registry.connections <= 12


@isolated
def test_a_token_that_expires_on_the_way_is_replaced() -> None:
    with PythonRegistry() as registry:
        good = ["t1"]
        registry.challenge = f'Bearer realm="{registry.url}/token",service="s",error="invalid_token"'
        registry.accepts = lambda authorization, seen: authorization == f"Bearer {good[-1]}"
        registry.rule("GET /token")(lambda exchange: exchange.json(200, {"token": good[-1], "expires_in": 3600}))
        image = holding(registry)
        with configured().repository(registry.address, NAME) as repository:
            check_pull(repository, image)
            good.append("t2")
            check_pull(repository, image)
        assert len(registry.asked("GET /token")) == 2


@isolated
def test_endless_challenges_end() -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME, ME) as repository:
        registry.challenge = f'Bearer realm="{registry.url}/token",service="s",error="invalid_token"'
        registry.accepts = lambda authorization, seen: False
        registry.rule("GET /token")(lambda exchange: exchange.json(200, {"token": "no"}))
        with telling(RegistryError, "unauthorized: …"):
            repository.resolve("latest")
        assert len(registry.requests) < 20


@isolated
@pytest.mark.parametrize(
    "reply", [{}, [], {"token": 7}, {"token": "a\r\nX-Evil: 1"}, "nonsense", {"token": "t", "expires_in": "x"}]
)
def test_odd_tokens(reply: object) -> None:
    with PythonRegistry() as registry, configured(attempts=1).repository(registry.address, NAME, ME) as repository:
        registry.challenge = f'Bearer realm="{registry.url}/token",service="s"'
        registry.accepts = lambda authorization, seen: "evil" not in seen.headers and authorization == "Bearer t"
        registry.rule("GET /token")(lambda exchange: exchange.reply(200, json.dumps(reply).encode()))
        holding(registry)
        if reply == {"token": "t", "expires_in": "x"}:
            repository.resolve("latest")
            return
        with pytest.raises(RegistryError):
            repository.resolve("latest")
        assert not any("x-evil" in seen.headers for seen in registry.requests)
