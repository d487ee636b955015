"""`manifest` and `buildx imagetools` do what the docker CLI was recorded doing with a real registry, down to files."""

import json

import pytest

from tests.cli.manifest_cases import HERE, cases, fill, manifests, masked, tree
from tests.registry.servers import DockerRegistry, PythonRegistry
from wherry.cli.registries import IMAGES, LISTS

RECORDS = json.loads((HERE / "data" / "manifests.json").read_text())
CASES = cases()


def as_docker(text):
    """Ours names the command; the plugin of Docker's says that it is an ERROR."""
    return text.removeprefix("ERROR: ").replace("wherry", "docker")


@pytest.mark.parametrize("index", range(len(CASES)), ids=[" ".join(case[0][:2]) for case in CASES])
def test_as_docker(index, wherry, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    record = RECORDS[index]
    with DockerRegistry() as registry:
        fill(registry.address)
        for words, step in zip(CASES[index], record["steps"], strict=True):
            out, err, code = masked(
                wherry(*[word.replace("@R@", registry.address) for word in words]), registry.address
            )
            if "\x1b" in step["stdout"] and "{" not in step["stdout"]:
                step["stdout"] = step["stdout"].replace("\x1b", "\N{REPLACEMENT CHARACTER}")
            seen = (out, as_docker(err), code)
            assert seen == (step["stdout"], as_docker(step["stderr"]), step["code"]), " ".join(words)
        assert masked(manifests(registry.address), registry.address) == record["pushed"]
        assert masked(tree(tmp_path / "manifests"), registry.address) == record["tree"]


NONSENSE = [
    b"",
    b"nonsense",
    b"[]",
    b"null",
    b'{"manifests": 7}',
    b'{"manifests": [7, null, {"digest": 7}, {"digest": "../../x", "platform": []}]}',
    b'{"manifests": [{"digest": "sha256:' + b"5" * 64 + b'", "platform": {"os": 7, "architecture": ["\\u001b[2J"]}}]}',
    b'{"config": 7, "layers": {"a": 1}}',
    b'{"config": {"digest": "sha256:' + b"5" * 64 + b'", "size": 3}, "layers": null}',
    b'{"config": {"digest": "x", "size": 3}}',
    b'{"config": {"digest": "sha256:' + b"5" * 64 + b'", "size": -3}}',
    b"[" * 100_000,
    b'{"annotations": 7, "manifests": [{"annotations": [], "urls": 7, "platform": {"os.features": 7}}]}',
]
COMMANDS = [
    ["manifest", "inspect"],
    ["manifest", "inspect", "-v"],
    ["manifest", "create", "made"],
    ["buildx", "imagetools", "inspect"],
    ["buildx", "imagetools", "inspect", "--format", "{{json .}}"],
    ["buildx", "imagetools", "inspect", "--format", "{{.Manifest}} {{.Image}}"],
]


@pytest.mark.parametrize("media_type", [*IMAGES, *LISTS, "text/plain", ""])
def test_a_registry_may_say_anything(media_type, wherry, monkeypatch, tmp_path):
    """No answer of a registry gets through to the terminal, or further than a message."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with PythonRegistry() as registry:
        for number, data in enumerate(NONSENSE):
            registry.store.put_manifest("x", f"t{number}", data, media_type)
            for command in COMMANDS:
                out, err, code = wherry(*command, f"{registry.address}/x:t{number}")
                assert code in (0, 1), command
                assert code == 0 or err.count("\n") <= 3, err
                assert "\x1b" not in out + err
                assert not (tmp_path / "manifests").exists()


@pytest.mark.parametrize("digest", [None, 7, "latest", "../../x"])
@pytest.mark.parametrize("command", [COMMANDS[1], COMMANDS[-1]])
def test_an_entry_without_a_digest_is_not_asked_for(command, digest, wherry, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    index = {"manifests": [{"digest": digest, "platform": {"os": "linux", "architecture": "amd64"}}]}
    with PythonRegistry() as registry:
        registry.store.put_manifest("x", "list", json.dumps(index).encode(), LISTS[0])
        registry.store.put_manifest("x", str(digest), b"{}", IMAGES[0])
        _, err, code = wherry(*command, f"{registry.address}/x:list")
        assert "an entry of this manifest list: invalid checksum digest format" in err
        assert code == 1
        assert all(seen.path.endswith(("/v2/", "/list")) for seen in registry.requests)
