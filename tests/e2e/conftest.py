import os

import pytest

from .host import Engine, Host

# An engine to run the shared-host tests against instead of ours: "unix://SOCKET@NETNS". With a real Docker there, the
# tests check themselves.
AGAINST = os.environ.get("WHERRY_TEST_AGAINST")


@pytest.fixture(scope="session")
def host():
    """A host shared by the tests that don't stop its daemon; nothing of theirs may be left at the end."""
    shared = Engine(*reversed(AGAINST.split("@"))) if AGAINST else Host().start()
    shared.import_busybox()
    yield shared
    shared.close()


@pytest.fixture
def own_host():
    """A host of one's own, for tests that stop, kill or break the daemon."""
    own = Host().start()
    own.import_busybox()
    yield own
    own.close()


@pytest.fixture
def name(host, request):
    """A container name that is free; the container is removed afterwards."""
    chosen = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
    yield chosen
    host.docker("rm", "-f", chosen, check=False)
