"""The driver that keeps nothing."""

from wherry.runtime.logs.base import Cleared, Unblocked


class Nothing(Unblocked):
    """The writer of driver "none"."""

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def owns(self, pid: int) -> bool:
        return False

    def reaped(self, pid: int, status: int) -> bool:
        return False

    def clear(self, then: Cleared) -> None:
        then(None)
