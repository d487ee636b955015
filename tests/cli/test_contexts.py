"""`context` does what the docker CLI was recorded doing, down to the files; each CLI reads what the other wrote."""

import json
import os
import shutil
import subprocess

import pytest

from tests.cli.context_cases import HERE, cases, masked, prepare, split, tree, write

RECORDS = json.loads((HERE / "data" / "contexts.json").read_text())
CASES = cases()


@pytest.fixture
def place(tmp_path, monkeypatch, wherry):
    """A directory with certificates and a configuration of its own; the default engine is Docker's."""
    prepare(tmp_path)
    monkeypatch.setattr("wherry.client.endpoints.DEFAULT_HOST", "unix:///var/run/docker.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    return tmp_path


@pytest.mark.parametrize("index", range(len(CASES)))
def test_as_docker(index, place, wherry):
    recorded = iter(RECORDS[index]["steps"])
    for command in CASES[index]:
        extra, words = split(command)
        if words[0] == "write":
            write(place, *words[1:])
            continue
        with pytest.MonkeyPatch.context() as patch:
            for name, value in extra.items():
                patch.setenv(name, value)
            out, err, code = wherry("context", *words)
        step = next(recorded)
        seen = (masked(out, place), masked(err, place).replace("wherry", "docker"), code)
        assert seen == (step["stdout"], step["stderr"], step["code"]), command
    left = {path: masked(text, place) for path, text in tree(place).items()}
    assert left == RECORDS[index]["tree"]


def test_settings_that_docker_does_not_know_are_kept(place, wherry):
    (place / "config" / "real.json").write_text('{"x-ours": {"b": [1]}, "psFormat": "p"}')
    (place / "config" / "real.json").chmod(0o640)
    (place / "config" / "config.json").symlink_to("real.json")
    wherry("context", "create", "ab")
    assert wherry("context", "use", "ab")[2] == 0
    kept = json.loads((place / "config" / "real.json").read_text())
    assert kept == {"auths": {}, "x-ours": {"b": [1]}, "psFormat": "p", "currentContext": "ab"}
    assert (place / "config" / "config.json").is_symlink()
    assert (place / "config" / "real.json").stat().st_mode & 0o777 == 0o640


def test_a_broken_configuration_is_not_overwritten(place, wherry):
    wherry("context", "create", "ab")
    (place / "config" / "config.json").write_text("{bad")
    out, err, code = wherry("context", "use", "ab")
    assert (out, code) == ("", 1)
    assert "looking for beginning of object key string" in err
    assert (place / "config" / "config.json").read_text() == "{bad"


def archive(place, files, *, form="tar", options=()):
    """An archive of {path: text} made by the system's tar or by zipfile."""
    top = place / "made"
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    if form == "zip":
        subprocess.run(["python3", "-m", "zipfile", "-c", "../a.ctx", *os.listdir(top)], cwd=top, check=True)
    else:
        subprocess.run(["tar", "-cf", "../a.ctx", *options, *files], cwd=top, check=True)
    shutil.rmtree(top)


META = '{"Name":"q","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///x"}}}'


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_archives_made_by_others(form, place, wherry):
    archive(place, {"meta.json": META, "tls/docker/ca.pem": "PEM"}, form=form)
    assert wherry("context", "import", "ab", "a.ctx") == ("ab\n", 'Successfully imported context "ab"\n', 0)
    assert json.loads(wherry("context", "inspect", "ab")[0])[0]["TLSMaterial"] == {"docker": ["ca.pem"]}


@pytest.mark.parametrize(
    ("files", "options", "reason"),
    [
        ({"meta.json": META, "foo": ""}, (), "foo: unexpected context file"),
        ({"meta.json": META, "foo": ""}, ("-P", "--transform", "s,foo,../foo,"), "../foo: unexpected context file"),
        ({"meta.json": META, "tls/f": ""}, (), "archive format is invalid"),
        ({"meta.json": META, "tls/a/b/c": ""}, (), "archive format is invalid"),
        ({"meta.json": META, "tls/d/f": ""}, ("-P", "--transform", "s,tls/d,tls/..,"), "archive format is invalid"),
        ({"tls/docker/ca.pem": ""}, (), "invalid context: no metadata found"),
        ({"meta.json": "{bad"}, (), "invalid character 'b' looking for beginning of object key string"),
    ],
)
def test_archives_that_are_none_leave_nothing_behind(files, options, reason, place, wherry):
    archive(place, files, options=options)
    (place / "a.ctx").rename(place / "config" / "a.ctx")
    before = tree(place)
    assert wherry("context", "import", "ab", str(place / "config" / "a.ctx")) == ("", f"{reason}\n", 1)
    assert tree(place) == before


def test_the_docker_cli_and_ours_share_one_configuration(place, wherry):
    docker = shutil.which("docker")
    if not docker:
        pytest.skip("no docker CLI here")

    def run(*words):
        done = subprocess.run([docker, "context", *words], capture_output=True, text=True, cwd=place)
        assert done.returncode == 0, done.stderr
        return done.stdout

    options = "host=tcp://1.2.3.4:1,ca=ca,cert=cert,key=key"
    assert wherry("context", "create", "ours", "--docker", options, "--description", "é <1>")[2] == 0
    run("create", "theirs", "--docker", "host=ssh://u@h:22", "--description", "d")
    for name in ("ours", "theirs", "default"):
        assert run("inspect", name) == wherry("context", "inspect", name)[0]
    assert run("ls") == wherry("context", "ls")[0]
    wherry("context", "use", "theirs")
    assert run("show") == "theirs\n"
    run("use", "ours")
    assert wherry("context", "show")[0] == "ours\n"
    run("export", "ours", "by-docker")
    wherry("context", "export", "ours", "by-us")
    assert wherry("context", "import", "one", "by-docker")[2] == 0
    run("import", "two", "by-us")
    material = tree(place / "config" / "contexts" / "tls")
    assert len({text for path, text in material.items() if path.endswith("key.pem")}) == 1
    assert sum(path.endswith("key.pem") for path in material) == 3
    for name in ("one", "two"):
        assert run("inspect", name) == wherry("context", "inspect", name)[0]
    run("rm", "-f", "ours")
    assert wherry("context", "rm", "one", "two")[2] == 0
    assert run("ls", "-q").split() == ["default", "theirs"]
