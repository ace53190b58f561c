"""Features that were added to the demo: what their definitions say, in one pass over all events of a key.

The oracle was written by hand for the features that the demo came with, and shares no code with the platform. Of other
features only the definition is known: here its aggregation adds one event after the other, in a single state. There
are no tiles, nothing is merged, packed or kept, so what is compared is everything but an aggregation's own arithmetic.

What a definition alone does not settle is left out, and told as not compared: other entities, sources and fields than
the demo's, what is made on demand, `Change` (a small difference of large numbers), and groups with a `max_age`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.definitions import Aggregate, FeatureGroup, Ratio, Registry
from core.models import columns_of
from core.plans import served_name
from core.windows import Span, Window
from demo.log import FIELDS, DemoEvent
from demo.oracle import Compute


def batch_features(registry: Registry, entities: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, Compute]]:
    """Return, by entity and ``group:feature``, how each feature is computed of which the definition says all.

    Args:
        registry: Definitions without problems.
        entities: The demo's, with their key columns.
    """
    found: dict[str, dict[str, Compute]] = {entity: {} for entity in entities}
    for group in registry.groups:
        if entities.get(group.entity.name) == tuple(group.entity.keys) and group.serving.max_age is None:
            found[group.entity.name] |= {f"{group.name}:{name}": compute for name, compute in _of_group(group)}
    return found


def _of_group(group: FeatureGroup) -> Iterator[tuple[str, Compute]]:
    parts = {part.name: part for part in group.features if isinstance(part, Aggregate) and _is_ours(part)}
    for feature in group.features:
        for span in feature.over:
            name = served_name(feature, Window.of(span))
            if feature.name in parts:
                yield name, _or_default(_aggregate(parts[feature.name], span), feature.default)
            elif isinstance(feature, Ratio) and {feature.numerator, feature.denominator} <= parts.keys():
                ratio = _ratio(*(_aggregate(parts[part], span) for part in (feature.numerator, feature.denominator)))
                yield name, _or_default(ratio, feature.default)


def _is_ours(feature: Aggregate) -> bool:
    read = [one.columns() for one in (feature.aggregation.value, feature.where) if one is not None]
    known = FIELDS.get(feature.source.topic, frozenset())
    return bool(known) and not feature.source.keys and all(known >= columns for columns in read)


def _aggregate(feature: Aggregate, span: Span) -> Compute:
    topic, aggregation, window = feature.source.topic, feature.aggregation, Window.of(span)
    columns = columns_of(feature.source.model)
    value_of = aggregation.value.compile(columns) if aggregation.value is not None else None
    is_meant = feature.where.compile(columns) if feature.where is not None else None

    def compute(events: Sequence[DemoEvent], instant_ms: int) -> Any:
        state = aggregation.zero()
        for event in events:
            if event.topic != topic or not _is_in(event.time_ms, window, instant_ms):
                continue
            if is_meant is not None and is_meant(event.fields) is not True:
                continue
            value = None if value_of is None else value_of(event.fields)
            if value is not None or value_of is None or aggregation.takes_null:
                state = aggregation.add(state, value, event.time_ms, event.event_id)
        return aggregation.result(state)

    return compute


def _ratio(numerator: Compute, denominator: Compute) -> Compute:
    def compute(events: Sequence[DemoEvent], instant_ms: int) -> Any:
        above, below = numerator(events, instant_ms), denominator(events, instant_ms)
        return above / below if above is not None and below else None

    return compute


def _or_default(compute: Compute, default: Any) -> Compute:
    def computed(events: Sequence[DemoEvent], instant_ms: int) -> Any:
        value = compute(events, instant_ms)
        return default if value is None else value

    return computed


def _is_in(time_ms: int, window: Window, instant_ms: int) -> bool:
    """Whether an event's tile is in a window; the oldest one counts whole."""
    if not window.tile_ms:
        return True
    oldest_ms = (instant_ms - window.size_ms) // window.tile_ms * window.tile_ms
    return oldest_ms <= time_ms // window.tile_ms * window.tile_ms <= instant_ms
