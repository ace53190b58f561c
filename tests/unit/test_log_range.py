"""A connection to read a log with: opened every few seconds for as long as a worker runs."""

import asyncio
import gc
import weakref

from services.server_process import free_ports
from tables.log_range import Log


async def test_a_connection_that_is_closed_is_gone_without_a_collector():
    """
    Its errors were told to itself: a circle in C, twelve a minute, of which a worker grew by a megabyte every minute.
    """
    (nowhere,) = free_ports(1)
    gc.disable()
    try:
        log = Log({"bootstrap.servers": f"127.0.0.1:{nowhere}"})
        log.close()
        gone = asyncio.Event()
        weakref.finalize(log, asyncio.get_running_loop().call_soon_threadsafe, gone.set)
        del log
        async with asyncio.timeout(10):
            await gone.wait()
    finally:
        gc.enable()
