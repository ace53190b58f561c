"""Tiers: local copies, then the cache, then the record; each is asked once, in one batch, for what is still missing.

A tier that fails or is slow is a counted miss, and so is a row of the cache that cannot be read or that was computed
with another definition than is served. Only the record's failures reach the reader: behind it is nothing. They cost the
rows that only it could tell, and the whole answer if these are all.
"""

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from core.errors import FormatError, StoreBusyError, StoreError
from core.metrics import Metrics
from core.ports import Cache, Clock, RowKey, Store
from core.rows import Row, unpack_row
from core.versions import version_of
from serving.tiers.fills import Fills, Loaded
from serving.tiers.flights import Flights
from serving.tiers.floor import VersionFloor
from serving.tiers.hedges import Hedges
from serving.tiers.kept_copies import KeptCopies
from serving.tiers.local import Copy, LocalCopies
from serving.tiers.served_rows import UNKNOWN, ServedRows
from serving.tiers.store_reads import StoreReads, new_breaker
from serving.tiers.wanted import Gaps, Terms, Wanted

log = logging.getLogger(__name__)


class Origin(NamedTuple):
    """Where a row was read.

    Attributes:
        tier: ``local``, or the name of the store.
        read_at_ms: When this process asked for it, or joined others who had asked: what a store has is as old at least.
    """

    tier: str
    read_at_ms: int


class _Began(NamedTuple):
    """When a read of stores began.

    Attributes:
        at_ms: By the clock. Copies age from then on: what a slow store tells may have been replaced since.
        at_s: In monotonic seconds.
    """

    at_ms: int
    at_s: float


class CacheValues(NamedTuple):
    """What the cache said.

    Attributes:
        values: By key; or None if it was not asked or gave no answer.
        began: When the read began.
    """

    values: Mapping[RowKey, bytes] | None
    began: _Began


