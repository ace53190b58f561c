"""Sends while the broker is away, with aiokafka's own place for what waits."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.producer.message_accumulator import MessageAccumulator

from tables.waiting_sends import when_room
from tests.fakes import until

TP = TopicPartition("t", 0)
ROOM_BYTES, GIVES_UP_S = 100, 0.01
TEXTS = [f"<{number:03}>".encode() * 10 for number in range(5)]


class Producer:
    """aiokafka's accumulator, from which nobody takes anything before the test does."""

    def __init__(self) -> None:
        self._accumulator = MessageAccumulator(
            SimpleNamespace(leader_for_partition=lambda _tp: 0), ROOM_BYTES, 0, batch_ttl=60
        )

    async def send(self, topic, value):
        return await self._accumulator.add_message(TopicPartition(topic, 0), None, value, GIVES_UP_S)

    async def send_batch(self, batch, topic):
        return await self._accumulator.add_batch(batch, TopicPartition(topic, 0), GIVES_UP_S)

    def batch(self, text):
        made = self._accumulator.create_builder()
        made.append(timestamp=None, key=None, value=text)
        return made

    def take(self) -> bytes:
        """Take what waits first, as the sender does once the broker is back; return its bytes."""
        nodes, _ = self._accumulator.drain_by_nodes(ignore_nodes=())
        batch = nodes[0][TP]
        batch.done(0)
        return bytes(batch.get_data_buffer())


@pytest.mark.parametrize("as_batches", [False, True])
async def test_what_finds_no_room_goes_out_once_and_in_order(caplog, as_batches):
    """
    A broker that was away for more than 20 s ended every worker that had something to send.
    """
    producer = Producer()

    async def send_all():
        for text in TEXTS:
            if as_batches:
                await when_room(producer.send_batch, producer.batch(text), topic="t")
            else:
                await when_room(producer.send, topic="t", value=text)

    sending = asyncio.create_task(send_all())
    taken = []
    for _ in TEXTS[1:]:
        caplog.clear()
        await until(lambda: len(caplog.messages) > 1)
        taken.append(producer.take())
    await sending
    taken.append(producer.take())

    assert [[text in one for text in TEXTS] for one in taken] == [[text is own for text in TEXTS] for own in TEXTS]


async def test_a_send_that_waits_for_room_can_be_cancelled():
    """
    A worker that is asked to stop while the broker is away must not wait for it.
    """
    producer = Producer()
    await when_room(producer.send, topic="t", value=TEXTS[0])
    waiting = asyncio.create_task(when_room(producer.send, topic="t", value=TEXTS[1]))
    await asyncio.sleep(2 * GIVES_UP_S)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert TEXTS[1] not in producer.take()
