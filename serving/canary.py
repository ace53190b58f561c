"""Canaries: events that a worker sends to itself, to see how long one takes through Kafka to a reader.

A source that has fields for one (``Source.canary``) gets one every few seconds. It goes the way of every event, of a
key that is nobody's; then the rows of that key are read, as a request would read them, until they know of it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from uuid import uuid4

from core.canary import canary_event, watches
from core.definitions import FeatureGroup, Registry, Source
from core.errors import BrokerError, EventError, FormatError, StoreError
from core.keys import partition_key
from core.metrics import Metrics
from core.plans import GroupPlan
from core.ports import Clock, RowKey
from core.topics import row_name
from serving.answers.read_plans import terms_of
from serving.tiers.reader import TieredReader
from serving.tiers.wanted import Wanted

log = logging.getLogger(__name__)

EVERY_S = 5.0
SEEN_S = 10.0
_LOOK_S, _LOOK_MAX_S, _SLOWER = 0.005, 0.25, 1.2

KeysOf = Callable[[str, bytes, int], Iterable[tuple[str, Sequence[str]]]]
"""Returns per entity the encoded keys that an event touches, by topic, bytes and time."""
Send = Callable[[str, Sequence[tuple[bytes | None, bytes]]], Awaitable[None]]


class Canaries:
    """Sends canaries and waits for them."""

    def __init__(
        self,
        registry: Registry,
        *,
        plans: Mapping[str, GroupPlan],
        numbers: Mapping[str, int],
        keys_of: KeysOf,
        send: Send,
        reader: TieredReader,
        clock: Clock,
        metrics: Metrics,
        is_ready: Callable[[], bool] = lambda: True,
        every_s: float = EVERY_S,
        seen_s: float = SEEN_S,
    ) -> None:
        """Send none yet.

        Args:
            registry: The definitions.
            plans: By name of a group.
            numbers: By name of a group, the number of the version that is served.
            keys_of: Tells which keys an event touches.
            send: Sends events to a topic and awaits their acknowledgement.
            reader: Reads rows.
            clock: Tells when a canary happens.
            metrics: Told how long each took, per group, and of those that did not come.
            is_ready: Whether this worker has begun to take events in, if it does.
            every_s: How often one is sent to each source.
            seen_s: How long it is waited for.
        """
        self._sources = [source for source in registry.sources.values() if source.canary is not None]
        self._watching = {source.topic: list(_watching(source, registry.groups)) for source in self._sources}
        self._keys_of = keys_of
        self._plans = plans
        self._numbers = numbers
        self._send = send
        self._reader = reader
        self._clock = clock
        self._metrics = metrics
        self._is_ready = is_ready
        self._every_s = every_s
        self._seen_s = seen_s
        # A series that is born with its first loss has no rate to alert on.
        metrics.expect_canaries({group.name for groups in self._watching.values() for group in groups})

    async def run(self) -> None:
        """Send and wait for ever, from when events are taken in."""
        while self._sources:
            flying = map(self.fly, self._sources) if self._is_ready() else ()
            await asyncio.gather(*flying, asyncio.sleep(self._every_s))

    async def fly(self, source: Source) -> None:
        """Send one canary, and wait until every group that it touches knows of it."""
        now_ms, started = self._clock.now_ms(), time.monotonic()
        event = canary_event(source, now_ms=now_ms, identity=uuid4(), pick=random.choice)
        watched: dict[Wanted, FeatureGroup] = {}
        try:
            watched = self._watched(source, event, now_ms)
            await self._send(source.topic, [(None, event)])
            async with asyncio.timeout(self._seen_s):
                await self._wait_for(watched, now_ms, started)
        except (BrokerError, EventError, StoreError, FormatError, TimeoutError) as error:
            names = [group.name for group in watched.values()]
            log.warning("canary not seen", extra={"source": source.topic, "groups": names, "why": str(error) or "late"})
            for name in names:
                self._metrics.canary_lost(name)

    async def _wait_for(self, watched: dict[Wanted, FeatureGroup], sent_ms: int, started: float) -> None:
        """Look, less and less often, until all rows know of it; take out those that do."""
        pause_s = _LOOK_S
        while watched:
            for want in await self._look(watched, sent_ms):
                self._metrics.freshness(watched.pop(want).name, time.monotonic() - started)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * _SLOWER, _LOOK_MAX_S)

    def _watched(self, source: Source, event: bytes, now_ms: int) -> dict[Wanted, FeatureGroup]:
        """Return the rows that the canary changes at once, with their groups."""
        watched = {}
        for entity, keys in self._keys_of(source.topic, event, now_ms):
            for group in self._watching[source.topic]:
                if group.entity.name != entity:
                    continue
                sk = row_name(group.name, self._numbers[group.name])
                for key in keys:
                    place = RowKey(partition_key(entity, key), sk)
                    watched[Wanted(place, terms_of(self._plans[group.name]))] = group
        return watched

    async def _look(self, watched: Mapping[Wanted, FeatureGroup], sent_ms: int) -> list[Wanted]:
        rows = await self._reader.read(list(watched))
        return [want for want in watched if want.key in rows and rows[want.key].event_time_ms >= sent_ms]


def _watching(source: Source, groups: Iterable[FeatureGroup]) -> Iterable[FeatureGroup]:
    """Return the groups whose rows tell of a source's canary; ``freshet check`` tells of those that leave it out."""
    event = canary_event(source, now_ms=0, identity=uuid4(), pick=lambda some: some[0])
    return (group for group in groups if watches(group, source, event))
