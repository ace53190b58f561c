"""Lifetimes: when a copy ends, and when it is read again before that, so that nobody has to wait for it. Pure.

Copies that were made together would all end in one moment: each ends earlier by a part of its time that is its own.

Whoever reads a copy shortly before its end may read it again for everybody, and is answered from it all the same
(XFetch: Vattani, Chierichetti, Lowenstein, PVLDB 8(8), 2015): when ``now - load * beta * ln(u) >= end``, u uniform in
(0, 1]. The longer reading takes and the more ask, the earlier somebody does.
"""

import math
from typing import NamedTuple

from core.windows import NEVER_MS

LOAD_MS_MIN, LOAD_MS_MAX = 20, 1_000
"""A load that takes no time has to be begun while somebody asks; an outage is not remembered as what a load takes."""
_CHANCE_MIN = 1e-3
"""Chances below this are not waited for: it makes the time in which anybody has to look finite."""


class Life(NamedTuple):
    """How a copy ages.

    Attributes:
        sure_until_ms: Until then nobody has to look at its age: it is neither old nor to be read again.
        drawn: Its own part of its policy's jitter, from 0 to 1.
        load_ms: How long it took to be read.
    """

    sure_until_ms: int
    drawn: float
    load_ms: float


ENDLESS = Life(NEVER_MS, 0.0, 0.0)


def shortened_ms(ttl_ms: int, *, jitter: float, drawn: float) -> int:
    """Return how long one copy lives.

    Args:
        ttl_ms: What the policy says.
        jitter: By up to which share it ends earlier.
        drawn: The copy's own part of that, from 0 to 1.

    >>> shortened_ms(30_000, jitter=0.1, drawn=0.5)
    28500
    """
    return ttl_ms - int(ttl_ms * jitter * drawn)


def lead_ms_max(load_ms: float, *, beta: float) -> float:
    """Return how long before its end a copy may be read again at the earliest.

    >>> round(lead_ms_max(5, beta=1)), round(lead_ms_max(60_000, beta=1)), lead_ms_max(5, beta=0)
    (138, 6908, 0.0)
    """
    return _lead_ms(load_ms, beta, _CHANCE_MIN)


def is_due(left_ms: float, load_ms: float, *, beta: float, drawn: float) -> bool:
    """Whether a reader reads a copy again that lives for so long yet.

    Args:
        left_ms: Until its end.
        load_ms: How long it took to be read.
        beta: How eager readers are; 0 for not at all.
        drawn: The reader's own chance, from 0 on and below 1.

    >>> is_due(40, 50, beta=1, drawn=0.5), is_due(30, 50, beta=1, drawn=0.5), is_due(0, 50, beta=0, drawn=0.999)
    (False, True, False)
    """
    return beta > 0 and left_ms <= _lead_ms(load_ms, beta, max(1 - drawn, _CHANCE_MIN))


def _lead_ms(load_ms: float, beta: float, chance: float) -> float:
    return -min(max(load_ms, LOAD_MS_MIN), LOAD_MS_MAX) * beta * math.log(chance) if beta else 0.0
