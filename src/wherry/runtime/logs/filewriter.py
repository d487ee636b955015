"""What the drivers that write files have in common."""

from wherry.runtime.logs.base import Cleared, Unblocked
from wherry.runtime.logs.rotation import RotatingFile


class FileWriter(Unblocked):
    """Part of a `wherry.runtime.logs.base.Writer` whose records are in `_file`."""

    _file: RotatingFile

    def flush(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.flush()
        self._file.close()

    def owns(self, pid: int) -> bool:
        return self._file.owns(pid)

    def reaped(self, pid: int, status: int) -> bool:
        return self._file.reaped(pid, status)

    def clear(self, then: Cleared) -> None:
        try:
            self._file.clear()
        except OSError as error:
            then(error)
        else:
            then(None)
