"""Shapes of growth: a fitted exponent or a ratio beside what is asked of it. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression

LINEAR_OFF_MAX = 0.1
"""By how much the exponent of what is linear may be off."""
FLAT_MAX = 1.3
"""By how much what is flat may differ from one end to the other."""
OVERHEAD_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """What was found, and what is asked.

    Attributes:
        name: As in the last line of JSON.
        asked: In words, with the limit.
    """

    name: str
    found: float
    asked: str
    is_met: bool


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the power of the size that costs grow with: the slope of a line through their logarithms.

    >>> exponent([1, 2, 4], [3, 6, 12]), exponent([1, 10, 100], [5, 5, 5])
    (1.0, 0.0)
    """
    line = linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs])
    return round(line.slope, 3)


def linear(name: str, sizes: Sequence[float], costs: Sequence[float]) -> Shape:
    """Ask for an exponent of one.

    >>> linear("slope", [1, 2], [1, 4])
    Shape(name='slope', found=2.0, asked='linear: 0.9 to 1.1', is_met=False)
    """
    found = exponent(sizes, costs)
    asked = f"linear: {1 - LINEAR_OFF_MAX:g} to {1 + LINEAR_OFF_MAX:g}"
    return Shape(name, found, asked, abs(found - 1) <= LINEAR_OFF_MAX)


def sub_linear(name: str, sizes: Sequence[float], costs: Sequence[float]) -> Shape:
    """Ask for an exponent below one.

    >>> sub_linear("slope", [1, 4], [1, 2])
    Shape(name='slope', found=0.5, asked='sub-linear: below 1', is_met=True)
    """
    found = exponent(sizes, costs)
    return Shape(name, found, "sub-linear: below 1", found < 1)


def flat(name: str, ratio: float) -> Shape:
    """Ask that something is not dearer than something else, but for a bit.

    >>> flat("ratio", 1.2345)
    Shape(name='ratio', found=1.23, asked='flat: at most 1.3', is_met=True)
    """
    return Shape(name, round(ratio, 2), f"flat: at most {FLAT_MAX:g}", ratio <= FLAT_MAX)


def small(name: str, found_bytes: float) -> Shape:
    """Ask that a row has little beside its bytes.

    >>> small("overhead", 2000.4)
    Shape(name='overhead', found=2000, asked='at most 1,024 bytes', is_met=False)
    """
    return Shape(name, round(found_bytes), f"at most {OVERHEAD_BYTES_MAX:,} bytes", found_bytes <= OVERHEAD_BYTES_MAX)
