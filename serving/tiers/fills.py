"""Fills: rows that the cache does not have are read in the record, by one reader for all, and put into the cache.

The lease that a reader leaves in the cache tells the others that the row is coming; it also keeps an older row from
being put where a newer one was (``core.leases``). Nothing of it is needed to answer: without a lease the record is
asked. A lease whose holder has died is not waited for longer than a moment: one of those who wait puts its own in the
place of it and reads the record for the others. Who cannot read the record gives its lease back.

Whoever has filled a row in knows when it ends, and reads it again a moment before where its group wants that
(``serving.tiers.lifetimes``): one process does, and nobody waits.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from core.errors import FormatError, StoreError
from core.leases import NO_ROW, is_lease, new_token
from core.ports import Cache, Clock, Filling, RowKey
from core.rows import unpack_row
from serving.tiers.breaker import Breaker
from serving.tiers.lifetimes import is_due, shortened_ms
from serving.tiers.wanted import Wanted

log = logging.getLogger(__name__)

LEASE_MS = 3_000
"""More than a read of the record takes, with its wait for others; after it, another reader may fill."""
_DEADLINE_MS = 50
_LOOKS_S = (0.004, 0.008, 0.016, 0.032, 0.032)
_ROUNDS = 3
"""So often a row is waited for that is always another's to fill in, before the record is asked all the same."""
_PAST_MS = 0
_FILLED_MAX = 10_000
"""So many rows are remembered that were filled in here and are to be read again early."""


class Loaded(NamedTuple):
    """A packed row, and the name of the store that it was read in."""

    value: bytes
    tier: str


class Filled(NamedTuple):
    """A row that this process has filled in.

    Attributes:
        ends_ms: When the cache will forget it.
        load_ms: How long it took to be read.
    """

    ends_ms: int
    load_ms: float


ReadRecord = Callable[[Sequence[RowKey]], Awaitable[Mapping[RowKey, bytes]]]


