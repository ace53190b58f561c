"""Aggregations: how many values become one feature.

States, not results, are kept in tiles, because states merge and results do not: the mean of two means is wrong.
Every state is made of what msgpack can carry. Nulls are skipped, except by ``Latest``, for which null is a state too.
Adding in any order gives one state.

To add one, write the class in the module that it belongs to and append it to ``AGGREGATIONS``; law, codec and oracle
tests find it there.
"""

from core.aggregations.arithmetic import Count, Max, Mean, Min, Sum
from core.aggregations.order import Last, LastN, Latest
from core.aggregations.port import Aggregation, State

__all__ = [
    "AGGREGATIONS", "Aggregation", "Count", "Last", "LastN", "Latest", "Max", "Mean", "Min", "State", "Sum",
]  # fmt: skip

AGGREGATIONS: tuple[type[Aggregation], ...] = (Count, Sum, Mean, Min, Max, Last, Latest, LastN)
