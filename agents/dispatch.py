"""Dispatch: every good event goes, re-keyed and packed, to each entity that it touches (PROTOCOL, P1).

Strictly in order per source partition: the runs of a partition are sent one after the other, and the producer keeps
the order per partition. Nothing is acknowledged before everything of a run is; a send that fails for good ends the
process, so that no later one overtakes it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.dead_letters import DeadLetter
from agents.decode import Decoded, SourceDecoder, Target
from core.errors import BrokerError, EventError
from core.keys import kafka_partition
from core.metrics import Metrics
from core.packs import PACK_UPDATES_MAX, Pack, pack_bytes
from core.topics import DEAD_LETTERS, repartition_topic

log = logging.getLogger(__name__)

_YIELD_EVERY = 50
_PACK_BYTES_MAX = 256 * 1024
_UPDATE_BYTES, _VALUE_BYTES = 64, 9
"""What an update takes beside its texts: an upper estimate of its numbers in msgpack."""


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
            if pack.offsets
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
        return await self._producer().send(
            DEAD_LETTERS, key=letter.place, value=letter.payload, headers=letter.headers()
        )


class _Packer:
    """Collects the updates of one run, per entity and partition, in order."""

    def __init__(self, targets: Sequence[Target], first: Any, topic_id: str) -> None:
        self._targets = targets
        self._origin = (first.topic, topic_id, first.partition)
        self._open: dict[tuple[int, int], _Open] = {}
        self.packs: list[tuple[str, int, Pack]] = []

    def add(self, record: Any, event: Decoded) -> None:
        for number, target in enumerate(self._targets):
            size = _UPDATE_BYTES + _VALUE_BYTES * len(target.places) + _text_bytes(event.event_id)
            size += sum(_text_bytes(event.values[place]) for place in target.texts)
            for key in event.keys[number]:
                partition = kafka_partition(key, target.entity.partitions)
                pack = self._pack(number, target, partition, size + _text_bytes(key))
                pack.offsets.append(record.offset)
                pack.record_times.append(record.timestamp)
                pack.event_times.append(event.event_time_ms)
                pack.event_ids.append(event.event_id)
                pack.checks.append(event.check)
                pack.keys.append(key)
                for column, place in zip(pack.columns, target.places, strict=True):
                    column.append(event.values[place])

    def _pack(self, number: int, target: Target, partition: int, size: int) -> Pack:
        now = self._open.get((number, partition))
        if now is None or len(now.pack.offsets) >= PACK_UPDATES_MAX or now.size + size > _PACK_BYTES_MAX:
            now = self._open[number, partition] = _Open(Pack.empty(*self._origin, target.names))
            self.packs.append((target.entity.name, partition, now.pack))
        now.size += size
        return now.pack


@dataclass(slots=True)
class _Open:
    """A pack that is being filled, and at most how many bytes its updates take."""

    pack: Pack
    size: int = 0


def _text_bytes(text: str | None) -> int:
    if text is None:
        return 0
    return len(text) if text.isascii() else 4 * len(text)
