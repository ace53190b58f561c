"""What a worker must not outlive: the process that started it, and its embedded services."""

import asyncio
import os
from collections.abc import Callable

from agents.guard import die
from core.errors import BrokerError
from services.embedded import EmbeddedServices

_POLL_S = 0.5


async def watch_services(services: EmbeddedServices, *, stop: Callable[[], None]) -> None:
    """End the worker when its embedded services have ended; ``stop`` is called before."""
    try:
        while True:
            services.require_alive()
            await asyncio.sleep(_POLL_S)
    except BrokerError as error:
        stop()
        die(str(error))


async def watch_parent(*, stop: Callable[[], None]) -> None:
    """End the worker when the process that started it is gone; ``stop`` is called before."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # nobody tells of a parent's death everywhere
        await asyncio.sleep(_POLL_S)
    stop()
    die("the process that started this worker is gone")
