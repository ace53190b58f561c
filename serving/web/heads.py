"""Heads: which requests are written so plainly that the front door may answer them. Pure."""

from dataclasses import dataclass
from functools import lru_cache

import httptools

from core.errors import RequestError
from serving.answers.requests import BODY_BYTES_MAX, deadline_of

PATH = "/get-online-features"
HEAD_BYTES_MAX = 8 << 10
"""The web server refuses single lines that are longer."""

_DEADLINE = b"freshet-deadline-ms"
_START = f"POST {PATH} HTTP/1.1\r\n".encode()
_HEADS_REMEMBERED = 1_024
_REMEMBERED_BYTES_MAX = 1 << 10


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a plain request says.

    Attributes:
        length: Bytes of the body.
        authorization: The header of this name, or an empty text.
        deadline_ms: How long the client waits, or None if it does not say.
    """

    length: int
    authorization: str
    deadline_ms: int | None = None


def read_head(head: bytes) -> Head | None:
    r"""Return what the head of a request says, or None if the request is not for the door.

    For it is only what has one meaning: a length and nothing that changes how the body is read or the connection used.

    >>> read_head(b"POST /get-online-features HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
    Head(length=2, authorization='', deadline_ms=None)
    >>> read_head(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    """
    # A bare line feed ends a line for some and not for others.
    if not head.startswith(_START) or head.count(b"\n") != head.count(b"\r\n"):
        return None
    headers = _Headers()
    try:
        httptools.HttpRequestParser(headers).feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    found = headers.found
    length = found.get(b"content-length", b"")
    # Zeros before it may be thousands, and Python reads no number of so many digits.
    is_number = length.isdigit() and len(length) <= len(str(BODY_BYTES_MAX))
    if not headers.are_plain or not is_number or int(length) > BODY_BYTES_MAX:
        return None
    deadline = found.get(_DEADLINE)
    try:
        deadline_ms = deadline_of(deadline.decode("latin-1")) if deadline is not None else None
    except RequestError:
        return None
    return Head(int(length), found.get(b"authorization", b"").decode("latin-1"), deadline_ms)


_remembered = lru_cache(maxsize=_HEADS_REMEMBERED)(read_head)


def head_of(head: bytes) -> Head | None:
    """Return what a head says; a client sends the same one again and again."""
    return _remembered(head) if len(head) <= _REMEMBERED_BYTES_MAX else read_head(head)


class _Headers:
    """The headers of one request, as the parser tells them."""

    _NOT_PLAIN = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"trailer", b"te"})

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}
        self.are_plain = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header."""
        name = name.lower()
        is_kept_alive = name != b"connection" or value.lower() == b"keep-alive"
        if name in self.found or name in self._NOT_PLAIN or not is_kept_alive:
            self.are_plain = False
        self.found[name] = value
