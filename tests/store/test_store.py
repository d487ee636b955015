"""The state database, atomic files, locks and failpoints."""

import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from wherry.errors import Conflict, Internal
from wherry.store.atomic import lock_file, write_file
from wherry.store.db import open_database
from wherry.store.paths import Paths

TABLE = "CREATE TABLE things (name TEXT PRIMARY KEY)"


def test_migrations_are_applied_once_and_in_order(tmp_path):
    path = tmp_path / "db"
    open_database(path, {"room": [TABLE]}).close()
    db = open_database(path, {"room": [TABLE, "ALTER TABLE things ADD COLUMN size INTEGER; CREATE TABLE more (x)"]})
    db.execute("INSERT INTO things VALUES (?, ?)", ("a", 1))
    assert db.all("SELECT * FROM things") == [("a", 1)]
    db.close()


def test_a_newer_database_is_refused_untouched(tmp_path):
    path = tmp_path / "db"
    open_database(path, {"room": [TABLE, "CREATE TABLE later (x)"]}).close()
    with pytest.raises(Internal, match="newer"):
        open_database(path, {"room": [TABLE]})


@pytest.mark.parametrize("damage", [b"x" * 3000, b"SQLite format 3\0" + b"\xff" * 3000])
def test_a_damaged_database_is_refused(tmp_path, damage):
    (tmp_path / "db").write_bytes(damage)
    with pytest.raises(Internal, match=f"^{tmp_path}/db: .*(not a database|malformed)"):
        open_database(tmp_path / "db", {"room": [TABLE]})


def test_a_transaction_is_whole_or_nothing(tmp_path):
    db = open_database(tmp_path / "db", {"room": [TABLE]})

    def half_then_fail():
        with db.transaction() as tx:
            tx.execute("INSERT INTO things VALUES ('a')")
            with db.transaction() as inner:
                inner.execute("INSERT INTO things VALUES ('a')")

    with pytest.raises(sqlite3.IntegrityError):
        half_then_fail()
    assert db.one("SELECT count(*) FROM things") == (0,)
    db.close()


def test_commits_are_durable_by_configuration(tmp_path):
    db = open_database(tmp_path / "db", {})
    assert db.one("PRAGMA journal_mode") == ("wal",)
    assert db.one("PRAGMA synchronous") == (2,)
    db.close()


def test_write_file_replaces_at_once_and_leaves_nothing_on_failure(tmp_path):
    target = tmp_path / "file"
    write_file(target, b"one", mode=0o640)
    write_file(target, b"two" * 100_000, mode=0o600)
    assert target.read_bytes() == b"two" * 100_000
    assert target.stat().st_mode & 0o777 == 0o600
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_file(tmp_path / "directory", b"x")
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


def test_the_lock_has_one_holder_and_names_it(tmp_path):
    fd = lock_file(tmp_path / "lock", "--data-root")
    with pytest.raises(Conflict, match=rf"\(pid {os.getpid()}\); stop it or use another --data-root$"):
        lock_file(tmp_path / "lock", "--data-root")
    os.close(fd)
    os.close(lock_file(tmp_path / "lock", "--data-root"))


def test_the_tree_is_closed_to_others(tmp_path):
    paths = Paths(tmp_path / "data", tmp_path / "run")
    paths.create()
    for path in (paths.data_root, paths.containers):
        assert path.stat().st_mode & 0o777 == 0o710
    for path in (paths.exec_root, paths.blobs, paths.layers, paths.netns, paths.tmp):
        assert path.stat().st_mode & 0o077 == 0


def run_with_failpoint(value):
    program = "from wherry.failpoint import hit\nfor _ in range(3): hit('here')\nprint('survived')"
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"WHERRY_FAILPOINT": value}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        ("", 0, "survived"),
        ("elsewhere:kill", 0, "survived"),
        ("here:kill@3", -signal.SIGKILL, ""),
        ("here:kill@4", 0, "survived"),
        ("here:raise", 1, "failpoint here"),
        ("here:errno=28@2", 1, "No space left"),
        ("here:exec=echo ran", 0, "ran"),
    ],
)
def test_failpoints(value, code, text):
    result = run_with_failpoint(value)
    assert result.returncode == code
    assert text in result.stdout + result.stderr
