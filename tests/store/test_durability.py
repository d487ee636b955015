"""Which commits wait for the disk."""

import os
import subprocess
import sys

PROGRAM = """
import sys
from wherry.store.db import open_database
db = open_database(sys.argv[1], {"room": ["CREATE TABLE things (x)"]})
for name, durable in (("quick", False), ("durable", True), ("quick", False)):
    __import__("os").path.exists(f"/mark-{name}")
    with db.transaction(durable=durable) as tx:
        tx.execute("INSERT INTO things VALUES (1)")
assert db.one("SELECT count(*) FROM things") == (3,)
__import__("os").path.exists("/mark-end")  # the database is checkpointed at the end
"""


def test_only_durable_commits_wait_for_the_disk(tmp_path):
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,newfstatat,stat"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        calls,
        "-o",
        str(trace),
        sys.executable,
        "-c",
        PROGRAM,
        str(tmp_path / "db"),
    ]
    subprocess.run(command, check=True, env=os.environ)
    syncs: dict[str, int] = {}
    current = ""
    for line in trace.read_text().splitlines():
        if "/mark-" in line:
            current = line.split("/mark-")[1].split('"')[0] + str(len(syncs))
            syncs[current] = 0
        elif current and "sync(" in line:
            syncs[current] += 1
    quick, durable, again, _ = syncs.values()
    assert (quick, again) == (0, 0)
    assert durable > 0
