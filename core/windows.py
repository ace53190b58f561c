"""Windows and tiles: which slices of time make up a feature (SEMANTICS: Time).

A window is a run of tiles. Tiles are aligned to the epoch, UTC, and hold states that merge, so that a window slides
and decays although no event arrives. Windows of equal tile size share their tiles.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final, TypeAlias

TILES_PER_WINDOW_MIN = 12
TILES_PER_WINDOW_MAX = 24
WINDOW_MIN_MS = 5 * 60_000
WINDOW_MAX_MS = 90 * 86_400_000
FUTURE_MS: Final = 10_000
"""How far an event may be ahead of its record; one that is further is a dead letter (SEMANTICS: Time)."""
NEVER_MS: Final = 2**63 - 1
"""An instant that does not come: the end of what has no end."""


class AllTime(Enum):
    """The window without an old end."""

    ALL_TIME = "all"


ALL_TIME: Final = AllTime.ALL_TIME

Span: TypeAlias = timedelta | AllTime


def milliseconds(number: float) -> timedelta:
    """Return a duration of so many milliseconds."""
    return timedelta(milliseconds=number)


def seconds(number: float) -> timedelta:
    """Return a duration of so many seconds."""
    return timedelta(seconds=number)


def minutes(number: float) -> timedelta:
    """Return a duration of so many minutes."""
    return timedelta(minutes=number)


def hours(number: float) -> timedelta:
    """Return a duration of so many hours."""
    return timedelta(hours=number)


def days(number: float) -> timedelta:
    """Return a duration of so many days."""
    return timedelta(days=number)


def to_ms(span: timedelta) -> int:
    """Return a duration in whole milliseconds.

    >>> to_ms(seconds(2.5))
    2500
    """
    return span // timedelta(milliseconds=1)


def tile_ms_for(size_ms: int) -> int:
    """Return the tile of a window: its largest divisor in whole seconds that is at most a twelfth of it.

    Raises:
        ValueError: The window is out of bounds, no whole number of seconds, or has no divisor between a 24th and a
            12th of it, so that it would need too many tiles. The message says what to do.

    Source: SEMANTICS, Time: 25 s, 5 min, 2 h, 14 h and 7.5 d for 5 min, 1 h, 1 d, 7 d and 90 d.

    >>> [tile_ms_for(to_ms(size)) // 1000 for size in (minutes(5), hours(1), days(1), days(7), days(90))]
    [25, 300, 7200, 50400, 648000]
    """
    if not WINDOW_MIN_MS <= size_ms <= WINDOW_MAX_MS:
        raise ValueError(f"a window is between 5 minutes and 90 days long, this one has {size_ms / 1000:g} s")
    if size_ms % 1000:
        raise ValueError(f"a window is a whole number of seconds, this one has {size_ms} ms")
    for tiles in range(TILES_PER_WINDOW_MIN, TILES_PER_WINDOW_MAX + 1):
        tile_ms, rest = divmod(size_ms, tiles)
        if rest == 0 and tile_ms % 1000 == 0:
            return tile_ms
    nearest_s = round(size_ms / 12_000) * 12
    raise ValueError(
        f"no tile divides a window of {size_ms // 1000} s into 12 to 24 whole-second parts; {nearest_s} s would do"
    )


@dataclass(frozen=True, slots=True)
class Window:
    """A window of a feature, in milliseconds. ``size_ms`` and ``tile_ms`` are both 0 for all time.

    >>> hour = Window.of(hours(1))
    >>> hour.label, hour.first_tile(3_600_000 * 5), hour.last_tile(3_600_000 * 5)
    ('1h', 48, 60)
    """

    size_ms: int
    tile_ms: int

    @classmethod
    def of(cls, span: Span) -> "Window":
        """Return the window of a span.

        Raises:
            ValueError: As ``tile_ms_for``.
        """
        if isinstance(span, AllTime):
            return cls(0, 0)
        size_ms = to_ms(span)
        return cls(size_ms, tile_ms_for(size_ms))

    @property
    def label(self) -> str:
        """The suffix of a feature's name: ``1h``, ``7d``, ``all``."""
        if self.size_ms == 0:
            return "all"
        for unit, unit_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
            if self.size_ms % unit_ms == 0:
                return f"{self.size_ms // unit_ms}{unit}"
        return f"{self.size_ms // 1000}s"

    def first_tile(self, instant_ms: int) -> int:
        """Return the index of the oldest tile that is in the window at an instant; it is included whole."""
        return (instant_ms - self.size_ms) // self.tile_ms if self.tile_ms else 0

    def last_tile(self, instant_ms: int) -> int:
        """Return the index of the youngest tile that is in the window at an instant."""
        return instant_ms // self.tile_ms if self.tile_ms else 0

    def leaves_ms(self, tile: int) -> int:
        """Return the first instant at which a tile is no longer in the window.

        >>> hour = Window.of(hours(1))
        >>> hour.first_tile(hour.leaves_ms(48)), hour.first_tile(hour.leaves_ms(48) - 1)
        (49, 48)
        """
        return (tile + 1) * self.tile_ms + self.size_ms if self.tile_ms else NEVER_MS


def tile_index(event_time_ms: int, tile_ms: int) -> int:
    """Return the index of the tile that an event belongs to; all time has the single tile 0.

    >>> tile_index(299_999, 300_000), tile_index(300_000, 300_000), tile_index(5, 0)
    (0, 1, 0)
    """
    return event_time_ms // tile_ms if tile_ms else 0
