"""`manifest` and `buildx imagetools` do what the docker CLI was recorded doing with a real registry, down to files."""

import json

import pytest

from tests.cli.manifest_cases import HERE, cases, fill, manifests, masked, tree
from tests.registry.servers import DockerRegistry

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
