"""The client with Debian's docker-registry."""

from pathlib import Path

import pytest
import trustme

from tests.network.netlab import isolated
from tests.registry.lab import NAME, check_pull, configured, image_of, opener, push, read_all, send_blob, telling
from tests.registry.servers import DockerRegistry, TokenServer, digest_of, other_address
from wherry.errors import NotFound, Unauthorized
from wherry.registry.credentials import Credentials
from wherry.registry.errors import RegistryError

pytestmark = pytest.mark.root


@isolated
def test_push_then_pull(tmp_path: Path) -> None:
    image = image_of(3 << 20)
    with DockerRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        layer = image.layers[1]
        assert not repository.has_blob(digest_of(layer))
        sent: list[int] = []
        repository.upload_blob(digest_of(layer), len(layer), opener(tmp_path / "layer", layer), sent.append)
        assert sent == sorted(sent)
        assert sent[-1] == len(layer)
        assert repository.has_blob(digest_of(layer))
        push(repository, image)
        check_pull(repository, image)
        assert read_all(repository, layer, offset=12345) == layer[12345:]
        assert read_all(repository, layer, offset=len(layer)) == b""


@isolated
def test_empty_blob_and_tags() -> None:
    image = image_of(10)
    with DockerRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        push(repository, image)
        send_blob(repository, b"")
        names = [f"v{number}" for number in range(20)]
        for name in names:
            repository.put_manifest(name, image.manifest, image.media_type)
        assert sorted(repository.tags()) == sorted(["latest", *names])


@isolated
def test_mount() -> None:
    blob = b"shared"
    client = configured()
    with DockerRegistry() as registry:
        with client.repository(registry.address, NAME) as repository:
            send_blob(repository, blob)
        with client.repository(registry.address, "team/other") as repository:
            assert repository.mount_blob(digest_of(blob), NAME)
            assert repository.has_blob(digest_of(blob))
            assert not repository.mount_blob(digest_of(b"not there"), NAME)
            send_blob(repository, b"not there")  # takes the upload that the registry opened instead
            assert read_all(repository, b"not there") == b"not there"


@isolated
def test_what_is_not_there() -> None:
    with DockerRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        name = f"{registry.address}/{NAME}"
        with telling(NotFound, f"manifest for {name}:no not found: manifest unknown: manifest unknown"):
            repository.resolve("no")
        digest = digest_of(b"no")
        with telling(NotFound, f"manifest for {name}@{digest} not found: manifest unknown: …"):
            repository.manifest(digest)
        with telling(NotFound, f"repository {name} not found: name unknown: repository name not known…"):
            repository.tags()
        with telling(RegistryError, "unknown blob"):
            repository.blob(digest, 2).read()
        with telling(RegistryError, "download failed after attempts=1: unknown blob"):
            repository.small_blob(digest, 2)


@isolated
def test_refused_uploads() -> None:
    image = image_of(10)
    with DockerRegistry() as registry, configured().repository(registry.address, NAME) as repository:
        with telling(RegistryError, "manifest blob unknown: blob unknown to registry"):
            repository.put_manifest("latest", image.manifest, image.media_type)
        with telling(RegistryError, "digest invalid: provided digest did not match uploaded content"):
            repository.upload_blob(digest_of(b"a"), 1, opener(registry.root / "b", b"b"), lambda count: None)


@isolated
def test_a_restarted_registry_is_spoken_to_anew() -> None:
    image = image_of(10)
    client = configured(attempts=1)
    with DockerRegistry() as registry, client.repository(registry.address, NAME) as repository:
        push(repository, image)
        registry.stop()
        with telling(RegistryError, "…connection refused…"):
            repository.resolve("latest")
        registry.start()
        check_pull(repository, image)


def htpasswd(path: Path) -> dict:
    """Lets `me` in with `sécret:1`."""
    path.write_text("me:$2y$05$sqC07JEhVFwXFQPXvSdd7eylo6JTyuKdY.X1dkVNhIsBM2kYyJYC2\n")
    return {"htpasswd": {"realm": "test", "path": str(path)}}


@isolated
def test_basic(tmp_path: Path) -> None:
    image = image_of(10)
    me, other = Credentials("me", "sécret:1"), Credentials("me", "wrong")
    with DockerRegistry(auth=htpasswd(tmp_path / "users")) as registry:
        client = configured()
        with client.repository(registry.address, NAME, me) as repository:
            push(repository, image)
            check_pull(repository, image)
        with client.repository(registry.address, NAME) as repository:
            where = f"http://{registry.address}/v2/{NAME}/manifests/latest"
            with telling(RegistryError, f'Head "{where}": no basic auth credentials'):
                repository.resolve("latest")
            with telling(RegistryError, "no basic auth credentials"):
                send_blob(repository, b"mine")
        with (
            client.repository(registry.address, NAME, other) as repository,
            telling(RegistryError, "unauthorized: authentication required"),
        ):
            repository.resolve("latest")
        assert client.login(registry.address, me) == ("Login Succeeded", "")
        failed = f"login attempt to http://{registry.address}/v2/ failed with status: 401 Unauthorized"
        with telling(RegistryError, failed):
            client.login(f"http://{registry.address}/v1/", other)


