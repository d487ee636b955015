"""Records what the docker CLI prints for data/output_cases.txt against the scripted engine.

    python tests/cli/record_outputs.py DOCKER_BINARY

writes tests/cli/data/outputs.json: [{"args", "stdout", "stderr", "code", "requests"}].
"""

import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tests.cli.fake_engine import FakeEngine
from tests.cli.output_cases import HERE, cases, routes
from tests.cli.record import run_program


def main() -> None:
    records = []
    with tempfile.TemporaryDirectory() as top, FakeEngine(os.path.join(top, "engine.sock"), routes()) as engine:
        for args in cases():
            engine.requests.clear()
            done = run_program([sys.argv[1]], args, top, engine.host)
            requests = [f"{r.method} {r.path}?{r.query}" for r in engine.requests if r.path != "/_ping"]
            record = {"args": args, **done, "requests": requests}
            records.append(json.loads(json.dumps(record).replace(top, "@TOP@")))
    with open(os.path.join(HERE, "data", "outputs.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(r, sort_keys=True) for r in records) + "\n]\n")


if __name__ == "__main__":
    main()
