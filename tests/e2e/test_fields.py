"""No field of POST /containers/create is forgotten: each has an effect, or a refusal that says why."""

from pathlib import Path

import pytest

from tests.e2e.conftest import AGAINST
from tests.e2e.fieldcases import CASES
from tests.e2e.host import Host

FIELDS = [
    line
    for line in (Path(__file__).parent / "data" / "fields.txt").read_text().splitlines()
    if not line.startswith("#")
]
pytestmark = pytest.mark.skipif(bool(AGAINST), reason="Docker ignores some of them")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """One with a directory of its own for descriptions of devices."""
    own = Host()
    own.flags = (*own.flags, "--cdi-spec-dir", str(own.root / "cdi"))
    own.start()
    own.import_busybox()
    yield own
    own.close()
    for parent in Path("/sys/fs/cgroup").glob("**/wherry-test-parent"):
        parent.rmdir()


def test_every_field_has_a_case():
    assert sorted(CASES) == sorted(FIELDS)


@pytest.mark.parametrize(
    ("field", "number"), [(field, number) for field, cases in CASES.items() for number in range(len(cases))]
)
def test_field(host, name, field, number):
    CASES[field][number](host, name)
