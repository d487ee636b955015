"""Many at once, killed in between, damaged, out of space: all or nothing is left."""

import io
import json
import os
import subprocess
import sys
import threading

import pytest

from tests.images import shop
from tests.images.mkimg import digest, docker_archive
from tests.images.shop import BASE, TOP, contents, leftovers, load, nobody, reopen
from wherry.errors import Internal, NotFound, Unavailable
from wherry.images.archive.pack import FunctionSink
from wherry.images.snapshots import layers
from wherry.images.snapshots.vfs import VfsDriver
from wherry.images.store import ImageStore

# concurrency and crashes


def test_many_loads_at_once_store_one_copy(store, paths):
    data = docker_archive([BASE, TOP], ["x:1"])
    errors = []

    def run():
        try:
            store.load(io.BytesIO(data))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(contents(paths)[1]) == sorted(digest(layer)[7:] for layer in (BASE, TOP))
    assert len(contents(paths)[0]) == 4
    assert leftovers(paths) == []


CHILD = """
import io, sys
from wherry.images.archive.pack import FunctionSink
from wherry.images.store import MIGRATIONS, ImageStore
from wherry.store.db import open_database
from wherry.store.paths import Paths
from wherry.images.snapshots.overlay import OverlayDriver
paths = Paths(sys.argv[1], sys.argv[2])
db = open_database(paths.database, {"images": MIGRATIONS})
store = ImageStore(db, paths, OverlayDriver(indexes=sys.argv[5] == "erofs"))
with open(sys.argv[4], "rb") as file:
    if sys.argv[3] == "load":
        store.load(file)
    elif sys.argv[3] == "import":
        store.import_(file, reference="new:1")
    elif sys.argv[3] == "flatten":
        store.flatten(store.resolve("kept:1"), lambda append: append(file.read()), reference="new:1")
    elif sys.argv[3] == "save":
        store.save(store.choose(["kept:1"]), FunctionSink(sys.stdout.buffer.write))
    else:
        store.remove("gone:1", users=lambda image_id: [])
"""


def run_child(paths, action, archive_path, failpoint):
    environment = {**os.environ, "WHERRY_FAILPOINT": failpoint, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHILD, paths.data_root, paths.exec_root, action, archive_path, shop.form]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


LOAD_POINTS = ["ingest-finish:kill", "ingest-finish:kill@3", "load-synced:kill", "layers-commit:kill"]
LOAD_POINTS += ["load-published:kill", "load-recorded:kill", "load-synced:errno=28", "load-published:raise"]


@pytest.mark.parametrize("point", LOAD_POINTS)
def test_a_load_that_dies_leaves_all_or_nothing(tmp_path, db, paths, store, point):
    load(store, docker_archive([BASE], ["kept:1"]))
    db.close()
    (tmp_path / "new.tar").write_bytes(docker_archive([BASE, TOP], ["new:1"]))
    before = contents(paths)
    result = run_child(paths, "load", tmp_path / "new.tar", point)
    assert result.returncode != 0
    again = reopen(paths)
    again.collect_garbage()
    again.lower_dirs(again.resolve("kept:1"))
    if point.startswith("load-recorded"):
        assert again.lower_dirs(again.resolve("new:1"))
    else:
        with pytest.raises(NotFound):
            again.resolve("new:1")
        assert contents(paths) == before
    assert leftovers(paths) == []
    index = json.loads((paths.content / "index.json").read_text())
    assert len(index["manifests"]) == len(again.list())


@pytest.mark.parametrize("point", [point for point in LOAD_POINTS if "@3" not in point])
@pytest.mark.parametrize("action", ["import", "flatten"])
def test_an_import_that_dies_leaves_all_or_nothing(tmp_path, db, paths, store, action, point):
    load(store, docker_archive([BASE], ["kept:1"]))
    db.close()
    (tmp_path / "new.tar").write_bytes(TOP)
    before = contents(paths)
    assert run_child(paths, action, tmp_path / "new.tar", point).returncode != 0
    again = reopen(paths)
    again.collect_garbage()
    again.lower_dirs(again.resolve("kept:1"))
    if point.startswith("load-recorded"):
        assert again.resolve("new:1").diff_ids == [digest(TOP)]
        again.lower_dirs(again.resolve("new:1"))
    else:
        assert [image.repo_tags for image in again.list()] == [["kept:1"]]
        assert contents(paths) == before
    assert leftovers(paths) == []


def test_a_save_that_dies_changes_nothing(tmp_path, db, paths, store):
    load(store, docker_archive([BASE], ["kept:1"]))
    db.close()
    before = contents(paths)
    (tmp_path / "none").write_bytes(b"")
    result = run_child(paths, "save", tmp_path / "none", "save-leased:kill")
    assert (result.returncode, result.stdout) == (-9, "")
    again = reopen(paths)
    again.collect_garbage()
    assert contents(paths) == before
    assert again.resolve("kept:1").diff_ids == [digest(BASE)]


