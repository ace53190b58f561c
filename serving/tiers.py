"""Tiers: local copies, then the cache, then the record; each is asked once, in one batch, for what is still missing.

A tier that fails or is slow is a counted miss, and so is a row of the cache that cannot be read or that was computed
with another definition than is served. Only the record's failures reach the reader: behind it is nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeAlias

from core.definitions import ServingPolicy
from core.errors import FormatError, StoreError, StoreTimeoutError
from core.leases import NO_ROW, is_lease
from core.metrics import Metrics
from core.ports import Cache, Clock, RowKey, Store
from core.rows import Row, unpack_row
from core.versions import version_of
from core.windows import to_ms
from serving.breaker import Breaker
from serving.fills import Fills, Loaded
from serving.flights import Flights
from serving.floor import VersionFloor
from serving.local import Copy, LocalCopies
from serving.wanted import Wanted

log = logging.getLogger(__name__)

CACHE_DEADLINE_MS = 50
RECORD_DEADLINE_MS = 1_000
_RECORD_READS_MAX = 64
"""So many calls are at work at the same time; with the cache away, the others wait within their deadlines."""

_UNKNOWN = object()


class Origin(NamedTuple):
    """Where a row was read.

    Attributes:
        tier: ``local``, or the name of the store.
        read_at_ms: When this process read it from a store.
    """

    tier: str
    read_at_ms: int


_Loads: TypeAlias = Flights[RowKey, Wanted, Loaded]


def _key_of(want: Wanted) -> RowKey:
    return want.key


class TieredReader:
    """Reads rows through the tiers."""

    def __init__(
        self,
        *,
        local: LocalCopies | None,
        cache: Cache | None,
        record: Store,
        clock: Clock,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = local
        self._cache = cache
        self._record = record
        self._clock = clock
        self._metrics = metrics
        self._floor = VersionFloor()
        self._breaker = Breaker(monotonic=monotonic)
        self._record_slots = asyncio.Semaphore(_RECORD_READS_MAX)
        fills = Fills(cache, self._read_record, clock, record_name=record.name, breaker=Breaker(monotonic=monotonic))
        self._flights = _Loads(fills.load, key_of=_key_of)
        self._record_flights = _Loads(fills.recorded, key_of=_key_of)

    def copies(
        self, policies: Sequence[ServingPolicy], keys: Sequence[Sequence[RowKey]]
    ) -> list[list[Row | None]] | None:
        """Return what is known here of all rows, or None if anything is not: then everything has to be read.

        Args:
            policies: Per group.
            keys: Per group, where its rows stand.
        """
        if self._local is None or any(policy.tier == "direct" for policy in policies):
            return None
        now_ms = self._clock.now_ms()
        found: list[list[Row | None]] = []
        for policy, group in zip(policies, keys, strict=True):
            oldest_ms, oldest_none_ms = now_ms - to_ms(policy.soft_ttl), now_ms - to_ms(policy.negative_ttl)
            rows = self._local.get_all(group, oldest_ms=oldest_ms, oldest_none_ms=oldest_none_ms)
            if rows is None:
                return None
            found.append(rows)
        self._metrics.tier("local", hits=sum(map(len, keys)), misses=0)
        return found

    async def read(self, wanted: Sequence[Wanted], *, origins: dict[RowKey, Origin] | None = None) -> dict[RowKey, Row]:
        """Return the rows that exist; a missing key is absent.

        Args:
            wanted: What is asked for.
            origins: Filled with where each row was read, if given; only explanations ask for it.

        Raises:
            StoreError: The record failed.
            FormatError: A row of the record cannot be read, or was computed with another definition.
        """
        copies = self._from_local(wanted)
        if origins is not None:
            origins |= {key: Origin("local", copy.read_at_ms) for key, copy in copies.items()}
        found = {key: copy.row for key, copy in copies.items() if copy.row is not None}
        missing = [want for want in wanted if want.key not in copies]
        if missing:
            with self._local.reading() if self._local is not None else nullcontext():
                found |= await self._from_stores(missing, origins)
        return found

    async def _from_stores(self, missing: Sequence[Wanted], origins: dict[RowKey, Origin] | None) -> dict[RowKey, Row]:
        known = await self._from_cache(missing, origins)
        # Where the cache has just given no answer, it is asked for no lease either.
        flights = self._flights if known is not None else self._record_flights
        found = known or {}
        missing = [want for want in missing if want.key not in found]
        if missing:
            try:
                found |= await self._load(flights, missing, origins)
            except StoreError as error:
                found |= self._old_copies(missing, origins, error)
        return {key: row for key, row in found.items() if row is not None}

    async def _load(
        self, flights: "_Loads", missing: Sequence[Wanted], origins: dict[RowKey, Origin] | None
    ) -> dict[RowKey, Row | None]:
        """Return rows that the cache does not have, or None for those that are nowhere."""
        loaded = await flights.get(missing)
        # A load that began before this read, or another's filling, may bring an older row than was served meanwhile.
        old = [want.key for want in missing if self._is_old(want.key, loaded)]
        if old:
            values = await self._read_record(old)
            loaded = {key: one for key, one in loaded.items() if key not in old} | {
                key: Loaded(value, self._record.name) for key, value in values.items()
            }
        found: dict[RowKey, Row | None] = {}
        for want in missing:
            one = loaded.get(want.key)
            found[want.key] = self._decode(want, one.value) if one is not None else None
            if one is not None and origins is not None:
                origins[want.key] = Origin(one.tier, self._clock.now_ms())
        self._note_none(want for want in missing if found[want.key] is None)
        return found

    def _is_old(self, key: RowKey, loaded: Mapping[RowKey, Loaded]) -> bool:
        return (version_of(loaded[key].value) if key in loaded else 0) < self._floor.of(key)

    def _old_copies(
        self, missing: Sequence[Wanted], origins: dict[RowKey, Origin] | None, error: StoreError
    ) -> dict[RowKey, Row | None]:
        """Return copies that are old and not too old, where the record fails: it takes no newer rows either.

        Raises:
            StoreError: There is no such copy of one of them.
        """
        found: dict[RowKey, Row | None] = {}
        now_ms = self._clock.now_ms()
        for want in missing:
            oldest_ms = now_ms - to_ms(want.policy.hard_ttl)
            copy = self._local.get(want.key, oldest_ms=oldest_ms, oldest_none_ms=oldest_ms) if self._local else None
            if copy is None:
                raise error
            found[want.key] = copy.row
            if origins is not None:
                origins[want.key] = Origin("local", copy.read_at_ms)
        log.warning("old copies served: %s", error)
        self._metrics.tier("local", hits=0, misses=0, old=len(found))
        return found

    async def _read_record(self, keys: Sequence[RowKey]) -> dict[RowKey, bytes]:
        try:
            async with asyncio.timeout(RECORD_DEADLINE_MS / 1000):
                await self._record_slots.acquire()
        except TimeoutError:
            raise StoreTimeoutError(f"{self._record.name}: not asked within {RECORD_DEADLINE_MS} ms") from None
        try:
            values = await self._timed(self._record, keys, RECORD_DEADLINE_MS)
        finally:
            self._record_slots.release()
        self._metrics.tier(self._record.name, hits=len(values), misses=len(keys) - len(values))
        return values

    def _note_none(self, missing: Iterable[Wanted]) -> None:
        if self._local is not None:
            for want in missing:
                if want.is_copied:
                    self._local.put_none(want.key, read_at_ms=self._clock.now_ms())

    def _from_local(self, wanted: Sequence[Wanted]) -> dict[RowKey, Copy]:
        if self._local is None:
            return {}
        now_ms = self._clock.now_ms()
        asked = [want for want in wanted if want.is_copied]
        found = {}
        for want in asked:
            oldest_ms, oldest_none_ms = now_ms - to_ms(want.policy.soft_ttl), now_ms - to_ms(want.policy.negative_ttl)
            copy = self._local.get(want.key, oldest_ms=oldest_ms, oldest_none_ms=oldest_none_ms)
            if copy is not None:
                found[want.key] = copy
        self._metrics.tier("local", hits=len(found), misses=len(asked) - len(found))
        return found

    async def _from_cache(
        self, wanted: Sequence[Wanted], origins: dict[RowKey, Origin] | None
    ) -> dict[RowKey, Row | None] | None:
        """Return what the cache knows: rows, and None for those that the record has not; or None if it is away."""
        cache, asked = self._cache, [want for want in wanted if want.is_cached]
        if cache is None or not asked:
            return {}
        values = await self._ask_cache(cache, asked)
        if values is None:
            return None
        found = {want.key: row for want in asked if (row := self._known(want, values.get(want.key))) is not _UNKNOWN}
        self._metrics.tier(cache.name, hits=len(found), misses=len(asked) - len(found))
        self._note_none(want for want in asked if found.get(want.key, want) is None)
        if origins is not None:
            origins |= {key: Origin(cache.name, self._clock.now_ms()) for key, row in found.items() if row is not None}
        return found

    async def _ask_cache(self, cache: Cache, asked: Sequence[Wanted]) -> dict[RowKey, bytes] | None:
        """Return what the cache has, or None if it is not asked or gives no answer."""
        if not self._breaker.admits():
            return None
        was_open = self._breaker.is_open
        try:
            values = await self._timed(cache, [want.key for want in asked], CACHE_DEADLINE_MS)
        except StoreError as error:
            log.warning("cache read failed: %s", error)
            self._breaker.failed()
            values = None
        else:
            self._breaker.succeeded()
        if was_open is not self._breaker.is_open:
            self._metrics.breaker(cache.name, is_open=self._breaker.is_open)
        return values

    def _known(self, want: Wanted, value: bytes | None) -> Any:
        """Return the row that a value of the cache says there is, None if there is none, or ``_UNKNOWN``."""
        # A write to the cache may still be owed; who was served the newer row must not see time go back.
        floor = self._floor.of(want.key)
        if value is None or is_lease(value) or version_of(value) < floor:
            return _UNKNOWN
        if value == NO_ROW:
            return None
        try:
            return self._decode(want, value)
        except FormatError as error:
            log.warning("row of the cache passed over: %s", error)
            return _UNKNOWN

    async def _timed(self, store: Store, keys: Sequence[RowKey], deadline_ms: int) -> dict[RowKey, bytes]:
        started = time.monotonic()
        try:
            values = await store.read(keys, deadline_ms=deadline_ms)
        except StoreError:
            self._metrics.store_call(store.name, "read", time.monotonic() - started, failed=True)
            self._metrics.tier(store.name, hits=0, misses=0, failed=len(keys))
            raise
        self._metrics.store_call(store.name, "read", time.monotonic() - started, failed=False)
        return values

    def _decode(self, want: Wanted, value: bytes) -> Row:
        row = unpack_row(value)
        if row.fingerprint != want.fingerprint:
            raise FormatError(
                f"the row {want.key.sk} was computed with definition {row.fingerprint.hex()}, served is "
                f"{want.fingerprint.hex()}: two meanings have one number; see docs/how-to/recover.md"
            )
        self._floor.put(want.key, max(row.ver, self._floor.of(want.key)))
        if self._local is not None and want.is_copied:
            self._local.put(want.key, row, size=len(value), read_at_ms=self._clock.now_ms())
        return row
