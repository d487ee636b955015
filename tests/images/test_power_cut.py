"""The order in which things reach the disk, told by strace: whatever a row names is there when the power fails.

After a power cut a file system has what was synced, and of the rest any part. So the content of a blob or layer has to
be synced before it gets its name, the name before the row that tells of it, the row before the answer; and a row's
removal before that of what it named.
"""

import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.images.mkimg import archive as tar
from tests.images.mkimg import docker_archive, file
from tests.images.shop import BASE, TOP

CALLS = "openat,write,pwrite64,fsync,fdatasync,syncfs,rename,renameat,renameat2,unlink,unlinkat,mkdir,stat,newfstatat"
PROGRAM = """
import io, os, sys
from tests.images import shop
from wherry.store.paths import Paths
paths = Paths(sys.argv[1], sys.argv[2])
paths.create()
store = shop.reopen(paths)
with open(sys.argv[3], "rb") as loaded, open(sys.argv[4], "rb") as imported:
    steps = {
        "load": lambda: store.load(loaded),
        "tag": lambda: store.tag("x:1", "x:2"),
        "import": lambda: store.import_(imported, reference="y:1"),
        "flatten": lambda: store.flatten(store.resolve("y:1"), lambda append: append(open(sys.argv[3], "rb").read())),
        "save": lambda: shop.save(store, "x:1"),
        "untag": lambda: store.remove("x:2", users=shop.nobody),
        "remove": lambda: store.remove("x:1", users=shop.nobody),
    }
    for name, step in steps.items():
        os.path.exists(f"/mark-{name}")
        step()
    os.path.exists("/mark-end")
"""


class Call(NamedTuple):
    """One system call: `path` is what it was about, `to` where a rename led."""

    name: str
    path: str
    to: str = ""


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """The calls of each step, by its name."""
    root = tmp_path_factory.mktemp("traced")
    (root / "loaded.tar").write_bytes(docker_archive([BASE, TOP], ["x:1"]))
    (root / "imported.tar").write_bytes(tar(file(b"only", b"here" * 100)))
    program = [sys.executable, "-c", PROGRAM, root / "data", root / "exec", root / "loaded.tar", root / "imported.tar"]
    command = ["strace", "-f", "-y", "-qq", "-s", "200", "-e", f"trace={CALLS}", "-o", root / "trace", *program]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    subprocess.run(command, check=True, env=environment, timeout=120)
    return steps((root / "trace").read_text(), str(root / "data"))


def steps(text: str, root: str) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {}
    current: list[Call] = []
    unfinished: dict[str, str] = {}
    for line in text.splitlines():
        pid, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            unfinished[pid] = rest.removesuffix("<unfinished ...>").rstrip(" ,")
            continue
        if match := re.match(r"<\.\.\. \w+ resumed>(.*)", rest):
            rest = unfinished.pop(pid) + match[1]
        if mark := re.search(r'"/mark-(\w+)"', rest):
            current = found.setdefault(mark[1], [])
        elif (call := parsed(rest, root)) is not None:
            current.append(call)
    return found


def parsed(line: str, root: str) -> Call | None:
    match = re.match(r"(\w+)\((.*)\)\s+= (-?\d+)", line)
    if match is None or match[3].startswith("-") or match[1] in ("openat", "stat", "newfstatat"):
        return None
    name, arguments = match[1], match[2]
    names = re.findall(r'"([^"]*)"', arguments)
    descriptor = re.match(r"\d+<([^>]*)>", arguments)
    about = descriptor[1] if descriptor else ""
    if name in ("write", "pwrite64", "fsync", "fdatasync", "syncfs"):
        return Call("write" if "write" in name else "sync", short(about, root)) if root in about else None
    places = [short(os.path.join(about, path) if not path.startswith("/") else path, root) for path in names]
    kind = "rename" if "rename" in name else "unlink" if "unlink" in name else name
    return Call(kind, places[0], places[1] if len(places) > 1 else "") if places else None


def short(path: str, root: str) -> str:
    return path.removesuffix(" (deleted)").removeprefix(root + "/")


def last(calls: list[Call], wanted) -> int:
    return max((at for at, call in enumerate(calls) if wanted(call)), default=-1)


def first(calls: list[Call], wanted) -> int:
    return min((at for at, call in enumerate(calls) if wanted(call)), default=len(calls))


def is_database(call: Call) -> bool:
    return call.path.endswith("-wal")


def committed(calls: list[Call], before: int | None = None) -> int:
    """Where the last write to the database's log was made durable."""
    calls = calls[:before]
    written = last(calls, lambda call: is_database(call) and call.name == "write")
    assert written >= 0
    synced = first(calls[written:], lambda call: is_database(call) and call.name == "sync")
    assert written + synced < len(calls), "the row waits in the page cache"
    return written + synced


ADDS = ("load", "import", "flatten")


@pytest.mark.parametrize("step", ADDS)
def test_content_is_on_the_disk_before_it_has_a_name(traced, step):
    calls = traced[step]
    renames = [
        (at, call)
        for at, call in enumerate(calls)
        if call.name == "rename" and re.match("(content/)?(blobs|layers)/", call.to)
    ]
    assert len(renames) >= 3, calls
    for at, call in renames:
        written = last(calls[:at], lambda each, call=call: each.name == "write" and each.path.startswith(call.path))
        assert any(each.name == "sync" and each.path == "layers" for each in calls[written + 1 : at]), call


@pytest.mark.parametrize("step", ADDS)
def test_names_are_on_the_disk_before_the_row_and_that_before_the_answer(traced, step):
    calls = traced[step]
    row = first(calls, lambda call: is_database(call) and call.name == "write")
    for directory in ("blobs/sha256", "layers"):
        named = last(calls, lambda call, d=directory: call.name == "rename" and os.path.dirname(call.to).endswith(d))
        assert 0 <= named < row
        assert any(c.name == "sync" and c.path.endswith(directory) for c in calls[named + 1 : row]), directory
    committed(calls)


@pytest.mark.parametrize("step", ["load", "tag", "import", "untag", "remove"])
def test_the_index_is_replaced_whole(traced, step):
    calls = traced[step]
    at = last(calls, lambda call: call.name == "rename" and call.to.endswith("content/index.json"))
    assert at >= 0
    written = last(calls[:at], lambda call: call.name == "write" and call.path == calls[at].path)
    assert any(call.name == "sync" and call.path == calls[at].path for call in calls[written:at])
    assert any(call.name == "sync" and call.path == "content" for call in calls[at:])


@pytest.mark.parametrize("step", ["tag", "untag"])
def test_names_given_and_taken_are_durable(traced, step):
    committed(traced[step])


def test_a_row_is_gone_for_good_before_what_it_named(traced):
    calls = traced["remove"]
    gone = [
        at
        for at, call in enumerate(calls)
        if (call.name == "unlink" and "blobs/sha256/" in call.path)
        or (call.name == "rename" and call.path.startswith("layers/"))
    ]
    assert len(gone) >= 4
    assert committed(calls, gone[0]) < gone[0]


def test_a_save_writes_nothing_of_ours(traced):
    assert [call for call in traced["save"] if call.name != "sync"] == []
