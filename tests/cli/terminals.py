"""Programs at a terminal of a given width, against an engine that pulls; records what the docker CLI shows there.

    python tests/cli/terminals.py DOCKER_BINARY

writes tests/cli/data/terminals.json: [{"columns", "args", "shown"}].
"""

import fcntl
import json
import os
import pty
import struct
import sys
import tempfile
import termios

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tests.cli.fake_engine import FakeEngine, Reply
from tests.cli.output_cases import HERE, routes

CASES = [
    (columns, args)
    for columns in (80, 130)
    for args in (["create", "--pull", "always", "busybox"], ["ps"], ["events"], ["top", "web"], ["rm", "--help"])
]


def pulling(_request):
    """A pull of several layers at once."""
    steps = [{"status": "Pulling from library/x", "id": "latest"}]
    for done in range(5):
        for layer in ("aaa", "bbb"):
            detail = {"current": done * 1000, "total": 4000}
            steps.append({"status": "Downloading", "id": layer, "progressDetail": detail, "progress": "x"})
    steps += [
        {"status": "Verifying", "id": "aaa", "progressDetail": {}},
        {"status": "Waiting", "id": "ccc", "progressDetail": {}},
        {"status": "Counting", "id": "bbb", "progressDetail": {"hidecounts": True, "current": 1, "total": 2}},
        {"status": "Extracting", "id": "bbb", "progressDetail": {"current": 7}},
        {"status": "Pull complete", "id": "aaa"},
        {"status": "Status: done"},
    ]
    return Reply(200, b"".join(json.dumps(step).encode() + b"\r\n" for step in steps))


def engine(top):
    return FakeEngine(os.path.join(top, "engine.sock"), {**routes(), "POST /images/create": pulling})


def shown(program, args, environment, columns, typed=()):
    """Everything that `program ARGS` writes to a terminal, where `typed` is (what is awaited, what is then typed)."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    pid = os.fork()
    if pid == 0:
        os.login_tty(inner)
        os.execvpe(program[0], [*program, *args], {"HOME": "/nonexistent", **environment, "TERM": "xterm", "TZ": "UTC"})
    os.close(inner)
    data, answered, left = b"", 0, list(typed)
    try:
        while chunk := os.read(outer, 65536):
            data += chunk
            if left and left[0][0].encode() in data[answered:]:
                answered = len(data)
                os.write(outer, left.pop(0)[1].encode())
    except OSError:
        pass  # the terminal's end of file
    os.close(outer)
    os.waitpid(pid, 0)
    return data.decode()


def main():
    with tempfile.TemporaryDirectory() as top, engine(top) as fake:
        environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": fake.host}
        records = [
            {"columns": columns, "args": args, "shown": shown([sys.argv[1]], args, environment, columns)}
            for columns, args in CASES
        ]
    with open(os.path.join(HERE, "data", "terminals.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(each, sort_keys=True) for each in records) + "\n]\n")


if __name__ == "__main__":
    main()
