"""The intake on a real protocol: acknowledged means stored, and a broker that is away is an error in time."""

import asyncio

import pytest
from confluent_kafka import Consumer, TopicPartition

from agents.intake import Intake
from core.errors import BrokerError
from core.keys import kafka_partition
from services.broker import EmbeddedBroker

DEADLINE_S = 15.0
PARTITIONS = 4


@pytest.fixture(scope="module")
def broker():
    broker = EmbeddedBroker({"clicks": PARTITIONS, "impressions": PARTITIONS})
    yield broker
    broker.close()


@pytest.fixture
async def intake(broker):
    intake = Intake({"bootstrap_servers": [broker.bootstrap]})
    yield intake
    await intake.close()


def stored(broker, topic: str, partition: int) -> list[tuple[bytes | None, bytes | None]]:
    """Return keys and values of everything that a partition holds."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "test", "enable.auto.commit": False})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=DEADLINE_S)
        consumer.assign([TopicPartition(topic, partition, 0)])
        records = [consumer.poll(DEADLINE_S) for _ in range(end)]
    finally:
        consumer.close()
    return [(record.key(), record.value()) for record in records]


async def test_what_is_acknowledged_is_in_the_partition_of_its_key(broker, intake):
    """
    Events of one user stay in order, and stand where any other Kafka producer would have put them.
    """
    keys = [f"i{number}" for number in range(40)]

    await intake.send("clicks", [(key.encode(), f"{key}-{n}".encode()) for n in range(3) for key in keys])

    found = {partition: await asyncio.to_thread(stored, broker, "clicks", partition) for partition in range(PARTITIONS)}
    for partition, records in found.items():
        mine = [key for key in keys if kafka_partition(key, PARTITIONS) == partition]
        assert {key.decode() for key, _ in records} == set(mine)
        for key in mine:
            assert [value for own, value in records if own == key.encode()] == [f"{key}-{n}".encode() for n in range(3)]


async def test_an_event_without_a_key_is_stored_too(broker, intake):
    """
    An event of an empty list touches no entity and is still an event of its source.
    """
    await intake.send("impressions", [(None, b"{}")])

    found = [await asyncio.to_thread(stored, broker, "impressions", partition) for partition in range(PARTITIONS)]
    assert [record for records in found for record in records] == [(None, b"{}")]


async def test_pushes_at_once_share_a_producer(intake):
    """
    A hundred clients must not open a hundred connections.
    """
    await asyncio.gather(*(intake.send("clicks", [(b"k", b"%d" % number)]) for number in range(100)))

    assert intake._producer is not None


async def test_a_broker_that_is_away_is_an_error_and_the_next_push_tries_again(broker):
    """
    The client is told in time, and a broker that comes back is found without a restart.
    """
    settings = {"bootstrap_servers": ["127.0.0.1:1"]}
    intake = Intake(settings, ack_deadline_ms=2_000)
    with pytest.raises(BrokerError, match="clicks"):
        await intake.send("clicks", [(b"k", b"v")])

    intake._settings = {"bootstrap_servers": [broker.bootstrap]}
    await intake.send("clicks", [(b"k", b"v")])
    await intake.close()


@pytest.fixture
async def deaf():
    """A server that takes connections and never answers; with an event that tells of the first."""
    taken, heard = list[asyncio.StreamWriter](), asyncio.Event()

    def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        heard.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}", heard
    for writer in taken:
        writer.close()
    server.close()


async def test_a_broker_that_hangs_is_given_up_at_the_deadline(deaf):
    """
    A connection that is taken and never answered would hold a client, and its events in memory, for ever.
    """
    place, heard = deaf
    intake = Intake({"bootstrap_servers": [place]}, ack_deadline_ms=300)

    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(BrokerError, match="within 300 ms"):
            await intake.send("clicks", [(b"k", b"v")])

    assert heard.is_set()


async def test_more_than_the_limit_is_refused_while_others_wait(deaf):
    """
    While the broker is slow, memory is bounded: who comes too much is told to come again.
    """
    place, heard = deaf
    intake = Intake({"bootstrap_servers": [place]}, outstanding_bytes_max=10, ack_deadline_ms=1_000)
    waiting = asyncio.create_task(intake.send("clicks", [(b"k", b"12345678")]))
    await heard.wait()

    with pytest.raises(BrokerError, match="9 pushed bytes wait, the limit is 10"):
        await intake.send("clicks", [(b"k", b"v")])

    with pytest.raises(BrokerError, match="not all acknowledged"):
        await waiting
