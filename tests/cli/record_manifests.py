"""Records what the docker CLI and its buildx do with the sequences of data/manifest_cases.txt.

    python -m tests.cli.record_manifests DOCKER_BINARY BUILDX_BINARY

writes tests/cli/data/manifests.json: [{"steps": [{"stdout", "stderr", "code"}], "tree", "pushed"}]. Docker wants
--insecure for a registry on this machine that speaks plain HTTP; the cases are as for us, who do not.
"""

import json
import subprocess
import sys
import tempfile

from tests.cli.manifest_cases import HERE, cases, fill, manifests, masked, tree
from tests.cli.record import ENVIRONMENT
from tests.registry.servers import DockerRegistry

TALKS = ("create", "inspect", "push")


def program(words):
    """The whole command."""
    docker, buildx = sys.argv[1:3]
    if words[0] == "buildx":
        return [buildx, *words[1:]]
    return [docker, *words[:2], *(["--insecure"] if words[1] in TALKS else []), *words[2:]]


def main():
    records = []
    for commands in cases():
        with DockerRegistry() as registry, tempfile.TemporaryDirectory() as top:
            fill(registry.address)
            steps = []
            for words in commands:
                command = program([word.replace("@R@", registry.address) for word in words])
                environment = {**ENVIRONMENT, "DOCKER_CONFIG": top, "DOCKER_HOST": "unix:///nonexistent"}
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
                steps.append({"stdout": done.stdout, "stderr": done.stderr, "code": done.returncode})
            found = {"steps": steps, "tree": tree(f"{top}/manifests"), "pushed": manifests(registry.address)}
            records.append(masked(found, registry.address))
    with open(HERE / "data" / "manifests.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(each, sort_keys=True) for each in records) + "\n]\n")


if __name__ == "__main__":
    main()
