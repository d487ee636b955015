"""Completion: what is answered for a command line, and real shells that show it."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest

from tests.cli.fake_engine import FakeEngine, as_json
from tests.cli.output_cases import routes
from wherry.cli.main import GLOBAL_FLAGS, run
from wherry.cli.registry import BY_NAME

ANSWERS = {
    "GET /info": as_json({"Plugins": {"Log": ["json-file", "local"], "Volume": ["local"]}, "Runtimes": {"crun": {}}}),
    "GET /images/json": as_json([{"RepoTags": ["busybox:latest", "busybox:1.36"]}, {"RepoTags": ["<none>:<none>"]}]),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with FakeEngine(str(tmp_path_factory.mktemp("completion") / "e.sock"), {**routes(), **ANSWERS}) as fake:
        yield fake


@pytest.fixture
def ask(engine, wherry, monkeypatch):
    """A function: words -> (candidates, directive)."""
    monkeypatch.setenv("DOCKER_HOST", engine.host)

    def run(*words):
        out, err, code = wherry("__complete", *words)
        assert (err, code) == ("", 0)
        *lines, last = out.splitlines()
        assert last[0] == ":"
        return [line.partition("\t")[0] for line in lines], int(last[1:])

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["vers"], ["version"]),
        (["container", "st"], ["start", "stats", "stop"]),
        (["container", "x", ""], []),
        (["nonesuch", ""], []),
        (["--log-level", "d"], ["debug"]),
        (["--log-level=d"], ["--log-level=debug"]),
        (["-D", "--log-level", "info", "vers"], ["version"]),
        (["stop", ""], ["web"]),
        (["rm", ""], ["web", "db", "pinned"]),
        (["rm", "db", ""], ["web", "pinned"]),
        (["start", ""], ["db", "pinned"]),
        (["stop", "-t", "3", "w"], ["web"]),
        (["stop", "--signal=HUP", "w"], ["web"]),
        (["container", "stop", "w"], ["web"]),
        (["exec", "-it", ""], ["web"]),
        (["exec", "web", ""], []),
        (["rename", "web", ""], []),
        (["run", "--network", ""], ["bridge", "host", "container:"]),
        (["run", "--network=h"], ["--network=host"]),
        (["run", "--network", "container:w"], ["container:web"]),
        (["run", "--restart", ""], ["always", "no", "on-failure", "unless-stopped"]),
        (["run", "--log-driver", ""], ["json-file", "local"]),
        (["run", "--log-driver", "local", "--log-opt", "max-f"], ["max-file="]),
        (["run", "--runtime", ""], ["crun"]),
        (["run", "--pid", "container:d"], ["container:db"]),
        (["run", "-v", "vol"], ["vol10:", "vol2:"]),
        (["run", ""], ["busybox", "busybox:1.36", "busybox:latest"]),
        (["run", "--rm", "-it", "busy"], ["busybox", "busybox:1.36", "busybox:latest"]),
        (["run", "busybox", "--net"], []),
        (["run", "--platform", "linux/arm64"], ["linux/arm64", "linux/arm64/v8"]),
        (["kill", "-s", "US"], ["USR1", "USR2"]),
        (["kill", "-sUS"], []),
        (["ps", "-aqf", "status=ex"], ["status=exited"]),
        (["ps", "--filter", "heal"], ["health="]),
        (["ps", "--filter", "volume="], ["volume=Vol2", "volume=data", "volume=vol10", "volume=vol2"]),
        (["events", "-f", "type=n"], ["type=network"]),
        (["volume", "ls", "--filter", "d"], ["dangling=", "driver="]),
        (["volume", "rm", "vol1"], ["vol10"]),
        (["inspect", "--type", "vol"], ["volume"]),
        (["inspect", "--type", "volume", ""], ["Vol2", "data", "vol10", "vol2"]),
        (["inspect", "we"], ["web"]),
        (["ps", "--fo"], ["--format"]),
        (["ps", "--all", "--al"], []),
        (["ps", "--no-trunc=f"], ["--no-trunc=false"]),
        (["context", "use", ""], ["default"]),
        (["help", ""], []),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["pu"], ["pull", "push"]),
        (["push", ""], ["busybox", "busybox:1.36", "busybox:latest"]),
        (["push", "busybox", ""], []),
        (["pull", "--platform", "linux/s"], ["linux/s390x"]),
        (["search", "--format", ""], ["json", "table"]),
        (["search", "--filter", "is-official="], ["is-official=true", "is-official=false"]),
        (["manifest", ""], ["annotate", "create", "inspect", "push", "rm"]),
        (["manifest", "annotate", "--arch", "riscv"], ["riscv64"]),
        (["manifest", "inspect", "list", ""], []),
        (["buildx", ""], ["imagetools"]),
        (["buildx", "imagetools", ""], ["inspect"]),
        (["buildx", "imagetools", "inspect", "--r"], ["--raw"]),
    ],
)
def test_answers(ask, words, expected):
    assert ask(*words)[0] == expected


@pytest.mark.parametrize(
    ("words", "directive"),
    [
        (["stop", ""], 4),
        (["run", "-v", "vol"], 6),
        (["run", "--env-file", ""], 0),
        (["--config", ""], 16),
        (["run", "busybox", ""], 0),
        (["load", "-i", ""], 0),
        (["run", "--label", ""], 4),
        (["system", "dial-stdio", ""], 4),
    ],
)
def test_what_the_shell_may_do(ask, words, directive):
    assert ask(*words)[1] == directive


def test_what_the_configuration_knows(ask, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    auths = {"https://index.docker.io/v1/": {}, "https://b.example/v1/": {}, "c.example:5000": {}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    assert ask("logout", "") == (["b.example", "c.example:5000"], 4)
    assert ask("login", "b") == (["b.example"], 4)
    assert ask("logout", "b.example", "")[0] == []
    (tmp_path / "manifests/c.example-5000_x-1").mkdir(parents=True)
    entry = {"Ref": "c.example:5000/y:2", "Descriptor": {}}
    (tmp_path / "manifests/c.example-5000_x-1/c.example-5000_y-2").write_text(json.dumps(entry))
    assert ask("manifest", "annotate", "c.example:5000/x:1", "")[0] == ["c.example:5000/y:2"]


def test_the_engine_named_on_the_line_is_asked(ask, tmp_path):
    other = {"GET /containers/json": as_json([{"Names": ["/there"], "State": "running"}])}
    with FakeEngine(str(tmp_path / "o.sock"), other) as there:
        assert ask("-H", there.host, "stop", "")[0] == ["there"]


def test_no_engine_is_no_error_and_starts_none(wherry, monkeypatch, tmp_path):
    monkeypatch.setattr("wherry.client.endpoints.DEFAULT_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setattr("wherry.cli.autostart.start_engine", lambda *_: pytest.fail("started"))
    assert wherry("__complete", "stop", "") == (":4\n", "", 0)
    assert wherry("__complete", "run", "--restart", "no")[0] == "no\n:4\n"


def test_an_engine_that_hangs_is_not_waited_for(wherry, monkeypatch, tmp_path):
    monkeypatch.setattr("wherry.cli.completion.names.PATIENCE", 0.05)

    def hang(_request):
        released.wait(60)
        return as_json([])

    import threading

    released = threading.Event()
    with FakeEngine(str(tmp_path / "e.sock"), {"GET /containers/json": hang}) as fake:
        assert wherry("-H", fake.host, "__complete", "stop", "")[0] == ":4\n"
        monkeypatch.setenv("DOCKER_HOST", fake.host)
        assert wherry("__complete", "stop", "")[0] == ":4\n"
        assert not released.is_set()
        released.set()


@pytest.mark.parametrize("path", sorted(BY_NAME))
def test_every_flag_of_every_command_is_completed(ask, path):
    words = path.split()
    offered = set(ask(*words, "--")[0])
    assert offered == {f"--{flag.name}" for flag in BY_NAME[path].load().flags if not flag.hidden} | {"--help"}


def test_global_flags_are_completed(ask):
    assert set(ask("--")[0]) == {f"--{flag.name}" for flag in GLOBAL_FLAGS} | {"--help"}


def test_a_command_without_completion_scripts_is_told_so(capfd):
    assert run(["completion", "tcsh"]) == 1
    assert "unknown command: wherry completion tcsh" in capfd.readouterr().err


# ---- real shells


@pytest.fixture
def shell_environment(engine, tmp_path):
    """A PATH with `wherry`, an engine, and an empty home."""
    program = tmp_path / "bin" / "wherry"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m wherry.cli.main "$@"\n')
    program.chmod(0o755)
    (tmp_path / "afile").write_text("")
    source = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "src")
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "DOCKER_HOST": engine.host,
        "PYTHONPATH": source,
        "TERM": "dumb",
        "LANG": "C.UTF-8",
    }


BASH_LINES = [
    ("wherry vers", ["version"]),
    ("wherry container st", ["start", "stats", "stop"]),
    ("wherry stop ", ["web"]),
    ("wherry run --network=h", ["host"]),
    ("wherry run --network h", ["host"]),
    ("wherry run --pid container:d", ["db"]),
    ("wherry ps --filter status=ex", ["exited"]),
    ("wherry ps --filter=status=ex", ["exited"]),
    ("wherry run busybox:1", ["1.36"]),
    ("wherry run -e A=b:c --network=h", ["host"]),
    ("wherry -H unix:///nonexistent stop ", []),
    ("wherry run -v vol1", ["vol10:"]),
    ("wherry  stop  -t  3  w", ["web"]),
    ("wherry run --log-opt ", None),
]


@pytest.mark.parametrize(("line", "expected"), BASH_LINES)
def test_bash(line, expected, shell_environment, tmp_path):
    """The function that `complete` registers is called as readline calls it, with the words readline would make."""
    script = r"""
