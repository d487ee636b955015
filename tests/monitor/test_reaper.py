"""The reaper of --init: the kept binaries and a fresh build behave alike."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.monitor.lab import Lab, exists, log_of, until
from wherry.runtime import reaper

HERE = Path(reaper.__file__).parent / "init_reaper"


@pytest.fixture(scope="module", params=["kept", "fresh", "aarch64"])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    machine = os.uname().machine
    if request.param == "kept":
        return [reaper.path()]
    if request.param == "aarch64":
        emulator = shutil.which("qemu-aarch64-static")
        if machine == "aarch64" or not emulator:
            pytest.skip("no emulator of the other architecture")
        return [emulator, str(HERE / "reaper-aarch64")]
    if not shutil.which("cc"):
        pytest.skip("no compiler")
    built = tmp_path_factory.mktemp("reaper") / "reaper"
    built.write_bytes(subprocess.run(["sh", str(HERE / "build"), "cc"], check=True, stdout=subprocess.PIPE).stdout)
    built.chmod(0o755)
    return [str(built)]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--", "sh", "-c", "exit 7"], 7),
        (["/bin/sh", "-c", "exit 0"], 0),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $PPID; sleep 9"], 143),
        (["sh", "-c", "trap 'exit 33' USR1; kill -USR1 $PPID; while :; do sleep 0.01; done"], 33),
        (["nope"], 127),
        (["/nope"], 127),
        (["/etc/passwd"], 126),
        ([], 2),
    ],
)
def test_exit_codes_and_signals(command, arguments, code):
    assert subprocess.run([*command, *arguments], stderr=subprocess.DEVNULL, timeout=60).returncode == code


def test_arguments_environment_and_signal_mask(command):
    script = 'echo "$A" "$@"; grep -E "^Sig(Blk|Ign)" /proc/self/status'
    done = subprocess.run(
        [*command, "sh", "-c", script, "x", "a b", "--"],
        env={"A": "1", "PATH": "/nonexistent:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        timeout=20,
        restore_signals=True,
    )
    assert done.stdout.split(b"\n")[0] == b"1 a b --"
    assert b"SigBlk:\t0000000000000000" in done.stdout


def test_path_is_our_own_and_static():
    path = Path(reaper.path())
    assert path.parent == HERE
    content = path.read_bytes()
    assert content[:4] == b"\x7fELF"
    assert b"/lib64/ld-linux" not in content
    assert len(content) < 4096


@pytest.mark.root
def test_as_process_one_it_reaps_orphans(play):
    async def scenario(lab: Lab) -> None:
        shutil.copy(reaper.path(), lab.layer / "bin" / "reaper")
        script = "for i in 1 2 3 4 5; do (sleep 0.01 & :); done; sleep 0.2; ls -d /proc/[0-9]*; sleep 1000"
        request = lab.request("/bin/reaper", "--", "sh", "-c", script)
        monitor, events = await lab.run(request)
        await until(lambda: "/proc/1" in log_of(request))
        assert log_of(request).count("/proc/") == 2  # reaper and sh; orphans not reaped would be zombies
        await monitor.signal(signal.SIGTERM)
        assert (await events.until("exit"))["exit_code"] == 143
        assert not exists(monitor.pid)

    play(scenario)
