"""Tiles for people: which are in a feature's window at an instant, and what each of them adds. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from core.aggregations import Aggregation
from core.plans import GroupPlan, Resolution, ServedFeature, parts_of
from core.rows import Row, Tile, unpack_tail
from core.windows import Window
from serving.models import Part, TileShown, WindowShown

ITEMS_MAX = 50
"""A list of a thousand in each of twenty tiles would be more than anyone reads."""


class TilesShown(NamedTuple):
    """A window with its tiles, and what they merge to."""

    window: WindowShown
    tiles: list[TileShown]
    merged: list[Part]


class _Column(NamedTuple):
    """A state of a tile that takes part in a feature."""

    name: str
    place: int
    aggregation: Aggregation


def show_tiles(plan: GroupPlan, place: int, row: Row | None, instant_ms: int) -> TilesShown:
    """Return the tiles of a feature, and which of them a read at an instant merges.

    Of a change these are the tiles of its subject over the window; what they merge to stands beside what those of the
    longer window do.

    Args:
        plan: The group's.
        place: The feature's, among the plan's.
        row: The key's row, or None if there is none.
        instant_ms: When.

    Raises:
        FormatError: The row's tail cannot be read.
    """
    for change in plan.changes:
        if change.place == place:
            parts = [plan.features[part] for part in (change.now, change.usual)]
            now, usual = (_show_feature(plan, part, [part.name], row, instant_ms) for part in parts)
            return now._replace(merged=[*now.merged, *usual.merged])
    feature = plan.features[place]
    return _show_feature(plan, feature, parts_of(feature.definition), row, instant_ms)


def _show_feature(
    plan: GroupPlan, feature: ServedFeature, names: Sequence[str], row: Row | None, instant_ms: int
) -> TilesShown:
    window = feature.window
    tiles = dict(unpack_tail(row)).get(window.tile_ms, []) if row is not None else []
    first, last = window.first_tile(instant_ms), window.last_tile(instant_ms)
    chosen = [tile for tile in tiles if first <= tile[0] <= last]
    columns = list(_columns(plan.resolutions[feature.resolution], feature, names))
    return TilesShown(
        _show_window(window, instant_ms),
        [_show_tile(window, tile, columns, in_window=first <= tile[0] <= last) for tile in tiles],
        [_show_part(column, _merged(column, chosen)) for column in columns],
    )


def _columns(resolution: Resolution, feature: ServedFeature, names: Sequence[str]) -> Iterable[_Column]:
    slots = [feature.slot] if feature.denominator is None else [feature.slot, feature.denominator]
    for name, slot in zip(names, slots, strict=True):
        yield _Column(name, slot + 1, resolution.slots[slot].aggregation)


def _merged(column: _Column, tiles: list[Tile]) -> Any:
    states = [tile[column.place] for tile in tiles]
    return column.aggregation.merge_all(states) if states else column.aggregation.zero()


def _show_window(window: Window, instant_ms: int) -> WindowShown:
    start_ms = end_ms = None
    if window.tile_ms:
        start_ms = window.first_tile(instant_ms) * window.tile_ms
        end_ms = (window.last_tile(instant_ms) + 1) * window.tile_ms
    return WindowShown(size_ms=window.size_ms, tile_ms=window.tile_ms, start_ms=start_ms, end_ms=end_ms)


def _show_tile(window: Window, tile: Tile, columns: list[_Column], *, in_window: bool) -> TileShown:
    return TileShown(
        start_ms=tile[0] * window.tile_ms if window.tile_ms else None,
        end_ms=(tile[0] + 1) * window.tile_ms if window.tile_ms else None,
        in_window=in_window,
        parts=[_show_part(column, tile[column.place]) for column in columns],
    )


def _show_part(column: _Column, state: Any) -> Part:
    return Part(
        name=column.name,
        state=_plain(column.aggregation.pack(state)),
        result=_plain(column.aggregation.result(state)),
        items=column.aggregation.items(state),
    )


def _plain(state: Any) -> Any:
    """Return a state as JSON can tell it, no longer than people read."""
    if isinstance(state, bytes | bytearray | memoryview):
        return f"{len(state)} bytes"
    if isinstance(state, list | tuple):
        return [_plain(item) for item in state[:ITEMS_MAX]]
    if isinstance(state, dict):
        return {str(name): _plain(value) for name, value in list(state.items())[:ITEMS_MAX]}
    return state
