"""How large a row can become: what ``freshet check`` holds against the group's limit. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.catalogue import value_type
from core.definitions import Aggregate
from core.plans import slot_of
from core.windows import Window

_TILES_SPARE = 3
"""The oldest tile counts whole, one more is kept, and an event may be a little ahead of its record."""
_HEAD_BYTES = 71
_TILE_BYTES = 12
_RATIO_BYTES = 9


@dataclass(frozen=True, slots=True)
class WorstRow:
    """The upper estimate of a row.

    Attributes:
        row_bytes: Of the whole row, head and tail.
        parts: Bytes per feature, the largest first; a state that features share counts for the first of them.
    """

    row_bytes: int
    parts: Mapping[str, int]


def worst_row(features: Sequence[Aggregate], *, ratios: int) -> WorstRow:
    """Return how large a row can become.

    Args:
        features: The group's aggregates.
        ratios: How many ratios and changes are served beside them, one per window.

    Raises:
        DefinitionError, ValueError: An expression or a window is wrong.
    """
    tiles = _tiles_by_size(features)
    parts: dict[str, int] = {}
    seen: set[tuple[int, str, str, str]] = set()
    for feature in features:
        state_bytes = feature.aggregation.worst_state_bytes(value_type(feature))
        slot = slot_of(feature)
        for span in feature.over:
            tile_ms = Window.of(span).tile_ms
            # A finished value is never larger than the state that it comes from.
            parts[feature.name] = parts.get(feature.name, 0) + state_bytes
            place = (tile_ms, slot.source, slot.aggregation.text, slot.where or "")
            if place not in seen:
                seen.add(place)
                parts[feature.name] += state_bytes * tiles[tile_ms]
    frame = _HEAD_BYTES + ratios * _RATIO_BYTES + sum(_TILE_BYTES * (number + 1) for number in tiles.values())
    largest_first = sorted(parts.items(), key=lambda part: (-part[1], part[0]))
    return WorstRow(frame + sum(parts.values()), dict(largest_first))


def _tiles_by_size(features: Sequence[Aggregate]) -> dict[int, int]:
    tiles: dict[int, int] = {}
    for window in {Window.of(span) for feature in features for span in feature.over}:
        number = window.size_ms // window.tile_ms + _TILES_SPARE if window.tile_ms else 1
        tiles[window.tile_ms] = max(tiles.get(window.tile_ms, 0), number)
    return tiles