def test_a_removal_that_dies_before_its_row_is_gone_did_not_happen(tmp_path, db, paths, store):
    load(store, docker_archive([BASE, TOP], ["gone:1"]))
    db.close()
    before = contents(paths)
    (tmp_path / "none").write_bytes(b"")
    assert run_child(paths, "remove", tmp_path / "none", "image-forgotten:kill").returncode < 0
    again = reopen(paths)
    again.collect_garbage()
    assert contents(paths) == before
    assert again.resolve("gone:1").repo_tags == ["gone:1"]
    again.lower_dirs(again.resolve("gone:1"))


@pytest.mark.parametrize("point", ["image-deleted:kill", "layer-trash:kill"])
def test_a_removal_that_dies_is_finished_at_the_next_start(tmp_path, db, paths, store, point):
    load(store, docker_archive([BASE], ["kept:1"]))
    before = contents(paths)
    (tmp_path / "gone.tar").write_bytes(docker_archive([BASE, TOP], ["gone:1"]))
    load(store, docker_archive([BASE, TOP], ["gone:1"]))
    db.close()
    assert run_child(paths, "remove", tmp_path / "gone.tar", point).returncode < 0
    again = reopen(paths)
    again.collect_garbage()
    assert contents(paths) == before
    assert leftovers(paths) == []
    again.lower_dirs(again.resolve("kept:1"))


# what is in use is never deleted


def test_an_image_removed_while_it_is_saved_is_saved_whole(store, paths):
    load(store, docker_archive([BASE, TOP], ["x:1"]))
    out = io.BytesIO()

    def write(data):
        if not out.tell():
            store.remove("x:1", users=nobody)
        out.write(data)

    store.save(store.choose(["x:1"]), FunctionSink(write))
    assert contents(paths) == ([], []), "and is gone when that is done"
    (again,), _ = load(store, out.getvalue())
    assert again.diff_ids == [digest(BASE), digest(TOP)]


def test_a_save_of_what_was_removed_meanwhile_says_so(store):
    load(store, docker_archive([BASE], ["x:1"]))
    chosen = store.choose(["x:1"])
    store.remove("x:1", users=nobody)
    with pytest.raises(NotFound, match="No such image"):
        store.save(chosen, FunctionSink(lambda data: pytest.fail("something was written")))


def test_a_blob_that_changed_its_size_is_not_saved(store, paths):
    load(store, docker_archive([BASE], ["x:1"]))
    with open(paths.blobs / digest(BASE)[7:], "ab") as file:
        file.write(b"more")
    with pytest.raises(Internal, match="damaged on disk"):
        store.save(store.choose(["x:1"]), FunctionSink(lambda data: None))


def test_layers_that_a_container_has_outlive_their_image(db, paths, store):
    (image,), _ = load(store, docker_archive([BASE, TOP], ["x:1"]))
    load(store, docker_archive([BASE], ["other:1"]))
    first, second = store.hold(image), store.hold(image)
    deleted = store.remove("x:1", force=True, users=nobody)
    assert deleted == [{"Untagged": "x:1"}, {"Deleted": image.id}], "no layer is"
    assert contents(paths)[1] == sorted(digest(layer)[7:] for layer in (BASE, TOP))
    with pytest.raises(NotFound):
        store.hold(image)
    again = reopen(paths)  # the next daemon is told of what containers have
    again.keep(first)
    again.keep(second)
    again.collect_garbage()
    assert contents(paths)[1] == sorted(digest(layer)[7:] for layer in (BASE, TOP))
    again.let_go(first)
    assert all(os.path.isdir(path) for path in second)
    again.let_go(second)
    assert contents(paths)[1] == [digest(BASE)[7:]], "which an image has"
    assert leftovers(paths) == []


def test_one_deletes_for_all_and_a_load_waits_for_the_room(store, paths, monkeypatch):
    for number in range(3):
        load(store, docker_archive([BASE + bytes(512 * number)], [f"x:{number}"]))
    deleting, go_on = threading.Event(), threading.Event()
    real = layers.delete_tree

    def slow(path):
        deleting.set()
        assert go_on.wait(20)
        real(path)

    monkeypatch.setattr(layers, "delete_tree", slow)
    first = threading.Thread(target=lambda: store.remove("x:0", users=nobody))
    first.start()
    assert deleting.wait(20)
    store.remove("x:1", users=nobody)  # waits for nobody
    loading = threading.Thread(target=lambda: load(store, docker_archive([TOP], ["y:1"])))
    loading.start()
    assert len(os.listdir(paths.trash)) == 2
    go_on.set()
    first.join()
    loading.join()
    assert os.listdir(paths.trash) == []
    assert sorted(name for image in store.list() for name in image.repo_tags) == ["x:2", "y:1"]


def test_a_merged_copy_outlives_its_image_as_layers_do(db, paths):
    store = ImageStore(db, paths, VfsDriver(paths.vfs))
    (image,), _ = load(store, docker_archive([BASE, TOP], ["x:1"]))
    (directory,) = store.hold(image)
    unfinished = paths.vfs / ".new-of-somebody"
    unfinished.mkdir()
    store.remove("x:1", force=True, users=nobody)
    assert os.path.isdir(directory)
    store.let_go([directory])
    assert os.listdir(paths.vfs) == [unfinished.name], "what somebody makes is not touched"
    assert contents(paths) == ([], [])


