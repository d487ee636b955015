"""HTTP/1.1 framing of one server connection, without IO: bytes in, events out; replies in, bytes out.

h11 parses the heads, each in an object of its own; `body` takes the bodies apart. This adds what a daemon on an open
port needs before h11 sees a head, what a hijack needs after it, and the writing of replies, which is trivial where
parsing is not and would cost as much again through h11's checks:

- a head is given to h11 only when it is complete and strictly written: a bare LF, a bare CR, a NUL, a folded line,
  `Content-Length` beside `Transfer-Encoding` are refused, because a proxy in front could read them differently
  (request smuggling, RFC 9112 sections 2.2, 5.2, 6.3);
- bytes behind the request are never lost: `take_rest` returns them to whoever takes the connection over.

    events:  Head → (body bytes)* → END          then `next_cycle`, or `take_rest` for ever
             NEED_DATA when more bytes are needed; PAUSED when the next request waits for `next_cycle`
"""

import re
from enum import Enum
from typing import NamedTuple

import h11

from wherry.errors import InvalidArgument
from wherry.http.body import BodyFraming, FramingError

HeaderList = list[tuple[str, str]]

_CARELESS = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\r\n[ \t]|\x00")
_TOKEN_START = re.compile(rb"[A-Za-z]")
_END_OF_HEAD = b"\r\n\r\n"
_VERSIONS = frozenset(f"1.{minor}" for minor in range(10))
_CONTINUE = "100-continue"
_BODILESS = (204, 304)
_MAX_LINES = 256  # of a head: parsing a line costs microseconds, and a quarter of a mebibyte holds very many


class Event(Enum):
    NEED_DATA = "need data"
    PAUSED = "paused"
    END = "end of the request"


class Head(NamedTuple):
    """The head of a request. `headers` has lower-case names; values of a repeated name are joined by a comma."""

    method: str
    target: str
    headers: dict[str, str]
    http_version: str


