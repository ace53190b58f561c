"""Sends that wait for room at the producer, however long the broker is away.

aiokafka keeps one batch per partition ready and gives up what waits behind it after its request timeout. An end of the
worker would help nobody then: its successor would wait for the same broker.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.errors import KafkaTimeoutError

log = logging.getLogger(__name__)


async def when_room(send: Callable[..., Awaitable[Any]], *args: Any, topic: str, **kwargs: Any) -> Any:
    """Call a send of aiokafka's producer until it takes what it is given; return the future of its acknowledgement.

    Where there was no room nothing was taken, so whoever sends one after the other keeps the order.
    """
    while True:
        try:
            return await send(*args, topic=topic, **kwargs)
        except KafkaTimeoutError:
            log.warning("no room for a send, the broker takes nothing", extra={"topic": topic})
