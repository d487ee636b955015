"""Images through the real docker command."""

import gzip
import hashlib
import io
import json
import os
import tarfile

import pytest

from .host import busybox_tar


@pytest.fixture
def image(host):
    host.docker(
        "import",
        "--change",
        'CMD ["echo", "default"]',
        "--change",
        "ENV A=1",
        "-",
        "e2e:one",
        input=busybox_tar(),
        text=False,
    )
    yield "e2e:one"
    host.docker("rmi", "-f", "e2e:one", check=False)


def test_import_run_inspect_history(host, image):
    assert host.out("run", "--rm", image) == "default"
    inspected = json.loads(host.out("image", "inspect", image))[0]
    assert inspected["RepoTags"] == [image]
    assert inspected["Config"]["Env"] == ["A=1"]
    assert inspected["Os"] == "linux"
    assert len(inspected["RootFS"]["Layers"]) == 1
    assert host.out("history", "-q", image) == inspected["Id"].removeprefix("sha256:")[:12]


def test_tag_list_and_remove(host, image):
    host.docker("tag", image, "e2e:two")
    rows = host.out(
        "images",
        "--format",
        "{{.Repository}}:{{.Tag}}",
        "--filter",
        f"reference={image}",
        "--filter",
        "reference=e2e:two",
    ).split()
    assert sorted(rows) == ["e2e:one", "e2e:two"]
    assert host.out("rmi", "e2e:two") == "Untagged: e2e:two"
    removed = host.out("rmi", image).split("\n")
    assert removed[0] == "Untagged: e2e:one"
    assert removed[1].startswith("Deleted: sha256:")


def test_an_image_in_use_is_kept(host, image, name):
    host.docker("create", "--name", name, image)
    result = host.docker("rmi", image, check=False)
    assert result.returncode == 1
    assert "(must force) - container" in result.stderr


def test_a_container_keeps_its_files_when_its_image_goes_by_force(own_host):
    own_host.docker("import", "-", "e2e:gone", input=busybox_tar(), text=False)
    own_host.docker("create", "--name", "kept", "e2e:gone", "sh", "-c", "cat /www/index.html")
    own_host.docker("rmi", "-f", "busybox")
    own_host.docker("rmi", "-f", "e2e:gone")
    assert own_host.out("start", "-a", "kept") == "hello from inside"
    own_host.stop()
    own_host.start()
    assert own_host.out("start", "-a", "kept") == "hello from inside"
    assert len(own_host.layers()) == 1
    own_host.docker("rm", "kept")
    own_host.wait_until(lambda: not own_host.layers(), "the end of the layer")


def test_load_of_a_docker_archive(host, image, tmp_path):
    layer = busybox_tar()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["echo", "loaded"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["e2e:loaded"], "Layers": ["l/layer.tar"]}]).encode()
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        for member, data in (("c.json", config), ("l/layer.tar", layer), ("manifest.json", manifest)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert host.out("load", "-i", str(tmp_path / "image.tar")) == "Loaded image: e2e:loaded"
    assert host.out("run", "--rm", "e2e:loaded") == "loaded"
    host.docker("rmi", "e2e:loaded")


def test_bad_references_and_archives(host, tmp_path):
    assert "invalid reference format" in host.docker("tag", "busybox", "UPPER", check=False).stderr
    assert "No such image" in host.docker("tag", "absent", "x", check=False).stderr
    (tmp_path / "junk").write_bytes(b"not a tar archive at all" * 100)
    assert host.docker("load", "-i", str(tmp_path / "junk"), check=False).returncode == 1


def test_from_host(host):
    host.wherry("image", "from-host", "e2e:host", "busybox", "sha256sum")
    out = host.out("run", "--rm", "e2e:host", "busybox", "echo", "made here")
    assert out == "made here"
    assert host.out("run", "--rm", "e2e:host", "sha256sum", "--version").startswith("sha256sum (GNU coreutils)")
    host.docker("rmi", "e2e:host")


def test_save_and_load_through_the_real_client(host, image, tmp_path):
    """Every file of the archive as it was, by name and by id; what fails leaves no file behind."""
    host.docker("tag", image, "e2e:two")
    saved, ours = tmp_path / "saved.tar", tmp_path / "ours.tar"
    host.docker("save", "-o", str(saved), image, "e2e:two")
    host.wherry("save", "-o", str(ours), image, "e2e:two")
    assert saved.read_bytes() == ours.read_bytes() == host.docker("save", image, "e2e:two", text=False).stdout
    before = host.inspect(image)
    host.docker("rmi", image, "e2e:two")
    assert host.out("load", "-i", str(saved)).splitlines() == [f"Loaded image: {image}", "Loaded image: e2e:two"]
    after = host.inspect(image)
    before.pop("Metadata"), after.pop("Metadata")
    assert before == after
    for client in (host.docker, host.wherry):
        result = client("save", "-o", str(tmp_path / "no.tar"), "--platform", "linux/s390x", image, check=False)
        assert (result.returncode, (tmp_path / "no.tar").exists()) == (1, False)
        assert "no suitable export target found for platform linux/s390x" in result.stderr
        result = client("load", "--platform", "linux/s390x", "-i", str(saved), check=False)
        assert result.returncode == 1
        assert "no image for platform linux/s390x" in result.stderr
    host.docker("rmi", "e2e:two")


@pytest.mark.parametrize("client", ["docker", "wherry"])
def test_a_save_that_breaks_is_told_and_leaves_no_file(own_host, client, tmp_path):
    """F5: the engine dies, or finds a blob damaged, in the middle of the archive."""
    # compressed, so that the blob is not what the container reads
    archive = gzip.compress(busybox_tar())
    own_host.docker("import", "-", "e2e:big", input=archive, text=False)
    save = getattr(own_host, client)
    own_host.stop()
    own_host.start("save-leased:kill")
    assert save("save", "-o", str(tmp_path / "killed.tar"), "e2e:big", check=False).returncode != 0
    assert own_host.daemon.wait(10) < 0
    own_host.start()
    os.truncate(own_host.root / "data/content/blobs/sha256" / hashlib.sha256(archive).hexdigest(), 4096)
    assert save("save", "-o", str(tmp_path / "damaged.tar"), "e2e:big", check=False).returncode != 0
    assert list(tmp_path.iterdir()) == [] or client == "docker", "whose client keeps what it got"
    assert own_host.out("run", "--rm", "e2e:big", "echo", "goes on") == "goes on"


def test_empty_names_name_nothing(host):
    """An unset variable of a script is no success."""
    for words, said in (
        (("inspect", ""), "invalid container name or ID: value is empty"),
        (("image", "inspect", ""), "Error: No such image:"),
        (("volume", "inspect", ""), "value is empty"),
        (("history", ""), "page not found"),
    ):
        ours, docker = host.wherry(*words, check=False), host.docker(*words, check=False)
        assert (ours.returncode, ours.stdout) == (docker.returncode, docker.stdout)
        assert said in ours.stderr
        assert said in docker.stderr
