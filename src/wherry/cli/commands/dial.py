"""`wherry system dial-stdio`: the far end of an ssh:// host. Standard streams become a connection to the engine."""

from __future__ import annotations

import os
import select

from wherry.cli.command import Command
from wherry.cli.session import write_all
from wherry.client.transport import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


def _run(session: Session, _: Parsed) -> int:
    session.engine.ping()  # starts one where that is wanted, and fails with a sentence instead of a closed pipe
    stream = connect(session.endpoint)
    input_open = True
    while True:
        if not stream.pending():
            ready, _write, _error = select.select([stream.fileno(), *([0] if input_open else [])], [], [])
            if 0 in ready:
                data = os.read(0, 65536)
                if data:
                    stream.sendall(data)
                else:
                    input_open = False
                    stream.shutdown_write()
            if stream.fileno() not in ready:
                continue
        data = stream.recv(65536)
        if not data:
            return 0
        write_all(1, data)


COMMANDS = {"dial-stdio": Command("", _run, most=0)}
