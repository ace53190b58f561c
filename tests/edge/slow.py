"""Connections that dribble: all are closed in time, and nobody else waits longer for them."""

import asyncio
import statistics
import time
from dataclasses import dataclass

from bench.serving.wire import HOST, read_answer
from tests.edge.worker import request_of

_DRIBBLE_S = 0.5
_READERS = 4
_READS_PER_S = 100
_GIVEN_UP_S = 20.0


@dataclass(frozen=True, slots=True)
class Slow:
    """What was seen.

    Attributes:
        connections: How many dribbled.
        closed_s: After how long the last of them was closed.
        p99_ms: Of other reads before.
        p99_beside_ms: Of other reads meanwhile.
    """

    connections: int
    closed_s: float
    p99_ms: float
    p99_beside_ms: float


async def dribble(port: int, connections: int, seconds: float) -> Slow:
    """Read for a while, and then beside so many connections that send a byte now and then."""
    before = await _p99_ms(port, seconds)
    # Half of them dribble their heads, the other half a body.
    dribbling = [asyncio.create_task(_dribble(port, number % 2)) for number in range(connections)]
    beside = await _p99_ms(port, seconds)
    closed = await asyncio.gather(*dribbling)
    return Slow(connections, max(closed), before, beside)


async def _dribble(port: int, has_head: int) -> float:
    """Send a request byte by byte; return after how long the server has had enough."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection(HOST, port)
    ended = asyncio.create_task(reader.read())
    try:
        sent = request_of(1)
        whole = sent.index(b"\r\n\r\n") + 4 if has_head else 0
        writer.write(sent[:whole])
        for byte in sent[whole:]:
            writer.write(bytes([byte]))
            done, _ = await asyncio.wait([ended], timeout=_DRIBBLE_S)
            if done or time.monotonic() - started > _GIVEN_UP_S:
                break
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
        writer.transport.abort()
    return time.monotonic() - started


async def _p99_ms(port: int, seconds: float) -> float:
    took = await asyncio.gather(*(_read(port, seconds) for _ in range(_READERS)))
    return statistics.quantiles([one for some in took for one in some], n=100)[98]


async def _read(port: int, seconds: float) -> list[float]:
    """Read at a rate; return how long each read took, in milliseconds."""
    reader, writer = await asyncio.open_connection(HOST, port)
    took = []
    started = time.monotonic()
    while (now := time.monotonic()) - started < seconds:
        writer.write(request_of(1))
        status, _ = await read_answer(reader)
        assert status == 200, status
        took.append((time.monotonic() - now) * 1000)
        await asyncio.sleep(max(_READERS / _READS_PER_S - (time.monotonic() - now), 0))
    writer.close()
    return took
