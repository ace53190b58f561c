"""Readers at a rate, whether answers come or not: how long one waits counts from when it should have been sent."""

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from typing_extensions import override

from bench.serving.wire import HOST

_CONNECTIONS_MAX = 512
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer.

    Attributes:
        at: When it should have been asked for, on the monotonic clock.
        took_s: How long after that it was there.
        status: 0 if there was none.
    """

    at: float
    took_s: float
    status: int
    body: bytes


class Readers:
    """Readers of one worker, with a pool of connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(_CONNECTIONS_MAX)

    async def at_rate(self, rps: float, seconds: float, next_request: Callable[[], bytes]) -> list[Answered]:
        """Ask at a rate for a while."""
        asking: list[asyncio.Task[Answered]] = []
        with _no_collection():
            started = time.monotonic()
            for number in range(int(rps * seconds)):
                at = started + number / rps
                await asyncio.sleep(max(at - time.monotonic(), 0))
                asking.append(asyncio.create_task(self._ask(at, next_request())))
            return list(await asyncio.gather(*asking))

    def close(self) -> None:
        """Close the connections."""
        for connection in self._idle:
            connection.close()

    async def _ask(self, at: float, sent: bytes) -> Answered:
        async with self._slots:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    status, body, ended_at = await self._talk(sent)
            except (OSError, TimeoutError):
                status, body, ended_at = 0, b"", time.monotonic()
        return Answered(at, ended_at - at, status, body)

    async def _talk(self, sent: bytes) -> tuple[int, bytes, float]:
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            answer = await connection.ask(sent)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    async def _connect(self) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, HOST, self._port)
        return connection


class _Connection(asyncio.Protocol):
    """A connection, one question at a time. Asyncio's streams would take longer over a large answer than the worker."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes, float]] | None = None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("closed before the answer was whole"))

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        ends = self._buffer.find(b"\r\n\r\n") + 4
        if ends < 4:
            return
        head = self._buffer[:ends].lower()
        length = int(head.partition(b"content-length:")[2].split(maxsplit=1)[0])
        if len(self._buffer) < ends + length or self._answer is None or self._answer.done():
            return
        # Noted here: whoever waits for it has its turn later.
        self._answer.set_result((int(head.split(maxsplit=2)[1]), bytes(self._buffer[ends:]), time.monotonic()))
        self._buffer.clear()

    def ask(self, sent: bytes) -> "asyncio.Future[tuple[int, bytes, float]]":
        """Send a request; return what brings its status, its body, and when it was there."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(sent)
        return self._answer

    def close(self) -> None:
        """Close it."""
        self._transport.abort()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from looking for garbage: among thousands of answers that took 0.15 s, told as the worker's."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def share_ms(took_s: Iterable[float], share: float) -> float:
    """Return what so large a share of waits does not exceed, in milliseconds; infinity where nobody has waited."""
    took = sorted(took_s)
    return 1000 * took[min(int(len(took) * share), len(took) - 1)] if took else float("inf")
