"""Directories nested more deeply than any path is long: a container can make them, the engine must lose them again."""

import os

import pytest

from tests.e2e.host import Host
from wherry.store.trees import delete_tree, tree_size

pytestmark = pytest.mark.root

DEPTH = 3000


def nest(path, depth):
    """`depth` directories inside each other, with a file, a link out and a second branch on the way."""
    top = os.open(path, os.O_RDONLY)
    fd = top
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        os.mkdir("e", dir_fd=fd)
        os.symlink("/", "out", dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o000, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_a_deep_tree_is_deleted(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "beside").write_text("stays")
    (tree / "beside").symlink_to(tmp_path / "beside")
    (tree / "up").symlink_to(tmp_path)
    nest(tree, DEPTH)
    delete_tree(tree)
    assert os.listdir(tmp_path) == ["beside"]


def test_a_deep_tree_is_deleted_below_a_descriptor(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "beside").mkdir()
    nest(tmp_path / "tree", DEPTH)
    parent = os.open(tmp_path, os.O_RDONLY)
    delete_tree(b"tree", dir_fd=parent)
    os.close(parent)
    assert os.listdir(tmp_path) == ["beside"]


def test_a_deep_tree_is_measured(tmp_path):
    tree = tmp_path / "tree"
    for place in (tree / "a", tree / "b"):
        place.mkdir(parents=True)
        (place / "file").write_bytes(bytes(1000))
        nest(place, DEPTH)
        (place / "e/last").write_bytes(bytes(10))
    before = os.listdir("/proc/self/fd")
    # every level has a link of one byte; the file "file" of the first level was there already
    assert tree_size(tree) == 2 * (1000 + 10 + DEPTH)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert tree_size(tmp_path / "missing") == 0
    delete_tree(tree)


def test_what_is_no_directory_is_left(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    delete_tree(tmp_path / "file")
    delete_tree(tmp_path / "link")
    delete_tree(tmp_path / "missing")
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_what_a_container_nested_goes_and_the_engine_starts_again(name):
    own = Host().start()
    try:
        own.import_busybox()
        script = (
            "for t in /root /vol; do cd $t; i=0; while [ $i -lt 1500 ]; do mkdir d; cd -P d; i=$((i+1)); done; done"
        )
        own.docker("run", "--name", name, "-v", f"{name}:/vol", "busybox", "sh", "-c", script)
        assert own.docker("ps", "-a", "-s", "--format", "{{.Names}}").stdout.split() == [name]
        own.docker("rm", name)
        own.docker("volume", "rm", name)
        trash = own.root / "data/trash"
        own.wait_until(lambda: not list(trash.iterdir()), "the end of the trees")
        nest(trash_entry(trash), 1500)
        own.stop()
        own.start()
        own.wait_until(lambda: not list(trash.iterdir()), "the end of what was left")
    finally:
        own.close()


def trash_entry(trash):
    """As a removal that was cut short leaves it."""
    left = trash / "left"
    left.mkdir()
    return left