@isolated
def test_tokens(tmp_path: Path) -> None:
    image = image_of(10)
    me = Credentials("me", "secret")
    client = configured()
    with TokenServer(tmp_path, {"me": "secret"}) as tokens:
        tokens.grant = lambda user, name: ["pull", "push"] if user else ["pull"] if name == "open/app" else []
        with DockerRegistry(auth=tokens.configuration) as registry:
            for name in (NAME, "open/app"):
                with client.repository(registry.address, name, me) as repository:
                    push(repository, image)
                    check_pull(repository, image)
            asked = [(seen.query.get("scope"), "authorization" in seen.headers) for seen in tokens.requests]
            assert asked == [
                ([f"repository:{NAME}:pull,push"], True),
                ([f"repository:{NAME}:pull"], True),
                (["repository:open/app:pull,push"], True),
                (["repository:open/app:pull"], True),
            ]  # each once, whatever came in between
            with client.repository(registry.address, "open/app") as repository:
                check_pull(repository, image)
                with telling(RegistryError, "denied: requested access to the resource is denied"):
                    send_blob(repository, b"no")
            with client.repository(registry.address, NAME) as repository:
                denied = f"pull access denied for {registry.address}/{NAME}, repository does not exist or may require"
                with telling(NotFound, f"…{denied} 'docker login': denied: requested access to the…"):
                    repository.resolve("latest")


@isolated
def test_rights_that_are_given_later_count_at_once(tmp_path: Path) -> None:
    me, client = Credentials("me", "secret"), configured()
    with TokenServer(tmp_path, {"me": "secret"}) as tokens, DockerRegistry(auth=tokens.configuration) as registry:
        tokens.grant = lambda user, name: ["pull"]
        with client.repository(registry.address, NAME, me) as repository:
            with telling(RegistryError, "denied: requested access to the resource is denied"):
                send_blob(repository, b"mine")
            tokens.grant = lambda user, name: ["pull", "push"]
            send_blob(repository, b"mine")
            assert repository.has_blob(digest_of(b"mine"))


@isolated
def test_mount_asks_for_both_repositories(tmp_path: Path) -> None:
    me, client, blob = Credentials("me", "secret"), configured(), b"shared"
    with TokenServer(tmp_path, {"me": "secret"}) as tokens, DockerRegistry(auth=tokens.configuration) as registry:
        with client.repository(registry.address, NAME, me) as repository:
            send_blob(repository, blob)
        with client.repository(registry.address, "team/other", me) as repository:
            assert repository.mount_blob(digest_of(blob), NAME)
        scopes = tokens.requests[-1].query["scope"]
        assert sorted(scopes) == [f"repository:{NAME}:pull", "repository:team/other:pull,push"]


@isolated
def test_login_for_an_identity_token(tmp_path: Path) -> None:
    image, client = image_of(10), configured()
    with TokenServer(tmp_path, {"me": "secret"}) as tokens, DockerRegistry(auth=tokens.configuration) as registry:
        said, identity = client.login(registry.address, Credentials("me", "secret"))
        assert (said, identity) == ("Login Succeeded", "identity-me")
        with client.repository(registry.address, NAME, Credentials(identity_token=identity)) as repository:
            push(repository, image)
            check_pull(repository, image)
        assert {seen.method for seen in tokens.requests[1:]} == {"POST"}
        with telling(Unauthorized, "…unauthorized: incorrect username or password"):
            client.login(registry.address, Credentials("me", "wrong"))


@isolated
def test_a_token_of_the_callers_own(tmp_path: Path) -> None:
    image, client = image_of(10), configured()
    with TokenServer(tmp_path, {"me": "secret"}) as tokens, DockerRegistry(auth=tokens.configuration) as registry:
        mine = tokens.issue("me", [f"repository:{NAME}:pull,push"])
        with client.repository(registry.address, NAME, Credentials(registry_token=mine)) as repository:
            push(repository, image)
            check_pull(repository, image)
        assert not tokens.requests


@isolated
def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    address = other_address()
    authority, clients = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert(address)
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    tls = {"certificate": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.pem")}
    image = image_of(1 << 20)
    with DockerRegistry(
        address=address, http={"tls": {**tls, "clientcas": [str(tmp_path / "clients.pem")]}}
    ) as registry:
        client = configured(certs_dirs=(str(tmp_path / "certs.d"),))
        mine = tmp_path / "certs.d" / registry.address
        with (
            client.repository(registry.address, NAME) as repository,
            telling(RegistryError, "…x509: certificate signed by unknown authority"),
        ):
            repository.resolve("latest")
        mine.mkdir(parents=True)
        authority.cert_pem.write_to_path(mine / "ca.crt")
        with (
            client.repository(registry.address, NAME) as repository,
            telling(RegistryError, "…remote error: tls: bad certificate"),
        ):
            repository.resolve("latest")
        pair = clients.issue_cert("me")
        pair.cert_chain_pems[0].write_to_path(mine / "client.cert")
        with telling(RegistryError, "missing key client.key for client certificate client.cert…"):
            client.repository(registry.address, NAME)
        pair.private_key_pem.write_to_path(mine / "client.key")
        with client.repository(registry.address, NAME) as repository:
            push(repository, image)
            check_pull(repository, image)
