"""Mirrors, hosts.toml, proxies: where requests go."""

import socket
import time
from pathlib import Path

import pytest
import trustme

from tests.network.netlab import isolated
from tests.registry.lab import NAME, check_pull, configured, holding, image_of, push, read_all, send_blob, telling
from tests.registry.servers import (
    Exchange,
    ProxyServer,
    PythonRegistry,
    Store,
    Uploads,
    free_port,
    listen,
    other_address,
    server_tls,
)
from wherry.errors import NotFound
from wherry.registry.config import ProxyConfig
from wherry.registry.credentials import Credentials
from wherry.registry.errors import RegistryError

pytestmark = pytest.mark.root
ME = Credentials("me", "secret")


def names(monkeypatch: pytest.MonkeyPatch, **addresses: str) -> None:
    """Host names (`_` for a dot) of this test."""
    known = {name.replace("_", "."): address for name, address in addresses.items()}

    def look_up(host: str, port: object, *args: object, **options: object) -> list:
        if host[0].isdigit():
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port or 0))]
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], port or 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def hosts_toml(place: Path, domain: str, text: str) -> tuple[str]:
    (place / domain).mkdir()
    (place / domain / "hosts.toml").write_text(text)
    return (str(place),)


# -- mirrors of docker.io


@isolated
def test_docker_io_comes_from_a_mirror() -> None:
    with PythonRegistry() as mirror:
        image = holding(mirror)
        with configured(mirrors=(f"{mirror.url}/",)).repository("docker.io", NAME, ME) as repository:
            check_pull(repository, image)
        assert not any("authorization" in seen.headers for seen in mirror.requests)


@isolated
def test_a_mirror_gets_no_credentials_even_if_it_asks() -> None:
    with PythonRegistry() as mirror:
        mirror.challenge = "Basic realm=x"
        repository = configured(mirrors=(mirror.url,), attempts=1).repository("docker.io", NAME, ME)
        with repository, pytest.raises(RegistryError):
            repository.resolve("latest")
        assert mirror.requests
        assert not any("authorization" in seen.headers for seen in mirror.requests)


@isolated
@pytest.mark.parametrize("trouble", ["absent", "refused", "broken", "corrupt", "page"])
def test_what_a_mirror_cannot_do_the_registry_does(trouble: str, tmp_path: Path) -> None:
    with PythonRegistry() as mirror, PythonRegistry() as registry:
        image = holding(registry)
        blob = image.layers[1]
        if trouble == "broken":
            mirror.rule(".*/(blobs|manifests)/.*")(lambda exchange: exchange.reply(500))
        elif trouble == "corrupt":
            mirror.store = Store(dict(registry.store.blobs), dict(registry.store.manifests))
            mirror.store.manifests = {key: (kind, data + b" ") for key, (kind, data) in mirror.store.manifests.items()}
            mirror.rule("HEAD .*")(lambda exchange: exchange.reply(404))
        elif trouble == "page":
            mirror.rule(".*")(lambda exchange: exchange.reply(200, b"<html>", {"Content-Type": "text/html"}))
        url = "http://127.0.0.1:1" if trouble == "refused" else mirror.url
        text = f'server = "{registry.url}"\n[host."{url}"]\ncapabilities = ["pull", "resolve"]\n'
        client = configured(certs_dirs=hosts_toml(tmp_path, "images.example", text))
        with client.repository("images.example", NAME) as repository:
            if trouble == "corrupt":
                assert repository.manifest(image.digest).data == image.manifest
            else:
                check_pull(repository, image)
            assert read_all(repository, blob) == blob
        assert trouble == "refused" or mirror.requests


