"""Our own command line with a registry that wants credentials: from login to a container of a pulled image."""

import json
import os
import sys

import pytest

from tests.cli.registry_cases import HELPER
from tests.registry.servers import DockerRegistry, TokenServer

from .host import busybox_tar

USERS = "me:$2y$05$sqC07JEhVFwXFQPXvSdd7eylo6JTyuKdY.X1dkVNhIsBM2kYyJYC2\n"
PASSWORD = "sécret:1"


@pytest.fixture(scope="module")
def registry(host, tmp_path_factory):
    """Debian's registry beside the engine; it lets `me` in."""
    users = tmp_path_factory.mktemp("users") / "htpasswd"
    users.write_text(USERS)
    with DockerRegistry(netns=host.netns, auth={"htpasswd": {"realm": "test", "path": str(users)}}) as registry:
        yield registry


@pytest.fixture
def signed_in(host, registry):
    done = host.wherry("login", "-u", "me", "--password-stdin", registry.address, input=PASSWORD + "\n")
    assert done.stdout == "Login Succeeded\n"
    assert "credentials are stored unencrypted" in done.stderr
    yield
    out = host.wherry("logout", registry.address).stdout
    assert out == f"Removing login credentials for {registry.address}\n"
    assert json.loads((host.root / "config/config.json").read_text())["auths"] == {}


@pytest.fixture
def image(host, registry):
    """A name on the registry of an image that the engine has."""
    name = f"{registry.address}/busybox:1"
    host.wherry("import", "-c", 'CMD ["echo", "from afar"]', "-", name, input=busybox_tar(), text=False)
    yield name
    host.wherry("rmi", "-f", name, check=False)


def test_a_stranger_is_refused(host, registry, image):
    done = host.wherry("push", image, check=False)
    assert (done.returncode, done.stderr) == (1, "no basic auth credentials\n")
    done = host.wherry("pull", image, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("no basic auth credentials\n")
    done = host.wherry("login", "-u", "me", "--password-stdin", registry.address, input="wrong", check=False)
    assert done.returncode == 1
    assert "401 Unauthorized" in done.stderr
    assert not (host.root / "config/config.json").exists()


def test_push_pull_and_run(host, signed_in, image):
    pushed = host.wherry("push", image).stdout.splitlines()
    assert pushed[0] == f"The push refers to repository [{image.removesuffix(':1')}]"
    assert pushed[-1].startswith("1: digest: sha256:")
    assert host.wherry("push", "-q", image).stdout == f"{image}\n"
    host.wherry("rmi", image)
    pulled = host.wherry("pull", image).stdout.splitlines()
    assert pulled[0] == "1: Pulling from busybox"
    assert pulled[-2:] == [f"Status: Downloaded newer image for {image}", image]
    assert host.wherry("pull", "-q", image).stdout == f"{image}\n"
    host.wherry("rmi", image)
    run = host.wherry("run", "--rm", image)
    assert run.stdout == "from afar\n"
    assert run.stderr.splitlines()[0] == f"Unable to find image '{image}' locally"
    host.wherry("rmi", image)
    quiet = host.wherry("run", "--rm", "-q", "--pull", "always", image)
    assert (quiet.stdout, quiet.stderr) == ("from afar\n", "")
    host.wherry("rmi", image)
    never = host.wherry("run", "--rm", "--pull", "never", image, check=False)
    assert (never.returncode, never.stdout) == (125, "")
    assert f"No such image: {image}" in never.stderr


def test_all_tags(host, registry, signed_in, image):
    name = f"{registry.address}/several"
    for tag in ("a", "b"):
        host.wherry("tag", image, f"{name}:{tag}")
    assert host.wherry("push", "-aq", name).stdout == f"{name}\n"
    host.wherry("rmi", f"{name}:a", f"{name}:b")
    assert host.wherry("pull", "-aq", name).stdout == f"{name}\n"
    assert host.wherry("images", "--format", "{{.Tag}}", name).stdout.split() in (["a", "b"], ["b", "a"])
    host.wherry("rmi", f"{name}:a", f"{name}:b")


def test_lists_of_manifests(host, registry, signed_in, image):
    host.wherry("push", "-q", image)
    target = f"{registry.address}/lists/x:1"
    assert host.wherry("manifest", "create", target, image).stdout == f"Created manifest list {target}\n"
    digest = host.wherry("manifest", "push", "-p", target).stdout.splitlines()[-1]
    shown = host.wherry("buildx", "imagetools", "inspect", target).stdout
    assert f"Digest:    {digest}\n" in shown
    assert "  Platform:  linux/" in shown
    assert host.wherry("run", "--rm", "-q", target).stdout == "from afar\n"
    host.wherry("rmi", target)


def test_a_login_needs_no_engine(host, registry, tmp_path):
    words = ("-H", f"unix://{tmp_path}/none", "login", "-u", "me", "--password-stdin", registry.address)
    command = (sys.executable, "-m", "wherry.cli.main", "--config", str(tmp_path), *words)
    assert host.run(*command, input=PASSWORD).stdout == "Login Succeeded\n"
    assert registry.address in json.loads((tmp_path / "config.json").read_text())["auths"]
    again = host.run(*command[:-4], registry.address, input="")
    assert again.stdout == "Login Succeeded\n"
    assert "Authenticating with existing credentials... [Username: me]" in again.stderr
    refused = host.run(*command, input="wrong", check=False)
    assert refused.returncode == 1
    assert "401 Unauthorized" in refused.stderr


def test_an_identity_token_takes_the_place_of_the_password(host, image, tmp_path):
    """Kept by a helper, which docker's command line asks as ours does."""
    helper = tmp_path / "docker-credential-safe"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "safe"}')
    environment = host.environment() | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "DOCKER_CONFIG": str(tmp_path)
    }  # fmt: skip
    with (
        TokenServer(tmp_path, {"me": "secret"}, netns=host.netns) as tokens,
        DockerRegistry(netns=host.netns, auth=tokens.configuration) as registry,
    ):
        words = ("login", "-u", "me", "--password-stdin", registry.address)
        assert host.wherry(*words, input="secret", env=environment).stdout == "Login Succeeded\n"
        kept = json.loads((tmp_path / "STORE").read_text())[registry.address]
        assert (kept["Username"], kept["Secret"]) == ("<token>", "identity-me")
        name = f"{registry.address}/tokened:1"
        host.wherry("tag", image, name)
        assert host.wherry("push", "-q", name, env=environment).stdout == f"{name}\n"
        host.wherry("rmi", name)
        for command in (host.wherry, host.docker):
            assert command("pull", "-q", name, env=environment).stdout == f"{name}\n"
        shown = host.wherry("buildx", "imagetools", "inspect", name, env=environment).stdout
        assert shown.startswith(f"Name:      {name}\n")
        host.wherry("logout", registry.address, env=environment)
        host.wherry("rmi", name)
        refused = host.wherry("pull", "-q", name, env=environment, check=False)
        assert refused.returncode == 1
        assert "pull access denied" in refused.stderr