class Fills:
    """Reads what the cache does not have."""

    def __init__(
        self,
        cache: Cache | None,
        read_record: ReadRecord,
        clock: Clock,
        *,
        record_name: str,
        breaker: Breaker,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Fill one cache.

        Args:
            cache: Without one there is nothing to fill.
            read_record: Reads keys consistently, within its own deadline.
            clock: Tells until when the cache may keep what it is told.
            record_name: Of the record.
            breaker: Keeps leases away from a cache that takes none.
            draw: Returns numbers from 0 on and below 1, each as likely.
        """
        self._cache = cache
        self._read_record = read_record
        self._record_name = record_name
        self._clock = clock
        self._breaker = breaker
        self._draw = draw
        self._filled: dict[RowKey, Filled] = {}

    async def load(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        """Return the packed rows that exist.

        Raises:
            StoreError: The record failed.
        """
        left = [want for want in wanted if want.terms.is_cached]
        others = [want.key for want in wanted if not want.terms.is_cached]
        found: dict[RowKey, Loaded] = {}
        token = new_token()
        for _ in range(_ROUNDS):
            held = await self._lease(self._cache, left, token) if self._cache is not None and left else None
            if self._cache is None or held is None:
                break
            coming = {want: value for want in left if is_lease(value := held.get(want.key, NO_ROW)) and value != token}
            ours = [want for want in left if held.get(want.key, token) == token]
            # What the cache has and nobody can use is passed over, and left to whoever writes the row next.
            others += [want.key for want in left if _is_row(held.get(want.key)) and not _is_of(want, held[want.key])]
            found |= _rows(held, self._cache.name, left)
            (late, left), own = await asyncio.gather(
                self._wait_for(self._cache, coming, token), self._read_and_fill(self._cache, ours, others, token)
            )
            found |= late | own
            others = []
            if not left:
                return found
        return found | await self._recorded([*(want.key for want in left), *others])

    async def recorded(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        """Return the packed rows that exist in the record, and leave the cache alone.

        Raises:
            StoreError: The record failed.
        """
        return await self._recorded([want.key for want in wanted]) if wanted else {}

    def ending(self, wanted: Iterable[Wanted]) -> list[Wanted]:
        """Return which rows of the cache shall be read again now, of those that were filled in here."""
        if not self._filled:
            return []
        ending, now_ms = [], self._clock.now_ms()
        for want in wanted:
            filled = self._filled.get(want.key)
            if filled is None:
                continue
            left_ms = filled.ends_ms - now_ms
            if left_ms < 0:
                # What the cache has now is of somebody else, who knows when it ends.
                del self._filled[want.key]
            elif is_due(left_ms, filled.load_ms, beta=want.terms.early_refresh, drawn=self._draw()):
                ending.append(want)
        return ending

    async def renew(self, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
        """Read rows of the cache again and let those that are still the same live on; return what there is.

        Raises:
            StoreError: The record failed.
        """
        for want in wanted:
            # If this fails, the row ends as if nobody had looked.
            self._filled.pop(want.key, None)
        began_ms = self._clock.now_ms()
        found = await self.recorded(wanted)
        fillings = [filling for want in wanted if (filling := self._filling(want, found.get(want.key))) is not None]
        rows = [filling for filling in fillings if filling.value != NO_ROW]
        if self._cache is not None and rows:
            try:
                renewed = await self._renewed(self._cache, rows)
            except StoreError as error:
                log.warning("rows not renewed: %s", error)
            else:
                self._note(wanted, renewed, began_ms)
        return found

    async def _renewed(self, cache: Cache, rows: Sequence[Filling]) -> Sequence[Filling]:
        """Let rows live on; return which do: what has ended or was written since is somebody else's to look after."""
        if await cache.renew(rows, deadline_ms=_DEADLINE_MS) == len(rows):
            return rows
        # Which have not is told one by one; it is seldom any.
        return [row for row in rows if await cache.renew([row], deadline_ms=_DEADLINE_MS)]

    def _note(self, wanted: Sequence[Wanted], fillings: Sequence[Filling], began_ms: int) -> None:
        """Remember what ends when, where it is to be read again before."""
        eager = {want.key for want in wanted if want.terms.early_refresh}
        load_ms = float(self._clock.now_ms() - began_ms)
        for filling in fillings:
            if filling.key in eager and filling.expires_at_ms is not None and filling.value != NO_ROW:
                self._filled.pop(filling.key, None)
                self._filled[filling.key] = Filled(filling.expires_at_ms, load_ms)
        while len(self._filled) > _FILLED_MAX:
            del self._filled[next(iter(self._filled))]

    async def _recorded(self, keys: Sequence[RowKey]) -> dict[RowKey, Loaded]:
        values = await self._read_record(keys) if keys else {}
        return {key: Loaded(value, self._record_name) for key, value in values.items()}

    async def _lease(self, cache: Cache, wanted: Sequence[Wanted], token: bytes) -> dict[RowKey, bytes] | None:
        """Return what the cache has of the keys, with our lease on the others; None if it takes none."""
        began_at = self._breaker.begin()
        if began_at is None:
            return None
        try:
            held = await cache.lease(
                [want.key for want in wanted], token=token, lease_ms=LEASE_MS, deadline_ms=_DEADLINE_MS
            )
        except StoreError as error:
            # A user who may only read is refused each time: once is enough to know.
            if not self._breaker.is_open:
                log.warning("no lease on rows: %s", error)
            self._breaker.failed(began_at)
            return None
        self._breaker.succeeded()
        return held

    async def _read_and_fill(
        self, cache: Cache, ours: Sequence[Wanted], others: Sequence[RowKey], token: bytes
    ) -> dict[RowKey, Loaded]:
        began_ms = self._clock.now_ms()
        try:
            found = await self._recorded([*(want.key for want in ours), *others])
        except StoreError:
            await self._give_back(cache, ours, token)
            raise
        fillings = [filling for want in ours if (filling := self._filling(want, found.get(want.key))) is not None]
        if fillings:
            await self._fill(cache, fillings, token)
            self._note(ours, fillings, began_ms)
        if len(fillings) < len(ours):
            filled = {filling.key for filling in fillings}
            await self._give_back(cache, [want for want in ours if want.key not in filled], token)
        return found

    async def _give_back(self, cache: Cache, wanted: Sequence[Wanted], token: bytes) -> None:
        """End our leases, so that nobody waits for them."""
        if wanted:
            await self._fill(cache, [Filling(want.key, token, _PAST_MS) for want in wanted], token)

    async def _fill(self, cache: Cache, fillings: Sequence[Filling], token: bytes) -> None:
        try:
            await cache.fill(fillings, token=token, deadline_ms=_DEADLINE_MS)
        except StoreError as error:
            # The lease ends by itself.
            log.warning("rows not filled: %s", error)

    def _filling(self, want: Wanted, loaded: Loaded | None) -> Filling | None:
        """Return what the cache may be told; nothing of a row that is not the one that is served."""
        terms, now_ms, drawn = want.terms, self._clock.now_ms(), self._draw()
        nothing_until_ms = now_ms + shortened_ms(terms.negative_ms, jitter=terms.jitter, drawn=drawn)
        if loaded is None:
            return Filling(want.key, NO_ROW, nothing_until_ms)
        if not _is_of(want, loaded.value):
            return None
        # A row that is past is as good as none.
        until_ms = max(unpack_row(loaded.value).expires_at_ms, nothing_until_ms)
        lives_ms = shortened_ms(terms.hard_ms, jitter=terms.jitter, drawn=drawn)
        return Filling(want.key, loaded.value, min(now_ms + lives_ms, until_ms))

    async def _wait_for(
        self, cache: Cache, wanted: Mapping[Wanted, bytes], token: bytes
    ) -> tuple[dict[RowKey, Loaded], list[Wanted]]:
        """Return rows that others are filling in as soon as they are there, and what is to be asked for once more.

        Args:
            cache: Where they come.
            wanted: Each with the lease that it is waited for of.
            token: What takes the place of leases that have been waited for long enough.
        """
        found: dict[RowKey, Loaded] = {}
        coming, gone, held = list(wanted), list[Wanted](), dict[RowKey, bytes]()
        for look_s in _LOOKS_S:
            if not coming:
                break
            await asyncio.sleep(look_s)
            try:
                held = await cache.read([want.key for want in coming], deadline_ms=_DEADLINE_MS)
            except StoreError:
                return found | await self.recorded([*coming, *gone]), []
            found |= _rows(held, cache.name, coming)
            # What is not there any more was given back, refused or evicted; nor would what is of no use be waited for.
            gone += [want for want in coming if not _is_known(want, held.get(want.key))]
            coming = [want for want in coming if is_lease(held.get(want.key, NO_ROW))]
        await self._take_over(cache, [want for want in coming if held[want.key] == wanted[want]], held, token)
        return found, [*coming, *gone]

    async def _take_over(
        self, cache: Cache, wanted: Sequence[Wanted], held: Mapping[RowKey, bytes], token: bytes
    ) -> None:
        """Put our lease in the place of others; the next look shows which are ours."""
        expires_at_ms = self._clock.now_ms() + LEASE_MS
        for theirs in {held[want.key] for want in wanted}:
            leases = [Filling(want.key, token, expires_at_ms) for want in wanted if held[want.key] == theirs]
            await self._fill(cache, leases, theirs)


def _rows(held: Mapping[RowKey, bytes], tier: str, wanted: Sequence[Wanted]) -> dict[RowKey, Loaded]:
    return {
        want.key: Loaded(held[want.key], tier)
        for want in wanted
        if _is_row(held.get(want.key)) and _is_of(want, held[want.key])
    }


def _is_known(want: Wanted, value: bytes | None) -> bool:
    """Whether a value of the cache says what there is, or that somebody is going to say it."""
    return value is not None and (not _is_row(value) or _is_of(want, value))


def _is_row(value: bytes | None) -> bool:
    return value is not None and value != NO_ROW and not is_lease(value)


def _is_of(want: Wanted, value: bytes) -> bool:
    """Whether a packed row can be read and is of the definition that is served."""
    try:
        return unpack_row(value).fingerprint == want.terms.fingerprint
    except FormatError:
        return False
