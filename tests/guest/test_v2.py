"""The cgroup tests on a kernel with cgroup v2 and all its controllers."""

import re

import pytest

from . import guest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_cgroups_in_a_guest_with_v2():
    try:
        code, said = guest.run("/python -m pytest -p no:cacheprovider --color=no --timeout 100 tests/cgroups")
    except guest.Unavailable as reason:
        pytest.skip(str(reason))
    assert code == 0, said[-20000:]
    (passed,) = re.findall(r"(\d+) passed", said)
    assert int(passed) >= 65, said[-20000:]
    assert "controller here" not in said, said[-20000:]
