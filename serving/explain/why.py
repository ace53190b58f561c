"""Why a value has its status, in a sentence that a service's owner understands at three in the morning. Pure."""

from collections.abc import Sequence

from core.plans import ServedFeature
from core.rows import Row
from core.windows import to_ms
from serving.answers.read_plans import GroupRead
from serving.explain.tiles_shown import TilesShown
from serving.models import Part
from serving.statuses import INVALID, NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def why(
    read: GroupRead, feature: ServedFeature, row: Row | None, *, instant_ms: int, status: str, shown: TilesShown
) -> str:
    """Return why a value has its status."""
    if status == INVALID:
        return f"No store could tell, and {read.plan.name} has on_failure='default': the default is served as no value."
    if status == NOT_FOUND:
        return _why_not_found(read, row, instant_ms)
    if status == OUTSIDE_MAX_AGE and row is not None and read.plan.group.serving.max_age is not None:
        return (
            f"The newest event is {duration(instant_ms - row.event_time_ms)} old, and {read.plan.name} is served up to "
            f"a max_age of {duration(to_ms(read.plan.group.serving.max_age))}."
        )
    inside = sum(tile.in_window for tile in shown.tiles)
    if status == NULL_VALUE:
        return f"{_counted(inside, len(shown.tiles), feature)}; that is null, and the feature has no default."
    if feature.default is not None and _is_null(shown.merged):
        return f"{_counted(inside, len(shown.tiles), feature)}; that is null, so the default is served."
    return f"{_counted(inside, len(shown.tiles), feature)}; the value is what that makes."


def duration(ms: int) -> str:
    """Return a duration in its two largest units.

    >>> duration(7_380_000), duration(61_000), duration(999)
    ('2 h 3 min', '1 min 1 s', '999 ms')
    """
    for place, (unit, unit_ms) in enumerate(_UNITS):
        if ms >= unit_ms:
            whole, rest = divmod(ms, unit_ms)
            smaller = _UNITS[place + 1] if place + 1 < len(_UNITS) else None
            tail = f" {rest // smaller[1]} {smaller[0]}" if smaller is not None and rest >= smaller[1] else ""
            return f"{whole} {unit}{tail}"
    return f"{ms} ms"


def _why_not_found(read: GroupRead, row: Row | None, instant_ms: int) -> str:
    if row is None:
        return (
            f"No row {read.sk} is stored for this key: no event of {_topics(read)} has touched it, or all of its "
            "windows have emptied since; the value of nothing is served."
        )
    return (
        f"The row's last window emptied {duration(instant_ms - row.expires_at_ms)} ago, so it means nothing any more; "
        "the value of nothing is served."
    )


def _counted(inside: int, tiles: int, feature: ServedFeature) -> str:
    if feature.window.tile_ms == 0:
        return "One tile holds all time" if tiles else "Nothing has happened in all time"
    if not tiles:
        return "Nothing that the row keeps is about this window"
    if not inside:
        return "No tile that the row keeps is in the window any more"
    if tiles == 1:
        return "The one tile that the row keeps is in the window"
    if inside == tiles:
        return f"All {tiles} tiles that the row keeps are in the window"
    return f"{inside} of the {tiles} tiles that the row keeps {'is' if inside == 1 else 'are'} in the window"


def _is_null(merged: Sequence[Part]) -> bool:
    """Whether a result is null, or what another is divided by is 0."""
    return any(part.result is None for part in merged) or (len(merged) > 1 and not merged[1].result)


def _topics(read: GroupRead) -> str:
    return ", ".join(source.topic for source in read.plan.group.sources)
