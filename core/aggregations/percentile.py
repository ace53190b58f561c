"""Percentiles, approximately, with a histogram whose buckets grow with the values.

The sketches of Apache DataSketches for quantiles (KLL, REQ) throw coins, and t-digest depends on the order of adding,
so that neither gives two owners of a row the same bytes; a histogram with fixed buckets does
(docs/decisions/0017-sketches-that-merge-exactly.md).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

from core.aggregations.port import COUNT_BYTES, NUMBERS, Aggregation, State
from core.problems import Problem
from core.values import ValueType

_BUCKET_BYTES = 5
_PERCENTS_MAX = 100


@dataclass(frozen=True, slots=True)
class ApproxPercentile(Aggregation):
    """A percentile, nearly, a float; of several percents the list of theirs, from one state. Of nothing it is null.

    The percentile p of n values is the one of rank ceil(p / 100 * n), counted from the smallest. What is served is the
    middle of its bucket. Each doubling of the values is divided into ``steps`` buckets of equal width, so the error is
    at most 1 / (2 * steps) of the value. The ``buckets`` largest that have values in them are kept, whatever their
    sign; values that are nearer to 0 than these count as 0: with the defaults that begins at a 65,000th of the largest.

    Attributes:
        percents: From 0 to 100; a number for one, a tuple for a list.
        steps: 8, 16, 32 or 64: an error of 6.3, 3.1, 1.6 or 0.8 %.
        buckets: 2 to 1,024.

    Source: the layout of HdrHistogram; the limit of buckets is that of DDSketch, Masson et al., VLDB 2019.
    """

    accepts: ClassVar[frozenset[ValueType]] = NUMBERS
    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {"steps": (8, 64), "buckets": (2, 1024)}
    exactness: ClassVar[str] = "within 1 / (2 * `steps`) of the value, 3.1 % by default"

    percents: float | tuple[float, ...] = 50
    steps: int = 16
    buckets: int = 256

    def zero(self) -> State:
        """Return the number of zeros, the largest bucket that counts as 0 or null, and no buckets."""
        return [0, None, {}]

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Count one value in its bucket."""
        if not value:
            state[0] += 1
            return state
        # All of this is exact, unlike a logarithm: the same value is in the same bucket on every machine.
        fraction, exponent = math.frexp(value)
        index = exponent * self.steps + int((2 * abs(fraction) - 1) * self.steps)
        bucket = 2 * index + (value < 0)
        floor, counts = state[1], state[2]
        if floor is not None and bucket <= floor:
            state[0] += 1
            return state
        counts[bucket] = counts.get(bucket, 0) + 1
        return self._limited(state)

    def merge(self, left: State, right: State) -> State:
        """Add up per bucket."""
        return self.merge_all((left, right))

    def merge_all(self, states: Sequence[State]) -> State:
        """Add up per bucket."""
        counts: dict[int, int] = {}
        for state in states:
            for bucket, count in state[2].items():
                counts[bucket] = counts.get(bucket, 0) + count
        floor = max((state[1] for state in states if state[1] is not None), default=None)
        below = [] if floor is None else [bucket for bucket in counts if bucket <= floor]
        zeros = sum(state[0] for state in states) + sum(counts.pop(bucket) for bucket in below)
        return self._limited([zeros, floor, counts])

    def result(self, state: State) -> Any:
        """Return the middles of the buckets in which the percentiles are."""
        counts = state[2]
        total = state[0] + sum(counts.values())
        if not total:
            return None
        # An odd bucket is negative, and the farther from 0 the smaller.
        ordered = [*sorted((bucket for bucket in counts if bucket % 2), reverse=True), None]
        ordered += sorted(bucket for bucket in counts if bucket % 2 == 0)
        ranks = list(accumulate(state[0] if bucket is None else counts[bucket] for bucket in ordered))
        found = []
        for percent in self._percents:
            rank = max(1, math.ceil(total * percent / 100))
            bucket = next(bucket for bucket, last in zip(ordered, ranks, strict=True) if last >= rank)
            found.append(0.0 if bucket is None else self._middle(bucket))
        return found if isinstance(self.percents, tuple) else found[0]

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return float, or list for a tuple of percents."""
        return ValueType.LIST if isinstance(self.percents, tuple) else ValueType.FLOAT

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return the size of as many buckets as there may be, or of the result if that is larger."""
        kept = 4 + COUNT_BYTES + _BUCKET_BYTES + self.buckets * (_BUCKET_BYTES + COUNT_BYTES)
        return max(kept, 3 + 9 * len(list(self._percents)))

    def problems(self, where: str) -> list[Problem]:
        """Report settings that cannot be."""
        problems = Aggregation.problems(self, where)
        if not problems and self.steps & (self.steps - 1):
            problems.append(Problem(where, f"steps of ApproxPercentile is {self.steps}", remedy="give 8, 16, 32 or 64"))
        percents: Any = self.percents if isinstance(self.percents, tuple) else (self.percents,)
        if not 1 <= len(percents) <= _PERCENTS_MAX or not all(_is_percent(percent) for percent in percents):
            remedy = f"give a number from 0 to 100, or a tuple of at most {_PERCENTS_MAX} of them"
            problems.append(Problem(where, f"percents of ApproxPercentile is {self.percents!r}", remedy=remedy))
        return problems

    @property
    def _percents(self) -> Iterable[float]:
        return self.percents if isinstance(self.percents, tuple) else (self.percents,)

    def _limited(self, state: State) -> State:
        counts = state[2]
        if len(counts) > self.buckets:
            for bucket in sorted(counts)[: len(counts) - self.buckets]:
                state[0] += counts.pop(bucket)
                state[1] = bucket
        return state

    def _middle(self, bucket: int) -> float:
        octave, step = divmod(bucket // 2, self.steps)
        size = math.ldexp(0.5 + (step + 0.5) / (2 * self.steps), octave)
        return -size if bucket % 2 else size


def _is_percent(percent: Any) -> bool:
    return type(percent) in (int, float) and 0 <= percent <= 100
