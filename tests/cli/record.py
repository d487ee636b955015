"""Records what the docker CLI does with the cases of create_cases.py, against the fake engine.

    python tests/cli/record.py DOCKER_BINARY

writes tests/cli/data/create.json: [{"args", "body" or null, "query", "stdout", "stderr", "code"}].
"""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))
from tests.cli.create_cases import FILES, cases
from tests.cli.fake_engine import FakeEngine, Reply, as_json

HERE = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "FROM_HOST": "host value",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}
ROUTES = {
    "GET /info": as_json({"OSType": "linux", "IndexServerAddress": "https://index.docker.io/v1/"}),
    "POST /images/create": Reply(200, b'{"status":"Status: fake"}\r\n'),
}


def run_program(program: list[str], args: list[str], workdir: str, host: str) -> dict[str, Any]:
    """One run of `program ARGS` with the engine at `host` and nothing on standard input."""
    done = subprocess.run(
        [*program, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=workdir,
        env={**ENVIRONMENT, "DOCKER_HOST": host},
        timeout=60,
    )
    return {"stdout": done.stdout, "stderr": done.stderr, "code": done.returncode}


def observe(program: list[str], args: list[str], workdir: str, engine: FakeEngine) -> dict[str, Any]:
    """One run of `program ARGS` against the engine: what it sent and what it said."""
    engine.requests.clear()
    done = run_program(program, args, workdir, engine.host)
    bodies = engine.bodies("POST /containers/create")
    queries = [r.query for r in engine.requests if r.path == "/containers/create"]
    return {
        "args": args,
        "body": bodies[0] if bodies else None,
        "query": queries[0] if queries else None,
        **done,
    }


def fill(workdir: str) -> None:
    """Write the files that the cases name."""
    for name, content in FILES.items():
        with open(os.path.join(workdir, name), "w") as file:
            file.write(content)


def main() -> None:
    docker = sys.argv[1]
    with tempfile.TemporaryDirectory() as top:
        workdir = os.path.join(top, "work")
        os.mkdir(workdir)
        fill(workdir)
        with FakeEngine(os.path.join(top, "engine.sock"), ROUTES) as engine:
            records = []
            for args in cases():
                record = observe([docker, "create"], args, workdir, engine)
                text = json.dumps(record).replace(workdir, "@WORK@").replace(top, "@TOP@")
                records.append(json.loads(text))
                if os.path.exists(os.path.join(workdir, "x.cid")):
                    os.unlink(os.path.join(workdir, "x.cid"))
    with open(os.path.join(HERE, "data", "create.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(r, sort_keys=True) for r in records) + "\n]\n")


if __name__ == "__main__":
    main()
