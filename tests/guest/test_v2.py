"""Limits on a kernel with cgroup v2 and all its controllers: the drivers, the runtime, the engine with the real docker
command. The guest's kernel is older than many (6.1: overlayfs without lowerdir+, no statmount)."""

import re
import shutil

import pytest

from . import guest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

_RUNTIME = "test_life_cycle or kill_all or created_container or update or test_devices or oom_score or exec_cpu"
_LIMITS = (
    "Cpu or Memory or Pids or Blkio or Oom or Throttle or Weight or CgroupParent or reaches or no_pids or survives"
)
_ENDINGS = "out_of_memory or oom_killer or a_healthy_container or unhealthy_after"
_ENGINE = "limits or out_of_memory or pause or test_exec or exit_code or read_only"


def _passed(tests: str) -> tuple[int, str]:
    """How many of `tests` (arguments of pytest) passed in a guest, and what it said; none of them may fail."""
    try:
        code, said = guest.run(
            f"/python -m pytest -p no:cacheprovider --color=no --timeout 100 {tests}", timeout_s=1800
        )
    except guest.Unavailable as reason:
        pytest.skip(str(reason))
    assert code == 0, said[-20000:]
    (passed,) = re.findall(r"(\d+) passed", said)
    return int(passed), said


def test_cgroups_in_a_guest_with_v2():
    passed, said = _passed("tests/cgroups")
    assert passed >= 65, said[-20000:]
    assert "controller here" not in said, said[-20000:]


def test_runtime_in_a_guest_with_v2():
    passed, said = _passed(f'-k "{_RUNTIME}" tests/runtime/test_command_line.py tests/runtime/test_container.py')
    assert passed >= 8, said[-20000:]


@pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")
def test_engine_in_a_guest_with_v2():
    passed, said = _passed(f'-k "v2 or {_ENGINE}" tests/e2e/test_cgroup_v2.py tests/e2e/test_run.py')
    assert passed >= 12, said[-20000:]
    assert "alone" not in said, said[-20000:]


@pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")
def test_running_out_of_memory_in_a_guest_with_v2():
    """Init that is killed, a child that is while init goes on, one in an exec; and health."""
    files = "tests/e2e/test_endings.py tests/e2e/test_cgroup_v2.py tests/e2e/test_health.py"
    passed, said = _passed(f'-k "{_ENDINGS}" {files}')
    assert passed >= 4, said[-20000:]


@pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")
def test_limits_in_a_guest_with_v2():
    """The table of limits that the same tests prove on v1, and their updates."""
    passed, said = _passed(f'-k "{_LIMITS}" tests/e2e/test_fields.py tests/e2e/test_update.py')
    assert passed >= 65, said[-20000:]
