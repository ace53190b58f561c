"""Connections that dribble: all are closed in time, and nobody else waits longer for them."""

import asyncio
import multiprocessing
import socket
import statistics
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

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
    # In a process of its own: a thousand clients in one with the readers make these late by themselves.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(pool, _dribble_all, port, 0)
        before = await _p99_ms(port, seconds)
        dribbling = loop.run_in_executor(pool, _dribble_all, port, connections)
        beside = await _p99_ms(port, seconds)
        closed_s = await dribbling
    return Slow(connections, closed_s, before, beside)


def _dribble_all(port: int, connections: int) -> float:
    """Send requests byte by byte; return after how long the last connection was closed.

    Plain sockets: what a thousand tasks of a loop cost would be taken from those who are measured.
    """
    sent = request_of(1)
    # Half of them dribble their heads, the other half a body; not all in the same moment, again and again.
    starts = (0, sent.index(b"\r\n\r\n") + 4)
    began_at = time.monotonic()
    due = deque((began_at + number / connections * _DRIBBLE_S, starts[number % 2]) for number in range(connections))
    opened: deque[_Dribbling] = deque()
    last_s = 0.0
    while due or opened:
        at = min(line[0][0] for line in (due, opened) if line)
        time.sleep(max(at - time.monotonic(), 0))
        if due and due[0][0] == at:
            _, place = due.popleft()
            dribbling = _Dribbling(at, time.monotonic(), socket.create_connection((HOST, port)), place)
            dribbling.client.setblocking(False)  # noqa: FBT003  # the name of it
            dribbling.client.sendall(sent[:place])
        else:
            dribbling = opened.popleft()
        if time.monotonic() - dribbling.began_at > _GIVEN_UP_S or not _goes_on(dribbling, sent):
            last_s = max(last_s, time.monotonic() - dribbling.began_at)
            dribbling.client.close()
        else:
            opened.append(dribbling._replace(at=at + _DRIBBLE_S, place=dribbling.place + 1))
    return last_s


class _Dribbling(NamedTuple):
    """A connection.

    Attributes:
        at: When its next byte is due.
        place: Which it is.
    """

    at: float
    began_at: float
    client: socket.socket
    place: int


def _goes_on(dribbling: _Dribbling, sent: bytes) -> bool:
    """Send the next byte; return whether the server has not had enough."""
    try:
        while dribbling.client.recv(1 << 16):
            pass
    except BlockingIOError:
        pass
    except OSError:
        return False
    else:
        return False
    try:
        dribbling.client.sendall(sent[dribbling.place : dribbling.place + 1])
    except OSError:
        return False
    return True


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
