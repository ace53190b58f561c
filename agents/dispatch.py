"""Dispatch: every good event goes, re-keyed and packed, to each entity that it touches (PROTOCOL, P1).

Strictly in order per source partition: the runs of a partition are sent one after the other, and the producer keeps
the order per partition. Nothing is acknowledged before everything of a run is; a send that fails for good ends the
process, so that no later one overtakes it.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from aiokafka.errors import KafkaError

from agents.dead_letters import DeadLetter, bury
from agents.decode import Decoded, Place, SourceDecoder, Target
from core.errors import BrokerError, EventError
from core.metrics import Metrics
from core.packs import PACK_FORMAT, PACK_UPDATES_MAX, Pack, pack_bytes
from core.topics import repartition_topic
from tables.waiting_sends import when_room

log = logging.getLogger(__name__)

_YIELD_EVERY = 100
"""Less than a millisecond, as in the aggregator and in a flush: steps share a full core by how much each does before it
lets others work, and an event waits for the slowest of them."""
_PACK_BYTES_MAX = 256 * 1024


class Dispatcher:
    """Sends runs of source records on; one instance serves all sources of a worker."""

    def __init__(
        self,
        decoders: Mapping[str, SourceDecoder],
        *,
        producer: Callable[[], Any],
        finish: Callable[[Any], None],
        metrics: Metrics,
        topic_ids: Mapping[str, str],
    ) -> None:
        self._decoders = decoders
        self._producer = producer
        self._finish = finish
        self._metrics = metrics
        self._topic_ids = topic_ids
        self._sent: deque[tuple[Any, list[Any]]] = deque()
        self._working = asyncio.Lock()
        self._more = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()

    async def take(self, message: Any) -> None:
        """Send one run; its acknowledgements are awaited by ``acknowledge``, in the order of the runs."""
        async with self._working:
            acknowledgements = await self._send_run(message.value)
            self._sent.append((message, acknowledgements))
            self._settled.clear()
            self._more.set()

    async def acknowledge(self) -> None:
        """Finish runs in the order in which they were sent, for ever.

        Raises:
            BrokerError: The broker refused a send for good.
        """
        while True:
            await self._more.wait()
            while self._sent:
                message, acknowledgements = self._sent[0]
                try:
                    for acknowledgement in acknowledgements:
                        await acknowledgement
                except KafkaError as error:
                    # Others may fail as well, and asyncio would complain that nobody has asked them.
                    asyncio.gather(*acknowledgements, return_exceptions=True)
                    raise BrokerError(f"a send of {message.topic}[{message.partition}] was refused: {error}") from error
                self._sent.popleft()
                self._finish(message)
            self._more.clear()
            self._settled.set()

    async def settle(self) -> None:
        """Wait until everything that was taken is acknowledged."""
        async with self._working:
            await self._settled.wait()

    async def _send_run(self, records: Sequence[Any]) -> list[Any]:
        decoder = self._decoders[records[0].topic]
        packer = _Packer(decoder.targets, records[0], self._topic_ids.get(records[0].topic, ""))
        letters: list[DeadLetter] = []
        dispatched = 0
        for number, record in enumerate(records):
            try:
                event = decoder.decode(record.value, record.timestamp)
            except EventError as error:
                letters.append(DeadLetter.of(record, error))
            else:
                packer.add(record, event)
                dispatched += 1
            if number % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
        self._metrics.dispatched(decoder.source.topic, dispatched)
        sends = [
            await when_room(self._producer().send, topic=repartition_topic(entity), value=packed, partition=partition)
            for entity, partition, packed in packer.packs()
        ]
        return sends + [await self._bury(letter) for letter in letters]

    async def _bury(self, letter: DeadLetter) -> Any:
        self._metrics.buried(letter.topic, letter.reason)
        log.info(
            "event buried",
            extra={
                "source": letter.topic,
                "partition": letter.partition,
                "offset": letter.offset,
                "reason": letter.reason,
            },
        )
        return await bury(letter, self._producer())


class _Packer:
    """Packs the good events of one run, per entity and partition, in order; all packs are cut from the same columns."""

    def __init__(self, targets: Sequence[Target], first: Any, topic_id: str) -> None:
        self._targets = targets
        self._origin = (first.topic, topic_id, first.partition)
        self._records: list[Any] = []
        self._events: list[Decoded] = []

    def add(self, record: Any, event: Decoded) -> None:
        """Take an event and the record that it came in."""
        self._records.append(record)
        self._events.append(event)

    def packs(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield entity, partition and packed record, in the order in which they must be sent."""
        columns: list[Sequence[Any]] = [
            [record.offset for record in self._records],
            [record.timestamp for record in self._records],
            [event.event_time_ms for event in self._events],
            [event.event_id for event in self._events],
            [event.check for event in self._events],
        ]
        values = list(zip(*[event.values for event in self._events], strict=True))
        for target, places in zip(
            self._targets, zip(*[event.places for event in self._events], strict=True), strict=False
        ):
            mine = [*columns, *(values[column] for column in target.places if values)]
            for partition, (numbers, keys) in _by_partition(places).items():
                for start in range(0, len(keys), PACK_UPDATES_MAX):
                    end = start + PACK_UPDATES_MAX
                    for packed in self._pack(target.names, mine, numbers[start:end], keys[start:end]):
                        yield target.entity.name, partition, packed

    def _pack(
        self, names: list[str], columns: Sequence[Sequence[Any]], numbers: list[int], keys: list[str]
    ) -> Iterator[bytes]:
        """Yield one pack of the updates, or several where their texts are long."""
        chosen = itemgetter(*numbers) if len(numbers) > 1 else None
        offsets, record_times, event_times, event_ids, checks, *values = (
            list(chosen(column)) if chosen else [column[numbers[0]]] for column in columns
        )
        packed = pack_bytes(
            Pack(PACK_FORMAT, *self._origin, names, offsets, record_times, event_times, event_ids, checks, keys, values)
        )
        if len(packed) <= _PACK_BYTES_MAX or len(keys) == 1:
            yield packed
        else:
            half = len(keys) // 2
            yield from self._pack(names, columns, numbers[:half], keys[:half])
            yield from self._pack(names, columns, numbers[half:], keys[half:])


def _by_partition(places: Iterable[Sequence[Place]]) -> dict[int, tuple[list[int], list[str]]]:
    """Return the keys that a run touches of one entity: per partition, numbers of its events and their keys."""
    touched: defaultdict[int, tuple[list[int], list[str]]] = defaultdict(lambda: ([], []))
    for number, some in enumerate(places):
        for partition, key in some:
            numbers, keys = touched[partition]
            numbers.append(number)
            keys.append(key)
    return touched
