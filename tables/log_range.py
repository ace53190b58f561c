"""Reading a range of a log to its end, outside of any consumer group."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from core.errors import BrokerError

_POLL_MS = 200
_YIELD_EVERY = 2000
_STALLED_S = 30.0


async def records(
    consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> AsyncIterator[tuple[TopicPartition, Any]]:
    """Yield all records of partitions between two offsets; a start below the log's beginning means its beginning."""
    first = await consumer.beginning_offsets(list(ends))
    for tp in ends:
        consumer.seek(tp, max(first[tp], starts[tp]))
    missing = await _unread(consumer, ends)
    count = 0
    while missing:
        for tp, found in (await _poll(consumer, missing)).items():
            for record in found:
                if record.offset < ends[tp]:
                    yield tp, record
                    count += 1
                    if count % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
        missing = await _unread(consumer, ends)


async def _unread(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> list[TopicPartition]:
    return [tp for tp, end in ends.items() if await consumer.position(tp) < end]


async def _poll(consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition]) -> dict[TopicPartition, list[Any]]:
    deadline = asyncio.get_running_loop().time() + _STALLED_S
    while asyncio.get_running_loop().time() < deadline:
        polled: dict[TopicPartition, list[Any]] = await consumer.getmany(*tps, timeout_ms=_POLL_MS)
        if polled:
            return polled
    raise BrokerError(f"the broker has given nothing of {sorted(tps)} for {_STALLED_S:.0f} s")
