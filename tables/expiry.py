"""Which rows are past: out of every window, so that they may be removed everywhere (SEMANTICS: Keys).

A row is past when its partition's progress (record time) has left its newest record so far behind that nothing the row
has ever seen is in a window. Whatever it saw was at most ``FUTURE_MS`` ahead of its record, so even a repetition that
comes after the row, and with it its stamps, is gone falls into tiles that no reader looks at: removal cannot make
anything count twice (docs/decisions/0024-removing-rows.md). Rows of a group with an all-time window are never past.

Keys wait in buckets by the record time at which they were noted, each once; a bucket that is due is looked through a
few keys at a time, and a row that was touched meanwhile is noted again. That costs a list's slot a key, in memory; on
disk the key once more.
"""

from collections.abc import Callable, Iterator

from core.plans import GroupPlan
from core.windows import FUTURE_MS
from tables.engine import MEMORY, Engine, KeyQueue

_BUCKETS = 16


class Expiry:
    """The keys of one group in the order in which they may become past.

    >>> expiry = Expiry(160)
    >>> expiry.note("i1", 5)
    >>> list(expiry.take(progress_ms=169, limit=10)), list(expiry.take(progress_ms=180, limit=10))
    ([], ['i1'])
    """

    def __init__(self, keep_ms: int | None, new_bucket: Callable[[], KeyQueue] = MEMORY.keys) -> None:
        self.keep_ms = keep_ms
        self._new_bucket = new_bucket
        self._width_ms = max((keep_ms or 0) // _BUCKETS, 1)
        self._buckets: dict[int, KeyQueue] = {}

    @classmethod
    def of(cls, plan: GroupPlan, engine: Engine) -> "Expiry":
        """Return the expiry of a group's rows."""
        return cls(keep_ms(plan), engine.keys)

    def note(self, key: str, as_of_ms: int) -> None:
        """Note a key that is not noted; its row's newest record is from this instant, or from an earlier one."""
        if self.keep_ms is not None:
            number = as_of_ms // self._width_ms
            bucket = self._buckets.get(number)
            if bucket is None:
                bucket = self._buckets[number] = self._new_bucket()
            bucket.append(key)

    def take(self, *, progress_ms: int, limit: int) -> Iterator[str]:
        """Yield keys that may be past, at most so many, and forget them: whoever keeps a row notes it again."""
        if self.keep_ms is None:
            return
        last = (progress_ms - self.keep_ms) // self._width_ms
        for number in sorted(number for number in self._buckets if number < last):
            bucket = self._buckets[number]
            while bucket:
                if limit <= 0:
                    return
                limit -= 1
                yield bucket.pop()
            del self._buckets[number]

    def is_past(self, as_of_ms: int, *, progress_ms: int) -> bool:
        """Return whether a row whose newest record is from an instant is past."""
        return self.keep_ms is not None and as_of_ms + self.keep_ms <= progress_ms


def keep_ms(plan: GroupPlan) -> int | None:
    """Return how long a row is kept after its newest record, or None for ever.

    Its largest window, and two tiles: one that is included whole, and one more than needed, as tiles are kept.
    """
    if any(resolution.tile_ms == 0 for resolution in plan.resolutions):
        return None
    return FUTURE_MS + max(resolution.size_max_ms + 2 * resolution.tile_ms for resolution in plan.resolutions)