class TieredReader:
    """Reads rows through the tiers.

    Attributes:
        copies: The first tier.
    """

    def __init__(
        self,
        *,
        local: LocalCopies | None,
        cache: Cache | None,
        record: Store,
        clock: Clock,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
        hears: Callable[[], bool] = lambda: True,
        draw: Callable[[], float] = random.random,
        floor: VersionFloor | None = None,
        hedges: Hedges | None = None,
    ) -> None:
        """Read through some tiers.

        Args:
            local: Copies of this process, if it keeps any.
            cache: If there is one.
            record: Behind it is nothing.
            clock: Tells how old copies are.
            metrics: Told what each tier was good for.
            monotonic: Tells the time in seconds.
            hears: Whether this process is sure to write the rows that it has copies of, so that it knows of changes.
            draw: Returns numbers from 0 on and below 1, each as likely: they spread when copies end and are read again.
            floor: Remembers which versions were served; one of its usual size, if none is given.
            hedges: Begin reads of the record a second time, if given.
        """
        self._cache = cache
        self._record = record
        self._clock = clock
        self._metrics = metrics
        self._monotonic = monotonic
        self._served = ServedRows(floor if floor is not None else VersionFloor())
        self.copies = KeptCopies(local, self._served, clock, hears=hears, draw=draw)
        self._stores = StoreReads(cache, record, metrics, monotonic=monotonic, hedges=hedges)
        leases = f"{cache.name} leases" if cache is not None else ""
        breaker = new_breaker(leases, metrics, monotonic)
        self._fills = Fills(cache, self._stores.ask_record, clock, record_name=record.name, breaker=breaker, draw=draw)
        self._flights = Flights(self._fly, key_of=_key_of)
        self._record_flights = Flights(self._fly_past_the_cache, key_of=_key_of)
        self._refreshes = Flights(self._read_again, key_of=_key_of)
        self._renewals = Flights(self._renew, key_of=_key_of)

    def watch_versions(self, newer: Callable[[Iterable[str]], None]) -> None:
        """Tell somebody of the ``pk`` of each row that is served in a newer version than before, or may be."""
        self._served.watch(lambda key, _: newer((key.pk,)))

    def only_cached(self, terms: Terms) -> bool:
        """Whether a group's rows are in the cache, and this process keeps no copies of them."""
        return self._cache is not None and terms.is_cached and not self.copies.may_hold(terms)

    def count_copies(self, rows: int) -> None:
        """Count rows that were answered from copies."""
        self._metrics.tier("local", hits=rows, misses=0)

    def count_cached(self, rows: int, wanted: Iterable[Wanted]) -> None:
        """Count rows that were answered from the cache, and renew those that it is about to forget.

        Args:
            rows: How many.
            wanted: Which, each once; not looked at where none can be about to end.
        """
        if self._cache is not None:
            early = self._renew_ending(wanted)
            self._metrics.tier(self._cache.name, hits=rows, misses=0, early=early)

    async def ask_cache(self, keys: Sequence[RowKey]) -> CacheValues:
        """Return what the cache has of some rows, as it is."""
        began = self._begin()
        return CacheValues(await self._stores.ask_cache(keys), began)

    def known(self, wanted: Iterable[Wanted], told: CacheValues) -> dict[RowKey, Row | None]:
        """Return the rows that the cache tells of, and None for those that the record has not."""
        values = told.values or {}
        said = ((want.key, self._served.of_cache(want, values.get(want.key))) for want in wanted)
        return {key: row for key, row in said if row is not UNKNOWN}

    async def read(
        self,
        wanted: Sequence[Wanted],
        *,
        told: CacheValues | None = None,
        origins: dict[RowKey, Origin] | None = None,
        gaps: Gaps | None = None,
    ) -> dict[RowKey, Row]:
        """Return the rows that exist; a missing key is absent.

        Args:
            wanted: What is asked for, each key once.
            told: What the cache has said of all of them, if it was asked before.
            origins: Filled with where each row was read, if given; only explanations ask for it.
            gaps: Filled with what could not be had, if given.

        Raises:
            StoreBusyError: Too many others wait for the record.
            StoreError: The record failed, and not everything could be had; with ``gaps``, these tell of it.
            FormatError: A row of the record cannot be read, or was computed with another definition.
        """
        copies = self._from_copies(wanted)
        self._note_copies(copies, origins, gaps)
        found = {key: copy.row for key, copy in copies.items() if copy.row is not None}
        missing = [want for want in wanted if want.key not in copies]
        if missing:
            with self.copies.reading():
                found |= await self._from_stores(missing, told, origins, gaps)
        return found

    def preload(self, want: Wanted, value: bytes, *, read_at_ms: int) -> bool:
        """Keep a copy of a packed row that nobody has asked for; return whether there was room for it.

        Raises:
            FormatError: It cannot be read.
        """
        if not self.copies.has_room(len(value)):
            return False
        self.copies.keep(want, unpack_row(value), len(value), read_at_ms=read_at_ms, load_ms=0.0)
        return True

    async def _from_stores(
        self,
        missing: Sequence[Wanted],
        told: CacheValues | None,
        origins: dict[RowKey, Origin] | None,
        gaps: Gaps | None,
    ) -> dict[RowKey, Row]:
        found, flights = await self._ask_cache(missing, told, origins)
        missing = [want for want in missing if want.key not in found]
        if missing:
            try:
                if gaps is not None:
                    # Who joins a load joins one that began before; what is known of its rows, it may not have seen.
                    joined = (want.key for want in missing if flights.began_before(want.key, gaps.known_at))
                    gaps.untold.update(joined)
                found |= await self._load(flights, missing, origins)
            except StoreError as error:
                old = self.copies.find_old(missing)
                unread = [want.key for want in missing if want.key not in old]
                # That too many ask is no reason to answer in part: their clients would never hear of it.
                if unread and (gaps is None or isinstance(error, StoreBusyError)):
                    raise
                self._note_gaps(gaps or Gaps(), unread, old.keys(), error)
                self._note_copies(old, origins, gaps)
                found |= {key: copy.row for key, copy in old.items()}
        return {key: row for key, row in found.items() if row is not None}

    async def _ask_cache(
        self, wanted: Sequence[Wanted], told: CacheValues | None, origins: dict[RowKey, Origin] | None
    ) -> tuple[dict[RowKey, Row | None], Flights[RowKey, Wanted, Loaded]]:
        """Return what the cache knows, and how the rest is loaded."""
        known = await self._from_cache(wanted, told, origins)
        # Where the cache has just given no answer, it is asked for no lease either.
        return known or {}, self._flights if known is not None else self._record_flights

    async def _read_again(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        """Renew copies that are about to end, for whoever reads them then."""
        with self.copies.reading():
            found, flights = await self._ask_cache(wanted, None, None)
            if missing := [want for want in wanted if want.key not in found]:
                await self._load(flights, missing, None)
        return {}

    async def _load(
        self, flights: Flights[RowKey, Wanted, Loaded], missing: Sequence[Wanted], origins: dict[RowKey, Origin] | None
    ) -> dict[RowKey, Row | None]:
        """Return rows that the cache does not have, or None for those that are nowhere."""
        began_ms = self._clock.now_ms()
        loaded = dict(await flights.get(missing))
        # A load that began before this read, or another's filling, may bring an older row than was served meanwhile.
        floors = {want.key: self._served.floor(want.key) for want in missing}
        if old := [key for key, floor in floors.items() if _version(loaded.get(key)) < floor]:
            values = await self._stores.ask_record(old)
            for key in old:
                loaded.pop(key, None)
                if key in values:
                    loaded[key] = Loaded(values[key], self._record.name)
                elif self._served.floor(key) == floors[key]:
                    # Nobody is told of it any more, and nobody has to look again.
                    self._served.removed(key)
        found: dict[RowKey, Row | None] = {}
        for want in missing:
            one = loaded.get(want.key)
            found[want.key] = self._served.decode(want, one.value) if one is not None else None
            if one is not None and origins is not None:
                origins[want.key] = Origin(one.tier, began_ms)
        return found

    async def _fly(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        began = self._begin()
        with self.copies.reading():
            return self._copied(wanted, await self._fills.load(wanted), began)

    async def _fly_past_the_cache(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        began = self._begin()
        with self.copies.reading():
            return self._copied(wanted, await self._fills.recorded(wanted), began)

    async def _renew(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        began = self._begin()
        with self.copies.reading():
            return self._copied(wanted, await self._fills.renew(wanted), began)

    def _copied(self, wanted: Sequence[Wanted], loaded: dict[RowKey, Loaded], began: _Began) -> dict[RowKey, Loaded]:
        """Keep copies of what a load has brought: it knows what was announced since it began, whoever joined it not."""
        if self.copies.are_kept:
            load_ms = self._since_ms(began)
            for want in wanted:
                one = loaded.get(want.key)
                if one is None:
                    self.copies.keep_none(want, read_at_ms=began.at_ms)
                elif want.terms.is_copied:
                    with suppress(FormatError):
                        row = self._served.unpack(want, one.value)
                        self.copies.keep(want, row, len(one.value), read_at_ms=began.at_ms, load_ms=load_ms)
        return loaded

    def _note_copies(
        self, copies: Mapping[RowKey, Copy], origins: dict[RowKey, Origin] | None, gaps: Gaps | None
    ) -> None:
        if origins is not None:
            origins |= {key: Origin("local", copy.read_at_ms) for key, copy in copies.items()}
        if gaps is not None and copies:
            gaps.untold.update(self.copies.untold(copies))

    def _note_gaps(self, gaps: Gaps, unread: Collection[RowKey], old: Collection[RowKey], error: StoreError) -> None:
        gaps.unread.update(unread)
        gaps.old.update(old)
        gaps.why = error
        log.warning("the record failed: %s", error, extra={"unread": len(unread), "old": len(old)})
        self._metrics.tier("local", hits=0, misses=0, old=len(old))
        self._metrics.tier(self._record.name, hits=0, misses=0, unread=len(unread))

    def _from_copies(self, wanted: Sequence[Wanted]) -> dict[RowKey, Copy]:
        if not self.copies.are_kept:
            return {}
        asked = [want for want in wanted if want.terms.is_copied]
        found, ending = self.copies.find(asked)
        if ending:
            self._refreshes.begin(ending)
        self._metrics.tier("local", hits=len(found), misses=len(asked) - len(found), early=len(ending))
        return found

    async def _from_cache(
        self, wanted: Sequence[Wanted], told: CacheValues | None, origins: dict[RowKey, Origin] | None
    ) -> dict[RowKey, Row | None] | None:
        """Return what the cache knows: rows, and None for those that the record has not; or None if it is away."""
        cache, asked = self._cache, [want for want in wanted if want.terms.is_cached]
        if cache is None or not asked:
            return {}
        if told is None:
            told = await self.ask_cache([want.key for want in asked])
        values, began = told
        if values is None:
            return None
        found = self.known(asked, told)
        if self.copies.are_kept:
            load_ms = self._since_ms(began)
            for want in asked:
                if want.key not in found:
                    continue
                row = found[want.key]
                if row is None:
                    self.copies.keep_none(want, read_at_ms=began.at_ms)
                else:
                    self.copies.keep(want, row, len(values[want.key]), read_at_ms=began.at_ms, load_ms=load_ms)
        early = self._renew_ending(want for want in asked if found.get(want.key) is not None)
        self._metrics.tier(cache.name, hits=len(found), misses=len(asked) - len(found), early=early)
        if origins is not None:
            origins |= {key: Origin(cache.name, began.at_ms) for key, row in found.items() if row is not None}
        return found

    def _renew_ending(self, wanted: Iterable[Wanted]) -> int:
        """Begin to renew what the cache is about to forget; return how many rows."""
        ending = self._fills.ending(wanted)
        if ending:
            self._renewals.begin(ending)
        return len(ending)

    def _begin(self) -> _Began:
        return _Began(self._clock.now_ms(), self._monotonic())

    def _since_ms(self, began: _Began) -> float:
        return (self._monotonic() - began.at_s) * 1000


def _key_of(want: Wanted) -> RowKey:
    return want.key


def _version(loaded: Loaded | None) -> int:
    return version_of(loaded.value) if loaded is not None else 0