@isolated
def test_a_mirror_that_breaks_off_is_taken_over_from(tmp_path: Path) -> None:
    with PythonRegistry() as mirror, PythonRegistry() as registry:
        image = holding(registry)
        blob = image.layers[1]
        mirror.store = registry.store

        @mirror.rule(f"GET /v2/{NAME}/blobs/.*")
        def cut(exchange: Exchange) -> None:
            if "range" in exchange.seen.headers:
                exchange.reply(500)
                return
            exchange.reply(200, blob[:1000], length=len(blob))
            exchange.hang_up()

        text = f'server = "{registry.url}"\n[host."{mirror.url}"]\n'
        client = configured(certs_dirs=hosts_toml(tmp_path, "images.example", text))
        with client.repository("images.example", NAME) as repository:
            assert read_all(repository, blob) == blob
        assert registry.asked(".*/blobs/.*")[0].headers["range"] == "bytes=1000-"


@isolated
def test_the_error_is_that_of_the_registry_itself(tmp_path: Path) -> None:
    with PythonRegistry() as registry:
        text = f'server = "{registry.url}"\n[host."http://127.0.0.1:1"]\n'
        client = configured(certs_dirs=hosts_toml(tmp_path, "images.example", text), attempts=1)
        repository = client.repository("images.example", NAME)
        with repository, telling(NotFound, f"manifest for images.example/{NAME}:no not found: manifest unknown: …"):
            repository.resolve("no")


# -- hosts.toml


@isolated
def test_capabilities_paths_headers_and_namespace(tmp_path: Path) -> None:
    with PythonRegistry() as mirror, PythonRegistry() as registry:
        image = holding(registry)
        mirror.store = registry.store
        seen_paths: list[str] = []

        @mirror.rule(".*")
        def below(exchange: Exchange) -> bool:
            seen_paths.append(exchange.seen.path)
            exchange.seen.path = "/v2/" + exchange.seen.path.removeprefix("/cache/images/")
            return False

        text = (
            f'server = "{registry.url}"\n'
            f'[host."{mirror.url}/cache/images"]\ncapabilities = ["pull"]\noverride_path = true\n'
            f'[host."{mirror.url}/cache/images".header]\nX-Team = ["a"]\nauthorization = "Bearer mirror"\n'
        )
        client = configured(certs_dirs=hosts_toml(tmp_path, "images.example", text))
        Uploads(registry)
        with client.repository("images.example", NAME, ME) as repository:
            assert repository.resolve("latest").digest == image.digest
            assert [seen.method for seen in registry.asked(".*manifests.*")] == ["HEAD"]
            assert not mirror.requests
            assert repository.manifest(image.digest).data == image.manifest
            assert seen_paths == ["/cache/images/", f"/cache/images/{NAME}/manifests/{image.digest}"]
            assert mirror.requests[-1].query == {"ns": ["images.example"]}
            assert mirror.requests[-1].headers["x-team"] == "a"
            assert mirror.requests[-1].headers["authorization"] == "Bearer mirror"
            send_blob(repository, b"new")
        assert not mirror.asked("(POST|PUT).*")


@isolated
def test_headers_are_for_their_host_alone(tmp_path: Path) -> None:
    with PythonRegistry() as mirror, PythonRegistry() as storage:
        image = holding(mirror)
        storage.store = mirror.store
        mirror.rule("GET .*/blobs/.*")(lambda x: x.reply(307, b"", {"Location": storage.url + x.seen.path}))
        mirror.rule("POST .*")(lambda x: x.reply(202, b"", {"Location": f"{storage.url}/put"}))
        storage.rule("PUT /put")(lambda x: x.reply(201))
        text = f'server = "{mirror.url}"\n[header]\nX-Api-Key = "secret"\n'
        client = configured(certs_dirs=hosts_toml(tmp_path, "images.example", text))
        with client.repository("images.example", NAME) as repository:
            check_pull(repository, image)
            send_blob(repository, b"new")
        assert {seen.headers.get("x-api-key") for seen in mirror.requests} == {"secret"}
        assert {seen.headers.get("x-api-key") for seen in storage.requests} == {None}


