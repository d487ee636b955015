"""The units that are shipped."""

import shutil
import subprocess
from pathlib import Path

import pytest

from wherry.daemon import systemd

UNITS = Path(systemd.__path__[0])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    for name in ("wherryd.service", "wherryd.socket"):
        text = (UNITS / name).read_text().replace("/usr/bin/wherryd", "/bin/true")
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    ours = [line for line in result.stderr.splitlines() if "wherryd" in line]
    assert (result.returncode, ours) == (0, [])


def test_containers_outlive_the_service():
    lines = (UNITS / "wherryd.service").read_text().splitlines()
    assert {"Type=notify", "KillMode=process", "Delegate=yes", "ExecStart=/usr/bin/wherryd --host fd://"} <= set(lines)
