"""Rows that leave Redis while thousands of readers want them: how often each is read in the record."""

import asyncio
import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.faults.ground import Ground
from bench.serving.load import write_script

PROCESSES, READERS, EXPIRIES = 4, 10_000, 30
_FEATURE, _ROW = "g0:g0_items_1h", "g0@v1"
_HOT = 20
_WARM_S, _SETTLE_S = 4.0, 1.5


@dataclass(frozen=True, slots=True)
class Expiry:
    """How many loads there were.

    Attributes:
        readers: Connections that always ask.
        mean: Per expiry of one row.
        most: Of one expiry.
        flush_per_row: Per row after everything was flushed at once.
    """

    readers: int
    processes: int
    expiries: int
    mean: float
    most: float
    flush_per_row: float


async def count_loads(ground: Ground, *, readers: int, expiries: int) -> Expiry:
    """Let rows expire one by one beside so many readers, then all at once."""
    with _reading(ground, readers):
        await asyncio.sleep(_WARM_S)
        loads = []
        with contextlib.closing(ground.client()) as client:
            for number in range(expiries):
                before = await asyncio.to_thread(ground.loads)
                client.pexpire(f"{{user#i{number % _HOT}}}{_ROW}", 1)
                await asyncio.sleep(_SETTLE_S)
                loads.append(await asyncio.to_thread(ground.loads) - before)
            before = await asyncio.to_thread(ground.loads)
            client.flushall()
            await asyncio.sleep(2 * _SETTLE_S)
            flushed = await asyncio.to_thread(ground.loads) - before
    return Expiry(readers, len(ground.serving), expiries, statistics.mean(loads), max(loads), flushed / _HOT)


@contextlib.contextmanager
def _reading(ground: Ground, readers: int) -> Iterator[None]:
    """Ask every serving worker for the hot rows, with an equal share of the readers at each."""
    with tempfile.TemporaryDirectory() as directory:
        asked = ({"entities": {"user_id": [user]}, "features": [_FEATURE]} for user in range(_HOT))
        script = write_script(Path(directory), [json.dumps(one).encode() for one in asked])
        share = readers // len(ground.serving)
        processes = [
            subprocess.Popen(  # ours
                ["wrk", "-t1", f"-c{share}", "-d1h", "--timeout", "30s", "-s", script, worker.base_url],  # from PATH
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for worker in ground.serving
        ]
        try:
            yield
        finally:
            for process in processes:
                process.kill()
                process.wait()
            time.sleep(0.5)
