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
        self._targets = [
            (number, target, _UPDATE_BYTES + _VALUE_BYTES * len(target.places)) for number, target in enumerate(targets)
        ]
        self._origin = (first.topic, topic_id, first.partition)
        self._open: dict[tuple[int, int], _Open] = {}
        self._closed: list[_Open] = []

    def add(self, record: Any, event: Decoded) -> None:
        for number, target, update_bytes in self._targets:
            characters = len(event.event_id)
            if target.texts:
                characters += sum(len(event.values[place] or "") for place in target.texts)
            for key in event.keys[number]:
                partition = kafka_partition(key, target.entity.partitions)
                size = update_bytes + _CHARACTER_BYTES * (characters + len(key))
                now = self._open.get((number, partition))
                if now is None or len(now.updates) >= PACK_UPDATES_MAX or now.size + size > _PACK_BYTES_MAX:
                    now = self._open[number, partition] = _Open(target, partition)
                    self._closed.append(now)
                now.size += size
                now.updates.append((record, event, key))

    @property
    def packs(self) -> list[tuple[str, int, Pack]]:
        """Entity, partition and pack, in the order in which they must be sent."""
        return [(one.target.entity.name, one.partition, self._pack(one)) for one in self._closed]

    def _pack(self, collected: "_Open") -> Pack:
        records, events, keys = zip(*collected.updates, strict=True)
        return Pack(
            PACK_FORMAT,
            *self._origin,
            collected.target.names,
            [record.offset for record in records],
            [record.timestamp for record in records],
            [event.event_time_ms for event in events],
            [event.event_id for event in events],
            [event.check for event in events],
            list(keys),
            [[event.values[place] for event in events] for place in collected.target.places],
        )


@dataclass(slots=True)
class _Open:
    """Updates that are being collected for a pack, and at most how many bytes they take."""

    target: Target
    partition: int
    updates: list[tuple[Any, Decoded, str]] = field(default_factory=list)
    size: int = 0
