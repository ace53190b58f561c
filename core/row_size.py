"""How large a row can become: what ``freshet check`` holds against the group's limit. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.aggregations.port import NUMBER_BYTES
from core.catalogue import value_type
from core.definitions import Aggregate
from core.plans import slot_of
from core.text_size import longest_text
from core.values import ValueType
from core.windows import Window

ROW_BYTES_MAX = 398 * 1024
"""What every store takes: an item of DynamoDB has at most 400 KB, the key and the names of attributes included."""

TEXT_BYTES_ASSUMED = 64
"""What is taken for a long text against a group's own limit: a model may allow far more than ever comes."""

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


def worst_row(features: Sequence[Aggregate], *, ratios: int, text_bytes_max: int = TEXT_BYTES_ASSUMED) -> WorstRow:
    """Return how large a row can become.

    Args:
        features: The group's aggregates.
        ratios: How many ratios and changes are served beside them, one per window.
        text_bytes_max: What is taken for a longer text, and for one whose field declares no length.

    Raises:
        DefinitionError, ValueError: An expression or a window is wrong.
    """
    tiles = _tiles_by_size(features)
    parts: dict[str, int] = {}
    seen: set[tuple[int, str, str, str]] = set()
    for feature in features:
        state_bytes = feature.aggregation.worst_state_bytes(_value_bytes(feature, text_bytes_max))
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


def _value_bytes(feature: Aggregate, text_bytes_max: int) -> int:
    """Return the largest size of a packed value."""
    own, value = value_type(feature), feature.aggregation.value
    if own is not ValueType.STR or value is None:
        return 1 if own is ValueType.BOOL else NUMBER_BYTES
    size = min(longest_text(value, feature.source.model, undeclared_bytes=text_bytes_max), text_bytes_max)
    # A text's length stands before it, in as few bytes as it needs.
    return size + (1 if size < 1 << 5 else 2 if size < 1 << 8 else 3)


def _tiles_by_size(features: Sequence[Aggregate]) -> dict[int, int]:
    tiles: dict[int, int] = {}
    for window in {Window.of(span) for feature in features for span in feature.over}:
        number = window.size_ms // window.tile_ms + _TILES_SPARE if window.tile_ms else 1
        tiles[window.tile_ms] = max(tiles.get(window.tile_ms, 0), number)
    return tiles
