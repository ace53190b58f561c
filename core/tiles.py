"""Merging tiles: from states to served values at an instant. Used by the writer's head and by every later read."""

import math
from typing import Any, NamedTuple

from core.plans import GroupPlan, Resolution, ServedFeature
from core.rows import Tail, Tile
from core.windows import NEVER_MS, Window


class Finished(NamedTuple):
    """Values of a row at an instant.

    Attributes:
        values: In the order of the features' names.
        valid_until_ms: First instant at which a tile enters or leaves one of the windows.
    """

    values: list[Any]
    valid_until_ms: int


def finish(plan: GroupPlan, tail: Tail, instant_ms: int) -> Finished:
    """Merge the tiles that are in each window at an instant.

    The window online (SEMANTICS: Time): the tiles with floor(t - size) <= start <= t, as they stand.
    """
    tiles_of = dict(tail)
    valid_until_ms = NEVER_MS
    selected: dict[tuple[int, int], list[Tile]] = {}
    for number, resolution in enumerate(plan.resolutions):
        tiles = tiles_of.get(resolution.tile_ms, [])
        for window in resolution.windows:
            chosen, changes_ms = _select(window, tiles, instant_ms)
            selected[number, window.size_ms] = chosen
            valid_until_ms = min(valid_until_ms, changes_ms)
    values = [
        _value(feature, plan.resolutions[feature.resolution], selected[feature.resolution, feature.window.size_ms])
        for feature in plan.features
    ]
    return Finished(values, valid_until_ms)


def expires_at_ms(plan: GroupPlan, tail: Tail, instant_ms: int) -> int:
    """Return the first instant at which all windows are empty: the given one if they are already, or never."""
    ends = [instant_ms]
    tiles_of = dict(tail)
    for resolution in plan.resolutions:
        tiles = tiles_of.get(resolution.tile_ms)
        if tiles:
            ends.append(max(window.leaves_ms(tiles[-1][0]) for window in resolution.windows))
    return max(ends)


def _select(window: Window, tiles: list[Tile], instant_ms: int) -> tuple[list[Tile], int]:
    first, last = window.first_tile(instant_ms), window.last_tile(instant_ms)
    chosen = [tile for tile in tiles if first <= tile[0] <= last]
    changes_ms = window.leaves_ms(chosen[0][0]) if chosen else NEVER_MS
    if tiles and tiles[-1][0] > last:
        # An event may be up to ten seconds ahead of its record, so its tile may begin after this instant.
        changes_ms = min(changes_ms, min(tile[0] for tile in tiles if tile[0] > last) * window.tile_ms)
    return chosen, changes_ms


def _value(feature: ServedFeature, resolution: Resolution, tiles: list[Tile]) -> Any:
    value = _merged(resolution, feature.slot, tiles)
    if feature.denominator is not None:
        below = _merged(resolution, feature.denominator, tiles)
        value = value / below if value is not None and below else None
    if type(value) is float and not math.isfinite(value):
        # As in expressions, what has left the doubles is null: a sum of 1e308 and 1e308, a ratio of 1e300 to 1e-300.
        value = None
    return feature.default if value is None else value


def _merged(resolution: Resolution, slot: int, tiles: list[Tile]) -> Any:
    aggregation = resolution.slots[slot].aggregation
    if not tiles:
        return aggregation.result(aggregation.zero())
    state = tiles[0][slot + 1]
    for tile in tiles[1:]:
        state = aggregation.merge(state, tile[slot + 1])
    return aggregation.result(state)
