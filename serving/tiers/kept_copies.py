"""Kept copies: of which rows this process keeps copies, for how long, and which of them it may serve."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from core.ports import Clock, RowKey
from core.rows import Row
from serving.tiers.lifetimes import Life, is_due, lead_ms_max, shortened_ms
from serving.tiers.local import Copy, LocalCopies
from serving.tiers.served_rows import ServedRows
from serving.tiers.wanted import Terms, Wanted


class KeptCopies:
    """Copies of rows, as the terms of their groups want them."""

    def __init__(
        self,
        local: LocalCopies | None,
        served: ServedRows,
        clock: Clock,
        *,
        hears: Callable[[], bool],
        draw: Callable[[], float],
    ) -> None:
        """Keep copies.

        Args:
            local: Where, if this process keeps any.
            served: Tells below which version nothing is served.
            clock: Tells how old copies are.
            hears: Whether this process is sure to write the rows that it has copies of, so that it knows of changes.
            draw: Returns numbers from 0 on and below 1, each as likely: they spread when copies end and are read again.
        """
        self._local = local
        self._served = served
        self._clock = clock
        self._hears = hears
        self._draw = draw
        if local is not None:
            served.watch(local.drop_older)

    @property
    def are_kept(self) -> bool:
        """Whether this process keeps copies at all."""
        return self._local is not None

    def hears(self) -> bool:
        """Whether this process hears of changes of what it owns: nobody can have taken it over."""
        return self._hears()

    def watch(self, *, changed: Callable[[Iterable[str]], None], cleared: Callable[[], None]) -> None:
        """Tell somebody of changes of copies, as ``LocalCopies.watch`` says."""
        if self._local is not None:
            self._local.watch(changed=changed, cleared=cleared)

    def reading(self) -> AbstractContextManager[None]:
        """Mark a read of rows, from before they are read until copies of them are kept."""
        return self._local.reading() if self._local is not None else nullcontext()

    # -- finding

    def may_hold(self, terms: Terms) -> bool:
        """Whether this process keeps copies of a group's rows at all."""
        return self._local is not None and terms.is_copied and (terms.is_held or self._local.hears)

    def sure(self, keys: Sequence[RowKey], *, now_ms: int) -> list[Copy] | None:
        """Return what is known here of rows, or None if anything is not surely known."""
        return self._local.get_all(keys, now_ms=now_ms) if self._local is not None else None

    def use(self, key: RowKey, copy: Copy) -> None:
        """Note that a copy was of use, as ``LocalCopies.use`` says."""
        if self._local is not None:
            self._local.use(key, copy)

    def find(self, wanted: Iterable[Wanted]) -> tuple[dict[RowKey, Copy], list[Wanted]]:
        """Return copies that are not old yet, and those of them that are better read again now."""
        found: dict[RowKey, Copy] = {}
        ending: list[Wanted] = []
        if self._local is None:
            return found, ending
        now_ms = self._clock.now_ms()
        for want in wanted:
            oldest_ms, oldest_none_ms = now_ms - want.terms.soft_ms, now_ms - want.terms.none_ms
            copy = self._local.get(want.key, now_ms=now_ms, oldest_ms=oldest_ms, oldest_none_ms=oldest_none_ms)
            if copy is None:
                continue
            if copy.sure_until_ms < now_ms:
                left_ms = _left_ms(copy, want.terms, now_ms)
                if left_ms < 0:
                    continue
                if is_due(left_ms, copy.load_ms, beta=want.terms.early_refresh, drawn=self._draw()):
                    ending.append(want)
            found[want.key] = copy
        return found, ending

    def find_old(self, wanted: Iterable[Wanted]) -> dict[RowKey, Copy]:
        """Return copies that are old and not too old, for while the record fails.

        Only of rows that nobody else writes, or of which each reader may have an old one.
        """
        found: dict[RowKey, Copy] = {}
        if self._local is None:
            return found
        now_ms, hears = self._clock.now_ms(), self._hears()
        for want in wanted:
            terms = want.terms
            oldest_ms = now_ms - terms.hard_ms
            copy = self._local.get(want.key, now_ms=now_ms, oldest_ms=oldest_ms, oldest_none_ms=oldest_ms)
            if copy is None or not (hears or terms.is_held) or self._served.is_below_floor(want.key, copy.row):
                continue
            if now_ms - copy.read_at_ms > shortened_ms(terms.hard_ms, jitter=terms.jitter, drawn=copy.drawn):
                continue
            found[want.key] = copy
        return found

    def untold(self, copies: Mapping[RowKey, Copy]) -> Collection[RowKey]:
        """Return the keys of copies that may lack what their partitions' progress speaks of."""
        hears = self._hears()
        return [key for key, copy in copies.items() if not (hears and copy.is_told)]

    # -- keeping

    def has_room(self, size: int) -> bool:
        """Whether a row of so many bytes takes the place of no other copy."""
        return self._local is not None and self._local.has_room(size)

    def keep(self, want: Wanted, row: Row, size: int, *, read_at_ms: int, load_ms: float) -> None:
        """Keep a copy of a row, if its group wants that.

        Args:
            want: What was asked for.
            row: What there was.
            size: Bytes of it.
            read_at_ms: When its store was asked.
            load_ms: How long it took to answer.
        """
        terms = want.terms
        if self._local is None or not terms.is_copied:
            return
        if row.fingerprint != terms.fingerprint or self._served.is_below_floor(want.key, row):
            return
        # Whoever began the load may have gone: the copy is served without anybody having decoded the row.
        self._served.serve(want.key, row.ver)
        drawn = self._draw()
        ends_ms = read_at_ms + shortened_ms(terms.soft_ms, jitter=terms.jitter, drawn=drawn)
        life = Life(ends_ms - math.ceil(lead_ms_max(load_ms, beta=terms.early_refresh)), drawn, load_ms)
        self._local.put(want.key, row, size=size, read_at_ms=read_at_ms, life=life, is_held=terms.is_held)

    def keep_none(self, want: Wanted, *, read_at_ms: int) -> None:
        """Keep that there is no row, if its group wants that."""
        terms = want.terms
        # A load that began before the row was written may land after one that has found it.
        if self._local is None or not terms.is_copied or self._served.is_below_floor(want.key, None):
            return
        drawn = self._draw()
        life = Life(read_at_ms + shortened_ms(terms.none_ms, jitter=terms.jitter, drawn=drawn), drawn, 0.0)
        self._local.put_none(want.key, read_at_ms=read_at_ms, life=life, is_held=terms.is_held)


def _left_ms(copy: Copy, terms: Terms, now_ms: int) -> int:
    """Return for how long a copy is not old yet; less than nothing if it is."""
    ttl_ms = terms.soft_ms if copy.row is not None else terms.none_ms
    return copy.read_at_ms + shortened_ms(ttl_ms, jitter=terms.jitter, drawn=copy.drawn) - now_ms