@isolated
def test_tls_of_a_host(tmp_path: Path) -> None:
    address, authority, clients = other_address(), trustme.CA(), trustme.CA()
    tls = server_tls(authority.issue_cert(address), client_ca=clients)
    with PythonRegistry(address=address, tls=tls) as registry:
        image = holding(registry)
        pair = clients.issue_cert("me")
        text = f'[host."{registry.url}"]\nca = "ca.pem"\nclient = [["me.pem", "me.key"]]\n'
        places = hosts_toml(tmp_path, "images.example", text)
        authority.cert_pem.write_to_path(tmp_path / "images.example/ca.pem")
        pair.cert_chain_pems[0].write_to_path(tmp_path / "images.example/me.pem")
        pair.private_key_pem.write_to_path(tmp_path / "images.example/me.key")
        with configured(certs_dirs=places).repository("images.example", NAME) as repository:
            check_pull(repository, image)
        text = f'[host."{registry.url}"]\nskip_verify = true\nclient = "both.pem"\n'
        (tmp_path / "images.example/hosts.toml").write_text(text)
        pair.private_key_and_cert_chain_pem.write_to_path(tmp_path / "images.example/both.pem")
        with configured(certs_dirs=places).repository("images.example", NAME) as repository:
            check_pull(repository, image)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("server = [", "…hosts.toml: …"),
        ('host = 7\nserver = "x"', "…hosts.toml: 'host' is not a table of tables"),
        ('[host."http://a"]\nca = 7', "…hosts.toml: host 'http://a': Expected …"),
        ('[host."http://a"]\nspeed = 7', "…hosts.toml: host 'http://a': Object contains unknown field `speed`"),
        ('[host."ftp://a"]', "…hosts.toml: host 'ftp://a': invalid URL 'ftp://a'"),
        ('[host."http://a"]\nclient = [["a", "b", "c"]]', "…hosts.toml: 'client' is a file or a list of …"),
    ],
)
def test_bad_hosts_toml(text: str, why: str, tmp_path: Path) -> None:
    client = configured(certs_dirs=hosts_toml(tmp_path, "127.0.0.1:5000", text))
    with telling(RegistryError, why):
        client.repository("127.0.0.1:5000", NAME)


# -- certs.d


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("a.cert", "missing key a.key for client certificate a.cert. CA certificates must use the extension .crt"),
        ("a.key", "missing client certificate a.cert for key a.key"),
    ],
)
def test_half_a_pair(file: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "127.0.0.1:5000").mkdir()
    (tmp_path / "127.0.0.1:5000" / file).write_text("")
    with telling(RegistryError, why):
        configured(certs_dirs=(str(tmp_path),)).repository("127.0.0.1:5000", NAME)


@isolated
def test_an_authority_that_is_none(tmp_path: Path) -> None:
    address = other_address()
    with PythonRegistry(address=address, tls=server_tls(trustme.CA().issue_cert(address))) as registry:
        (tmp_path / registry.address).mkdir()
        (tmp_path / registry.address / "ca.crt").write_text("nonsense")
        repository = configured(certs_dirs=(str(tmp_path),)).repository(registry.address, NAME)
        with repository, telling(RegistryError, f"{tmp_path}/{registry.address}/ca.crt: …"):
            repository.resolve("latest")


