"""Other engines that run our OCI runtime: commands in a network namespace of their own, in a directory both see.

The engines found on PATH are used, or what the environment says, for engines that live in another root:

    WHERRY_TEST_PODMAN, WHERRY_TEST_DOCKERD   the command that runs podman, dockerd
    WHERRY_TEST_RUNTIME                       the path of wherry-runtime as they see it
    WHERRY_TEST_DIRECTORY                     a directory that is the same for them and for us
"""

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.host import busybox_tar

SOURCE = Path(__file__).resolve().parents[2] / "src"
_SCRIPT = """\
#!{python} -IS
import sys

sys.path.insert(0, "{source}")
from wherry.runtime.oci_cli import main

main()
"""
_serial = itertools.count(1)


def command_of(program: str) -> list[str]:
    """The words that run `program`; skips the test where there is none."""
    given = os.environ.get(f"WHERRY_TEST_{program.upper()}")
    words = shlex.split(given) if given else [program]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return words


class Lab:
    """A network namespace, a directory, a cgroup and the clients in them."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        self.name = f"wherry-interop-{os.getpid()}-{next(_serial)}"
        self.root = Path(tempfile.mkdtemp(prefix="wherry-interop-", dir=os.environ.get("WHERRY_TEST_DIRECTORY")))
        self.tar = busybox_tar()
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", "lo", "up"], check=True)

    def runtime(self) -> str:
        """The path of a wherry-runtime of this source tree."""
        if path := os.environ.get("WHERRY_TEST_RUNTIME"):
            return path
        script = self.root / "wherry-runtime"
        script.write_text(_SCRIPT.format(python=sys.executable, source=SOURCE))
        script.chmod(0o755)
        return str(script)

    def run(self, *command: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        """A command in the network namespace; text output captured."""
        result = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.name}", *command],
            **({"capture_output": True, "text": True, "timeout": 90} | options),
        )
        assert not check or result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    def wait_until(self, condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen"
            time.sleep(0.05)

    def cgroups(self) -> list[Path]:
        """The directories of this lab's cgroup, in every hierarchy, children first."""
        base = Path("/sys/fs/cgroup")
        tops = [path for path in (base / self.name, *base.glob(f"*/{self.name}")) if path.is_dir()]
        return [path for top in tops for path in (*sorted(top.glob("**/*/"), reverse=True), top)]

    def processes(self) -> list[int]:
        """Those in this lab's cgroups, and what names its directory."""
        marker, found = str(self.root).encode(), []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if marker in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
            except OSError:
                continue
        return found + [int(pid) for path in self.cgroups() for pid in (path / "cgroup.procs").read_text().split()]

    def close(self) -> None:
        """Everything is gone, or it is a failure."""
        try:
            self.wait_until(lambda: not self.processes(), f"the end of processes {self.processes()}")
        finally:
            for path in self.cgroups():
                path.rmdir()
            subprocess.run(["ip", "netns", "del", self.name], check=True)
            shutil.rmtree(self.root)
