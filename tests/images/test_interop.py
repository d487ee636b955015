"""Other tools on what we keep and write: only where they are at hand."""

import os
import shutil
import subprocess

import pytest

from tests.images.mkimg import digest, docker_archive, stream
from tests.images.shop import BASE, TOP, save


@pytest.fixture
def skopeo():
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    return ["skopeo", "--insecure-policy"]


def run(*command):
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_skopeo_reads_the_store(skopeo, store, paths, tmp_path):
    store.load(stream(docker_archive([BASE, TOP], ["me/x:1"])))
    config = run(*skopeo, "inspect", "--config", f"oci:{paths.content}:docker.io/me/x:1")
    assert digest(TOP) in config
    run(*skopeo, "copy", f"oci:{paths.content}:docker.io/me/x:1", f"docker-archive:{tmp_path}/out.tar:me/y:2")
    with open(tmp_path / "out.tar", "rb") as file:
        (image,) = store.load(file)
    assert image.repo_tags == ["me/x:1", "me/y:2"]


def test_skopeo_reads_what_we_save_and_we_what_it_writes(skopeo, store, tmp_path):
    (image,) = store.load(stream(docker_archive([BASE, TOP], ["me/x:1"])))
    (tmp_path / "saved.tar").write_bytes(save(store, "me/x:1"))
    run(*skopeo, "copy", f"docker-archive:{tmp_path}/saved.tar", f"oci-archive:{tmp_path}/oci.tar:me/z:3")
    store.remove(image.id, force=True, users=lambda image_id: [])
    with open(tmp_path / "oci.tar", "rb") as file:
        (again,) = store.load(file)
    assert again.diff_ids == [digest(BASE), digest(TOP)]
    assert again.repo_tags == ["me/z:3"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "zstd:chunked"])
def test_digests_are_the_same_after_a_way_through_the_store(skopeo, store, paths, tmp_path, compression):
    """skopeo compresses; we load, keep and save that; skopeo reads store and archive: one manifest everywhere."""
    (tmp_path / "plain.tar").write_bytes(docker_archive([BASE, TOP], ["me/x:1"]))
    kind = ("--dest-compress-format", compression)
    oci = f"{tmp_path}/oci"
    run(*skopeo, "copy", *kind, "--dest-compress", f"docker-archive:{tmp_path}/plain.tar", f"oci:{oci}:me/x:1")
    manifest = run(*skopeo, "inspect", "--raw", f"oci:{oci}:me/x:1")
    assert f"+{compression.partition(':')[0]}" in manifest
    run("tar", "-C", oci, "-cf", f"{oci}.tar", ".")
    with open(f"{oci}.tar", "rb") as file:
        (image,) = store.load(file)
    assert image.diff_ids == [digest(BASE), digest(TOP)]
    assert image.manifest.digest == digest(manifest.encode())
    (tmp_path / "saved.tar").write_bytes(save(store, "me/x:1"))
    for place in (f"oci:{paths.content}:docker.io/me/x:1", f"oci-archive:{tmp_path}/saved.tar"):
        assert run(*skopeo, "inspect", "--raw", place) == manifest
        run(*skopeo, "copy", place, f"dir:{tmp_path}/directory")
        assert (tmp_path / "directory/manifest.json").read_text() == manifest
    run(*skopeo, "copy", f"docker-archive:{tmp_path}/saved.tar", f"docker-archive:{tmp_path}/again.tar:me/z:1")
    with open(tmp_path / "again.tar", "rb") as file:
        (again,) = store.load(file)
    assert again.id == image.id


def test_gnu_tar_reads_what_we_write(store, tmp_path):
    store.load(stream(docker_archive([BASE, TOP], ["me/x:1"])))
    (tmp_path / "saved.tar").write_bytes(save(store, "me/x:1"))
    listing = run("tar", "-tf", tmp_path / "saved.tar").split()
    assert {"manifest.json", "index.json", "oci-layout", "repositories"} <= set(listing)


@pytest.mark.parametrize("dialect", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_every_dialect_of_gnu_tar_gives_the_tree_it_was_made_from(tmp_path, dialect):
    from tests.images.conftest import snapshot
    from tests.images.test_extract import unpack

    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "file").write_bytes(os.urandom(70_000))
    (source / "d" / ("n" * 80)).write_text("name")
    (source / "link").symlink_to("d/file")
    os.link(source / "d" / "file", source / "hard")
    with open(source / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    os.chmod(source / "d", 0o2710)
    os.chown(source / "hard", 12, 34)
    os.utime(source / "d" / "file", (1000, 2000))
    command = ["tar", "-C", source, f"--format={dialect}", "--sparse", "-cf", tmp_path / "t.tar", "."]
    run(*([part for part in command if part != "--sparse"] if dialect in ("v7", "ustar") else command))
    unpack((tmp_path / "t.tar").read_bytes(), tmp_path / "out")

    def comparable(root):
        found = {}
        for path, item in snapshot(root).items():
            if path != str(root):
                # whole seconds: what every dialect has
                mode, uid, gid, mtime_ns, links, content, xattrs = item
                key = os.path.relpath(path, root)
                found[key] = (mode, uid, gid, mtime_ns // 10**9, links, content, xattrs)
        return found

    assert comparable(tmp_path / "out") == comparable(source)
