"""What a monitor does without waking for it: take a daemon that comes back, and tell it that all is as it was.

Nothing is decoded, and the answer is the one that was written when the container started.
"""

import _socket
import os

from wherry.runtime.monitor.control import peer_uid

_QUESTION = b'I{"op":"status","seq":'
_LARGEST = 64
_NOW = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL


def accept(listener: int) -> int:
    """The connection of whoever knocks; -1 when there is none, or it is nobody's who may ask."""
    knocked = _socket.socket(fileno=listener)
    try:
        fd, _address = knocked._accept()  # type: ignore[attr-defined]  # absent from typeshed's stub
    except OSError:
        return -1
    finally:
        knocked.detach()
    connection = _socket.socket(fileno=fd)
    if peer_uid(connection) in (0, os.geteuid()):
        return connection.detach()
    connection.close()
    return -1


def answer(connection: int, status: bytes) -> bool:
    """Answer the request that waits, if it asks for the status alone: that is `status`, JSON. Any other stays there."""
    asking = _socket.socket(fileno=connection)
    try:
        record = asking.recv(_LARGEST, _socket.MSG_PEEK | _NOW)
        number = record[len(_QUESTION) : -1]
        if not (status and record.startswith(_QUESTION) and record.endswith(b"}") and number.isdigit()):
            return False
        asking.recv(_LARGEST, _NOW)
        asking.send(b'I{"re":%b,"ok":%b}' % (number, status), _NOW)
    except OSError:
        return False
    finally:
        asking.detach()
    return True
