"""Aggregations: how many values become one feature.

States, not results, are kept in tiles, because states merge and results do not: the mean of two means is wrong.
Every state, once packed, is made of what msgpack can carry. Nulls are skipped, except by ``Latest``, for which null is
a state too. Adding in any order gives one state; ``ApproxTopK`` alone needs few enough values for that.

To add one, write the class in the module that it belongs to and append it to ``AGGREGATIONS``; law, codec and oracle
tests find it there.
"""

from core.aggregations.arithmetic import Count, Max, Mean, Min, StdDev, Sum, Variance
from core.aggregations.distinct import ApproxDistinct
from core.aggregations.order import First, Last, LastN, Latest
from core.aggregations.percentile import ApproxPercentile
from core.aggregations.port import Aggregation, State
from core.aggregations.top import ApproxTopK, TopK

__all__ = [
    "AGGREGATIONS", "Aggregation", "ApproxDistinct", "ApproxPercentile", "ApproxTopK", "Count", "First", "Last",
    "LastN", "Latest", "Max", "Mean", "Min", "State", "StdDev", "Sum", "TopK", "Variance",
]  # fmt: skip

AGGREGATIONS: tuple[type[Aggregation], ...] = (
    Count, Sum, Mean, Variance, StdDev, Min, Max, First, Last, Latest, LastN, TopK, ApproxTopK, ApproxDistinct,
    ApproxPercentile,
)  # fmt: skip
