"""Records what the docker CLI does with the sequences of data/context_cases.txt.

    python tests/cli/record_contexts.py DOCKER_BINARY

writes tests/cli/data/contexts.json: [{"steps": [{"stdout", "stderr", "code"}], "tree"}].
"""

import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tests.cli.context_cases import HERE, cases, masked, prepare, split, tree, write


def record(docker, commands):
    with tempfile.TemporaryDirectory() as top:
        prepare(top)
        steps = []
        for command in commands:
            extra, words = split(command)
            if words[0] == "write":
                write(top, *words[1:])
                continue
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "DOCKER_CONFIG": f"{top}/config",
                **extra,
            }
            done = subprocess.run([docker, "context", *words], cwd=top, env=environment, capture_output=True, text=True)
            steps.append({"stdout": done.stdout, "stderr": done.stderr, "code": done.returncode})
        text = json.dumps({"steps": steps, "tree": tree(top)}).replace("\\n", "\n")
        return json.loads(masked(text, top).replace("\n", "\\n"))


def main():
    records = [record(sys.argv[1], commands) for commands in cases()]
    with open(HERE / "data" / "contexts.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(each, sort_keys=True) for each in records) + "\n]\n")


if __name__ == "__main__":
    main()