@isolated
@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        ("other.example", "certificate is not valid for registry.example"),
        ("expired", "certificate has expired or is not yet valid"),
    ],
)
def test_certificates_that_prove_nothing(
    certificate: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datetime

    names(monkeypatch, registry_example=other_address())
    authority = trustme.CA()
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    pair = (
        authority.issue_cert("registry.example", not_before=past, not_after=past + datetime.timedelta(1))
        if certificate == "expired"
        else authority.issue_cert(certificate)
    )
    with PythonRegistry(address="10.250.0.1", tls=server_tls(pair)) as registry:
        domain = f"registry.example:{registry.port}"
        (tmp_path / domain).mkdir()
        authority.cert_pem.write_to_path(tmp_path / domain / "ca.crt")
        repository = configured(certs_dirs=(str(tmp_path),)).repository(domain, NAME)
        with (
            repository,
            telling(RegistryError, f'Get "https://{domain}/v2/": tls: failed to verify certificate: x509: {why}'),
        ):
            repository.resolve("latest")


# -- addresses


@isolated
def test_ipv6_alone() -> None:
    with PythonRegistry(address="::1") as registry:
        image = holding(registry)
        with configured().repository(f"[::1]:{registry.port}", NAME) as repository:
            check_pull(repository, image)


@isolated
def test_an_address_that_does_not_answer_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is full: connecting to it hangs."""
    address = other_address()
    with PythonRegistry(address=address) as registry, listen("127.0.0.1", registry.port) as full:
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        image = holding(registry)
        found = [(2, 1, 6, "", (where, 0)) for where in ("127.0.0.1", address)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        name = f"two.example:{registry.port}"
        client = configured(insecure=(name,), connect_timeout=3600, stall_timeout=3600)
        with client.repository(name, NAME) as repository:
            check_pull(repository, image)
        for filler in fillers:
            filler.close()


@isolated
def test_who_is_let_off_for_its_address_is_spoken_to_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to loopback once and elsewhere afterwards gets nobody's password."""
    address = other_address()
    answers = ["127.0.0.1", address, address, address]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [(2, 1, 6, "", (answers.pop(0), 0))])
    with PythonRegistry(address=address) as registry:
        repository = configured(attempts=1).repository(f"rebind.example:{registry.port}", NAME, ME)
        with repository, telling(RegistryError, f"…dial tcp 127.0.0.1:{registry.port}: connect: connection refused"):
            repository.resolve("latest")
        assert not registry.requests


@isolated
def test_who_is_let_off_for_its_address_gives_tokens_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["127.0.0.1", *[other_address()] * 3]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [(2, 1, 6, "", (answers.pop(0), 0))])
    tls = server_tls(trustme.CA().issue_cert("else.example"))
    with PythonRegistry(tls=tls) as registry, PythonRegistry(tls=tls) as tokens:
        tokens.rule("GET /token")(lambda exchange: exchange.json(200, {"token": "t"}))
        registry.challenge = f'Bearer realm="https://rebind.example:{tokens.port}/token"'
        image = holding(registry)
        with configured(attempts=1).repository(f"rebind.example:{registry.port}", NAME, ME) as repository:
            check_pull(repository, image)


@isolated
def test_who_is_let_off_for_its_address_is_not_looked_up_by_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, loop_example="127.0.0.1")
    with ProxyServer() as proxy, PythonRegistry() as registry:
        client, image = configured(proxy=ProxyConfig(proxy.url, proxy.url)), holding(registry)
        with client.repository(f"loop.example:{registry.port}", NAME) as repository:
            check_pull(repository, image)
        assert not proxy.heads


@isolated
def test_a_registry_that_learns_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    client, port = configured(), free_port()
    with PythonRegistry(port=port) as registry, client.repository(registry.address, NAME) as repository:
        check_pull(repository, holding(registry))
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    tls = server_tls(trustme.CA().issue_cert("127.0.0.1"))
    with PythonRegistry(port=port, tls=tls) as registry, client.repository(registry.address, NAME) as repository:
        check_pull(repository, holding(registry))


@isolated
def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch)
    with (
        configured().repository("nowhere.example", NAME) as repository,
        telling(RegistryError, 'Get "https://nowhere.example/v2/": dial tcp: lookup nowhere.example: no such host'),
    ):
        repository.resolve("latest")


# -- proxies


