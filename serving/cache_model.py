"""A model of the tiers: where each read of a log would have been answered, under given policies and sizes. Pure.

Policies are chosen by numbers from one's own reads instead of by feeling: the model has the rules of ``serving.tiers``
for copies, their age and the cache's, and an eviction by least recent use for both. It knows neither ``jitter`` nor
``early_refresh``, ``negative_ttl`` or ``preload``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cachebox import LRUCache
from xxhash import xxh3_64_intdigest

from core.definitions import FeatureGroup
from core.windows import to_ms

_COPY_BYTES = 200
_CACHED_BYTES = 100
"""What a copy in a worker and an entry in Redis cost beside the row."""


LOAD_MS = 20
"""How long a row is loaded."""


class Access(NamedTuple):
    """A line of the log.

    Attributes:
        is_write: Whether the row was changed then, or read.
        size: Bytes of the row.
    """

    time_ms: int
    group: str
    key: str
    is_write: bool
    size: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the tiers have.

    Attributes:
        local_bytes: For copies, in each worker.
        redis_bytes: Of all Redis servers.
        workers: How many aggregate and serve. A worker keeps copies of the keys that it owns, and of all keys of groups
            that are ``local``; reads meet any.
    """

    local_bytes: int
    redis_bytes: int
    workers: int = 1


@dataclass(slots=True)
class Outcome:
    """What became of a log.

    Attributes:
        tiers: Reads by group and by the tier that has answered: ``local``, ``redis`` or ``record``.
        ends: How often something that was there was of no use any more, by tier: it was too old.
        loads: How many loads followed these ends, by tier, had no reader waited for another's.
        ages: Reads that a copy has answered, by its age in whole seconds.
        untold: Reads that a copy would have answered wrongly had no change been told, by how long ago, in whole
            seconds, the first change was that it lacked.
        local_peak: Bytes of copies, all workers together, at most.
        redis_peak: Bytes in Redis at most.
    """

    tiers: dict[str, Counter[str]] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    loads: Counter[str] = field(default_factory=Counter)
    ages: Counter[int] = field(default_factory=Counter)
    untold: Counter[int] = field(default_factory=Counter)
    local_peak: int = 0
    redis_peak: int = 0

    @property
    def reads(self) -> int:
        """All reads."""
        return sum(counter.total() for counter in self.tiers.values())

    def share(self, tier: str) -> float:
        """Return the share of reads that a tier has answered."""
        return sum(counter[tier] for counter in self.tiers.values()) / self.reads if self.reads else 0.0


@dataclass(slots=True)
class _Untold:
    """A copy in a worker that is told of no change: it ends by its age alone.

    Attributes:
        changed_ms: When the row was first changed since, or None.
    """

    read_at_ms: int
    changed_ms: int | None = None


class CacheModel:
    """The tiers while a log goes through them."""

    def __init__(self, groups: Mapping[str, FeatureGroup], sizes: Sizes) -> None:
        self._groups = groups
        self._workers = sizes.workers
        self._local: LRUCache[tuple[str, str], tuple[int, int]]
        self._local = LRUCache(maxsize=max(sizes.local_bytes * sizes.workers, 1), getsizeof=_size)
        self._redis: LRUCache[tuple[str, str], tuple[int, int]]
        self._redis = LRUCache(maxsize=max(sizes.redis_bytes, 1), getsizeof=_size)
        self._untold: dict[tuple[str, str], _Untold] = {}
        self._loading: dict[tuple[str, str], tuple[str, int]] = {}
        self._number = 0
        self.outcome = Outcome()

    def take(self, access: Access) -> None:
        """Let a line of the log happen."""
        group = self._groups[access.group]
        if access.is_write:
            self._write(group, access)
        else:
            self._number += 1
            counter = self.outcome.tiers.setdefault(access.group, Counter())
            counter[self._read(group, access)] += 1
        self.outcome.local_peak = max(self.outcome.local_peak, self._local.current_size())
        self.outcome.redis_peak = max(self.outcome.redis_peak, self._redis.current_size())

    def _write(self, group: FeatureGroup, access: Access) -> None:
        place = access.group, access.key
        if place in self._local:
            del self._local[place]
        if (copy := self._untold.get(place)) is not None and copy.changed_ms is None:
            copy.changed_ms = access.time_ms
        if group.writing.cached and group.serving.tier != "direct":
            _put(self._redis, place, access.time_ms, access.size + _CACHED_BYTES)

    def _read(self, group: FeatureGroup, access: Access) -> str:
        """Return the tier that answers a read, and keep what it leaves behind."""
        policy = group.serving
        if policy.tier == "direct":
            return "record"
        place = access.group, access.key
        # Reads meet any worker; one in so many meets the key's owner, whose copy a change ends. Not in turn: groups are
        # read in the same order by each request, so that each of four would always meet the same of four workers.
        worker = xxh3_64_intdigest(self._number.to_bytes(8, "little")) % self._workers
        copy = place if worker == 0 else (access.group, f"{access.key} of {worker}")
        has_copies = worker == 0 or policy.tier == "local"
        for one in {place, copy} & self._loading.keys():
            self._join(one, access.time_ms)
        if worker == 0:
            self._read_untold(place, access.time_ms, to_ms(policy.soft_ttl))
        if has_copies and self._has(self._local, copy, access.time_ms, to_ms(policy.soft_ttl), "local"):
            self.outcome.ages[(access.time_ms - self._local[copy][0]) // 1_000] += 1
            return "local"
        if has_copies:
            _put(self._local, copy, access.time_ms, access.size + _COPY_BYTES)
        if not group.writing.cached:
            return "record"
        if self._has(self._redis, place, access.time_ms, to_ms(policy.hard_ttl), "redis"):
            return "redis"
        _put(self._redis, place, access.time_ms, access.size + _CACHED_BYTES)
        return "record"

    def _has(
        self,
        tier: "LRUCache[tuple[str, str], tuple[int, int]]",
        place: tuple[str, str],
        now_ms: int,
        ttl_ms: int,
        name: str,
    ) -> bool:
        if place not in tier:
            return False
        if now_ms - tier[place][0] > ttl_ms:
            self.outcome.ends[name] += 1
            self.outcome.loads[name] += 1
            self._loading[place] = (name, now_ms + LOAD_MS)
            return False
        return True

    def _join(self, place: tuple[str, str], now_ms: int) -> None:
        """Count a read that comes while a row is loaded anew: without the other's load it would need its own."""
        name, until_ms = self._loading[place]
        if now_ms < until_ms:
            self.outcome.loads[name] += 1
        else:
            del self._loading[place]

    def _read_untold(self, place: tuple[str, str], now_ms: int, soft_ms: int) -> None:
        copy = self._untold.get(place)
        if copy is None or now_ms - copy.read_at_ms > soft_ms:
            self._untold[place] = _Untold(now_ms)
        elif copy.changed_ms is not None:
            self.outcome.untold[(now_ms - copy.changed_ms) // 1_000] += 1


def run_model(groups: Mapping[str, FeatureGroup], sizes: Sizes, log: Iterable[Access]) -> Outcome:
    """Return what becomes of a log, which is in the order of time."""
    model = CacheModel(groups, sizes)
    for access in log:
        model.take(access)
    return model.outcome


def _size(_: object, held: tuple[int, int]) -> int:
    return held[1]


def _put(tier: "LRUCache[tuple[str, str], tuple[int, int]]", place: tuple[str, str], time_ms: int, size: int) -> None:
    if size <= tier.maxsize:
        tier[place] = (time_ms, size)
