"""What `docker update` asks the engine and says, recorded with the scripted engine of `routes`.

    python tests/cli/update_cases.py DOCKER_BINARY

writes tests/cli/data/update.json: [{"args", "stdout", "stderr", "code", "bodies"}].
"""

import json
import os
import shlex
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tests.cli.fake_engine import FakeEngine, as_json
from tests.cli.record import run_program

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "update.json")
CASES = """
update
update web
update --help
container update --cpus 1.5 web
update --cpu-shares 512 --blkio-weight 300 web gone db
update -c 5 -m 64m --memory-swap -1 --memory-reservation 32m --pids-limit -1 web
update --cpu-period 50000 --cpu-quota 25000 --cpu-rt-period 1000 --cpu-rt-runtime 500 web
update --cpuset-cpus 0-1 --cpuset-mems 0 web
update --restart on-failure:3 web
update --restart unless-stopped web db
update --restart x web
update --restart on-failure:x web
update --restart :3 web
update --kernel-memory 5m web
update --pids-limit 0 web
update --pids-limit x web
update --cpus x web
update --cpus 0.0000000001 web
update --memory x web
update --memory-swap -2 web
update --blkio-weight 70000 web
update --memory
update --nonsense web
"""


def routes():
    """The engine both clients talk to: web has two warnings, db none, gone is not there."""
    return {
        "GET /info": as_json({"OSType": "linux"}),
        "POST /containers/web/update": as_json({"Warnings": ["first", "second"]}),
        "POST /containers/db/update": as_json({"Warnings": None}),
        "POST /containers/gone/update": as_json({"message": "No such container: gone"}, 404),
    }


def bodies(engine):
    return [json.loads(r.body) for r in engine.requests if r.method == "POST" and r.path.endswith("/update")]


def main() -> None:
    records = []
    with tempfile.TemporaryDirectory() as top, FakeEngine(os.path.join(top, "engine.sock"), routes()) as engine:
        for line in CASES.strip().splitlines():
            engine.requests.clear()
            done = run_program([sys.argv[1]], shlex.split(line), top, engine.host)
            records.append({"args": shlex.split(line), **done, "bodies": bodies(engine)})
    with open(DATA, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(r, sort_keys=True) for r in records) + "\n]\n")


if __name__ == "__main__":
    main()
