"""Pull and push with the real docker command, from and to Debian's registry, and from one that means harm."""

import json
import os
import shutil
import signal
import subprocess

import pytest

from tests.images.mkimg import digest
from tests.images.puller import big, small
from tests.registry.servers import DockerRegistry, PythonRegistry, make_image

from .host import Host, busybox_tar
from .record_transfers import RECORDING, caller
from .transfer_cases import answers, clean_up


@pytest.fixture(scope="module")
def registry(host):
    """Debian's registry beside the engine, with one image: busybox as skopeo writes it."""
    with DockerRegistry(netns=host.netns) as registry:
        yield registry


@pytest.fixture
def evil(host):
    with PythonRegistry(netns=host.netns) as registry:
        yield registry


@pytest.fixture
def published(host, registry, tmp_path):
    """An image of the registry's that the engine does not have: (name, its digest)."""
    name = f"{registry.address}/busybox:1"
    host.docker("import", "-c", 'CMD ["echo", "from afar"]', "-", name, input=busybox_tar(), text=False)
    host.docker("push", "-q", name)
    (digests,) = json.loads(host.out("image", "inspect", "-f", "{{json .RepoDigests}}", name))
    host.docker("rmi", "-f", name)
    yield name, digests.partition("@")[2]
    host.docker("rmi", "-f", name, check=False)


def test_pulls_answer_as_docker_does(host, evil):
    """Every line but those that depend on how fast it goes, status codes, names, as a real Docker gave them."""
    call = caller(host.address)
    try:
        found = json.loads(json.dumps(answers(call, evil)))
    finally:
        clean_up(call, evil)
    for ours, docker in zip(found, json.loads(RECORDING.read_text()), strict=True):
        assert ours == docker


def test_pull_run_and_push_back(host, registry, published):
    name, digest_there = published
    out = host.out("pull", name)
    assert out.splitlines()[0] == "1: Pulling from busybox"
    assert out.splitlines()[-3:] == [f"Digest: {digest_there}", f"Status: Downloaded newer image for {name}", name]
    assert host.out("run", "--rm", name) == "from afar"
    assert host.out("pull", "-q", name) == name
    copy = f"{registry.address}/a/copy:2"
    host.docker("tag", name, copy)
    lines = host.out("push", copy).splitlines()
    assert lines[-1].startswith(f"2: digest: {digest_there} size: ")
    host.docker("rmi", copy)


def test_run_pulls_what_is_missing(host, published):
    name, _ = published
    result = host.docker("run", "--rm", name)
    assert result.stdout.strip() == "from afar"
    assert f"Unable to find image '{name}' locally" in result.stderr


def test_events(host, registry, published):
    name, _ = published
    since = host.out("info", "-f", "{{.SystemTime}}")
    host.docker("pull", "-q", name)
    host.docker("push", "-q", name)
    command = (
        "events",
        "--since",
        since,
        "--until",
        host.out("info", "-f", "{{.SystemTime}}"),
        "--format",
        "{{json .}}",
    )
    found = [json.loads(line) for line in host.out(*command, "--filter", "type=image").splitlines()]
    assert [(e["Action"], e["Actor"]) for e in found] == [
        (action, {"ID": name, "Attributes": {"name": name.removesuffix(":1")}}) for action in ("pull", "push")
    ]


