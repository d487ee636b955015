"""A pull or push that is killed at any point: the image is there or it is not, and what came is of use."""

import os
import subprocess
import sys

import pytest

from tests.images import shop
from tests.images.mkimg import archive, digest, docker_archive, file
from tests.images.puller import big, pull, push, small
from tests.images.shop import contents, leftovers, load, reopen
from tests.registry.servers import DockerRegistry, PythonRegistry, make_image
from wherry.errors import NotFound

CHILD = """
import sys
from tests.images.puller import pull, push
from tests.images.shop import reopen
from wherry.store.paths import Paths
store = reopen(Paths(sys.argv[1], sys.argv[2]))
{"pull": pull, "push": push}[sys.argv[3]](store, sys.argv[4])
"""


@pytest.fixture
def form(monkeypatch):
    """One form of layers is enough here: what arrives is unpacked by the code that loads archives, too."""
    monkeypatch.setattr(shop, "form", "erofs")


def run_child(paths, action, address, failpoint):
    environment = {**os.environ, "WHERRY_FAILPOINT": failpoint, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    command = [sys.executable, "-c", CHILD, paths.data_root, paths.exec_root, action, address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


PULL_POINTS = ["pull-taken-up:kill", "pull-piece:kill", "pull-piece:kill@4", "ingest-finish:kill", "load-synced:kill"]
PULL_POINTS += ["layers-commit:kill", "load-published:kill", "load-recorded:kill", "load-published:raise"]


@pytest.mark.parametrize("point", PULL_POINTS)
def test_a_pull_that_dies_leaves_all_or_nothing(paths, db, store, point):
    layers = [small("a"), big()]
    with PythonRegistry() as registry:
        registry.store.put("app", "1", make_image(layers))
        registry.store.put("kept", "1", make_image(layers[:1]))
        pull(store, registry.address, "kept:1")
        before = contents(paths)
        db.close()
        assert run_child(paths, "pull", registry.address, point).returncode != 0
        again = reopen(paths)
        again.collect_garbage()
        name = f"{registry.address}/app:1"
        if point.startswith("load-recorded"):
            assert again.lower_dirs(again.resolve(name))
        else:
            with pytest.raises(NotFound):
                again.resolve(name)
            assert contents(paths) == before
        assert all(left.startswith("partial-") for left in leftovers(paths))
        pull(again, registry.address)
        assert len(again.lower_dirs(again.resolve(name))) == 2
        assert leftovers(paths) == []


@pytest.mark.parametrize("point", ["pull-piece:kill@3", "ingest-finish:kill"])
def test_the_next_pull_goes_on_where_the_killed_one_stopped(paths, db, store, point):
    layer = big(size=8 << 20)
    with PythonRegistry() as registry:
        registry.store.put("app", "1", make_image([layer]))
        db.close()
        assert run_child(paths, "pull", registry.address, point).returncode < 0
        again = reopen(paths)
        again.collect_garbage()
        had = again.content.partial(digest(layer)).stat().st_size
        assert had > 0
        registry.requests.clear()
        pull(again, registry.address)
        asked = [seen.headers["range"] for seen in registry.asked(f"GET .*{digest(layer)}")]
        assert asked == ([f"bytes={had}-"] if had < len(layer) else [])


def test_a_push_that_dies_keeps_no_form_without_its_row(paths, db, store):
    layer = archive(file(b"f", os.urandom(1 << 20)))
    with DockerRegistry() as registry:
        load(store, docker_archive([layer], [f"{registry.address}/app:1"]))
        before = contents(paths)
        db.close()
        assert run_child(paths, "push", registry.address, "form-published:kill").returncode < 0
        again = reopen(paths)
        again.collect_garbage()
        assert contents(paths) == before
        assert leftovers(paths) == []


def test_a_push_that_dies_in_an_upload_is_done_by_the_next(paths, db, store):
    layer = archive(file(b"f", os.urandom(1 << 20)))
    with DockerRegistry() as registry:
        load(store, docker_archive([layer], [f"{registry.address}/app:1"]))
        db.close()
        assert run_child(paths, "push", registry.address, "registry.upload.started:kill").returncode < 0
        again = reopen(paths)
        again.collect_garbage()
        lines = push(again, registry.address)
        assert ["Pushed" in line.get("status", "") for line in lines].count(True) == 1
        assert leftovers(paths) == []
