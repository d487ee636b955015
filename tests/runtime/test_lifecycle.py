"""`create`, `start` and `exec_process` as the monitor calls them."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wherry.runtime import rootfs
from wherry.runtime.cgroups import open_cgroup
from wherry.runtime.exec import exec_process
from wherry.runtime.failure import StartError
from wherry.runtime.lifecycle import Process, create
from wherry.runtime.setup import Stdio
from wherry.runtime.wire import pair

from .lab import Lab

pytestmark = pytest.mark.root


def in_parent(work: Callable[[], Any]) -> Any:
    """Call `work` in a process of its own, as a monitor is one; what it returned, or StartError."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read_end)
            answer: object = {"result": work()}
        except StartError as error:
            answer = {"kind": error.kind, "message": error.message}
        except BaseException as error:
            answer = {"kind": "defect", "message": repr(error)}
        os.write(write_end, json.dumps(answer).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        answer = json.load(file)
    os.waitpid(pid, 0)
    if "kind" in answer:
        raise StartError(answer["kind"], answer["message"])
    return answer["result"]


class Output:
    """A pipe for what a program says."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._null = os.open(os.devnull, os.O_RDWR)

    @property
    def stdio(self) -> Stdio:
        return Stdio(self._null, self._write, self._write)

    def text(self) -> str:
        os.close(self._write)
        with os.fdopen(self._read) as file:
            return file.read()


def finish(process: Process) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])


def run(lab: Lab, **more: Any) -> tuple[int, str, list[str]]:
    """Create, start, wait: (exit code, output, warnings)."""

    def work() -> tuple[int, str, list[str]]:
        warnings: list[str] = []
        output = Output()
        created = create(lab.config, str(lab.directory), stdio=output.stdio, cgroup=None, warn=warnings.append, **more)
        created.start()
        return finish(created.process), output.text(), warnings

    code, text, warnings = in_parent(work)
    return code, text, warnings


def overlay(tmp_path: Path, *lower: Path, name: str = "o") -> dict[str, Any]:
    for kind in ("upper", "work"):
        (tmp_path / f"{name}-{kind}").mkdir()
    return {
        "type": "overlay",
        "source": "overlay",
        "lower": [str(path) for path in lower],
        "upper": str(tmp_path / f"{name}-upper"),
        "work": str(tmp_path / f"{name}-work"),
        "options": ["volatile"],
    }


@pytest.mark.parametrize("layers", [1, 3, 130])
def test_overlay_of_layers_is_seen_by_the_container_only(lab: Lab, tmp_path: Path, layers: int) -> None:
    lower = []
    for number in range(layers - 1):
        layer = tmp_path / f"layers/{'x' * 40}{number}"
        layer.mkdir(parents=True)
        (layer / "which").write_text(str(number))
        (layer / f"only{number}").write_text("")
        lower.append(layer)
    image = lab.rootfs.rename(tmp_path / "image")
    lab.rootfs.mkdir()
    lab.process["args"] = [
        "sh",
        "-c",
        "cat /which; ls -d /only* | wc -l; echo new > /etc/made; grep ' / / ' /proc/self/mountinfo",
    ]
    code, text, _ = run(lab, rootfs_mounts=[overlay(tmp_path, *lower, image)])
    assert code == 0, text
    assert "overlay" in text
    if layers > 1:
        assert text.startswith(f"0{layers - 1}\n")  # the top layer counts
    assert (tmp_path / "o-upper/etc/made").read_text() == "new\n"
    assert not (image / "etc/made").exists()
    assert list(lab.rootfs.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_without_the_new_mount_api_everything_is_the_same(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vol").mkdir()
    lab.add_mount("/vol", tmp_path / "vol", "rbind", "ro", "nosuid")
    lab.add_mount("/file", tmp_path / "vol", "bind")
    lab.config["root"]["readonly"] = True
    lab.process["args"] = [
        "sh",
        "-c",
        "cut -d' ' -f4-6 /proc/self/mountinfo; wc -c < /proc/timer_list; ls /sys/firmware",
    ]
    tables = []
    for available in (True, False):
        monkeypatch.setattr(rootfs, "_api", [available])
        tables.append(run(lab))
        assert tables[-1][0] == 0, tables[-1]
    new, old = (sorted(table[1].splitlines()) for table in tables)
    assert old == new


def test_overlay_without_the_new_mount_api(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = lab.rootfs.rename(tmp_path / "image:with,odd\\name")
    lab.rootfs.mkdir()
    monkeypatch.setattr(rootfs, "_api", [False])
    lab.process["args"] = ["sh", "-c", "echo fine > /x; cat /x"]
    assert run(lab, rootfs_mounts=[overlay(tmp_path, image)])[:2] == (0, "fine\n")


def test_gate(lab: Lab) -> None:
    """Nothing of the program has happened before `start`, and what the parent holds is its child."""

    def work() -> bool:
        output = Output()
        lab.process["args"] = ["touch", "/ran"]
        created = create(lab.config, str(lab.directory), stdio=output.stdio, cgroup=None, warn=print)
        before = (lab.rootfs / "ran").exists()
        command = Path(f"/proc/{created.process.pid}/cmdline").read_bytes()
        created.start()
        finish(created.process)
        return not before and b"touch" not in command and (lab.rootfs / "ran").exists()

    assert in_parent(work)


def test_two_containers_of_one_parent_and_its_own_children_stay_apart(lab: Lab) -> None:
    def work() -> list[str]:
        lab.process["args"] = ["readlink", "/proc/self/ns/pid"]
        texts = []
        for _ in range(2):
            output = Output()
            created = create(lab.config, str(lab.directory), stdio=output.stdio, cgroup=None, warn=print)
            created.start()
            finish(created.process)
            texts.append(output.text().strip())
        return [*texts, os.readlink("/proc/self/ns/pid"), os.readlink("/proc/self/ns/pid_for_children")]

    first, second, ours, children = in_parent(work)
    assert first != second
    assert ours == children


def test_failure_undoes_everything(lab: Lab) -> None:
    path = f"/wherry-test/undo-{lab.id}"

    def work() -> None:
        lab.process["args"] = ["nope"]
        create(lab.config, str(lab.directory), stdio=Output().stdio, cgroup=open_cgroup(path), warn=print)

    with pytest.raises(StartError, match="executable file not found") as caught:
        in_parent(work)
    assert caught.value.kind == "InvalidArgument"
    assert not open_cgroup(path).exists()
    assert str(lab.directory) not in Path("/proc/self/mountinfo").read_text()


def test_cgroup_that_cannot_be_made(lab: Lab) -> None:
    def work() -> None:
        lab.linux["resources"] = {"cpu": {"cpus": "999"}}
        create(
            lab.config,
            str(lab.directory),
            stdio=Output().stdio,
            cgroup=open_cgroup(f"/wherry-test/bad-{lab.id}"),
            warn=print,
        )

    with pytest.raises(StartError, match="unable to apply cgroup configuration"):
        in_parent(work)
    assert not open_cgroup(f"/wherry-test/bad-{lab.id}").exists()


def test_descriptors_of_the_parent_are_as_many_as_before(lab: Lab) -> None:
    def work() -> tuple[int, int]:
        lab.process["args"] = ["true"]
        null = os.open(os.devnull, os.O_RDWR)
        counts = []
        for args in (["true"], ["true"], ["nope"], ["true"]):
            lab.process["args"] = args
            try:
                created = create(lab.config, str(lab.directory), stdio=Stdio(null, null, null), cgroup=None, warn=print)
                created.start()
                finish(created.process)
                os.close(created.process.pidfd)
            except StartError:
                pass
            counts.append(len(os.listdir("/proc/self/fd")))
        return counts[0], counts[-1]

    before, after = in_parent(work)
    assert before == after


def test_exec_process(lab: Lab) -> None:
    def work() -> tuple[int, str, str]:
        null = os.open(os.devnull, os.O_RDWR)
        lab.process["args"] = ["sleep", "100"]
        created = create(lab.config, str(lab.directory), stdio=Stdio(null, null, null), cgroup=None, warn=print)
        created.start()
        output = Output()
        process = {**lab.process, "args": ["sh", "-c", "hostname; exit 5"]}
        started = exec_process(
            *(created.process.pid, lab.config, process),
            stdio=output.stdio,
            seccomp_filter=None,
            cgroup=None,
            warn=print,
        )
        code = finish(started)
        try:
            exec_process(
                *(created.process.pid, lab.config, {**process, "args": ["nope"]}),
                stdio=output.stdio,
                seccomp_filter=None,
                cgroup=None,
                warn=print,
            )
            refusal = "none"
        except StartError as error:
            refusal = error.message
        os.kill(created.process.pid, signal.SIGKILL)
        finish(created.process)
        return code, output.text(), refusal

    assert in_parent(work) == [5, "box\n", 'exec: "nope": executable file not found in $PATH']


def test_ready_filter_is_loaded(lab: Lab) -> None:
    import struct

    # ALLOW everything but uname(2): ERRNO 13
    number = {"x86_64": 63}.get(os.uname().machine, 160)
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x0005000D), (0x06, 0, 0, 0x7FFF0000))
    )
    lab.process["args"] = ["sh", "-c", "hostname; grep Seccomp: /proc/self/status"]
    _, text, _ = run(lab, seccomp_filter=program)
    assert text.startswith("?")  # what hostname says when it cannot know
    assert "Seccomp:\t2" in text


def test_terminal_master_comes_with_the_process(lab: Lab) -> None:
    def work() -> str:
        lab.process["terminal"] = True
        lab.process["args"] = ["tty"]
        created = create(lab.config, str(lab.directory), stdio=Stdio(0, 1, 2), cgroup=None, warn=print)
        created.start()
        text = os.read(created.process.console, 100).decode()
        finish(created.process)
        return text

    assert in_parent(work) == "/dev/pts/0\r\n"


def test_standard_descriptors_in_any_order(lab: Lab) -> None:
    """Those of the program may be any of ours, also 0 to 2 crossed over."""

    def work() -> list[str]:
        lab.process["args"] = ["sh", "-c", "echo out; echo err >&2"]
        pipes = [os.pipe() for _ in range(2)]
        os.dup2(pipes[0][1], 2)  # its stdout is our 2, its stderr our 1
        os.dup2(pipes[1][1], 1)
        created = create(lab.config, str(lab.directory), stdio=Stdio(0, 2, 1), cgroup=None, warn=print)
        created.start()
        finish(created.process)
        return [os.read(read_end, 100).decode() for read_end, _ in pipes]

    assert in_parent(work) == ["out\n", "err\n"]


def test_long_failures_keep_both_ends() -> None:
    ours, theirs = pair()
    theirs.fail(StartError("Internal", "begin" + "x" * 100000 + "end"))
    with pytest.raises(StartError, match=r"^beginx+…x+end$"):
        ours.receive()
    ours.close()
    theirs.close()
