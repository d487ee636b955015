import os
import shutil
import stat
import uuid

import pytest

from tests.images import shop
from tests.mounted import detach_below
from wherry.images.snapshots import choice
from wherry.images.store import MIGRATIONS, ImageStore
from wherry.store.db import open_database
from wherry.store.paths import Paths


@pytest.fixture
def paths(tmp_path):
    paths = Paths(tmp_path / "data", tmp_path / "exec")
    paths.create()
    yield paths
    detach_below(tmp_path)


@pytest.fixture(params=choice.FORMS)
def form(request, monkeypatch):
    """The form of the store's layers."""
    monkeypatch.setattr(shop, "form", request.param)
    return request.param


@pytest.fixture
def db(paths):
    db = open_database(paths.database, {"images": MIGRATIONS})
    yield db
    db.close()


@pytest.fixture
def store(db, paths, form):
    return ImageStore(db, paths, shop.driver())


def snapshot(root):
    """Everything about a tree that a careless extraction could change."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files]:
            path = os.path.normpath(os.path.join(directory, name))
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            content = b""
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    content = file.read()
            elif kind == stat.S_IFLNK:
                content = os.fsencode(os.readlink(path))
            xattrs = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            found[path] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                status.st_nlink,
                content,
                str(xattrs),
            )
    return found


@pytest.fixture
def canary():
    """A host tree at a short absolute path that nothing may touch; compared before and after."""
    root = f"/canary-{uuid.uuid4().hex[:8]}"
    os.mkdir(root, 0o755)
    try:
        os.mkdir(f"{root}/dir", 0o750)
        for name, mode in (("file", 0o600), ("exe", 0o755), ("dir/inner", 0o640)):
            with open(f"{root}/{name}", "w") as file:
                file.write(f"canary {uuid.uuid4()}")
            os.chmod(f"{root}/{name}", mode)
            os.utime(f"{root}/{name}", (1, 2))
        os.mkfifo(f"{root}/fifo")
        os.utime(f"{root}/dir", (3, 4))
        before = snapshot(root)
        yield root
        assert snapshot(root) == before
    finally:
        shutil.rmtree(root)
