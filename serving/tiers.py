"""Tiers: local copies, then the cache, then the record; each is asked once, in one batch, for what is still missing.

A tier that fails or is slow is a counted miss, and so is a row of the cache that cannot be read or that was computed
with another definition than is served. Only the record's failures reach the reader: behind it is nothing.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from core.definitions import ServingPolicy
from core.errors import FormatError, StoreError
from core.metrics import Metrics
from core.ports import Clock, RowKey, Store
from core.rows import Row, unpack_row
from core.versions import version_of
from core.windows import to_ms
from serving.floor import VersionFloor
from serving.local import Copy, LocalCopies

log = logging.getLogger(__name__)

CACHE_DEADLINE_MS = 150
RECORD_DEADLINE_MS = 1_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row that is asked for, with what its group says about copies.

    Attributes:
        cached: Whether the group's rows are in the cache at all.
        fingerprint: Of the definition that is served; a row of another one means something else.
    """

    key: RowKey
    policy: ServingPolicy
    cached: bool
    fingerprint: bytes


class Origin(NamedTuple):
    """Where a row was read.

    Attributes:
        tier: ``local``, or the name of the store.
        read_at_ms: When this process read it from a store.
    """

    tier: str
    read_at_ms: int


class TieredReader:
    """Reads rows through the tiers."""

    def __init__(
        self, *, local: LocalCopies | None, cache: Store | None, record: Store, clock: Clock, metrics: Metrics
    ) -> None:
        self._local = local
        self._cache = cache
        self._record = record
        self._clock = clock
        self._metrics = metrics
        self._floor = VersionFloor()

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
        found: dict[RowKey, Row] = {}
        if self._cache is not None:
            found |= await self._from_cache(self._cache, [want for want in missing if want.cached])
            self._note(origins, self._cache, found)
            missing = [want for want in missing if want.key not in found]
        if missing:
            keys = [want.key for want in missing]
            values = await self._timed(self._record, keys, RECORD_DEADLINE_MS)
            self._metrics.tier(self._record.name, hits=len(values), misses=len(keys) - len(values))
            recorded = {want.key: self._decode(want, values[want.key]) for want in missing if want.key in values}
            self._note(origins, self._record, recorded)
            self._note_none(want for want in missing if want.key not in recorded)
            found |= recorded
        return found

    def _note_none(self, missing: Iterable[Wanted]) -> None:
        if self._local is not None:
            for want in missing:
                if want.policy.tier != "direct":
                    self._local.put_none(want.key, read_at_ms=self._clock.now_ms())

    def _note(self, origins: dict[RowKey, Origin] | None, store: Store, rows: Iterable[RowKey]) -> None:
        if origins is not None:
            origins |= dict.fromkeys(rows, Origin(store.name, self._clock.now_ms()))

    def _from_local(self, wanted: Sequence[Wanted]) -> dict[RowKey, Copy]:
        if self._local is None:
            return {}
        now_ms = self._clock.now_ms()
        asked = [want for want in wanted if want.policy.tier != "direct"]
        found = {}
        for want in asked:
            oldest_ms, oldest_none_ms = now_ms - to_ms(want.policy.soft_ttl), now_ms - to_ms(want.policy.negative_ttl)
            copy = self._local.get(want.key, oldest_ms=oldest_ms, oldest_none_ms=oldest_none_ms)
            if copy is not None:
                found[want.key] = copy
        self._metrics.tier("local", hits=len(found), misses=len(asked) - len(found))
        return found

    async def _from_cache(self, cache: Store, wanted: Sequence[Wanted]) -> dict[RowKey, Row]:
        asked = [want for want in wanted if want.policy.tier != "direct"]
        if not asked:
            return {}
        try:
            values = await self._timed(cache, [want.key for want in asked], CACHE_DEADLINE_MS)
        except StoreError as error:
            log.warning("cache read failed: %s", error)
            return {}
        found: dict[RowKey, Row] = {}
        for want in asked:
            # A write to the cache may still be owed; who was served the newer row must not see time go back.
            if want.key in values and version_of(values[want.key]) >= self._floor.of(want.key):
                try:
                    found[want.key] = self._decode(want, values[want.key])
                except FormatError as error:
                    log.warning("row of the cache passed over: %s", error)
        self._metrics.tier(cache.name, hits=len(found), misses=len(asked) - len(found))
        return found

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
        if self._local is not None and want.policy.tier != "direct":
            self._local.put(want.key, row, size=len(value), read_at_ms=self._clock.now_ms())
        return row