@pytest.mark.parametrize("kind", ["docker-archive", "oci"])
def test_round_trip_with_skopeo(host, registry, published, tmp_path, kind):
    """What another tool made, through us to a registry and back to the tool: every byte is the same."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    name, _ = published
    options = ["--format", "oci" if kind == "oci" else "v2s2"]
    repository = f"{registry.address}/skopeo/{kind}"
    skopeo = ("skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false")
    host.run(*skopeo, *options, f"docker://{name}", f"docker://{repository}:1")
    host.docker("pull", "-q", f"{repository}:1")
    host.docker("tag", f"{repository}:1", f"{repository}:2")
    host.docker("push", "-q", f"{repository}:2")
    for tag in "12":
        host.run(*skopeo, f"docker://{repository}:{tag}", f"dir:{tmp_path}/{tag}")
    assert subprocess.run(["diff", "-r", tmp_path / "1", tmp_path / "2"]).returncode == 0
    host.docker("rmi", f"{repository}:1", f"{repository}:2")


def test_all_tags_and_search_what_is_there(host, registry, published):
    name, _ = published
    host.docker("pull", "-q", name)
    repository = f"{registry.address}/all"
    for tag in ("a", "b"):
        host.docker("tag", name, f"{repository}:{tag}")
    host.docker("push", "-aq", repository)
    host.docker("rmi", f"{repository}:a", f"{repository}:b")
    host.docker("pull", "-aq", repository)
    assert host.out("images", "--format", "{{.Tag}}", repository).split() == ["a", "b"]
    host.docker("rmi", f"{repository}:a", f"{repository}:b")


def test_what_fails_before_the_first_line_has_a_status(host, registry):
    for path, status, message in (
        (f"fromImage={registry.address}/absent&tag=1", 404, f"manifest for {registry.address}/absent:1 not found"),
        (f"fromImage={registry.address}/absent", 404, f"repository {registry.address}/absent not found"),
        (
            "fromImage=127.0.0.1:1/x&tag=1",
            500,
            'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection',
        ),
        ("fromImage=UPPER&tag=1", 400, "invalid reference format"),
        ("fromImage=x&tag=a/b", 400, "invalid tag format"),
        ("fromImage=x&tag=1&platform=a/b/c/d", 400, '"a/b/c/d": cannot parse platform specifier: invalid argument'),
    ):
        got, body = host.api("POST", f"/images/create?{path}")
        assert (got, body["message"][: len(message)]) == (status, message)


def test_sign_in_distribution_and_search_answer_as_docker_does(host, registry, published):
    name, digest_there = published
    body = {"username": "a", "password": "b", "serveraddress": registry.address}
    assert host.api("POST", "/auth", body) == (200, {"IdentityToken": "", "Status": "Login Succeeded"})
    status, found = host.api("GET", f"/distribution/{name}/json")
    assert (status, found["Descriptor"]["digest"], found["Platforms"]) == (200, digest_there, None)
    absent = f"/distribution/{registry.address}/absent/json"
    assert host.api("GET", absent) == (404, {"message": "manifest unknown: manifest unknown"})
    assert host.api("GET", f"/images/search?term={registry.address}/x") == (
        500,
        {"message": "Unexpected status code 404"},
    )
    for query, message in (
        ("term=x&limit=101", "limit 101 is outside the range of [1, 100]"),
        ("term=x&limit=a", 'invalid limit specified: strconv.Atoi: parsing "a": invalid syntax'),
        ("term=http://x", "invalid repository name: repository name (http://x) should not have a scheme"),
        ("term=x&filters=%7B%22bogus%22%3A%5B%22x%22%5D%7D", "invalid filter 'bogus'"),
    ):
        assert host.api("GET", f"/images/search?{query}") == (400, {"message": message})


def test_import_of_a_url(host, evil):
    archive = busybox_tar()

    @evil.rule(r"GET /root.tar")
    def root(exchange):
        exchange.reply(200, archive)

    host.docker("import", "-c", 'CMD ["echo", "imported"]', f"{evil.url}/root.tar", "from-url")
    assert host.out("run", "--rm", "from-url") == "imported"
    assert host.out("history", "--format", "{{.Comment}}", "from-url") == f"Imported from {evil.url}/root.tar"
    host.docker("rmi", "from-url")
    for source, status, message in (
        (f"{evil.url}/absent", 404, f"failed to GET {evil.url}/absent with status 404 Not Found: "),
        ("127.0.0.1:1/x", 500, 'Get "http://127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused'),
        ("file:///etc/passwd", 500, 'Get "file:///etc/passwd": unsupported protocol scheme "file"'),
        ("", 500, 'Get "http:": http: no Host in request URL'),
    ):
        got, body = host.api("POST", f"/images/create?fromSrc={source}")
        assert (got, body["message"][: len(message)]) == (status, message)


def test_search_filters(host, evil):
    found = [
        {"name": "a", "description": "x", "star_count": 5, "is_official": True},
        {"name": "b", "star_count": 1, "is_official": False, "is_automated": True},
    ]

    @evil.rule(r"GET /v1/search")
    def answer(exchange):
        exchange.json(200, {"results": found})

    def names(filters):
        query = json.dumps({key: [value] for key, value in filters.items()}).replace('"', "%22").replace(" ", "")
        query = query.replace("{", "%7B").replace("}", "%7D").replace("[", "%5B").replace("]", "%5D")
        status, results = host.api("GET", f"/images/search?term={evil.address}/x&limit=7&filters={query}")
        assert status == 200
        return [result["name"] for result in results]

    assert names({}) == ["a", "b"]
    assert names({"is-official": "true"}) == ["a"]
    assert names({"is-official": "false"}) == ["b"]
    assert names({"is-automated": "true"}) == []
    assert names({"stars": "2"}) == ["a"]
    assert evil.asked("GET /v1/search")[-1].query == {"q": ["x"], "n": ["7"]}


def test_credentials_reach_the_registry_and_no_other(host, evil):
    """They come by X-Registry-Auth; what is no base64 or no JSON is ignored."""
    image = evil.store.put("app", "1", make_image([small("a")]))
    evil.challenge = 'Basic realm="x"'
    evil.accepts = lambda authorization, seen: authorization == "Basic bWU6c2VjcmV0"
    config = host.root / "config"
    config.mkdir(exist_ok=True)
    (config / "config.json").write_text(json.dumps({"auths": {evil.address: {"auth": "bWU6c2VjcmV0"}}}))
    try:
        host.docker("pull", "-q", f"{evil.address}/app:1")
    finally:
        shutil.rmtree(config)
    assert digest(image.config) in host.out("images", "-q", "--no-trunc")
    host.docker("rmi", f"{evil.address}/app:1")
    for header in ("nonsense", "bm9uc2Vuc2U="):
        command = ["curl", "-s", "-X", "POST", "-H", f"X-Registry-Auth: {header}", "--unix-socket"]
        path = f"http://localhost/images/create?fromImage={evil.address}/app&tag=1"
        out = subprocess.run([*command, str(host.root / "wherry.sock"), path], capture_output=True, text=True).stdout
        assert "authentication required" in out or "no basic auth credentials" in out


def used(host):
    """Bytes of the engine's content and layers."""
    return sum(
        os.lstat(os.path.join(directory, name)).st_size
        for place in ("content", "layers")
        for directory, _, names in os.walk(host.root / "data" / place)
        for name in names
    )