source <(wherry completion bash)
complete -p wherry > /dev/null || exit 9
breaks() {
    local c out= n
    for ((n = 0; n < ${#1}; n++)); do c=${1:n:1}; [[ $c == [=:] ]] && out+=" $c " || out+=$c; done
    echo "$out"
}
COMP_LINE=$LINE_TO_COMPLETE; COMP_POINT=${#COMP_LINE}
read -ra COMP_WORDS <<< "$(breaks "$COMP_LINE")"
# Readline takes neighbouring break characters as one word.
[[ $COMP_LINE == *[[:space:]] ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_wherry wherry "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**shell_environment, "LINE_TO_COMPLETE": line},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    if expected is None:
        assert {"mode=", "max-size=", "tag="} <= set(found)
    else:
        assert found == expected


def typed(command, environment, cwd, keys, until):
    """What a terminal shows when `keys` are typed into a program: all output up to `until`, at most 20 s."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvpe(command[0], command, environment)
    shown = b""
    try:
        for prompt, text in keys:
            shown += _read_until(fd, prompt)
            os.write(fd, text)
        return (shown + _read_until(fd, until)).decode("utf-8", "replace")
    finally:
        os.close(fd)
        os.waitpid(pid, 0)


def _read_until(fd, text):
    data, deadline = b"", time.monotonic() + 60
    while text not in data:
        ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{text!r} did not come after {data!r}"
        data += os.read(fd, 4096)
    return data


def test_bash_at_a_terminal(shell_environment, tmp_path):
    """Readline itself: it cuts words at = and :, and completes the one candidate."""
    (tmp_path / "rc").write_text("PS1='READY> '; source <(wherry completion bash); unset HISTFILE\n")
    keys = [
        (b"READY> ", b"wherry run --network=ho\t"),
        (b"--network=host", b"busybox:1\t"),
        (b"busybox:1.36", b"\x15wherry load -i afi\t"),
        (b"afile", b"\x15exit\n"),
    ]
    command = ["bash", "--rcfile", str(tmp_path / "rc"), "-i"]
    assert "exit" in typed(command, shell_environment, tmp_path, keys, b"exit")


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh_at_a_terminal(shell_environment, tmp_path):
    (tmp_path / ".zshrc").write_text(
        "PS1='READY> '; unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D; "
        "source <(wherry completion zsh)\n"
    )
    keys = [
        (b"READY> ", b"wherry run --network=ho\t"),
        (b"--network=host", b"busybox:1\t"),
        (b"busybox:1.36", b"\x15wherry stop \t"),
        (b"stop web", b"\x15wherry load -i afi\t"),
        (b"afile", b"\x15exit\n"),
    ]
    assert "exit" in typed(["zsh", "-i"], shell_environment, tmp_path, keys, b"exit")


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("wherry vers", ["version"]),
        ("wherry stop ", ["web"]),
        ("wherry run --network=h", ["--network=host"]),
        ("wherry ps --filter status=ex", ["status=exited"]),
        ("wherry load -i afi", ["afile"]),
        ("wherry run --restart un", ["unless-stopped"]),
    ],
)
def test_fish(line, expected, shell_environment, tmp_path):
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"wherry completion fish | source; complete -C {json.dumps(line)}"],
        env=shell_environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [each.partition("\t")[0] for each in done.stdout.splitlines()] == expected
