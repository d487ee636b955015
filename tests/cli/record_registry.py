"""Records what the docker CLI does with the sequences of data/registry_cases.txt.

    python tests/cli/record_registry.py DOCKER_BINARY

writes tests/cli/data/registry.json: [{"steps": [{"stdout", "stderr", "code", "asked"}], "tree"}], and
registry_typed.json, what a terminal shows of the cases in TYPED: [{"shown", "asked", "tree"}].
"""

import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tests.cli.fake_engine import FakeEngine
from tests.cli.registry_cases import HERE, TYPED, asked, cases, environment, prepare, routes, split, tree, write
from tests.cli.terminals import shown


def record(docker, commands):
    with tempfile.TemporaryDirectory() as top, FakeEngine(f"{top}/engine.sock", routes()) as engine:
        prepare(top)
        steps = []
        for command in commands:
            extra, words = split(command)
            if words[0] == "write":
                write(top, *words[1:])
                continue
            variables = {**environment(top), "DOCKER_HOST": engine.host, **extra}
            given = variables.pop("STDIN", "")
            engine.requests.clear()
            done = subprocess.run(
                [docker, *words], cwd=top, env=variables, input=given, capture_output=True, text=True, timeout=60
            )
            steps.append({"stdout": done.stdout, "stderr": done.stderr, "code": done.returncode,
                          "asked": asked(engine)})  # fmt: skip
        return json.loads(json.dumps({"steps": steps, "tree": tree(top)}).replace(top, "@TOP@"))


def record_typed(program, variables, files, words, typed):
    """One case of TYPED, run by `program`."""
    with tempfile.TemporaryDirectory() as top, FakeEngine(f"{top}/engine.sock", routes()) as engine:
        prepare(top)
        for name, text in files.items():
            write(top, name, text)
        variables = {**environment(top), "DOCKER_HOST": engine.host, **variables}
        text = shown(program, words, variables, 80, typed)
        found = {"shown": text, "asked": asked(engine), "tree": tree(top)}
        return json.loads(json.dumps(found).replace(top, "@TOP@"))


def main():
    typed = [record_typed([sys.argv[1]], *case) for case in TYPED]
    with open(HERE / "data" / "registry_typed.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(each, sort_keys=True) for each in typed) + "\n]\n")
    records = [record(sys.argv[1], commands) for commands in cases()]
    with open(HERE / "data" / "registry.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(each, sort_keys=True) for each in records) + "\n]\n")


if __name__ == "__main__":
    main()
