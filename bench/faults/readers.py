"""Readers at a rate, whether answers come or not: how long one waits counts from when it should have been sent."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.serving.wire import HOST, read_answer

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
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._slots = asyncio.Semaphore(_CONNECTIONS_MAX)

    async def at_rate(self, rps: float, seconds: float, next_request: Callable[[], bytes]) -> list[Answered]:
        """Ask at a rate for a while."""
        started = time.monotonic()
        asking: list[asyncio.Task[Answered]] = []
        for number in range(int(rps * seconds)):
            at = started + number / rps
            await asyncio.sleep(max(at - time.monotonic(), 0))
            asking.append(asyncio.create_task(self._ask(at, next_request())))
        return list(await asyncio.gather(*asking))

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()

    async def _ask(self, at: float, sent: bytes) -> Answered:
        async with self._slots:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    status, body = await self._talk(sent)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                status, body = 0, b""
        return Answered(at, time.monotonic() - at, status, body)

    async def _talk(self, sent: bytes) -> tuple[int, bytes]:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(HOST, self._port)
        try:
            writer.write(sent)
            answer = await read_answer(reader)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return answer


def share_ms(took_s: Iterable[float], share: float) -> float:
    """Return what so large a share of waits does not exceed, in milliseconds; infinity where nobody has waited."""
    took = sorted(took_s)
    return 1000 * took[min(int(len(took) * share), len(took) - 1)] if took else float("inf")
