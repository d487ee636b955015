"""Records what the docker CLI prints for COMMAND --help against the scripted engine.

    python tests/cli/record_help.py DOCKER_BINARY

writes tests/cli/data/help.json: {command: text}, for every command and every group of commands.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tests.cli.fake_engine import FakeEngine
from tests.cli.output_cases import HERE, routes
from tests.cli.record import run_program

GROUPS = ("builder", "container", "context", "image", "network", "system", "volume")


def main() -> None:
    table = Path(HERE).parents[1] / "docs/docker/commands.tsv"
    names = [*GROUPS, *(line.split("\t")[0] for line in table.read_text().splitlines() if not line.startswith("#"))]
    with tempfile.TemporaryDirectory() as top, FakeEngine(os.path.join(top, "engine.sock"), routes()) as engine:
        found = {
            name: run_program([sys.argv[1]], [*name.split(), "--help"], top, engine.host)["stdout"]
            for name in sorted(names)
        }
    with open(os.path.join(HERE, "data", "help.json"), "w") as file:
        json.dump(found, file, indent=0, sort_keys=True)
        file.write("\n")


if __name__ == "__main__":
    main()
