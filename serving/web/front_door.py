"""The front door: answers reads of features itself and shows everything else to the web server behind it.

A general web server costs more per request than a read from local copies does. So whoever connects is met here: a
request for features that stands as plainly as clients write it is answered at once. Anything else (another route, a
body in chunks, a missing key, a mistake in the protocol) goes with its connection to the web server, from the first
byte of that request on, which then treats it as if nobody had been in between.

The door also waits for the head of each first request, so whoever dribbles it costs no more than a buffer.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from typing import cast

from typing_extensions import override

from serving.answers.requests import BODY_BYTES_MAX
from serving.turns import Turns
from serving.web.answer import Answer
from serving.web.heads import HEAD_BYTES_MAX, head_of
from serving.web.reads import DEADLINE_MS, Reads

_BUFFERED_BYTES_MAX = BODY_BYTES_MAX + HEAD_BYTES_MAX
"""Of a client that does not wait for answers; more than this holds at least one whole request."""
_SWEEP_S = 1.0
_CLOSING_S = 5.0
_LEAVING_S = 0.3
_BUDGET_S = 0.002
"""Of each turn of the loop, for requests that have come: thousands may, and answers of stores wait for its end."""


class FrontDoor:
    """The door of one worker."""

    def __init__(
        self,
        reads: Reads,
        *,
        admits: Callable[[str], bool],
        request_deadline_s: float = 8.0,
        idle_s: float = 75.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stand open for nobody yet.

        Args:
            reads: Answers.
            admits: Whether a request with this ``Authorization`` may read; who may not is told so behind the door.
            request_deadline_s: How long a request may take to come whole, and an answer to be taken.
            idle_s: How long a connection may stay open without a request.
            monotonic: Tells the time in seconds.
        """
        self.reads = reads
        self.admits = admits
        self.monotonic = monotonic
        self.date = b""
        self.is_closing = False
        self.turns, self._sweeping = Turns(budget_s=_BUDGET_S), Turns(budget_s=_BUDGET_S)
        self._request_deadline_s = request_deadline_s
        self._idle_s = idle_s
        self._connections: set[_Connection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._answers: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def protocol(self, server: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of each connection; what is not for the door goes to the server's."""
        return lambda: _Connection(self, server)

    def open(self) -> None:
        """Begin to look after the connections."""
        self.date = formatdate(usegmt=True).encode()
        self._sweeper = asyncio.create_task(self._sweep(), name="sweep of the front door")

    async def close(self) -> None:
        """Close the connections; answers that are on their way get a moment, and so do requests.

        A client that asks again and again has its next request on the way at any time: it is told with an answer that
        there will be no other, and asks the next one elsewhere.
        """
        self.is_closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_empty.wait(), timeout=_LEAVING_S)
        for connection in list(self._connections):
            connection.close_when_idle()
        if self._answers:
            await asyncio.wait(self._answers, timeout=_CLOSING_S)

    def came(self, connection: "_Connection") -> None:
        """Note a connection."""
        self._connections.add(connection)
        self._is_empty.clear()

    def went(self, connection: "_Connection") -> None:
        """Forget a connection: it is closed, or with the web server."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    def start(self, answer: "Awaitable[None]") -> None:
        """Let an answer be waited for."""
        task = asyncio.ensure_future(answer)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def sweep(self) -> None:
        """Close the connections on which nothing has moved for too long."""
        now = self.monotonic()
        for connection in list(self._connections):
            # In a line of their own: requests do not wait for a thousand that are closed together.
            self._sweeping.do(
                partial(connection.close_if_still, now, deadline_s=self._request_deadline_s, idle_s=self._idle_s)
            )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.date = formatdate(usegmt=True).encode()
            self.sweep()


class _Connection(asyncio.Protocol):
    """One client's connection, while it is at the door."""

    def __init__(self, door: FrontDoor, server: Callable[[], asyncio.Protocol]) -> None:
        self._door = door
        self._server = server
        self._buffer = bytearray()
        self._is_answering = False
        self._is_ending = False
        self._is_paused = False
        self._is_in_line = False
        self._has_gone = False
        self._can_write = True
        self._has_asked = False
        self._since = door.monotonic()
        self._came_at: float | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._door.came(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._door.went(self)

    @override
    def eof_received(self) -> bool:
        # A client may close its side after its last request; it still waits for the answers.
        self._is_ending = True
        return self._is_answering or self._is_in_line or not self._can_write

    @override
    def pause_writing(self) -> None:
        self._can_write = False
        self._since = self._door.monotonic()

    @override
    def resume_writing(self) -> None:
        self._can_write = True
        # Not at once: asyncio's transport is in the middle of a write, in which it must not be closed.
        asyncio.get_running_loop().call_soon(self._go_on)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._since = self._door.monotonic()
        self._buffer += data
        if len(self._buffer) > _BUFFERED_BYTES_MAX and not self._is_paused:
            # What is sent meanwhile waits in the client.
            self._is_paused = True
            self._transport.pause_reading()
        if not self._is_in_line:
            self._is_in_line = True
            self._came_at = time.perf_counter()
            self._door.turns.do(self._come)

    def close_when_idle(self) -> None:
        """Take no further request."""
        self._is_ending = True
        if not self._is_answering and not self._is_in_line:
            self._transport.close()

    def close_if_still(self, now: float, *, deadline_s: float, idle_s: float) -> None:
        """Close if nothing has moved for too long: a request that does not come whole, an answer not taken."""
        if self._is_answering:
            return
        is_idle = self._has_asked and not self._buffer and self._can_write
        if now - self._since <= (idle_s if is_idle else deadline_s):
            return
        if self._can_write and not self._transport.is_closing():
            self._transport.close()
        else:
            # Closing waits until everything is taken, by a client that takes nothing.
            self._transport.abort()

    def _come(self) -> None:
        self._is_in_line = False
        self._go_on()

    def _go_on(self) -> None:
        """Answer the next request if it has come whole."""
        if self._is_answering or not self._can_write or self._has_gone or self._transport.is_closing():
            return
        ends = self._buffer.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX) + 4
        if ends < 4:
            if len(self._buffer) >= HEAD_BYTES_MAX:
                self._hand_over()
            else:
                self._wait_for_more()
            return
        head = head_of(bytes(self._buffer[:ends]))
        if head is None or not self._door.admits(head.authorization):
            self._hand_over()
        elif len(self._buffer) < ends + head.length:
            self._wait_for_more()
        else:
            body = bytes(self._buffer[ends : ends + head.length])
            del self._buffer[: ends + head.length]
            self._read_on()
            self._answer(body, head.deadline_ms or DEADLINE_MS)

    def _wait_for_more(self) -> None:
        if self._is_ending:
            self._transport.close()

    def _read_on(self) -> None:
        if self._is_paused and len(self._buffer) <= _BUFFERED_BYTES_MAX:
            self._is_paused = False
            self._transport.resume_reading()

    def _answer(self, body: bytes, deadline_ms: int) -> None:
        self._has_asked = self._is_answering = True
        try:
            answer = self._door.reads.answer(body, deadline_ms=deadline_ms, came_at=self._came_at)
        except BaseException:
            # A bug. Nothing can be answered; the loop tells the error.
            self._transport.abort()
            raise
        if isinstance(answer, Answer):
            self._answered(answer)
        else:
            self._door.start(self._wait(answer))

    async def _wait(self, answer: Awaitable[Answer]) -> None:
        try:
            self._answered(await answer)
        except BaseException:
            # A bug, or the end of the worker.
            self._transport.abort()
            raise

    def _answered(self, answer: Answer) -> None:
        is_last = self._door.is_closing and not self._buffer
        self._is_ending |= is_last
        self._write(answer, is_last=is_last)
        if self._buffer:
            # Others have their turn first: a client may send thousands of requests at once.
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._is_answering = False
            self._wait_for_more()

    def _next(self) -> None:
        self._is_answering = False
        # It has waited for the answers before it, as its client meant it to.
        self._came_at = None
        self._go_on()

    def _write(self, answer: Answer, *, is_last: bool) -> None:
        if self._transport.is_closing():
            return
        more = f"Retry-After: {answer.retry_after}\r\n".encode() if answer.retry_after is not None else b""
        if is_last:
            more += b"Connection: close\r\n"
        head = b"%bDate: %b\r\n%bContent-Length: %d\r\n\r\n" % (
            _status_line(answer.status), self._door.date, more, len(answer.body),
        )  # fmt: skip
        self._transport.writelines((head, answer.body))
        self._since = self._door.monotonic()

    def _hand_over(self) -> None:
        """Let the web server have the connection, as if it had come there."""
        # What waits for its turn here may come to it once more.
        self._has_gone = True
        behind = self._server()
        self._door.went(self)
        self._transport.set_protocol(behind)
        behind.connection_made(self._transport)
        behind.data_received(bytes(self._buffer))
        if self._is_paused:
            self._transport.resume_reading()
        if self._is_ending and not behind.eof_received():
            self._transport.close()


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n".encode()
