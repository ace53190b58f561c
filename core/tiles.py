"""Merging tiles: from states to served values at an instant. Used by the writer's head and by every later read."""

import math
from typing import Any, NamedTuple

from core.plans import GroupPlan, WindowPlan
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
    values = list(plan.empty)
    for part in plan.windows:
        tiles = tiles_of.get(part.window.tile_ms)
        if tiles:
            chosen, changes_ms = _select(part.window, tiles, instant_ms)
            valid_until_ms = min(valid_until_ms, changes_ms)
            if chosen:
                _merge(part, chosen, values)
    for place, now, usual, times, default in plan.changes:
        change = values[now] / values[usual] * times - 1 if values[usual] and values[now] is not None else None
        values[place] = change if change is not None and math.isfinite(change) else default
    return Finished(values, valid_until_ms)


def expires_at_ms(plan: GroupPlan, tail: Tail, instant_ms: int) -> int:
    """Return the first instant at which all windows are empty: the given one if they are already, or never."""
    end = instant_ms
    sizes = {resolution.tile_ms: resolution.size_max_ms for resolution in plan.resolutions}
    for tile_ms, tiles in tail:
        if tile_ms == 0:
            return NEVER_MS
        end = max(end, (tiles[-1][0] + 1) * tile_ms + sizes[tile_ms])
    return end


def _select(window: Window, tiles: list[Tile], instant_ms: int) -> tuple[list[Tile], int]:
    """Return the tiles that are in a window, and the instant at which others will be."""
    tile_ms = window.tile_ms
    if tile_ms == 0:
        return tiles, NEVER_MS
    first, last = window.first_tile(instant_ms), window.last_tile(instant_ms)
    if tiles[0][0] >= first and tiles[-1][0] <= last:
        return tiles, window.leaves_ms(tiles[0][0])
    chosen = [tile for tile in tiles if first <= tile[0] <= last]
    changes_ms = window.leaves_ms(chosen[0][0]) if chosen else NEVER_MS
    if tiles[-1][0] > last:
        # An event may be up to ten seconds ahead of its record, so its tile may begin after this instant.
        changes_ms = min(changes_ms, min(tile[0] for tile in tiles if tile[0] > last) * tile_ms)
    return chosen, changes_ms


def _merge(part: WindowPlan, tiles: list[Tile], values: list[Any]) -> None:
    """Put the results of a window into a row's values."""
    results = []
    first, *others = tiles
    for place, merge, merge_all, result in part.slots:
        state = first[place]
        if merge_all is not None:
            state = merge_all([tile[place] for tile in tiles])
        else:
            for tile in others:
                state = merge(state, tile[place])
        results.append(state if result is None else result(state))
    for place, slot, below, default in part.outputs:
        value = results[slot]
        if below is not None:
            value = value / results[below] if value is not None and results[below] else None
        if type(value) is float and not math.isfinite(value):
            # As in expressions, what has left the doubles is null: a sum of 1e308 and 1e308, 1e300 over 1e-300.
            value = None
        values[place] = default if value is None else value