def endless(exchange):
    exchange.reply(200, b"", {"Transfer-Encoding": "chunked"})
    for _ in range(64):
        exchange.raw(b"100000\r\n" + bytes(1 << 20) + b"\r\n")


def other_content(exchange):
    exchange.reply(200, os.urandom(4096), length=4096)


def html(exchange):
    exchange.reply(200, b"<html>", {"Content-Type": "text/html"})


EVIL = {
    "an endless layer": ("blobs/.*", endless, "more than the"),
    "other content": ("blobs/.*", other_content, "announced"),
    "an endless manifest": ("manifests/.*", endless, "larger than"),
    "a page": ("manifests/.*", html, "HTML page"),
}


@pytest.mark.parametrize("case", EVIL)
def test_an_evil_registry_costs_nothing(host, evil, case):
    what, answer, text = EVIL[case]
    evil.store.put("app", "1", make_image([small("a"), big()]))
    before = used(host)
    evil.rule(rf"GET /v2/app/{what}")(answer)
    result = host.docker("pull", f"{evil.address}/app:1", check=False)
    assert result.returncode == 1
    assert text in result.stderr
    assert used(host) <= before


def test_a_client_that_goes_away_takes_its_pull_with_it(host, evil):
    layer = big()
    evil.store.put("app", "1", make_image([layer]))

    @evil.rule(rf"GET /v2/app/blobs/{digest(layer)}", times=1)
    def stall(exchange):
        exchange.reply(200, layer[: 2 << 20], length=len(layer))
        exchange._handler.wfile.flush()
        exchange.wait_for_hang_up()
        gone.append(True)

    gone = []
    client = host.popen("docker", "pull", f"{evil.address}/app:1")
    partial = host.root / "data/content/ingest" / f"partial-{digest(layer)[7:]}"
    host.wait_until(lambda: partial.exists() and partial.stat().st_size >= 2 << 20, "the first half")
    client.send_signal(signal.SIGINT)
    client.communicate()
    host.wait_until(lambda: gone, "the end of the download")
    assert "never retrieved" not in host.log()
    host.docker("pull", "-q", f"{evil.address}/app:1")
    assert evil.asked(f"GET .*{digest(layer)}")[-1].headers["range"] == f"bytes={2 << 20}-"
    host.docker("rmi", f"{evil.address}/app:1")