def test_removals_and_holds_at_the_same_time(store, paths):
    """Whoever comes first: the image is gone, or what is held exists until it is let go."""
    data = docker_archive([BASE, TOP], ["x:1"])
    for _ in range(30):
        (image,), _ = load(store, data)
        results = []

        def hold(image=image, results=results):
            try:
                held = store.hold(image)
            except NotFound:
                return
            results.append([os.path.isdir(path) for path in held])
            store.let_go(held)

        threads = [threading.Thread(target=hold) for _ in range(4)]
        threads.insert(2, threading.Thread(target=lambda: store.remove("x:1", force=True, users=nobody)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(all(found) for found in results)
        assert contents(paths) == ([], [])


def test_loads_and_removals_at_the_same_time(store, paths):
    """Every load ends well; whatever is there afterwards is whole."""
    archives = [docker_archive([BASE, TOP], ["x:1"]), docker_archive([BASE], ["y:1"]), docker_archive([TOP], ["z:1"])]
    errors = []
    loading = threading.Event()

    def load_all():
        try:
            for data in archives * 6:
                store.load(io.BytesIO(data))
        except BaseException as error:
            errors.append(error)

    def remove_all():
        while not loading.is_set():
            for image in store.list(all=True):
                try:
                    store.remove(image.id, force=True, users=nobody)
                except NotFound:
                    continue
                except BaseException as error:
                    errors.append(error)
                    return

    loaders = [threading.Thread(target=load_all) for _ in range(3)]
    removers = [threading.Thread(target=remove_all) for _ in range(2)]
    for thread in [*loaders, *removers]:
        thread.start()
    for thread in loaders:
        thread.join()
    loading.set()
    for thread in removers:
        thread.join()
    assert errors == []
    for image in store.list(all=True):
        assert all(os.path.isdir(path) for path in store.lower_dirs(image))
        store.save(store.choose([image.id]), FunctionSink(lambda data: None))
        store.remove(image.id, force=True, users=nobody)
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []


# damage and full disks


def test_a_damaged_config_hides_one_image_only(store, paths):
    (good,), _ = load(store, docker_archive([BASE], ["good:1"]))
    (bad,), _ = load(store, docker_archive([TOP], ["bad:1"]))
    (paths.blobs / bad.id[7:]).write_bytes(b"{}")
    again = reopen(paths)
    assert [image.id for image in again.list()] == [good.id]
    with pytest.raises(Exception, match="damaged on disk"):
        again.resolve("bad:1")
    assert {"Deleted": bad.id} in again.remove("bad:1", users=nobody), "it can be removed none the less"
    assert contents(paths)[1] == [digest(BASE)[7:]]
    (bad,), _ = load(again, docker_archive([TOP], ["bad:1"]))
    (paths.blobs / bad.id[7:]).write_bytes(b"{}")
    load(reopen(paths), docker_archive([TOP], ["bad:1"]))
    assert reopen(paths).resolve("bad:1").id == bad.id, "or loaded again"


@pytest.mark.root
def test_a_full_disk(tmp_path):
    """On a file system of 24 MiB: a clean error, nothing left, and the same store works when there is room."""
    script = """
import ctypes, io, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x00020000) == 0
assert libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0
os.mkdir(sys.argv[1])
assert libc.mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", 0, b"size=24m") == 0
from tests.images import mkimg, shop
from wherry.errors import Internal, Unavailable
from wherry.store.paths import Paths
paths = Paths(sys.argv[1] + "/data", sys.argv[1] + "/exec")
paths.create()
store = shop.reopen(paths)
big = mkimg.archive(*[mkimg.file(b"f%d" % n, os.urandom(1 << 20)) for n in range(20)])
try:
    store.load(io.BytesIO(mkimg.docker_archive([big], ["big:1"])))
except (Unavailable, Internal) as error:
    print("refused:", error)
assert shop.contents(paths) == ([], []), shop.contents(paths)
assert shop.leftovers(paths) == []
small = mkimg.archive(mkimg.file(b"f", os.urandom(1 << 20)))
store.load(io.BytesIO(mkimg.docker_archive([small], ["small:1"])))
print(store.resolve("small:1").size)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    command = [sys.executable, "-c", script, str(tmp_path / "small")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "no space left on device" in result.stdout.lower()
    assert result.stdout.splitlines()[-1] == str(1 << 20)


def test_the_reserve_is_kept(monkeypatch, store, paths):
    real = os.statvfs

    def nearly_full(path):
        status = list(real(path))
        status[4] = 10  # f_bavail
        return os.statvfs_result(status)

    monkeypatch.setattr(os, "statvfs", nearly_full)
    with pytest.raises(Unavailable, match="no space left on device"):
        load(store, docker_archive([BASE]))
    assert contents(paths) == ([], [])