class ProtocolError(InvalidArgument):
    """The peer does not speak HTTP/1.1 as we accept it. `status` is what to answer before closing."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class H1:
    """The framing of one connection; `max_head` limits the bytes of a request line and its headers."""

    def __init__(self, max_head: int) -> None:
        self._max_head = max_head
        self._raw = bytearray()  # bytes of a head that is not complete, never seen by h11
        self._scanned = 0
        self._eof = False
        self._in_head = True
        self.request_complete = False
        """The whole request, with its body, has been received."""
        self.wants_continue = False
        """The peer waits for `100 Continue` before it sends the body."""
        self._head = Head("", "", {}, "1.0")
        self._chunked = False
        self._last = False
        self._body = BodyFraming(0)
        self._arrived: list[memoryview] = []
        self._bad: FramingError | None = None

    # -- receiving

    def feed(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self._in_head:
            self._raw += data
        elif self._bad is None:
            try:
                self._arrived += self._body.feed(data)
            except FramingError as error:
                self._bad = error

    def feed_eof(self) -> None:
        """The peer will send nothing more."""
        self._eof = True

    def lend_body(self) -> BodyFraming:
        """The framing of the body at hand, for somebody else to feed; nothing may be fed here until it is back."""
        return self._body

    def take_back_body(self, bad: FramingError | None) -> None:
        """Whoever had the framing is done with it; `bad` is what it met."""
        self._bad = self._bad or bad

    def next_event(self) -> Head | bytes | Event:
        """The next event of the table above. Raises ProtocolError; the connection must then be closed."""
        if not self._in_head:
            return self._body_event()
        if not self._head_is_complete():
            return Event.NEED_DATA
        self._in_head = False
        head, rest = _parse(bytes(self._raw), self._max_head)
        self._raw.clear()
        chunked = "transfer-encoding" in head.headers
        self._body = BodyFraming(None if chunked else int(head.headers.get("content-length", "0")))
        self._began(head)
        self.feed(rest)
        return head

    def _body_event(self) -> bytes | Event:
        if self._arrived:
            data, self._arrived = b"".join(self._arrived), []
            self.wants_continue = False
            return data
        if self.request_complete:
            return Event.PAUSED if self._body.rest() else Event.NEED_DATA
        if self._body.complete:
            self.request_complete = True
            self.wants_continue = False
            return Event.END
        if self._bad is not None:
            raise ProtocolError(str(self._bad)) from self._bad
        if self._eof:
            raise ProtocolError("peer closed connection without sending complete message body")
        return Event.NEED_DATA

    def _began(self, head: Head) -> None:
        self._head = head
        modern = head.http_version == "1.1"
        self._last = not modern or "close" in head.headers.get("connection", "").lower()
        self.wants_continue = modern and head.headers.get("expect", "").lower() == _CONTINUE

    def _head_is_complete(self) -> bool:
        if self._scanned == 0 and self._raw.startswith(b"\r\n"):
            del self._raw[:2]  # RFC 9112 2.2: an empty line before the request is to be ignored
        if self._raw and not _TOKEN_START.match(self._raw):
            raise ProtocolError("malformed request line")
        end = self._raw.find(_END_OF_HEAD, max(0, self._scanned - 3))
        stop = len(self._raw) if end < 0 else end
        if _CARELESS.search(self._raw, max(0, self._scanned - 2), stop):
            raise ProtocolError("malformed request head")
        if stop > self._max_head or (end >= 0 and self._raw.count(b"\r\n", 0, end) > _MAX_LINES):
            raise ProtocolError("request header fields too large", 431)
        self._scanned = 0 if end >= 0 else stop
        return end >= 0

    @property
    def started(self) -> bool:
        """True once a byte of the current request has come."""
        return not self._in_head or bool(self._raw)

    def take_rest(self) -> bytes:
        """The bytes behind the request; the framing is of no use afterwards."""
        return self._body.rest()

    # -- sending

    def send_continue(self) -> bytes:
        self.wants_continue = False
        return b"HTTP/1.1 100 Continue\r\n\r\n"

    def send_head(self, status: int, reason: str, headers: HeaderList, *, close: bool = False) -> bytes:
        """The head of the reply; with `close` it is the last. Without a Content-Length the body goes out in chunks (or
        until the end, HTTP/1.0). Raises ValueError when a header has a line end in it."""
        self.wants_continue = False
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
        if status not in _BODILESS and not any(name == "Content-Length" for name, _ in headers):
            self._chunked = self._head.http_version == "1.1"
            lines += ["Transfer-Encoding: chunked"] if self._chunked else []
            close = close or not self._chunked
        self._last = self._last or close
        if self._last:
            lines.append("Connection: close")
        head = "\r\n".join(lines)
        if head.count("\r") != len(lines) - 1 or head.count("\n") != len(lines) - 1:
            raise ValueError("a line end in a header of the reply")
        return head.encode("latin-1", "replace") + _END_OF_HEAD

    def send_data(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data

    def send_end(self) -> bytes:
        return b"0\r\n\r\n" if self._chunked else b""

    @property
    def must_close(self) -> bool:
        """After the reply's end: the connection cannot carry another request."""
        return self._last or not self.request_complete

    def next_cycle(self) -> None:
        """Start over for the next request; call only when not `must_close`."""
        rest = self.take_rest()
        self._raw = bytearray(rest)
        self._scanned = 0
        self._in_head = True
        self.request_complete = self.wants_continue = self._chunked = self._last = False


def _parse(raw: bytes, limit: int) -> tuple[Head, bytes]:
    """The head that `raw` begins with, which is complete, and what follows it."""
    # a parser of its own for each head: nothing of one request can reach into the next
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=limit + 4)
    parser.receive_data(raw)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise ProtocolError(str(error), error.error_status_hint) from error
    if not isinstance(event, h11.Request):
        raise ProtocolError("malformed request head")
    return _head(event), bytes(parser.trailing_data[0])


def _head(event: h11.Request) -> Head:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    version = event.http_version.decode()
    if "transfer-encoding" in headers and ("content-length" in headers or version != "1.1"):
        raise ProtocolError("ambiguous message length")
    if version not in _VERSIONS:
        raise ProtocolError("unsupported protocol version", 505)
    if headers.get("expect", _CONTINUE).lower() != _CONTINUE:
        raise ProtocolError("unsupported expectation", 417)
    return Head(event.method.decode("latin-1"), event.target.decode("latin-1"), headers, version)
