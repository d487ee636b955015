from tests.e2e.conftest import host, name, own_host

__all__ = ["host", "name", "own_host"]
