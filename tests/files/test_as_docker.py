"""Every step of `cases` against our engine, beside what a real Docker 28 answered."""

import json
import re

import pytest

from ..e2e.host import Host
from . import record


@pytest.fixture(scope="module")
def found():
    host = Host().start()
    try:
        yield record.record(f"{host.root}/wherry.sock")
    finally:
        host.close()


WANTED = json.loads(record.GOLDEN.read_text())


@pytest.mark.parametrize("step", sorted(WANTED))
def test_a_step(found, step):
    assert _plain(found[step]) == _plain(WANTED[step])


def _plain(value):
    """Without what differs between two runs: the sizes of directories and of generated files, the time of the day."""
    if isinstance(value, dict):
        generated = value.get("name") in ("hosts", "resolv.conf") or value.get("mode", 0) & (1 << 31)
        return {key: _plain(item) for key, item in value.items() if not (key == "size" and generated)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return re.sub(r" 1[78]\d{8} ", " now ", value) if isinstance(value, str) else value