def test_a_pull_goes_on_after_the_daemon_was_killed():
    layer = big()
    own = Host().start()
    try:
        with PythonRegistry(netns=own.netns) as registry:
            registry.store.put("app", "1", make_image([small("a"), layer]))

            @registry.rule(rf"GET /v2/app/blobs/{digest(layer)}", times=1)
            def stall(exchange):
                exchange.reply(200, layer[: 2 << 20], length=len(layer))
                exchange._handler.wfile.flush()
                exchange.wait_for_hang_up()

            client = own.popen("docker", "pull", f"{registry.address}/app:1")
            partial = own.root / "data/content/ingest" / f"partial-{digest(layer)[7:]}"
            own.wait_until(lambda: partial.exists() and partial.stat().st_size >= 2 << 20, "the first half")
            own.stop(signal.SIGKILL)
            client.communicate()
            own.start()
            assert own.out("images", "-aq") == ""
            own.docker("pull", "-q", f"{registry.address}/app:1")
            assert registry.asked(f"GET .*{digest(layer)}")[-1].headers["range"] == f"bytes={2 << 20}-"
            partial.write_bytes(bytes(2 << 20))
            reclaimed = own.out("system", "prune", "-af")
            assert "Total reclaimed space" in reclaimed
            assert not partial.exists()
    finally:
        own.close()


def test_mirrors_and_insecure_registries_are_reloaded():
    own = Host()
    configuration = own.root / "daemon.json"
    own.flags = (*own.flags, "--config-file", str(configuration))
    configuration.write_text("{}")
    own.start()
    try:
        with PythonRegistry(netns=own.netns) as mirror:
            mirror.store.put("library/x", "latest", make_image([small("mirrored")]))
            assert own.docker("pull", "x", check=False).returncode == 1
            changed = {"registry-mirrors": [mirror.url], "insecure-registries": ["10.1.0.0/16", "there:5000"]}
            configuration.write_text(json.dumps(changed | {"max-concurrent-downloads": 1}))
            own.daemon.send_signal(signal.SIGHUP)
            shown = own.wait_until(lambda: own.api("GET", "/info")[1]["RegistryConfig"]["Mirrors"], "the reload")
            assert shown == [f"{mirror.url}/"]
            configured = own.api("GET", "/info")[1]["RegistryConfig"]
            assert configured["InsecureRegistryCIDRs"] == ["::1/128", "127.0.0.0/8", "10.1.0.0/16"]
            assert configured["IndexConfigs"]["there:5000"] == {
                "Mirrors": [], "Name": "there:5000", "Official": False, "Secure": False
            }  # fmt: skip
            assert own.out("pull", "x").endswith("docker.io/library/x:latest")
            assert own.out("images", "--format", "{{.Repository}}:{{.Tag}}") == "x:latest"
    finally:
        own.close()