@isolated
@pytest.mark.parametrize("login", ["", "user:p%40ss"])
def test_through_a_proxy(login: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both schemes; the names exist only where the proxy is."""
    names(monkeypatch, plain_example="192.0.2.1", secure_example="192.0.2.1")
    authority = trustme.CA()
    tls = server_tls(authority.issue_cert("secure.example"))
    with ProxyServer(login.replace("%40", "@")) as proxy, PythonRegistry() as plain, PythonRegistry(tls=tls) as secure:
        (tmp_path / "secure.example").mkdir()
        authority.cert_pem.write_to_path(tmp_path / "secure.example/ca.crt")
        proxy.map = {"plain.example": (plain.host, plain.port), "secure.example:443": (secure.host, secure.port)}
        proxy.map["plain.example:443"] = ("127.0.0.1", 1)
        url = f"http://{login + '@' if login else ''}127.0.0.1:{proxy.port}"
        client = configured(proxy=ProxyConfig(url, url), insecure=("plain.example",), certs_dirs=(str(tmp_path),))
        for domain, registry in (("plain.example", plain), ("secure.example", secure)):
            image = image_of()
            Uploads(registry)
            registry.rule("PUT .*/manifests/.*")(
                lambda x: x.reply(201, b"", {"Location": "/", "Docker-Content-Digest": image.digest})  # noqa: B023
            )
            with client.repository(domain, NAME) as repository:
                push(repository, image)
                registry.store.put(NAME, "latest", image)
                check_pull(repository, image)
        assert any(head.startswith("CONNECT secure.example:443 ") for head in proxy.heads)
        assert any(head.startswith("GET http://plain.example/v2/ ") for head in proxy.heads)
        assert not any("proxy-authorization" in seen.headers for seen in (*plain.requests, *secure.requests))


@isolated
def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, secure_example="192.0.2.1")
    with ProxyServer("user:secret") as proxy:
        client = configured(proxy=ProxyConfig("", f"http://127.0.0.1:{proxy.port}"), attempts=1)
        repository = client.repository("secure.example", NAME)
        with repository, telling(RegistryError, 'Get "https://secure.example/v2/": Proxy Authentication Required'):
            repository.resolve("latest")
    client = configured(proxy=ProxyConfig("", "127.0.0.1:1"), attempts=1)
    repository = client.repository("secure.example", NAME)
    with repository, telling(RegistryError, "…proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused"):
        repository.resolve("latest")


@isolated
def test_loopback_is_never_proxied() -> None:
    with ProxyServer() as proxy, PythonRegistry() as registry:
        image = holding(registry)
        with configured(proxy=ProxyConfig(proxy.url, proxy.url)).repository(registry.address, NAME) as repository:
            check_pull(repository, image)
        assert not proxy.heads


# -- logging in


@isolated
@pytest.mark.parametrize("answers", [401, 403, 503])
def test_a_login_refused_over_tls_is_not_tried_without(answers: int) -> None:
    tls = server_tls(trustme.CA().issue_cert("else.example"))
    with PythonRegistry(tls=tls) as registry:
        registry.challenge = 'Basic realm="x"'
        registry.rule(".*")(lambda x: x.reply(answers) if "authorization" in x.seen.headers else False)
        with telling(RegistryError, f"login attempt to https://…/v2/ failed with status: {answers}…"):
            configured().login(registry.address, ME)
        assert registry.connections == 1


# -- searching


@isolated
def test_search() -> None:
    results = [{"name": "app", "description": "d", "star_count": 3, "is_official": True, "is_automated": False}]
    with PythonRegistry() as registry:

        @registry.rule("GET /v1/search")
        def answer(exchange: Exchange) -> None:
            exchange.json(200, {"query": "app", "num_results": 1, "results": results})

        client = configured()
        assert client.search(registry.address, "my app", 0, ME) == results
        assert registry.requests[-1].query == {"n": ["25"], "q": ["my app"]}
        assert registry.requests[-1].headers["authorization"].startswith("Basic ")
        odd: list[object] = [{"results": 5}, {"results": [5]}, 5]
        registry.rules.clear()
        registry.rule("GET /v1/search", times=3)(lambda exchange: exchange.json(200, odd.pop()))
        while odd:
            with telling(RegistryError, "error decoding registry search results: they are no list of objects"):
                client.search(registry.address, "app", 10, None)
        registry.rules.clear()
        with telling(RegistryError, "Unexpected status code 404"):
            client.search(registry.address, "app", 10, None)
