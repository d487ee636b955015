"""The other end of `--console-socket`: the runtime connects and sends the master of the terminal it made."""

import os
import socket

from wherry.runtime.failure import StartError


class ConsoleSocket:
    """A socket `name` in the working directory; gone when left."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> "ConsoleSocket":
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.name)
        self._listener.listen(1)
        self._listener.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        os.unlink(self.name)

    def receive(self) -> int:
        """The master that a runtime which ended well has sent before. Raises StartError when it has not."""
        try:
            connection, _ = self._listener.accept()
            with connection:
                connection.setblocking(False)
                _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        except OSError:
            fds = []
        if not fds:
            raise StartError("Internal", "OCI runtime create failed: the runtime did not send the terminal it made")
        os.set_inheritable(fds[0], False)
        return fds[0]
