"""diff, commit, cp and export of containers of either storage driver, and what is in every container."""

import io
import json
import tarfile

import pytest

from ..e2e.host import Host, busybox_tar
from . import cases


@pytest.fixture(scope="module", params=["overlay2", "vfs"])
def host(request):
    ours = Host("--storage-driver", request.param).start()
    ours.docker("import", "-", cases.IMAGE, input=busybox_tar(), text=False)
    assert ours.out("info", "-f", "{{.Driver}}") == request.param
    yield ours
    ours.close()


@pytest.fixture
def lab(host):
    lab = cases.Lab(f"{host.root}/wherry.sock")
    yield lab
    lab.close()


def test_a_copy_comes_back(host, lab, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_bytes(b"content" * 100_000)
    (tree / "link").symlink_to("sub/file")
    (tree / "sub/file").chmod(0o640)
    for start in (False, True):
        lab.create("c")
        if start:
            lab.post("c", "start")
        host.docker("cp", str(tree), f"{lab.ids['c']}:/copied")
        host.docker("cp", f"{lab.ids['c']}:/copied", str(tmp_path / f"back{start}"))
        back = tmp_path / f"back{start}"
        assert (back / "sub/file").read_bytes() == (tree / "sub/file").read_bytes()
        assert (back / "sub/file").stat().st_mode & 0o777 == 0o640
        assert (back / "link").readlink() == (tree / "link").readlink()
        assert sorted(line for line in host.out("diff", lab.ids["c"]).splitlines()) == [
            *("A /copied", "A /copied/link", "A /copied/sub", "A /copied/sub/file"),
        ]
        lab.close()
        lab.ids.clear()


def test_diff_commit_and_export_agree(host, lab):
    lab.create("c", start=True)
    lab.sh("c", "mkdir /new; echo n >/new/file; rm /bin/yes; echo more >>/etc/group; ln -s x /new/link")
    changes = [line.split(" ", 1) for line in host.out("diff", lab.ids["c"]).splitlines()]
    wanted = {"/bin": "C", "/bin/yes": "D", "/etc": "C", "/etc/group": "C", "/new": "A", "/new/file": "A"}
    assert {path: kind for kind, path in changes} == {**wanted, "/new/link": "A"}
    names = set(exported(host, lab.ids["c"]))
    assert {"new/file", "new/link", "etc/group", "bin/sh"} <= names
    assert "bin/yes" not in names
    host.docker("commit", lab.ids["c"], "committed")
    lab.create("d", {"Image": "committed"}, start=True)
    shown = lab.sh("d", "cat /new/file; tail -n 1 /etc/group; readlink /new/link; test -e /bin/yes || echo gone")
    assert shown == "n\nmore\nx\ngone\n"
    assert host.out("diff", lab.ids["d"]) == ""
    lab.close()
    host.docker("rmi", "committed")


def test_a_run_that_changed_nothing_commits_nothing(host, lab):
    """What a start leaves to mount on (/etc/hosts, /.dockerenv) is no part of the layer."""

    def layers(image: str) -> list[str]:
        return json.loads(host.out("image", "inspect", "--format", "{{json .RootFS.Layers}}", image))

    lab.create("c", start=True)
    host.docker("commit", lab.ids["c"], "committed")
    assert layers("committed") == layers(host.inspect(lab.ids["c"])["Image"])
    lab.sh("c", "echo nameserver ::1 >/etc/new; rm /etc/group")
    host.docker("commit", lab.ids["c"], "committed")
    [added] = layers("committed")[len(layers(host.inspect(lab.ids["c"])["Image"])) :]
    [blob] = (path for path in (host.root / "data").rglob(added.partition(":")[2]) if path.is_file())
    with tarfile.open(blob) as layer:
        assert sorted(layer.getnames()) == ["etc", "etc/.wh.group", "etc/new"]
    host.docker("rmi", "-f", "committed")


def exported(host, container: str) -> list[str]:
    data = host.docker("export", container, text=False).stdout
    return tarfile.open(fileobj=io.BytesIO(data)).getnames()


def test_dockerenv(host, lab):
    """It is in every container, in what is exported of it, and in nothing that tells what the container changed."""
    for name, extra in (("c", {}), ("r", {"HostConfig": {"NetworkMode": "none", "ReadonlyRootfs": True}})):
        lab.create(name, extra)
        assert lab.head(name, "/.dockerenv")[1]["size"] == 0
        assert lab.head(name, "/.dockerenv")[1]["mode"] == 0o755
        lab.post(name, "start")
        assert lab.sh(name, "stat -c '%F %a %u' /.dockerenv") == "regular empty file 755 0\n"
        assert ".dockerenv" in exported(host, lab.ids[name])
        assert host.out("diff", lab.ids[name]) == ""
    image = host.out("commit", lab.ids["c"])
    layers = [json.loads(host.out("inspect", each))[0]["RootFS"]["Layers"] for each in (image, cases.IMAGE)]
    lab.create("e", {"Image": image}, start=True)
    assert lab.sh("e", "ls -d /.dockerenv") == "/.dockerenv\n"
    assert host.out("diff", lab.ids["e"]) == ""
    assert len(layers[0]) <= len(layers[1]) + 1
    lab.close()
    host.docker("rmi", image)


def test_an_image_that_has_one(host, lab):
    """What was exported is imported again: the file that came with the image stays."""
    lab.create("c")
    data = host.docker("export", lab.ids["c"], text=False).stdout
    host.docker("import", "-", "again", input=data, text=False)
    lab.create("d", {"Image": "again"}, start=True)
    assert lab.sh("d", "ls -d /.dockerenv") == "/.dockerenv\n"
    assert host.out("diff", lab.ids["d"]) == ""
    lab.close()
    host.docker("rmi", "again")
