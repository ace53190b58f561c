"""Dispatch: every good event goes, re-keyed and packed, to each entity that it touches (PROTOCOL, P1).

Strictly in order per source partition: the runs of a partition are sent one after the other, and the producer keeps
the order per partition. Nothing is acknowledged before everything of a run is; a send that fails for good ends the
process, so that no later one overtakes it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.dead_letters import DeadLetter, bury
from agents.decode import Decoded, SourceDecoder, Target
from core.errors import BrokerError, EventError
from core.keys import kafka_partition
from core.metrics import Metrics
from core.packs import PACK_FORMAT, PACK_UPDATES_MAX, Pack, pack_bytes
from core.topics import repartition_topic

log = logging.getLogger(__name__)

_YIELD_EVERY = 50
_PACK_BYTES_MAX = 256 * 1024
_UPDATE_BYTES, _VALUE_BYTES, _CHARACTER_BYTES = 64, 9, 4
"""What an update takes at the most: its own numbers, a value that is no text, and a character of a text."""


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
                    await asyncio.gather(*acknowledgements)
                except Exception as error:
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
            await self._producer().send(repartition_topic(entity), value=pack_bytes(pack), partition=partition)
            for entity, partition, pack in packer.packs
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
    """Collects the updates of one run, per entity and partition, in order."""

    def __init__(self, targets: Sequence[Target], first: Any, topic_id: str) -> None:
        self._origin = (first.topic, topic_id, first.partition)
        self._places = [_Place(target) for target in targets]
        self._filled: list[_Filled] = []

    def add(self, record: Any, event: Decoded) -> None:
        """Add the updates of one event; a row of its numbers and values serves all of them."""
        row = (record.offset, record.timestamp, event.event_time_ms, event.event_id, event.check, *event.values)
        for place, keys in zip(self._places, event.keys, strict=True):
            size = place.update_bytes + _CHARACTER_BYTES * len(event.event_id)
            if place.target.texts:
                size += _CHARACTER_BYTES * sum(len(event.values[text] or "") for text in place.target.texts)
            for key in keys:
                partition = kafka_partition(key, place.target.entity.partitions)
                now = place.filling.get(partition)
                if now is None or len(now.keys) >= PACK_UPDATES_MAX or now.size + size > _PACK_BYTES_MAX:
                    now = place.filling[partition] = _Filled(place.target, partition)
                    self._filled.append(now)
                now.size += size + _CHARACTER_BYTES * len(key)
                now.keys.append(key)
                now.rows.append(row)

    @property
    def packs(self) -> list[tuple[str, int, Pack]]:
        """Entity, partition and pack, in the order in which they must be sent."""
        return [(one.target.entity.name, one.partition, self._pack(one)) for one in self._filled]

    def _pack(self, filled: "_Filled") -> Pack:
        offsets, record_times, event_times, event_ids, checks, *values = map(list, zip(*filled.rows, strict=True))
        columns = [values[place] for place in filled.target.places]
        return Pack(
            PACK_FORMAT,
            *self._origin,
            filled.target.names,
            offsets,
            record_times,
            event_times,
            event_ids,
            checks,
            filled.keys,
            columns,
        )


class _Place:
    """An entity, and the packs that are being filled for it, by partition."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.update_bytes = _UPDATE_BYTES + _VALUE_BYTES * len(target.places)
        self.filling: dict[int, _Filled] = {}


@dataclass(slots=True)
class _Filled:
    """Updates of a pack: a key and a row for each, and at most how many bytes they take."""

    target: Target
    partition: int
    keys: list[str] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    size: int = 0
