"""Tiers: local copies, then the cache, then the record; each is asked once, in one batch, for what is still missing.

A tier that fails or is slow is a counted miss, and so is a row of the cache that cannot be read or that was computed
with another definition than is served. Only the record's failures reach the reader: behind it is nothing. They cost the
rows that only it could tell, and the whole answer if these are all.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple

from core.errors import FormatError, StoreBusyError, StoreError
from core.leases import NO_ROW, is_lease
from core.metrics import Metrics
from core.ports import Cache, Clock, RowKey, Store
from core.rows import Row, unpack_row
from core.versions import version_of
from serving.tiers.decoded import DecodedRows
from serving.tiers.fills import Fills, Loaded
from serving.tiers.flights import Flights
from serving.tiers.floor import VersionFloor
from serving.tiers.hedges import Hedges
from serving.tiers.lifetimes import Life, is_due, lead_ms_max, shortened_ms
from serving.tiers.local import Copy, LocalCopies
from serving.tiers.store_reads import StoreReads, new_breaker
from serving.tiers.wanted import Gaps, Terms, Wanted

log = logging.getLogger(__name__)

_UNKNOWN = object()


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
        self._local = local
        self._cache = cache
        self._record = record
        self._clock = clock
        self._metrics = metrics
        self._hears = hears
        self._monotonic = monotonic
        self._draw = draw
        self._floor = floor if floor is not None else VersionFloor()
        self._decoded = DecodedRows()
        self._newer: Callable[[Iterable[str]], None] = _nobody
        self._stores = StoreReads(cache, record, metrics, monotonic=monotonic, hedges=hedges)
        leases = f"{cache.name} leases" if cache is not None else ""
        breaker = new_breaker(leases, metrics, monotonic)
        self._fills = Fills(cache, self._stores.ask_record, clock, record_name=record.name, breaker=breaker, draw=draw)
        self._flights = Flights(self._fly, key_of=_key_of)
        self._record_flights = Flights(self._fly_past_the_cache, key_of=_key_of)
        self._refreshes = Flights(self._read_again, key_of=_key_of)
        self._renewals = Flights(self._renew, key_of=_key_of)

    @property
    def keeps_copies(self) -> bool:
        """Whether this process keeps copies at all."""
        return self._local is not None

    def hears(self) -> bool:
        """Whether this process hears of changes of what it owns: nobody can have taken it over."""
        return self._hears()

    def watch_copies(self, *, changed: Callable[[Iterable[str]], None], cleared: Callable[[], None]) -> None:
        """Tell somebody of changes of copies, as ``LocalCopies.watch`` says."""
        if self._local is not None:
            self._local.watch(changed=changed, cleared=cleared)

    def watch_versions(self, newer: Callable[[Iterable[str]], None]) -> None:
        """Tell somebody of the ``pk`` of each row that is served in a newer version than before, or may be."""
        self._newer = newer

    def only_cached(self, terms: Terms) -> bool:
        """Whether a group's rows are in the cache, and this process keeps no copies of them."""
        return self._cache is not None and terms.is_cached and not self.may_copy(terms)

    def may_copy(self, terms: Terms) -> bool:
        """Whether this process keeps copies of a group's rows at all."""
        return self._local is not None and terms.is_copied and (terms.is_held or self._local.hears)

    def copies(self, keys: Sequence[RowKey], *, now_ms: int) -> list[Copy] | None:
        """Return what is known here of rows, or None if anything is not surely known."""
        return self._local.get_all(keys, now_ms=now_ms) if self._local is not None else None

    def use_copy(self, key: RowKey, copy: Copy) -> None:
        """Note that a copy was of use, as ``LocalCopies.use`` says."""
        if self._local is not None:
            self._local.use(key, copy)

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
        values, again, floor = told.values or {}, self._decoded.get, self._floor.of
        found: dict[RowKey, Row | None] = {}
        for want in wanted:
            key = want.key
            value = values.get(key)
            row = again(key, value) if value is not None else None
            # Most are what they were: then nothing of it has to be looked at but that it is not older than was served.
            if row is None or row.ver < floor(key):
                row = self._known(want, value)
                if row is _UNKNOWN:
                    continue
            found[key] = row
        return found

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
        copies = self._from_local(wanted)
        self._note_copies(copies, origins, gaps)
        found = {key: copy.row for key, copy in copies.items() if copy.row is not None}
        missing = [want for want in wanted if want.key not in copies]
        if missing:
            with self.reading():
                found |= await self._from_stores(missing, told, origins, gaps)
        return found

    def preload(self, want: Wanted, value: bytes, *, read_at_ms: int) -> bool:
        """Keep a copy of a packed row that nobody has asked for; return whether there was room for it.

        Raises:
            FormatError: It cannot be read.
        """
        if self._local is None or not self._local.has_room(len(value)):
            return False
        row = unpack_row(value)
        self._copy(want, row, len(value), read_at_ms=read_at_ms, load_ms=0.0)
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
                old = self._old_copies(missing)
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
        with self.reading():
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
        floors = {want.key: self._floor.of(want.key) for want in missing}
        if old := [key for key, floor in floors.items() if _version(loaded.get(key)) < floor]:
            values = await self._stores.ask_record(old)
            for key in old:
                loaded.pop(key, None)
                if key in values:
                    loaded[key] = Loaded(values[key], self._record.name)
                elif self._floor.of(key) == floors[key]:
                    # It was removed: nobody is told of it any more, and nobody has to look again.
                    self._floor.put(key, 0)
        found: dict[RowKey, Row | None] = {}
        for want in missing:
            one = loaded.get(want.key)
            found[want.key] = self._decode(want, one.value) if one is not None else None
            if one is not None and origins is not None:
                origins[want.key] = Origin(one.tier, began_ms)
        return found

    async def _fly(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        began = self._begin()
        with self.reading():
            return self._copied(wanted, await self._fills.load(wanted), began)

    async def _fly_past_the_cache(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        began = self._begin()
        with self.reading():
            return self._copied(wanted, await self._fills.recorded(wanted), began)

    async def _renew(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        began = self._begin()
        with self.reading():
            return self._copied(wanted, await self._fills.renew(wanted), began)

    def _copied(self, wanted: Sequence[Wanted], loaded: dict[RowKey, Loaded], began: _Began) -> dict[RowKey, Loaded]:
        """Keep copies of what a load has brought: it knows what was announced since it began, whoever joined it not."""
        if self._local is not None:
            load_ms = self._since_ms(began)
            for want in wanted:
                one = loaded.get(want.key)
                if one is None:
                    self._copy_none(want, read_at_ms=began.at_ms)
                elif want.terms.is_copied:
                    with suppress(FormatError):
                        row = unpack_row(one.value)
                        self._copy(want, row, len(one.value), read_at_ms=began.at_ms, load_ms=load_ms)
        return loaded

    def reading(self) -> AbstractContextManager[None]:
        """Mark a read of rows, from before they are read until copies of them are kept."""
        return self._local.reading() if self._local is not None else nullcontext()

    def _old_copies(self, missing: Sequence[Wanted]) -> dict[RowKey, Copy]:
        """Return copies that are old and not too old, while the record fails.

        Only of rows that nobody else writes, or of which each reader may have an old one.
        """
        if self._local is None:
            return {}
        found = {}
        now_ms, hears = self._clock.now_ms(), self._hears()
        for want in missing:
            terms = want.terms
            copy = self._local.get(want.key, oldest_ms=now_ms - terms.hard_ms, oldest_none_ms=now_ms - terms.hard_ms)
            if copy is None or not (hears or terms.is_held) or self._is_below_floor(want.key, copy.row):
                continue
            if now_ms - copy.read_at_ms > shortened_ms(terms.hard_ms, jitter=terms.jitter, drawn=copy.drawn):
                continue
            found[want.key] = copy
        return found

    def _note_copies(
        self, copies: Mapping[RowKey, Copy], origins: dict[RowKey, Origin] | None, gaps: Gaps | None
    ) -> None:
        if origins is not None:
            origins |= {key: Origin("local", copy.read_at_ms) for key, copy in copies.items()}
        if gaps is not None and copies:
            hears = self._hears()
            gaps.untold.update(key for key, copy in copies.items() if not (hears and copy.is_told))

    def _note_gaps(self, gaps: Gaps, unread: Collection[RowKey], old: Collection[RowKey], error: StoreError) -> None:
        gaps.unread.update(unread)
        gaps.old.update(old)
        gaps.why = error
        log.warning("the record failed: %s", error, extra={"unread": len(unread), "old": len(old)})
        self._metrics.tier("local", hits=0, misses=0, old=len(old))
        self._metrics.tier(self._record.name, hits=0, misses=0, unread=len(unread))

    def _from_local(self, wanted: Sequence[Wanted]) -> dict[RowKey, Copy]:
        if self._local is None:
            return {}
        now_ms = self._clock.now_ms()
        asked = [want for want in wanted if want.terms.is_copied]
        found = {}
        ending: list[Wanted] = []
        for want in asked:
            oldest_ms, oldest_none_ms = now_ms - want.terms.soft_ms, now_ms - want.terms.none_ms
            copy = self._local.get(want.key, oldest_ms=oldest_ms, oldest_none_ms=oldest_none_ms)
            if copy is None:
                continue
            if copy.sure_until_ms < now_ms:
                left_ms = _left_ms(copy, want.terms, now_ms)
                if left_ms < 0:
                    continue
                if is_due(left_ms, copy.load_ms, beta=want.terms.early_refresh, drawn=self._draw()):
                    ending.append(want)
            found[want.key] = copy
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
        if self._local is not None:
            load_ms = self._since_ms(began)
            for want in asked:
                if want.key not in found:
                    continue
                row = found[want.key]
                if row is None:
                    self._copy_none(want, read_at_ms=began.at_ms)
                elif want.terms.is_copied:
                    self._copy(want, row, len(values[want.key]), read_at_ms=began.at_ms, load_ms=load_ms)
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

    def _decode(self, want: Wanted, value: bytes) -> Row:
        known = self._decoded.get(want.key, value)
        row = known if known is not None else unpack_row(value)
        if row.fingerprint != want.terms.fingerprint:
            raise FormatError(
                f"the row {want.key.sk} was computed with definition {row.fingerprint.hex()}, served is "
                f"{want.terms.fingerprint.hex()}: two meanings have one number; see docs/how-to/recover.md"
            )
        if known is None:
            self._decoded.put(want.key, value, row)
        self._raise_floor(want.key, row.ver)
        return row

    def _copy(self, want: Wanted, row: Row, size: int, *, read_at_ms: int, load_ms: float) -> None:
        terms = want.terms
        if self._local is None or row.fingerprint != terms.fingerprint or self._is_below_floor(want.key, row):
            return
        # Whoever began the load may have gone: the copy is served without anybody having decoded the row.
        self._raise_floor(want.key, row.ver)
        drawn = self._draw()
        ends_ms = read_at_ms + shortened_ms(terms.soft_ms, jitter=terms.jitter, drawn=drawn)
        life = Life(ends_ms - math.ceil(lead_ms_max(load_ms, beta=terms.early_refresh)), drawn, load_ms)
        self._local.put(want.key, row, size=size, read_at_ms=read_at_ms, life=life, is_held=terms.is_held)

    def _copy_none(self, want: Wanted, *, read_at_ms: int) -> None:
        terms = want.terms
        # A load that began before the row was written may land after one that has found it.
        if self._local is None or not terms.is_copied or self._is_below_floor(want.key, None):
            return
        drawn = self._draw()
        life = Life(read_at_ms + shortened_ms(terms.none_ms, jitter=terms.jitter, drawn=drawn), drawn, 0.0)
        self._local.put_none(want.key, read_at_ms=read_at_ms, life=life, is_held=terms.is_held)

    def _raise_floor(self, key: RowKey, ver: int) -> None:
        """Let nothing older than a version be served from now on, be it from a copy."""
        if ver > self._floor.of(key):
            self._floor.put(key, ver)
            self._newer((key.pk,))
            if self._local is not None:
                self._local.drop_older(key, ver)

    def _is_below_floor(self, key: RowKey, row: Row | None) -> bool:
        return (row.ver if row is not None else 0) < self._floor.of(key)

    def _begin(self) -> _Began:
        return _Began(self._clock.now_ms(), self._monotonic())

    def _since_ms(self, began: _Began) -> float:
        return (self._monotonic() - began.at_s) * 1000


def _nobody(_pks: Iterable[str]) -> None:
    pass


def _left_ms(copy: Copy, terms: Terms, now_ms: int) -> int:
    """Return for how long a copy is not old yet; less than nothing if it is."""
    ttl_ms = terms.soft_ms if copy.row is not None else terms.none_ms
    return copy.read_at_ms + shortened_ms(ttl_ms, jitter=terms.jitter, drawn=copy.drawn) - now_ms


def _key_of(want: Wanted) -> RowKey:
    return want.key


def _version(loaded: Loaded | None) -> int:
    return version_of(loaded.value) if loaded is not None else 0
